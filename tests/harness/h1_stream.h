// A Stream over one HTTP/1.1 connection, for either side.
// Invariant: one exchange at a time; after it, reusable() says whether the connection may carry
// another.
#pragma once

#include <string>
#include <vector>

#include "tests/harness/http.h"
#include "tests/harness/raw_client.h"

namespace outrider::test {

class H1Stream final : public Stream {
 public:
  // A client's side.
  explicit H1Stream(RawClient& connection) : connection_(connection) {}
  // An origin's side, whose request head was read already.
  H1Stream(RawClient& connection, const Head& request);

  void send_head(const Head& head, bool end) override;
  void write(std::string_view bytes) override;
  void finish(const Fields& trailers) override;
  void reset() override { connection_.reset(); }

  Head read_head() override;
  std::size_t read(char* into, std::size_t room) override;
  const Fields& trailers() const override { return connection_.trailers(); }
  const std::vector<Head>& informational() const override { return informational_; }

  bool reusable() const { return sent_all_ && read_all_ && !closes_; }

 private:
  RawClient& connection_;
  std::string method_;
  std::vector<Head> informational_;
  bool chunked_ = false;
  bool sent_all_ = false;
  bool read_all_ = false;
  bool closes_ = false;
};

}  // namespace outrider::test
