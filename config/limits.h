// Every bound and default that is a number, with its reason. Users set those that config.md gives a
// key.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace outrider {

using Millis = std::chrono::milliseconds;

namespace limits {
using namespace std::chrono_literals;

// Listener defaults.
inline constexpr std::size_t kHeaderBytes =
    64 * 1024;  // as large as peers accept; counted as HPACK does, 32 B a field
inline constexpr std::size_t kTargetBytes = 8 * 1024;  // longest URL seen in practice
inline constexpr std::size_t kRequestLineBytes = 16 * 1024;
inline constexpr std::size_t kFields = 100;
inline constexpr std::size_t kUpstreamFields = 200;  // responses carry more cookies than requests
inline constexpr std::size_t kMethodBytes = 32;
inline constexpr std::uint32_t kStreams = 100;  // RFC 9113's smallest advisable value
inline constexpr std::uint32_t kConnections = 20'000;
inline constexpr std::uint32_t kRequestsPerConnection = 100'000;
inline constexpr Millis kHandshake = 10s;
inline constexpr Millis kHeader = 10s;
inline constexpr Millis kBodyGap = 30s;
inline constexpr Millis kStall = 30s;
inline constexpr Millis kKeepAlive = 5min;
inline constexpr std::uint32_t kUploadBytesPerSecond = 240;
inline constexpr Millis kUploadGrace = 5s;

// HTTP/1 syntax.
inline constexpr std::size_t kChunkLineBytes = 256;            // size and extensions of one chunk
inline constexpr std::size_t kChunkExtensionBytes = 8 * 1024;  // extensions of one body together
inline constexpr std::size_t kPipelined = 100;
inline constexpr std::size_t kPipelinedBytes =
    64 * 1024;  // unread requests kept while one is answered
inline constexpr std::size_t kConnectionOptions =
    32;  // fields that one message's Connection may name
inline constexpr std::size_t kSmallWrite =
    4 * 1024;  // body bytes below it are copied behind the head, above written through
inline constexpr int kInterim = 10;  // 1xx responses of one exchange
inline constexpr std::size_t kLingerBytes =
    64 * 1024;  // read after an error so that the client sees the answer
inline constexpr Millis kLinger = 1s;

// HTTP/2 budgets (rapid reset and its kin).
inline constexpr std::uint32_t kResetBurst = 200;
inline constexpr std::uint32_t kResetsPerSecond = 20;
inline constexpr std::uint32_t kControlFrames = 1000;  // without progress in kControlWindow
inline constexpr Millis kControlWindow = 10s;
inline constexpr std::uint32_t kEmptyContinuations = 8;
inline constexpr std::uint32_t kH2Window = 64 * 1024;  // of a stream
inline constexpr std::uint32_t kH2ConnectionWindow = 1024 * 1024;

// Services and routes.
inline constexpr Millis kConnect = 2s;
inline constexpr Millis kPoolIdle = 60s;
inline constexpr std::uint32_t kServiceConnections = 10'000;
inline constexpr std::uint32_t kPending = 1'000;
inline constexpr Millis kPendingTime = 1s;
inline constexpr Millis kResponseHead = 15s;
inline constexpr Millis kRouteIdle = 5min;
inline constexpr Millis kTcpIdle = 1h;
inline constexpr unsigned kRetryAttempts = 1;
inline constexpr unsigned kMaxRetryAttempts = 10;
inline constexpr Millis kBackoffMin = 25ms;
inline constexpr Millis kBackoffMax = 250ms;
inline constexpr double kRetryBudget = 0.2;
inline constexpr unsigned kRetryBudgetPerSecond = 10;  // so that a quiet service may still retry
inline constexpr std::size_t kRetryBuffer = 64 * 1024;
inline constexpr Millis kRetryAfterMax =
    10s;  // longer than that nobody is kept waiting for a retry
inline constexpr unsigned kHedges = 1;
inline constexpr unsigned kMaxHedges = 3;
inline constexpr std::size_t kMirrorBytes = 64 * 1024;  // larger requests are not copied
inline constexpr std::size_t kMirrored = 100;           // copies on their way, of one worker
inline constexpr Millis kMirrorTime = 30s;
inline constexpr std::size_t kRespondBytes = 1024 * 1024;
inline constexpr int kMaxHops = 10;
inline constexpr std::uint64_t kMaxBuffer = 1024 * 1024 * 1024;  // of memory, for each request
inline constexpr std::uint64_t kCompressBytes = 1024;            // less hardly fills a packet more
inline constexpr Millis kCompressWait = 10ms;  // bytes wait for more of their body, not to be seen
inline constexpr unsigned kCompressing =
    256;  // encoders of one worker; each takes up to 2 MiB, so this is what they all may take

// Rate limits.
inline constexpr std::size_t kLimitKeys =
    100'000;  // that one limit keeps apart; the one used longest ago makes room for another
inline constexpr std::size_t kRouteLimits = 8;  // in one list: each is asked for every request
inline constexpr std::uint64_t kMostPerSecond = 1'000'000;  // a token then costs 1 µs
inline constexpr Millis kStoreTimeout = 50ms;  // what a shared limit may add to a request
inline constexpr Millis kStoreConnect = 1s;
inline constexpr Millis kStoreRetry = 250ms;  // after a failure
inline constexpr Millis kStorePing = 1s;      // when it has nothing to say, so that a loss is known
inline constexpr std::size_t kStoreQueue = 1024;  // questions on their way, of one worker
inline constexpr std::size_t kStoreReply = 4096;  // bytes; those we ask for are far shorter

// Who may: credentials and rules.
inline constexpr std::size_t kErrands =
    256;  // slow hashes that wait; at 50 ms each the last one waits 13 s
inline constexpr std::size_t kCredentialFileBytes = 16 * 1024 * 1024;  // 200 000 lines
inline constexpr std::size_t kPasswordBytes = 511;                     // as long as crypt(3) takes
inline constexpr unsigned kBcryptCost = 14;          // 1 s a check; htpasswd -B makes 5
inline constexpr unsigned kCryptRounds = 1'000'000;  // of SHA crypt; 0.5 s a check
inline constexpr std::size_t kVerdicts = 1024;       // verified passwords a thread remembers …
inline constexpr Millis kVerdictAge = 5min;          // … for so long
inline constexpr Millis kCorsMaxAge = 10min;  // one preflight in that time; browsers' own is 5 s

// Ejection: an endpoint that fails is left alone for a while.
inline constexpr unsigned kEjectAfter =
    5;  // fewer would take a deploy's hiccup for a dead endpoint
inline constexpr unsigned kMaxEjectAfter = 10'000;
inline constexpr Millis kEjectFor = 30s;  // a restart takes about that long
inline constexpr Millis kEjectForLeast = 100ms;
inline constexpr double kEjectAtMost = 0.5;      // the rest must be able to carry the load
inline constexpr unsigned kEjectTimesMost = 10;  // 5 min by default: it may have come back long ago
inline constexpr Millis kOutlierEvery = 10s;
inline constexpr unsigned kOutlierVolume = 100;  // fewer requests say nothing about a rate
inline constexpr std::size_t kOutlierPeers = 3;  // of two, nobody can say which one is odd

// Health checks.
inline constexpr Millis kProbeEvery = 5s;
inline constexpr Millis kProbeEveryLeast = 100ms;
inline constexpr Millis kProbeTimeout = 2s;
inline constexpr unsigned kProbesHealthy = 2;
inline constexpr unsigned kProbesUnhealthy = 3;
inline constexpr unsigned kMaxProbes = 1'000;
inline constexpr std::size_t kProbeBytes = 64 * 1024;  // of an answer; its status is what counts
inline constexpr std::size_t kGrpcServiceBytes = 512;

// Adaptive concurrency (discovery/concurrency.h).
inline constexpr unsigned kConcurrencyStart = 32;  // enough for a quiet service, soon left behind
inline constexpr unsigned kConcurrencyLeast = 4;   // below it nothing could be learnt
inline constexpr unsigned kConcurrencyMost = 10'000;

// Overload. Shares are of the ceiling: there is time to react between two looks.
inline constexpr double kOverloadMemory = 0.8;       // the rest is for what cannot be foreseen
inline constexpr double kOverloadDescriptors = 0.9;  // the rest is for connections to servers
inline constexpr Millis kOverloadLoopDelay = 1s;     // a request waits that long before it begins
inline constexpr Millis kLoopDelayLeast = 10ms;
inline constexpr double kShedAccept = 0.90;     // of the memory ceiling: no new clients
inline constexpr double kShedStreams = 0.95;    // no new requests
inline constexpr double kShedIdle = 1.00;       // idle connections end, and the largest buffers
inline constexpr double kShedBack = 0.05;       // so much lower until a step is taken back
inline constexpr unsigned kShedRetryAfter = 2;  // seconds, told with a 503

// Back-pressure: above high the source is held, below low it goes on.
inline constexpr std::size_t kHighWater = 64 * 1024;
inline constexpr std::size_t kLowWater = 16 * 1024;
inline constexpr std::size_t kReadBuffer =
    256 * 1024;  // one a worker; 64 KiB costs 18 writes a MiB instead of 5
inline constexpr std::size_t kSlabBytes = 16 * 1024;
inline constexpr std::size_t kSmallSlabBytes = 512;  // the body of most calls

// Configuration.
inline constexpr std::size_t kConfigBytes = 16 * 1024 * 1024;
inline constexpr std::size_t kConfigNodes = 500'000;
inline constexpr std::size_t kConfigDepth = 64;
inline constexpr std::size_t kRegexInputBytes = 8 * 1024;
inline constexpr std::int64_t kRegexMemory =
    1024 * 1024;  // of one compiled regex; more is refused at load

// Process.
inline constexpr Millis kDrainDelay = 5s;
inline constexpr Millis kDrainDeadline = 25s;
inline constexpr std::size_t kLogValueBytes = 1024;
inline constexpr std::uint32_t kLogLinesPerReason = 10;  // a second, of the process log
inline constexpr std::uint32_t kMetricSeries = 5'000;

}  // namespace limits
}  // namespace outrider
