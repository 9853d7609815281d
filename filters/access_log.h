// One line per exchange: JSON, the combined format with the reason, or the user's own. Formatted
// straight into the worker's log buffer, without the heap. One per worker; Worker calls write()
// once per exchange and hand_over() once per turn. Invariant: one call is one line whatever a peer
// sent; `authorization` and cookies are never in it.
#pragma once

#include <memory>
#include <set>
#include <string_view>

#include "config/log_writer.h"
#include "config/model.h"
#include "filters/template.h"

namespace outrider {

class AccessLog {
 public:
  AccessLog(const config::Telemetry& telemetry, LogWriter& writer, std::shared_ptr<LogSink> sink);

  void write(const Exchange& x);
  void hand_over() { buffer_.hand_over(); }

 private:
  void write_json(const Exchange& x);
  void write_text(const Exchange& x);
  void write_format(const Exchange& x);

  LogBuffer buffer_;
  const config::Telemetry::Log form_;
  Template format_;
  bool json_escapes_ = false;  // of a format that is itself a JSON object
};

// Before anything writes a line of it: values of these query parameters become `-`.
void hide_secrets(Exchange& x, const std::set<std::string_view>& parameters);

}  // namespace outrider
