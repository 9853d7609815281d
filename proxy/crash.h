// What is left to say when the process cannot go on: one line with the signal, the build and the
// last request, one with the stack. SIGQUIT asks every thread for its stack and changes nothing.
// Invariant: no byte of a request is printed but its id, which is ours or was found sane; nothing
// here allocates or locks.
#pragma once

#include <cstring>
#include <string_view>

namespace outrider {

void install_crash_handlers();

// The request this thread works on, for the line above.
struct CurrentRequest {
  static constexpr std::size_t kBytes = 64;  // as long as an id may be
  char id[kBytes] = {};
  std::size_t size = 0;
};
inline thread_local constinit CurrentRequest current_request;

inline void note_request(std::string_view id) {
  CurrentRequest& current = current_request;
  current.size = id.size() < CurrentRequest::kBytes ? id.size() : CurrentRequest::kBytes;
  std::memcpy(current.id, id.data(), current.size);
}

}  // namespace outrider
