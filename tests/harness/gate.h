// An origin that holds requests until it is opened, so that a test decides how long they take.
#pragma once

#include <future>
#include <string>
#include <utility>

#include "tests/harness/origin.h"

namespace outrider::test {

class Gate {
 public:
  // Holds requests for `held` alone, or every one; answers the others at once.
  explicit Gate(std::string held = {})
      : opened_(open_.get_future().share()),
        origin_([this, held = std::move(held)](Stream& stream, const Head& head) {
          stream.read_body();
          if (held.empty() || head.target == held) opened_.wait();
          stream.send(Response{.status = 200, .body = "done"});
        }) {}
  ~Gate() { open(); }
  void open() {
    if (!std::exchange(is_open_, true)) open_.set_value();
  }
  HttpOrigin& origin() { return origin_; }
  std::string address() const { return origin_.address(); }

 private:
  std::promise<void> open_;
  std::shared_future<void> opened_;
  bool is_open_ = false;
  HttpOrigin origin_;
};

}  // namespace outrider::test
