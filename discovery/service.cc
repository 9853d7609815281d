#include "discovery/service.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

#include "config/error.h"
#include "config/log.h"
#include "discovery/concurrency.h"

namespace outrider {

SocketAddress::SocketAddress(const config::Address& address) {
  using Kind = config::Address::Kind;
  if (address.kind == Kind::kUnix) {
    auto& un = reinterpret_cast<sockaddr_un&>(storage);
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, address.path.data(),
                std::min(address.path.size(), sizeof(un.sun_path) - 1));
    length = static_cast<socklen_t>(sizeof(un.sun_family) + address.path.size() + 1);
  } else if (address.v6 || address.kind == Kind::kAny) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(address.port);
    std::memcpy(&in6.sin6_addr, address.ip.data(), 16);
    length = sizeof(in6);
  } else {
    auto& in4 = reinterpret_cast<sockaddr_in&>(storage);
    in4.sin_family = AF_INET;
    in4.sin_port = htons(address.port);
    std::memcpy(&in4.sin_addr, address.ip.data(), 4);
    length = sizeof(in4);
  }
}

ServiceShared::ServiceShared(std::size_t endpoint_count) {
  for (std::size_t i = 0; i < endpoint_count; ++i)
    endpoints.push_back(std::make_shared<EndpointState>());
}

ServiceShared::ServiceShared(const config::Service& service)
    : ServiceShared(service.endpoints.size()) {
  for (std::size_t i = 0; i < endpoints.size(); ++i)
    endpoints[i]->draining = service.endpoints[i].health == config::Health::kDraining;
  view_ = std::make_shared<View>(std::make_shared<Membership>(service, endpoints));
}

std::shared_ptr<const View> ServiceShared::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

void ServiceShared::changed() {
  const std::lock_guard lock(mutex_);
  if (view_ != nullptr) {
    auto fresh = std::make_shared<View>(view_->membership);
    for (std::size_t i = 0; i < fresh->groups.size(); ++i) {
      const View::Group& group = fresh->groups[i];
      const std::string& name = fresh->membership->groups[i].name;
      if (group.panic && !view_->groups[i].panic)
        log::warn("service {} panics: {} of {} endpoints are usable, so all of them are used", name,
                  group.usable, group.wanted);
      else if (!group.panic && view_->groups[i].panic)
        log::info("service {} panics no more: {} of {} endpoints are usable", name, group.usable,
                  group.wanted);
    }
    view_ = std::move(fresh);
  }
  version.fetch_add(1, std::memory_order_release);
}

Service::Service(const config::Service& service, std::uint32_t label,
                 std::shared_ptr<ServiceShared> shared)
    : config_(service),
      label_(label),
      shared_(std::move(shared)),
      view_(shared_->view()),
      version_(0) {
  OUTRIDER_ASSERT(view_ != nullptr &&
                  view_->membership->members.size() == service.endpoints.size());
  std::uint32_t index = 0;
  for (const config::Endpoint& endpoint : service.endpoints) {
    endpoints_.push_back(
        std::make_unique<Endpoint>(endpoint, index, view_->membership->members[index].id));
    ++index;
  }
  if (service.balance == config::Balance::kHash) in_flight_.resize(view_->groups.size());
}

// Read before the view, so that a change in between is seen the next time.
const View& Service::view() {
  const std::uint64_t now = shared_->version.load(std::memory_order_acquire);
  if (now != version_) {
    version_ = now;
    view_ = shared_->view();
    turns_.resize(view_->slots, ~std::uint64_t{0});  // each begins where it falls
  }
  return *view_;
}

RequestLimit Service::request_limit() const {
  const std::uint64_t written = config_.limits.requests.value;
  const ConcurrencyLimit* const found = shared_->concurrency.get();
  if (found == nullptr || (written != 0 && written <= found->limit())) return {written, false};
  return {found->limit(), true};
}

Nothing Service::nothing(std::int32_t subset) const {
  return why_nothing(*view_, static_cast<std::size_t>(subset + 1));
}

}  // namespace outrider
