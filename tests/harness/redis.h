// A real redis-server as a child process, on a Unix socket and on a loopback port: of the PATH, or
// where scripts/tools puts it. Invariant: it keeps nothing on disk and ends with its object.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/harness/outrider.h"

namespace outrider::test {

class RedisServer {
 public:
  // Whether there is a program to run; tests skip without it.
  static bool available();

  explicit RedisServer(std::vector<std::string> options = {});
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  void kill();   // at once
  void start();  // again, empty, at the same places
  void signal(int number) const;

  std::string socket() const { return folder_.path() + "/redis.sock"; }
  const std::string& address() const { return address_; }
  // What it answers to a command, words by blanks: `KEYS *`. Lists come as lines.
  std::string command(const std::string& words) const;

 private:
  TemporaryFolder folder_;
  std::vector<std::string> options_;
  std::string address_;
  pid_t pid_ = -1;
};

}  // namespace outrider::test
