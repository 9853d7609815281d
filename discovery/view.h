// Which endpoints of a service requests may go to and in which shares, worked out once for the
// process after each change and then immutable: every worker reads the same view.
//
// Of the tiers (endpoints of one `priority`) the first takes everything while its usable part,
// times 1.4, is at least the whole of it; what it cannot carry goes to the next. When all tiers
// together cannot carry everything, a tier of which less than half is usable panics: all of it is
// used, since what is left would only fall over. Draining endpoints and those of weight 0 take part
// in nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/model.h"
#include "config/reason.h"
#include "discovery/endpoint_state.h"
#include "discovery/hash_table.h"

namespace outrider {

// What does not change with the state of an endpoint: who there is, and the tables made of it.
struct Membership {
  struct Member {
    std::uint64_t id = 0;  // what session cookies say
    std::string zone;
    std::uint32_t weight = 1;
    std::uint32_t priority = 0;
    std::shared_ptr<EndpointState> state;
  };
  struct Tier {
    std::uint32_t priority = 0;
    std::vector<std::uint32_t> members;  // weight > 0
    std::optional<HashRing> ring;        // of `balance: hash`
    std::optional<MaglevTable> maglev;   // of `balance: maglev`
  };
  struct Group {
    std::string name;                // `cart`, `cart@v2`
    std::vector<std::uint32_t> all;  // weight 0 too
    std::vector<Tier> tiers;         // by priority
  };

  Membership(const config::Service& service,
             const std::vector<std::shared_ptr<EndpointState>>& states);

  std::string near_zone;                              // empty: zones do not matter
  std::uint64_t slow_start_ms = 0;                    // 0: none
  std::vector<Member> members;                        // by index of the endpoint
  std::vector<Group> groups;                          // [0] all, then subsets in name order
  std::vector<std::vector<std::uint32_t>> groups_of;  // by index of the endpoint
  std::vector<std::pair<std::uint64_t, std::uint32_t>> index_of;  // id → index, sorted
};

// The identity of an endpoint: the same on every proxy that calls the service by this name, and not
// the address itself.
std::uint64_t endpoint_id(const std::string& service, const std::string& address);

struct View {
  // Endpoints that stand for one another: of one tier, and of one zone where zones matter.
  struct Share {
    std::vector<std::uint32_t> members;     // never empty
    std::vector<std::uint64_t> cumulative;  // of weights; empty when all are equal
    // Round robin: this many tickets, one for each unit of weight, drawn with this stride.
    std::uint64_t tickets = 1;
    std::uint64_t stride = 1;
    std::uint64_t until = 0;  // of 2^32: a draw below it, and of no share before, falls here
    std::uint32_t slot = 0;   // counts the shares of all groups
    const Membership::Tier* tier = nullptr;
  };
  enum Use : std::uint8_t {
    kTakes = 1,  // new requests
    kKeeps = 2,  // the sessions that it has
  };
  struct Group {
    std::vector<Share> shares;       // those that take, then those that stand by
    std::size_t taking = 0;          // how many shares take
    double weight = 0;               // of the members of shares that take
    std::vector<std::uint8_t> uses;  // by index of the endpoint: bits of Use
    bool panic = false;
    std::uint32_t usable = 0;  // endpoints
    std::uint32_t wanted = 0;  // … that should be: without draining and weight 0
    bool takes(std::uint32_t index) const { return (uses[index] & kTakes) != 0; }
  };

  explicit View(std::shared_ptr<const Membership> of);

  std::shared_ptr<const Membership> membership;
  std::vector<Group> groups;  // as Membership::groups
  std::uint32_t slots = 0;
  // Slow start: until when any endpoint takes less than its share, and since when each is usable.
  std::uint64_t ramps_until_ms = 0;
  std::vector<std::uint64_t> since_ms;  // by index; empty: none takes less

  bool panic() const;
};

// `healthy`, `unhealthy`, `ejected` or `draining`: an endpoint is one of them.
std::string_view state_of(const EndpointState& state);
// Why no endpoint of a group may be used.
struct Nothing {
  Reason reason;
  std::string_view words;
};
Nothing why_nothing(const View& view, std::size_t group);
// What besides its state decides about an endpoint's requests: `priority 1: stands by`. Empty:
// nothing.
std::string standing_of(const View& view, std::size_t group, std::uint32_t index);

}  // namespace outrider
