// The recording origin.
#include "tests/harness/recorder.h"

#include <algorithm>
#include <iterator>

namespace outrider::test {

Recorder::Recorder() {
  origin_ = std::make_unique<Origin>([this](RawClient& connection, int) {
    while (!connection.peek(1).empty()) {
      Request request = connection.read_request();
      std::string answer = "HTTP/1.1 200 OK\r\nX-Target: " + request.target +
                           "\r\nContent-Length: " + std::to_string(request.body.size()) +
                           "\r\n\r\n";
      if (request.method != "HEAD") answer += request.body;
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(std::move(request));
      }
      connection.send(answer);
    }
  });
}

std::vector<Request> Recorder::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::vector<Request> Recorder::requests(std::string_view target) const {
  std::vector<Request> found = requests();
  std::erase_if(found, [&](const Request& request) { return request.target != target; });
  return found;
}

void Recorder::settle() {
  for (int number = 0; number < origin_->connections(); ++number) origin_->received(number);
}

std::string Recorder::bytes() {
  std::string all;
  for (int number = 0; number < origin_->connections(); ++number) all += origin_->received(number);
  return all;
}

}  // namespace outrider::test
