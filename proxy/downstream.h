// One client connection: owns its socket, codec and streams, and the timers of what is between
// requests.
#pragma once

#include <memory>
#include <string>

#include "proxy/connection.h"
#include "proxy/listener.h"
#include "proxy/stream.h"

namespace outrider {

class Downstream final : public ListNode, private Connection::Events, private ServerEvents {
 public:
  explicit Downstream(Listener& listener);
  ~Downstream();
  // False: refused or gone already.
  bool accept(SocketHandle socket);
  void drain(bool final);
  void cut(Reason reason);  // ends every stream and the connection
  void abort() { wire_.abort(); }
  std::size_t unacknowledged() const { return wire_.unacknowledged(); }
  // For who does not read: false when the client is gone, and every stream has been told.
  bool check_peer();
  void link(UpstreamConnection& upstream) { upstream.link(wire_, *codec_); }

  Listener& listener() { return listener_; }
  Worker& worker() { return listener_.worker(); }
  const ClientInfo& info() const { return info_; }
  ListNode streams;  // of Stream
  void stream_ended();

 private:
  void on_connected(int) override {}
  void on_bytes(std::string_view bytes) override;
  void on_eof() override;
  void on_broken() override;
  void before_flush() override;
  void on_flushed() override;
  void on_closed() override;
  RequestSink* on_stream(CodecStream& stream) override;
  void on_abuse(Reason reason, std::string_view detail) override;

  bool learn_peer();
  CodecSettings codec_settings() const;
  void choose_codec(std::string_view bytes);
  void watch();  // which timer runs now
  void park();
  void on_timer();

  Listener& listener_;
  Connection wire_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<std::string> first_bytes_;  // until the protocol is known
  ClientInfo info_;
  char ip_text_[16];
  std::unique_ptr<char[]> long_ip_text_;  // of IPv6
  std::uint32_t requests_ = 0;
  enum class Watch : std::uint8_t { kNone, kHeader, kIdle };
  Watch watch_ = Watch::kNone;
  Timer timer_;
  bool admitted_ = false;
  bool http1_ = false;
  bool parked_ = false;  // HTTP/1 without a codec
  bool waited_ = false;  // idle for kParkAfter already
  bool draining_ = false;
};

}  // namespace outrider
