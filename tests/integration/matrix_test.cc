// Bodies through every pair of protocols, both ways and both at once, with trailers: every byte
// arrives, in order, and nothing else. Bodies are patterns that either side checks as they come, so
// that their length costs no memory.
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

constexpr std::uint64_t kMebibyte = 1024 * 1024;
constexpr std::uint64_t kSizes[] = {0, 1, 5000, 64 * 1024, 10 * kMebibyte};
constexpr std::uint64_t kUpSeed = 1;
constexpr std::uint64_t kDownSeed = 2;

// Which halves of the exchange have the long body.
enum class Shape { kGet, kPost, kBothAtOnce };

struct Case {
  Protocol downstream;
  Protocol upstream;
  Shape shape;
};

std::string name_of(const Case& tested) {
  const char* const shapes[] = {"Get", "Post", "BothAtOnce"};
  return std::string(test::name_of(tested.downstream)) + "To" +
         std::string(test::name_of(tested.upstream)) + shapes[static_cast<int>(tested.shape)];
}

std::uint64_t number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 10); }

Fields framing(bool with_length, std::uint64_t size) {
  if (with_length) return {{"content-length", std::to_string(size)}};
  return {};
}

// Sends x-down bytes while it reads the request; the trailers say what it has read. The response
// never ends before the request, so a response without a body waits for it.
void serve(Stream& stream, const Head& request) {
  const bool with_length = request.fields.has("x-with-length");
  const std::uint64_t down = number(request.fields.value("x-down"));
  const Head head{.status = 200, .fields = framing(with_length, down)};
  const bool waits = with_length && down == 0;
  auto writer = std::async(std::launch::async, [&] {
    Pattern pattern(kDownSeed);
    if (waits) return pattern;
    stream.send_head(head, false);
    // The last byte of a body with a length would end the response.
    write_pattern(stream, pattern, with_length ? down - 1 : down);
    return pattern;
  });
  Pattern pattern(kUpSeed);
  const std::uint64_t received = read_pattern(stream, pattern);
  Pattern sent = writer.get();
  if (waits) return stream.send_head(head, true);
  write_pattern(stream, sent, down - sent.position());
  stream.finish(with_length ? Fields{}
                            : Fields{{"x-received", std::to_string(received)},
                                     {"x-heard", stream.trailers().value("x-sent")}});
}

// One exchange, everything in it checked by both ends.
void exchange(Client& client, const Case& tested, std::uint64_t size, bool with_length) {
  const std::uint64_t up = tested.shape == Shape::kGet ? 0 : size;
  const std::uint64_t down = tested.shape == Shape::kPost ? 0 : size;
  Head head{.method = tested.shape == Shape::kGet ? "GET" : "POST",
            .target = std::string("/") + std::string(test::name_of(tested.upstream)),
            .authority = kAuthority,
            .fields = {{"x-down", std::to_string(down)}, {"te", "trailers"}}};
  if (with_length) head.fields.push_back({"x-with-length", "yes"});
  const bool without_body = tested.shape == Shape::kGet;
  if (!without_body)
    for (const Field& field : framing(with_length, up)) head.fields.push_back(field);

  const auto stream = client.open();
  auto writer = std::async(std::launch::async, [&] {
    stream->send_head(head, without_body);
    if (without_body) return;
    Pattern pattern(kUpSeed);
    write_pattern(*stream, pattern, up);
    stream->finish(with_length ? Fields{} : Fields{{"x-sent", std::to_string(up)}});
  });
  const Head answer = stream->read_head();
  EXPECT_EQ(answer.status, 200);
  Pattern pattern(kDownSeed);
  EXPECT_EQ(read_pattern(*stream, pattern), down);
  writer.get();
  if (with_length) {
    EXPECT_EQ(answer.fields.value("content-length"), std::to_string(down));
    EXPECT_TRUE(stream->trailers().empty());
  } else {
    EXPECT_EQ(stream->trailers().value("x-received"), std::to_string(up));
    EXPECT_EQ(stream->trailers().value("x-heard"),
              without_body ? std::string() : std::to_string(up));
  }
}

class Matrix : public testing::TestWithParam<Case> {
 protected:
  Matrix()
      : origin_(serve),
        proxy_(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { one: "http://$ORIGIN", two: "h2c://$ORIGIN" }
    routes:
      - { match: /H1, to: one }
      - { match: /H2, to: two })",
               {{"ORIGIN", origin_.address()}}) {}

  HttpOrigin origin_;
  Outrider proxy_;
};

TEST_P(Matrix, CarriesEveryByteAndTrailer) {
  Client client = proxy_.client(GetParam().downstream);
  for (const std::uint64_t size : kSizes) {
    for (const bool with_length : {false, true}) {
      SCOPED_TRACE(std::to_string(size) +
                   (with_length ? " bytes with a length" : " bytes with trailers"));
      exchange(client, GetParam(), size, with_length);
    }
  }
}

TEST_P(Matrix, KeepsManyAtOnceApart) {
  Client shared = proxy_.client(GetParam().downstream);
  exchange(shared, GetParam(), 1, true);  // with HTTP/2 it makes the connection that all then share
  std::vector<std::future<void>> all;
  for (int i = 0; i < 20; ++i)
    all.push_back(std::async(std::launch::async, [&, i] {
      const auto size = static_cast<std::uint64_t>(i) * 20'011;
      exchange(shared, GetParam(), size, i % 2 == 0);
    }));
  for (auto& one : all) one.get();
  EXPECT_EQ(proxy_.await_metric("outrider_requests_total{code='200',reason='ok'}", 21), 21);
}

// A gibibyte needs a build made for speed.
TEST_P(Matrix, CarriesAGibibyteInLittleMemory) {
  if (!release_build() && std::getenv("OUTRIDER_BIG") == nullptr)
    GTEST_SKIP() << "release builds only";
  Client client = proxy_.client(GetParam().downstream);
  exchange(client, GetParam(), 5000, false);
  const std::size_t before = proxy_.resident_bytes();

  exchange(client, GetParam(), 1024 * kMebibyte, false);

  EXPECT_LT(proxy_.resident_bytes(), before + 32 * kMebibyte);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Protocol downstream : {Protocol::kHttp1, Protocol::kHttp2})
    for (const Protocol upstream : {Protocol::kHttp1, Protocol::kHttp2})
      for (const Shape shape : {Shape::kGet, Shape::kPost, Shape::kBothAtOnce})
        cases.push_back({downstream, upstream, shape});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Bodies, Matrix, testing::ValuesIn(all_cases()),
                         [](const auto& tested) { return name_of(tested.param); });

}  // namespace
}  // namespace outrider::test
