#include "filters/local_reply.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/filters/fixture.h"

namespace outrider {
namespace {

class LocalReply : public testing::Test, public test::World {
 protected:
  std::string reply(Reason reason, std::string_view words = "", int status = 0) {
    x->reply(reason, words, status);
    return std::string(local_reply(*x));
  }
};

TEST_F(LocalReply, EveryReasonHasItsStatusAndSentence) {
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    exchange();
    const std::string body = reply(reason, "inner words");
    const int status = info(reason).status == 0 ? 500 : info(reason).status;
    EXPECT_EQ(x->status, status);
    EXPECT_EQ(x->response.status, status);
    EXPECT_EQ(x->reason, reason);
    EXPECT_EQ(x->detail, "inner words");
    EXPECT_EQ(body, std::to_string(status) + " " + std::string(info(reason).word) + ": " +
                        std::string(info(reason).sentence) + "\n");
    EXPECT_EQ(x->response.content_length, body.size());
    EXPECT_EQ(answered("content-type"), "text/plain; charset=utf-8");
  }
}

TEST_F(LocalReply, TheCallersStatusGoesFirst) {
  exchange();
  EXPECT_EQ(reply(Reason::kBadRequest, "", 417), "417 bad_request: The request is malformed.\n");
  EXPECT_EQ(x->status, 417);
}

TEST_F(LocalReply, OnlyTheTalkativeHearTheDetail) {
  exchange();
  EXPECT_EQ(reply(Reason::kTimeoutTotal, "timeout.total 3s, set at edge.yaml:12"),
            "504 timeout_total: The request did not complete in time.\n");
  exchange();
  x->talkative = true;
  EXPECT_EQ(reply(Reason::kTimeoutTotal, "timeout.total 3s, set at edge.yaml:12"),
            "504 timeout_total: timeout.total 3s, set at edge.yaml:12\n");
  exchange();
  x->talkative = true;
  EXPECT_EQ(reply(Reason::kTimeoutTotal),
            "504 timeout_total: The request did not complete in time.\n");
}

TEST_F(LocalReply, WhatStoodInTheResponseIsGone) {
  exchange();
  x->response.headers.add(HeaderId::kSetCookie, "upstream=1");
  x->response.reason = "Odd";
  reply(Reason::kUpstreamReset);
  EXPECT_EQ(answered("set-cookie"), "-");
  EXPECT_TRUE(x->response.reason.empty());
}

TEST_F(LocalReply, ProblemJsonForThoseWhoNameJson) {
  for (const char* accept :
       {"application/json", "text/html, application/problem+json;q=0.5", "APPLICATION/JSON",
        "application/vnd.api+json", "*/*;q=0.1,application/json"}) {
    exchange();
    header("accept", accept);
    x->request_id = "req-1";
    x->talkative = true;
    const auto body =
        nlohmann::json::parse(reply(Reason::kRouteNotFound, "closest: route \"a\\b\", \x01 \xff"));
    EXPECT_EQ(answered("content-type"), "application/problem+json") << accept;
    EXPECT_EQ(body.size(), 6U);
    EXPECT_EQ(body["type"], "about:blank");
    EXPECT_EQ(body["title"], "Not Found");
    EXPECT_EQ(body["status"], 404);
    EXPECT_EQ(body["reason"], "route_not_found");
    EXPECT_EQ(body["request_id"], "req-1");
    EXPECT_EQ(body["detail"], "closest: route \"a\\b\", \x01 \u00ff");
  }
}

TEST_F(LocalReply, TextForEverybodyElse) {
  for (const char* accept :
       {"*/*", "text/html", "application/json;q=0", "application/json; Q=0.000",
        "application/jsonx", "json", "application/xjson", ""}) {
    exchange();
    header("accept", accept);
    EXPECT_TRUE(reply(Reason::kDenied).starts_with("403 denied: ")) << accept;
  }
}

TEST_F(LocalReply, GrpcHearsItInTrailersAlone) {
  exchange();
  x->is_grpc = true;
  x->talkative = true;
  EXPECT_EQ(reply(Reason::kNoEndpoint, "100% gone: \xc3\xa9\n"), "");
  EXPECT_EQ(x->status, 200);
  EXPECT_EQ(x->response.status, 200);
  EXPECT_EQ(answered("content-type"), "application/grpc");
  EXPECT_EQ(answered("grpc-status"), "14");
  EXPECT_EQ(answered("grpc-message"), "100%25 gone: %C3%A9%0A");
  EXPECT_FALSE(x->response.content_length);
}

TEST_F(LocalReply, GrpcHearsOfACutInTrailers) {
  for (const bool talkative : {true, false}) {
    exchange();
    x->is_grpc = true;
    x->talkative = talkative;
    x->status = 200;
    note_failure(*x, Reason::kTimeoutTotal, "grpc-timeout 1s");
    const Headers& trailers = grpc_trailers(*x);
    EXPECT_EQ(trailers.size(), 2U);
    EXPECT_EQ(joined(trailers, "grpc-status"), "4");
    EXPECT_EQ(joined(trailers, "grpc-message"),
              talkative ? "grpc-timeout 1s" : std::string(info(Reason::kTimeoutTotal).sentence));
    EXPECT_EQ(x->status, 200);
  }
}

TEST_F(LocalReply, HeadHearsTheLengthAlone) {
  exchange();
  x->request.method = Method::kHead;
  EXPECT_EQ(reply(Reason::kDenied), "");
  EXPECT_EQ(x->response.content_length, std::string("403 denied: Not allowed.\n").size());
}

TEST_F(LocalReply, RetryAfterWhereKnownAndAllowWhereDue) {
  exchange();
  x->reply(Reason::kRateLimited, "");
  x->answer.retry_after_s = 7;
  local_reply(*x);
  EXPECT_EQ(answered("retry-after"), "7");
  exchange();
  reply(Reason::kDrain);
  EXPECT_EQ(answered("retry-after"), "-");
  exchange();
  reply(Reason::kNotSupported);
  EXPECT_NE(answered("allow").find("GET"), std::string::npos);
}

TEST_F(LocalReply, ATextBodyIsOneLine) {
  exchange();
  x->talkative = true;
  EXPECT_EQ(reply(Reason::kDenied, "a\r\nb\x1b"), "403 denied: a\\x0d\\x0ab\\x1b\n");
}

TEST_F(LocalReply, TheFirstAnswerStands) {
  exchange();
  x->reply(Reason::kDenied, "first");
  x->reply(Reason::kInternal, "second");
  local_reply(*x);
  EXPECT_EQ(x->reason, Reason::kDenied);
}

TEST_F(LocalReply, ACutAfterTheHeadKeepsTheStatus) {
  exchange();
  x->status = 200;
  note_failure(*x, Reason::kUpstreamReset, "it broke off");
  EXPECT_EQ(x->status, 200);
  EXPECT_EQ(x->reason, Reason::kUpstreamReset);
  note_failure(*x, Reason::kClientClosed, "and then the client left");
  EXPECT_EQ(x->reason, Reason::kUpstreamReset) << "the first cause stands";
  EXPECT_EQ(x->detail, "it broke off");
}

TEST_F(LocalReply, AClientThatLeftBeforeAnyAnswerIs499) {
  exchange();
  note_failure(*x, Reason::kClientClosed, "");
  EXPECT_EQ(x->status, 499);
}

TEST_F(LocalReply, AFailureIsLoggedWithAllOfItsDetail) {
  exchange("/a?secret=1");
  x->request_id = "req-1";
  reply(Reason::kConnectFailure, "10.0.0.7:8080: connection refused");
  testing::internal::CaptureStderr();
  log_failure(*x);
  const std::string line = testing::internal::GetCapturedStderr();
  EXPECT_NE(line.find(" warn connect_failure: status 503, client 192.0.2.1, GET shop.example/a, "
                      "route cart, request req-1: "
                      "10.0.0.7:8080: connection refused\n"),
            std::string::npos)
      << line;
  EXPECT_EQ(line.find("secret"), std::string::npos);
  exchange();
  testing::internal::CaptureStderr();
  log_failure(*x);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace outrider
