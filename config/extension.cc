// How values are shown: as a file would say them.
#include "config/extension.h"

#include "config/written.h"

namespace outrider::config {

Shown shown(bool value) { return {{value ? "true" : "false"}}; }
Shown shown(unsigned value) { return {{std::to_string(value)}}; }
Shown shown(Millis value) { return {{written(value)}}; }
Shown shown(std::uint64_t bytes) { return {{written_size(bytes)}}; }
Shown shown(double share) { return {{written_share(share)}}; }
Shown shown(const std::string& text) { return {{text}}; }
Shown shown(const std::vector<std::string>& texts) { return {texts, true}; }

}  // namespace outrider::config
