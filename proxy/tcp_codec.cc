// Raw bytes as one exchange without heads: what comes is body until the peer's FIN, which ends that
// half alone. Invariant: the stream begins without a byte, since some protocols let the server
// speak first. The codec is its own stream.
#include <memory>
#include <utility>

#include "proxy/codec.h"

namespace outrider {
namespace {

// What both directions share.
class TcpCodec : public Codec, protected CodecStream {
 public:
  explicit TcpCodec(Wire& wire) : wire_(wire) {}

  void feed(std::string_view bytes) final {
    if (begun(true) && !in_ended_) sink()->on_body(bytes, false);
  }
  std::uint64_t passable() const final { return sink() != nullptr && !in_ended_ ? UINT64_MAX : 0; }
  void passed(std::size_t bytes) final { sink()->on_passed(bytes); }
  bool takes_raw() const final { return sink() != nullptr && !out_ended_; }
  void on_eof() final {
    if (!begun(true)) {
      if (!closed_) close(Wire::Close::kFlush);
      return;
    }
    in_ended_ = true;
    sink()->on_body({}, true);
  }
  void on_broken() final;
  void pump() final {
    if (begun(false)) report();
  }
  void on_flushed() final { report(); }
  void drain(bool) final { accepting_ = false; }
  bool in_head() const final { return false; }
  bool idle() const final { return sink() == nullptr; }

 protected:
  virtual StreamSink* sink() const = 0;
  virtual void drop_sink() = 0;
  virtual bool begun(
      bool bytes_came) = 0;  // begins the stream if that is due; false: there is none
  virtual Reason broken_reason() const = 0;

  void send_body(std::string_view bytes, bool last) final;
  void send_trailers(const Headers&) final { send_body({}, true); }
  std::size_t queued() const final { return wire_.out.size(); }
  void hold(bool held) final { wire_.hold_reading(held); }
  void reset(ResetCode) final {
    drop_sink();
    close(Wire::Close::kReset);
  }
  void release() final {
    drop_sink();
    close(in_ended_ && out_ended_ ? Wire::Close::kFlush : Wire::Close::kReset);
  }
  void close(Wire::Close how) {
    closed_ = true;
    wire_.close(how);
  }
  void report();

  Wire& wire_;
  bool accepting_ = true;
  bool in_ended_ = false;
  bool out_ended_ = false;
  bool sent_ = false;
  bool high_ = false;
  bool wrote_ = false;
  bool closed_ = false;
};

void TcpCodec::send_body(std::string_view bytes, bool last) {
  if (bytes.size() < limits::kSmallWrite)
    wire_.out.append(bytes);
  else
    wire_.write_through(bytes);
  wrote_ |= !bytes.empty();
  if (wire_.out.size() > limits::kHighWater) high_ = true;
  out_ended_ |= last;
  if (last) wire_.shutdown();
  wire_.wake();
}

void TcpCodec::report() {
  if (sink() != nullptr && high_ && wire_.out.size() <= limits::kLowWater) {
    high_ = false;
    if (!out_ended_) sink()->on_writable();
  }
  if (sink() != nullptr && out_ended_ && !sent_ && wire_.out.empty()) {
    sent_ = true;
    sink()->on_sent();
  }
}

void TcpCodec::on_broken() {
  closed_ = true;
  StreamSink* const gone = sink();
  if (gone == nullptr) return;
  drop_sink();
  const bool client = broken_reason() == Reason::kClientClosed;
  gone->on_reset(
      {broken_reason(), client ? Origin::kClient : Origin::kUpstream, !client && !wrote_},
      "the connection broke");
}

class TcpServer final : public TcpCodec {
 public:
  TcpServer(Wire& wire, ServerEvents& events) : TcpCodec(wire), events_(events) { wire.wake(); }

 private:
  StreamSink* sink() const override { return sink_; }
  void drop_sink() override { sink_ = nullptr; }
  Reason broken_reason() const override { return Reason::kClientClosed; }
  bool begun(bool) override {
    if (began_ || closed_) return sink_ != nullptr;
    began_ = true;
    sink_ = events_.on_stream(*this);
    if (sink_ == nullptr) {
      close(Wire::Close::kReset);
      return false;
    }
    sink_->head().version = Version::kTcp;
    sink_->on_head(false);
    return sink_ != nullptr;
  }
  void send_response(const ResponseHead&, bool last) override { send_body({}, last); }
  void send_interim(const ResponseHead&) override {}

  ServerEvents& events_;
  RequestSink* sink_ = nullptr;
  bool began_ = false;
};

class TcpClient final : public TcpCodec {
 public:
  explicit TcpClient(Wire& wire) : TcpCodec(wire) {}

  CodecStream* open(ResponseSink& sink) override {
    if (free_streams() == 0) return nullptr;
    sink_ = &sink;
    opened_ = true;
    return this;
  }
  std::uint32_t free_streams() const override { return !opened_ && accepting_ && !closed_ ? 1 : 0; }
  bool reusable() const override { return free_streams() != 0; }

 private:
  StreamSink* sink() const override { return sink_; }
  void drop_sink() override { sink_ = nullptr; }
  Reason broken_reason() const override { return Reason::kUpstreamReset; }
  bool begun(bool bytes_came) override {
    if (sink_ != nullptr && !head_given_ && (requested_ || bytes_came)) {
      head_given_ = true;
      ResponseHead& head = sink_->head();
      head.status = 200;
      head.version = Version::kTcp;
      sink_->on_head(false);
    }
    return sink_ != nullptr;
  }
  void send_request(const RequestHead&, bool last) override {
    requested_ = true;
    send_body({}, last);
  }

  ResponseSink* sink_ = nullptr;
  bool opened_ = false;
  bool requested_ = false;
  bool head_given_ = false;
};

}  // namespace

std::unique_ptr<Codec> make_tcp_server(Wire& wire, ServerEvents& events) {
  return std::make_unique<TcpServer>(wire, events);
}

std::unique_ptr<Codec> make_tcp_client(Wire& wire, ClientEvents&) {
  return std::make_unique<TcpClient>(wire);
}

}  // namespace outrider
