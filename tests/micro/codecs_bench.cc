// Codecs alone, over a wire in memory: what heads cost to read and to write, and an HTTP/2 round
// trip with its HPACK both ways. Whole codecs and not their parts, so that these figures outlive
// how a codec is made.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/codec.h"

namespace outrider {
namespace {

struct SlabHolder {
  Slabs pool;
};

// Everything written is taken at once.
class MemoryWire final : private SlabHolder, public Wire {
 public:
  MemoryWire() : Wire(pool) {}
  void wake() override {}
  void write_through(std::string_view bytes) override { out.append(bytes); }
  void hold_reading(bool) override {}
  void shutdown() override {}
  void close(Close) override { closed = true; }
  std::uint64_t now_ms() const override { return 0; }

  // What one turn of the loop sends.
  std::string_view turn(Codec& codec) {
    taken_.clear();
    codec.pump();
    while (!out.empty()) {
      iovec vectors[8];
      const int count = out.peek(vectors, 8);
      std::size_t size = 0;
      for (int i = 0; i < count; ++i) {
        taken_.append(static_cast<const char*>(vectors[i].iov_base), vectors[i].iov_len);
        size += vectors[i].iov_len;
      }
      out.drop(size);
    }
    codec.on_flushed();
    return taken_;
  }
  bool closed = false;

 private:
  std::string taken_;
};

// ---- owners of exchanges, which come and go as the proxy's do: one arena each

// The answer with every request; a body of 100 bytes.
class Answering final : public ServerEvents {
 public:
  explicit Answering(std::vector<std::pair<HeaderId, std::string_view>> fields)
      : fields_(std::move(fields)) {}
  RequestSink* on_stream(CodecStream& stream) override { return new Exchange(*this, stream); }
  void on_abuse(Reason, std::string_view) override { ++abuses; }
  int answered = 0;
  int abuses = 0;

 private:
  struct Exchange final : RequestSink {
    Exchange(Answering& its_owner, CodecStream& its_stream)
        : owner(its_owner), stream(its_stream), arena(owner.blocks_), request(arena) {}
    RequestHead& head() override { return request; }
    void on_head(bool last) override {
      if (last) answer();
    }
    void on_body(std::string_view, bool last) override {
      if (last) answer();
    }
    void on_trailers(Headers&) override { answer(); }
    void on_bad(const BadRequest&) override { std::abort(); }
    void on_reset(const Error&, std::string_view) override { delete this; }
    void on_writable() override {}
    void on_sent() override {
      ++owner.answered;
      stream.release();
      delete this;
    }
    void answer() {
      response.content_length = owner.body_.size();
      for (const auto& [id, value] : owner.fields_) response.headers.add(id, value);
      stream.send_response(response, false);
      stream.send_body(owner.body_, true);
    }
    Answering& owner;
    CodecStream& stream;
    Arena arena;
    RequestHead request;
    ResponseHead response{arena};
  };
  BlockPool blocks_;
  const std::vector<std::pair<HeaderId, std::string_view>> fields_;
  const std::string body_ = std::string(100, 'x');
};

class Asking final : public ClientEvents {
 public:
  void on_capacity() override {}
  int answers = 0;
  // One more request, without a body.
  void ask(Codec& codec, const std::vector<std::pair<HeaderId, std::string_view>>& fields) {
    auto* exchange = new Exchange(*this);
    exchange->stream = codec.open(*exchange);
    if (exchange->stream == nullptr) std::abort();
    RequestHead& request = exchange->request;
    request.scheme = "http";
    request.authority = "shop.example";
    request.target = "/catalogue/shoes?page=2";
    for (const auto& [id, value] : fields) request.headers.add(id, value);
    exchange->stream->send_request(request, true);
  }

