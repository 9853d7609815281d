#include "tests/harness/redis.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <thread>

#include "tests/harness/socket.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;

std::string program() {
  std::string places = OUTRIDER_TOOLS "/bin";
  if (const char* const path = std::getenv("PATH")) places.append(":").append(path);
  std::stringstream each(places);
  for (std::string place; std::getline(each, place, ':');)
    if (::access((place + "/redis-server").c_str(), X_OK) == 0) return place + "/redis-server";
  return {};
}

// A port that was free a moment ago.
std::string free_address() { return ListeningSocket().address(); }

// One answer, from its first byte to its last.
std::string read_answer(Socket& socket) {
  const auto byte = [&socket] {
    char c = 0;
    if (socket.receive(&c, 1) != 1) throw HarnessError("redis ended the connection");
    return c;
  };
  std::string line;
  while (!line.ends_with("\r\n")) line += byte();
  line.resize(line.size() - 2);
  if (line[0] == '$') {
    std::string text;
    const long size = std::stol(line.substr(1));
    while (static_cast<long>(text.size()) < size + 2 && size >= 0) text += byte();
    return text.substr(0, text.size() - (size >= 0 ? 2 : 0));
  }
  if (line[0] != '*') return line;
  std::string all;
  for (long i = std::stol(line.substr(1)); i > 0; --i) all += read_answer(socket) + "\n";
  return all;
}

}  // namespace

bool RedisServer::available() { return !program().empty(); }

RedisServer::RedisServer(std::vector<std::string> options)
    : options_(std::move(options)), address_(free_address()) {
  start();
}

RedisServer::~RedisServer() { kill(); }

void RedisServer::start() {
  const std::string port = address_.substr(address_.rfind(':') + 1);
  std::vector<std::string> words{program(),
                                 "--port",
                                 port,
                                 "--bind",
                                 "127.0.0.1",
                                 "--unixsocket",
                                 socket(),
                                 "--save",
                                 "",
                                 "--appendonly",
                                 "no",
                                 "--dir",
                                 folder_.path(),
                                 "--loglevel",
                                 "warning",
                                 "--logfile",
                                 folder_.path() + "/log"};
  words.insert(words.end(), options_.begin(), options_.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  const auto deadline = std::chrono::steady_clock::now() + patience();
  for (;;) {
    try {
      command("PING");
      return;
    } catch (const HarnessError&) {
      if (std::chrono::steady_clock::now() > deadline) throw;
      std::this_thread::sleep_for(5ms);
    }
  }
}

void RedisServer::kill() {
  if (pid_ <= 0) return;
  signal(SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void RedisServer::signal(int number) const { ::kill(pid_, number); }

std::string RedisServer::command(const std::string& words) const {
  Socket socket = Socket::connect("unix:" + this->socket());
  socket.send(words + "\r\n");
  return read_answer(socket);
}

}  // namespace outrider::test
