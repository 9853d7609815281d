// `outrider explain`: one request through the same routing code as the data path, with every
// decision printed.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/model.h"

namespace outrider {

struct ExplainRequest {
  std::string method = {};
  std::string url = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string listener = {};   // empty: chosen by the URL
  std::string from = {};       // identity
  std::string client_ip = {};  // empty: 127.0.0.1
  bool json = false;
};

// Text or JSON into `out`; the exit code (0, 3 no route, 64 for a URL or listener that is none,
// with words in `out`).
int explain(std::shared_ptr<const config::Config> config, const ExplainRequest& request,
            std::string& out);

}  // namespace outrider