 private:
  struct Exchange final : ResponseSink {
    explicit Exchange(Asking& its_owner) : owner(its_owner), arena(owner.blocks_), request(arena) {}
    ResponseHead& head() override { return response; }
    void on_interim() override {}
    void on_head(bool last) override {
      if (last) end();
    }
    void on_body(std::string_view, bool last) override {
      if (last) end();
    }
    void on_trailers(Headers&) override { end(); }
    void on_reset(const Error&, std::string_view) override { delete this; }
    void on_writable() override {}
    void on_sent() override {}
    void end() {
      if (response.status != 200) std::abort();
      ++owner.answers;
      stream->release();
      delete this;
    }
    Asking& owner;
    CodecStream* stream = nullptr;
    Arena arena;
    RequestHead request;
    ResponseHead response{arena};
  };
  BlockPool blocks_;
};

using Fields = std::vector<std::pair<HeaderId, std::string_view>>;

const Fields kSmallRequest = {{HeaderId::kUserAgent, "load/1.0"}, {HeaderId::kAccept, "*/*"}};
const Fields kBrowserRequest = {
    {HeaderId::kUserAgent,
     "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
    {HeaderId::kAccept, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
    {HeaderId::kAcceptLanguage, "en-US,en;q=0.5"},
    {HeaderId::kAcceptEncoding, "gzip, deflate, br, zstd"},
    {HeaderId::kReferer, "https://shop.example/catalogue/shoes?page=1"},
    {HeaderId::kCookie, "session=8e1f0c5f6b9d4e2a; theme=dark; consent=all; lane=stable"},
    {HeaderId::kCacheControl, "max-age=0"}};
const Fields kResponse = {{HeaderId::kServer, "origin"},
                          {HeaderId::kDate, "Tue, 14 Nov 2023 22:13:20 GMT"},
                          {HeaderId::kContentType, "application/octet-stream"},
                          {HeaderId::kEtag, "\"6553d0b0-64\""}};

CodecSettings unlimited() {
  CodecSettings settings;
  settings.max_requests = 0;
  return settings;
}

// What a client sends for these fields; what a server answers.
std::string request_text(const Fields& fields) {
  MemoryWire wire;
  Asking asking;
  const auto codec = make_h1_client(wire, asking, unlimited());
  asking.ask(*codec, fields);
  std::string text(wire.turn(*codec));
  codec->on_broken();
  return text;
}

std::string response_text() {
  MemoryWire wire;
  Answering answering(kResponse);
  const auto codec = make_h1_server(wire, answering, unlimited());
  codec->feed(request_text(kSmallRequest));
  return std::string(wire.turn(*codec));
}

// ---- benchmarks

// A request is read, its response written.
void h1_server(benchmark::State& state, const Fields& fields) {
  const std::string request = request_text(fields);
  MemoryWire wire;
  Answering answering(kResponse);
  const auto codec = make_h1_server(wire, answering, unlimited());
  for (auto _ : state) {
    codec->feed(request);
    benchmark::DoNotOptimize(wire.turn(*codec));
  }
  if (answering.answered != static_cast<int>(state.iterations()) || wire.closed)
    state.SkipWithError("not every request was answered");
}
BENCHMARK_CAPTURE(h1_server, small, kSmallRequest);
BENCHMARK_CAPTURE(h1_server, browser, kBrowserRequest);

// A request is written, its response read.
void h1_client(benchmark::State& state, const Fields& fields) {
  const std::string response = response_text();
  MemoryWire wire;
  Asking asking;
  const auto codec = make_h1_client(wire, asking, unlimited());
  for (auto _ : state) {
    asking.ask(*codec, fields);
    benchmark::DoNotOptimize(wire.turn(*codec));
    codec->feed(response);
  }
  if (asking.answers != static_cast<int>(state.iterations()) || wire.closed)
    state.SkipWithError("not every request was answered");
}
BENCHMARK_CAPTURE(h1_client, small, kSmallRequest);
BENCHMARK_CAPTURE(h1_client, browser, kBrowserRequest);

// Client and server codec against each other, as many requests a turn as the argument says: HPACK
// both ways, frames both ways. Time is per request.
void h2_pair(benchmark::State& state, const Fields& fields) {
  MemoryWire client_wire, server_wire;
  Asking asking;
  Answering answering(kResponse);
  const auto client = make_h2_client(client_wire, asking, unlimited());
  const auto server = make_h2_server(server_wire, answering, unlimited());
  const auto settle = [&] {
    for (;;) {
      const std::string_view up = client_wire.turn(*client);
      if (!up.empty()) server->feed(up);
      const std::string_view down = server_wire.turn(*server);
      if (!down.empty()) client->feed(down);
      if (up.empty() && down.empty()) return;
    }
  };
  settle();
  const auto batch = state.range(0);
  while (state.KeepRunningBatch(batch)) {
    for (std::int64_t i = 0; i < batch; ++i) asking.ask(*client, fields);
    settle();
  }
  if (asking.answers != static_cast<int>(state.iterations()) || answering.abuses != 0)
    state.SkipWithError("not every request was answered");
  client->on_broken();
  server->on_broken();
}
BENCHMARK_CAPTURE(h2_pair, small, kSmallRequest)->Arg(1)->Arg(100);
BENCHMARK_CAPTURE(h2_pair, browser, kBrowserRequest)->Arg(1)->Arg(100);

}  // namespace
}  // namespace outrider
