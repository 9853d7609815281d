// What workers share, immutable: the model and what was compiled from it. A generation is published
// whole; exchanges keep the one they began with, which goes when its last exchange ends.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/model.h"
#include "filters/chain.h"
#include "filters/limit_book.h"
#include "filters/route_table.h"

namespace outrider {

struct ListenerSnapshot {
  const config::Listener* config = nullptr;
  std::uint32_t index = 0;  // in Config::listeners
  std::uint32_t label = 0;
  std::string port_text;
  std::unique_ptr<RouteTable> routes;     // null where `always` answers
  std::unique_ptr<CompiledRoute> always;  // TCP `to` and a listener's own redirect
};

struct Snapshot {
  std::shared_ptr<const config::Config> config;
  std::uint64_t generation = 1;
  std::vector<CompiledRoute> routes;  // as Config::routes
  std::vector<ListenerSnapshot> listeners;
  std::vector<std::uint32_t> service_labels;
  std::deque<config::Route> own_routes;  // behind ListenerSnapshot::always
  std::shared_ptr<LimitBook> limits;     // handed from one generation to the next
  // Parameters of the query that are secrets on some route: in the log of none.
  std::set<std::string_view> secret_parameters;

  static std::shared_ptr<const Snapshot> compile(
      std::shared_ptr<const config::Config> config, std::uint64_t generation,
      std::shared_ptr<LimitBook> limits = std::make_shared<LimitBook>());
};

// While it lives, a preflight looks like the request that it asks for: that one's route answers it,
// if it has `cors`.
class AsMeant {
 public:
  explicit AsMeant(Exchange& x);
  ~AsMeant();
  AsMeant(const AsMeant&) = delete;
  AsMeant& operator=(const AsMeant&) = delete;

 private:
  RequestHead& request_;
  const Method method_;
  const std::string_view method_text_;
};

// Decides everything about a request that needs no network: checks and normalises target and
// authority, applies `trust`, finds the route and draws the target (`ticket`: a random number;
// spill is the caller's). Sets x.answer where the request ends here. The data path and `explain`
// both call it.
void route_request(Exchange& x, const Snapshot& snapshot, const ListenerSnapshot& listener);

}  // namespace outrider
