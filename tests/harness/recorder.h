// An HTTP/1 origin that answers every whole request and remembers it, for tests of what must never
// arrive. Invariant: a request counts only once its last byte came, so what a proxy began and cut
// is not among them.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/harness/http.h"
#include "tests/harness/origin.h"

namespace outrider::test {

class Recorder {
 public:
  // Answers 200 with the request's body; x-target says which request is answered.
  Recorder();

  const std::string& address() const { return origin_->address(); }
  int connections() const { return origin_->connections(); }
  std::vector<Request> requests() const;
  std::vector<Request> requests(std::string_view target) const;
  // Waits for the end of every connection, so that nothing can come any more: only once the proxy
  // is gone.
  void settle();
  // Every byte that came over all connections (of each the first MiB); settles first.
  std::string bytes();

 private:
  mutable std::mutex mutex_;
  std::vector<Request> requests_;
  std::unique_ptr<Origin> origin_;
};

}  // namespace outrider::test
