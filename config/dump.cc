#include "config/dump.h"
#include "config/draft.h"
namespace outrider::config { std::string expand(const Draft&, bool) { return {}; } std::string json_schema() { return {}; } }
