// Client and server codec against each other: whatever is sent on one side arrives whole on the
// other, at any concurrency and with reads of any size, and everything is given back afterwards.
#include <gmock/gmock.h>

#include "proxy/h2_hpack_outline.h"
#include "proxy/h2_memory.h"
#include "tests/unit/proxy/h2_harness.h"

namespace outrider::h2test {
namespace {

using ::testing::ElementsAre;

std::string text_of(std::size_t size, std::uint32_t seed) {
  std::string text(size, '\0');
  for (char& c : text)
    c = static_cast<char>('a' + ((seed = seed * 1664525 + 1013904223) >> 16) % 26);
  return text;
}

TEST(H2Codec, CarriesARequestAndItsAnswer) {
  Pair pair;
  pair.server.at_stream = [](Request& request) {
    request.at_end = [&request] {
      request.message.headers.clear();
      request.answer(201, "made", {{"content-type", "text/plain"}});
    };
  };
  Response& response = pair.client.send("POST", "/things?x=1", false, {{"accept", "*/*"}});
  response.stream->send_body("thing", true);
  pair.run();
  const Request& request = pair.server.last();
  EXPECT_EQ(request.message.method, Method::kPost);
  EXPECT_EQ(request.message.target, "/things?x=1");
  EXPECT_EQ(request.message.authority, "shop.example");
  EXPECT_EQ(request.body, "thing");
  EXPECT_THAT(request.fields, ElementsAre(::testing::Pair("accept", "*/*")));
  EXPECT_EQ(response.message.status, 201);
  EXPECT_EQ(response.body, "made");
  EXPECT_TRUE(pair.client.codec->idle());
  EXPECT_TRUE(pair.server.codec->idle());
}

TEST(H2Codec, ConnectionsKeepWorkingFarBeyondTheirWindows) {
  const std::size_t size = std::size_t{3} << 20;
  Pair pair;
  const std::string up = text_of(size, 1), down = text_of(size, 2);
  for (int round = 0; round < 7;
       ++round) {  // 21 MiB each way, on connections with windows of 1 MiB
    Response& response = pair.client.send("POST", "/", false);
    std::size_t sent = 0;
    // Both owners keep to the high-water mark, as streams do.
    const auto fill = [](CodecStream& stream, const std::string& text, std::size_t& at) {
      while (at < text.size() && stream.queued() < limits::kHighWater + 1) {
        const std::size_t part = std::min<std::size_t>(10'000, text.size() - at);
        at += part;
        stream.send_body(std::string_view(text).substr(at - part, part), at == text.size());
      }
    };
    response.at_writable = [&] { fill(*response.stream, up, sent); };
    fill(*response.stream, up, sent);
    pair.run();
    Request& request = pair.server.last();
    ASSERT_TRUE(request.ended) << "stalled after " << request.body.size();
    EXPECT_EQ(request.body == up, true);
    std::size_t answered = 0;
    request.at_writable = [&] { fill(*request.stream, down, answered); };
    request.stream->send_response(request.answer_head(200), false);
    fill(*request.stream, down, answered);
    pair.run();
    ASSERT_TRUE(response.ended) << "stalled after " << response.body.size();
    EXPECT_EQ(response.body == down, true);
  }
}

TEST(H2Codec, SmallCallsNeverUseUpTheWindows) {
  Pair pair;
  answering(pair.server, 200, std::string(1000, 'd'));
  const std::string body(1000, 'u');
  for (int round = 0; round < 200; ++round) {
    for (int call = 0; call < 100; ++call)
      pair.client.send("POST", "/call", false).stream->send_body(body, true);
    pair.run();
    for (const Response& response : pair.client.responses)
      ASSERT_EQ(response.body.size(), 1000U) << round;
    pair.client.responses.clear();
    pair.client.heads.clear();
    pair.server.requests.clear();
  }
}

TEST(H2Codec, ManyStreamsAtOnceWithReadsOfAnySize) {
  for (const std::size_t most : {std::size_t{333}, std::size_t{5'000}, std::size_t{100'000}}) {
    Pair pair;
    pair.server.at_stream = [](Request& request) {
      request.at_end = [&request] {
        request.stream->send_response(
            request.answer_head(200, {{"x-echo", std::string(request.message.target)}}), false);
        request.stream->send_body(request.body, false);
        Headers& trailers = *request.arena->make<Headers>(*request.arena);
        trailers.add(HeaderId::kGrpcStatus, "grpc-status", "0");
        request.stream->send_trailers(trailers);
      };
    };
    std::vector<std::string> bodies;
    for (std::uint32_t i = 0; i < 100; ++i) {
      bodies.push_back(text_of(i * 700, i));
      Response& response = pair.client.send("POST", "/" + std::to_string(i), false);
      response.stream->send_body(bodies[i], true);
    }
    EXPECT_EQ(pair.client.open(), nullptr);
    pair.run(most);
    std::uint32_t i = 0;
    for (const Response& response : pair.client.responses) {
      EXPECT_EQ(value_of(response.fields, "x-echo"), "/" + std::to_string(i));
      EXPECT_EQ(response.body == bodies[i], true) << i;
      EXPECT_EQ(value_of(response.trailers, "grpc-status"), "0");
      ++i;
    }
  }
}

TEST(H2Codec, HeadsLargerThanAFrameArrive) {
  Pair pair;
  answering(pair.server);
  Fields more;
  for (int i = 0; i < 40; ++i)
    more.emplace_back("x-field-" + std::to_string(i), text_of(1500, static_cast<std::uint32_t>(i)));
  Response& response = pair.client.send("GET", "/", true, more);
  Response& other = pair.client.send(
      "GET", "/other");  // serialised right behind, from the frame buffer that is shared
  pair.run();
  EXPECT_EQ(pair.server.nth(0).fields, more);
  EXPECT_EQ(response.body, "hello");
  EXPECT_EQ(other.body, "hello");
}

TEST(H2Codec, SessionsShareAFrameBufferAndNothingElse) {
  Pair first, second;
  answering(first.server, 200, "first");
  answering(second.server, 200, "second");
  const Fields large = {{"x", text_of(30'000, 1)}};
  for (int i = 0; i < 20; ++i) {
    first.client.send("GET", "/", true, large);
    second.client.send("GET", "/", true, large);
    // One step each in turn, a few bytes at a time.
    for (int step = 0; step < 2'000; ++step) {
      for (Pair* pair : {&first, &second}) {
        pair->server.feed(pair->client.wire.turn(*pair->client.codec, 1'000));
        pair->client.codec->feed(pair->server.wire.turn(*pair->server.codec, 1'000));
      }
      if (first.client.codec->idle() && second.client.codec->idle()) break;
    }
    ASSERT_EQ(first.client.responses.back().body, "first");
    ASSERT_EQ(second.client.responses.back().body, "second");
    ASSERT_EQ(first.server.last().fields, large);
  }
}

TEST(H2Codec, WebSocketsRunBothWays) {
  Pair pair;
  pair.run();
  Response* const response = pair.client.open();
  RequestHead& head = pair.client.request("GET", "/ws");
  head.upgrade = "websocket";
  response->stream->send_request(head, false);
  pair.run();
  Request& request = pair.server.last();
  EXPECT_EQ(request.message.upgrade, "websocket");
  request.stream->send_response(request.answer_head(101), false);
  pair.run();
  EXPECT_EQ(response->message.status, 101);
  for (int i = 0; i < 10; ++i) {
    response->stream->send_body("up", false);
    request.stream->send_body("down", false);
    pair.run();
  }
  EXPECT_EQ(request.body.size(), 20U);
  EXPECT_EQ(response->body.size(), 40U);
  response->stream->send_body("", true);
  pair.run();
  EXPECT_TRUE(request.ended) << "half-closed";
  EXPECT_FALSE(response->ended);
  request.stream->send_body("last", true);
  pair.run();
  EXPECT_TRUE(response->body.ends_with("last"));
  EXPECT_TRUE(response->ended);
}

TEST(H2Codec, DrainMovesTheClientOn) {
  Pair pair;
  Response& response = pair.client.send("GET", "/");
  pair.run();
  pair.server.codec->drain(false);
  pair.run();
  EXPECT_FALSE(pair.client.codec->reusable());
  pair.server.codec->drain(true);
  pair.server.last().answer(200, "done");
  pair.run();
  EXPECT_EQ(response.body, "done");
  EXPECT_TRUE(pair.server.wire.closed);
  EXPECT_TRUE(pair.client.wire.closed);
}

// Both ends do anything at any time; each stream ends once, and nothing is left.
TEST(H2Codec, AnythingAtAnyTime) {
  std::uint32_t seed = 4711;
  const auto random = [&seed](std::uint32_t below) {
    return ((seed = seed * 1664525 + 1013904223) >> 16) % below;
  };
  for (int round = 0; round < 150; ++round) {
    Pair pair;
    const auto act = [&](auto& exchange) {
      constexpr bool kServer = std::is_same_v<std::decay_t<decltype(exchange)>, Request>;
      CodecStream*& stream = exchange.stream;
      if (stream == nullptr) return;
      switch (random(10)) {
        case 0:
          return std::exchange(stream, nullptr)
              ->reset(random(2) != 0 ? ResetCode::kCancel : ResetCode::kInternal);
        case 1: return std::exchange(stream, nullptr)->release();
        case 2: return stream->hold(random(2) != 0);
        default: break;
      }
      if (exchange.parts_sent == 3 || (kServer && exchange.heads == 0)) return;
      if constexpr (kServer)
        if (exchange.parts_sent == 0) stream->send_response(exchange.answer_head(200), false);
      stream->send_body(text_of(random(40'000), seed), ++exchange.parts_sent == 3);
    };
    const auto any = [&](auto& list) -> auto& {
      return *std::next(list.begin(), random(static_cast<std::uint32_t>(list.size())));
    };
    for (int step = 0; step < 120; ++step) {
      if (random(3) == 0 && pair.client.codec->free_streams() != 0 && pair.client.codec->reusable())
        pair.client.send("POST", "/" + std::to_string(step), false);
      if (!pair.client.responses.empty()) act(any(pair.client.responses));
      if (!pair.server.requests.empty()) act(any(pair.server.requests));
      if (random(2) == 0)
        pair.server.feed(pair.client.wire.turn(*pair.client.codec, random(20'000)));
      if (random(2) == 0 && !pair.client.wire.closed)
        pair.client.codec->feed(pair.server.wire.turn(*pair.server.codec, random(20'000)));
      if (random(400) == 0) pair.server.codec->drain(random(2) != 0);
    }
    if (random(2) == 0) pair.run();
  }
}

// --- Rest

// As a connection does it: `rounds` of calls whose fields go through both HPACK tables.
void call_and_rest(Pair& pair, int rounds) {
  answering(pair.server, 200, "done");
  for (int round = 0; round < rounds; ++round) {
    std::vector<Response*> responses;
    for (int call = 0; call < 3; ++call)
      responses.push_back(&pair.client.send("GET", "/", true, {{"x-kept", text_of(200, 7)}}));
    pair.run();
    for (const Response* response : responses) EXPECT_EQ(response->body, "done") << round;
    pair.server.codec->rest();
  }
}

TEST(H2Rest, ASessionGoesOnAsIfItHadNotRested) {
  const H2Memory& memory = H2Memory::of_this_thread();
  Pair pair;
  call_and_rest(pair, 1);
  const std::size_t resting = memory.in_use();
  call_and_rest(pair, 20);
  EXPECT_EQ(memory.in_use(), resting);
  pair.server.codec->pump();
  EXPECT_GT(memory.in_use(), resting + 4096);
  pair.server.codec->drain(true);
  pair.run();
  EXPECT_TRUE(pair.server.wire.closed);
}

TEST(H2Rest, APingIsAnsweredAndDoesNotEndIt) {
  const H2Memory& memory = H2Memory::of_this_thread();
  Pair pair;
  call_and_rest(pair, 1);
  const std::size_t resting = memory.in_use();
  using namespace std::string_view_literals;
  for (int i = 0; i < 3; ++i) {
    pair.server.feed("\0\0\x08\x06\0\0\0\0\0pingpong"sv);
    EXPECT_GT(memory.in_use(), resting + 4096);
    EXPECT_EQ(pair.server.wire.turn(*pair.server.codec, SIZE_MAX),
              "\0\0\x08\x06\1\0\0\0\0pingpong"sv);
    EXPECT_EQ(memory.in_use(), resting);
  }
  pair.server.feed("\0\0\4\x08\0\0\0\0\0\0\0\0\1"sv);  // WINDOW_UPDATE: no answer
  pair.server.wire.turn(*pair.server.codec, SIZE_MAX);
  EXPECT_EQ(memory.in_use(), resting);
  call_and_rest(pair, 2);
}

TEST(H2Rest, OnlyWhatIsIdleRests) {
  const H2Memory& memory = H2Memory::of_this_thread();
  Pair pair;
  pair.client.send("POST", "/", false);
  pair.run();
  const std::size_t busy = memory.in_use();
  pair.server.codec->rest();
  EXPECT_EQ(memory.in_use(), busy);
}

TEST(H2Rest, WhateverEndsAConnectionEndsOneThatRests) {
  const H2Memory& memory = H2Memory::of_this_thread();
  const std::size_t before = memory.in_use();
  for (const auto end : std::initializer_list<void (*)(Codec&)>{
           [](Codec& codec) { codec.on_eof(); }, [](Codec& codec) { codec.on_broken(); },
           [](Codec& codec) { codec.drain(false); }, [](Codec& codec) { codec.expire_head(); },
           [](Codec& codec) { codec.feed("what is this, no frame at all"); }, [](Codec&) {}}) {
    Pair pair;
    call_and_rest(pair, 1);
    end(*pair.server.codec);
    pair.run();
  }
  EXPECT_EQ(memory.in_use(), before);
}

// --- Memory

TEST(H2Memory, ASessionAtRestIsSmall) {
  H2Memory& memory = H2Memory::of_this_thread();
  const std::size_t before = memory.in_use();
  {
    MemoryWire wire;
    struct None final : ServerEvents {
      RequestSink* on_stream(CodecStream&) override { return nullptr; }
      void on_abuse(Reason, std::string_view) override {}
    } events;
    const std::unique_ptr<Codec> codec = make_h2_server(wire, events, {});
    // Session 3 KiB, stream table 4 KiB, two HPACK rings of 1 KiB; no frame buffer of 16 KiB.
    EXPECT_LT(memory.in_use() - before, 11'000U);
    EXPECT_GT(memory.in_use() - before, 4'000U);
  }
  EXPECT_EQ(memory.in_use(), before);
}

TEST(H2Memory, EverythingComesBack) {
  H2Memory& memory = H2Memory::of_this_thread();
  const std::size_t before = memory.in_use();
  for (int round = 0; round < 3; ++round) {
    Pair pair;
    answering(pair.server);
    for (int i = 0; i < 50; ++i)
      pair.client.send("GET", "/", i % 2 == 0, {{"x-" + std::to_string(i), text_of(20'000, 1)}});
    if (round != 0) pair.run(10'000);
  }
  EXPECT_EQ(memory.in_use(), before);
}

TEST(H2Memory, BlocksHoldWhatWasAskedFor) {
  H2Memory memory;
  std::vector<std::pair<char*, std::size_t>> held;
  for (std::size_t size = 1; size < 20'000; size += 1 + size / 7) {
    auto* const block = static_cast<char*>(memory.get(size));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 8, 0U);
    std::memset(block, static_cast<int>(size), size);
    held.emplace_back(block, size);
  }
  nghttp2_mem& mem = memory.for_nghttp2();
  for (auto& [block, size] : held) {
    block = static_cast<char*>(mem.realloc(block, size * 2, mem.mem_user_data));
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(block[i], static_cast<char>(size));
    mem.free(block, mem.mem_user_data);
  }
  EXPECT_EQ(memory.in_use(), 0U);
  char* const zeros = static_cast<char*>(mem.calloc(10, 30, mem.mem_user_data));
  for (int i = 0; i < 300; ++i) ASSERT_EQ(zeros[i], 0);
  mem.free(zeros, mem.mem_user_data);
  mem.free(nullptr, mem.mem_user_data);
}

TEST(HpackOutline, SeesSizesAlone) {
  struct Row {
    std::string block;
    bool whole;
    HpackOutline::Fault fault;
  };
  using enum HpackOutline::Fault;
  const std::string long_length = "\x7f\x82\xff\x03";  // 127 + 65,410: one above the longest
  const std::string longest = "\x7f\x81\xff\x03";
  const Row rows[] = {
      {"\x82\x86", false, kNone},
      {"\x20\x20\x82", false, kNone},
      {"\x20\x20\x20", false, kSizeUpdates},
      {"\x20\x20\x20", true, kSizeUpdates},
      {"\x3f\xe1\x1f\x20\x3f\x01", true, kSizeUpdates},
      {std::string("\x00\x01x", 3) + long_length, false, kLongString},
      {std::string("\x00", 1) + long_length, false, kLongString},
      {"\x40\x01x" + long_length, false, kLongString},
      {"\x04" + long_length, false, kLongString},
      {"\x7f\x01" + long_length, false, kLongString},
      {"\x10\x01x" + longest, false, kNone},
      {std::string("\x00\x01x", 3) + long_length, true, kNone},
      {std::string("\x00\x01x\x03", 4) + "\x7f\xff\xff\x82" + long_length, false,
       kNone},  // string bytes, then an index, then indices
      {"\xff\xff\xff\xff\xff\xff\xff\xff", false, kNone},
  };
  for (const Row& row : rows) {
    for (const std::size_t skip : {0U, 1U, 6U}) {
      for (const std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{100}}) {
        HpackOutline outline;
        EXPECT_TRUE(outline.done());
        outline.begin(static_cast<std::uint8_t>(skip), row.whole);
        const std::string bytes = std::string(skip, '\x20') + row.block;
        HpackOutline::Fault fault = kNone;
        for (std::size_t at = 0; at < bytes.size() && fault == kNone; at += piece)
          fault = outline.read(std::string_view(bytes).substr(at, piece));
        EXPECT_EQ(fault, row.fault) << &row - rows;
      }
    }
  }
}

}  // namespace
}  // namespace outrider::h2test
