#include "proxy/explain_policy.h"

#include <string_view>
#include <utility>

#include "config/grammar.h"
#include "config/written.h"
#include "filters/chain.h"

namespace outrider {

namespace {

using config::Maybe;
using Json = nlohmann::ordered_json;

using config::written;
using config::written_share;
using config::written_size;

Json written(const config::RetryWhen& when) {
  using config::RetryOn;
  static constexpr std::pair<RetryOn, const char*> kNames[] = {
      {RetryOn::kConnectFailure, "connect-failure"},
      {RetryOn::kRefusedStream, "refused-stream"},
      {RetryOn::kReset, "reset"},
      {RetryOn::kPerTryTimeout, "per-try-timeout"},
      {RetryOn::k5xx, "5xx"},
      {RetryOn::kGatewayError, "gateway-error"}};
  Json list = Json::array();
  for (const auto& [bit, name] : kNames)
    if (when.has(bit)) list.push_back(name);
  for (const int status : when.statuses) list.push_back(std::to_string(status));
  for (int status = 0; status < 32; ++status)
    if (when.has_grpc(status)) list.push_back("grpc:" + std::string(config::grpc_name(status)));
  return list;
}

class Leaves {
 public:
  void add(std::string key, Json value, const config::Mark& origin) {
    all.push_back({std::move(key), std::move(value), origin});
  }
  void duration(const char* key, const Maybe<Millis>& leaf) {
    const bool none = !leaf || leaf->value.count() == 0;
    add(key, none ? Json() : Json(written(leaf->value)), leaf ? leaf->mark : config::Mark());
  }
  // A leaf that has no built-in value.
  template <class T>
  void optional(const char* key, const Maybe<T>& leaf) {
    if (leaf) add(key, leaf->value, leaf->mark);
  }
  void headers(const std::string& side, const config::HeaderEdits& edits) {
    if (edits.remove) add(side + ".remove", edits.remove->value, edits.remove->mark);
    for (const auto& [name, leaf] : edits.set) add(side + ".set." + name, leaf.value, leaf.mark);
    for (const auto& [name, leaf] : edits.add) add(side + ".add." + name, leaf.value, leaf.mark);
  }
  std::vector<PolicyLeaf> all;
};

void add_timeouts(Leaves& leaves, const config::Policy& policy, bool is_grpc) {
  leaves.duration("timeout.total", policy.timeout_total);
  const bool grpc_default =
      is_grpc && policy.timeout_headers && policy.timeout_headers->mark.built_in();
  leaves.duration("timeout.headers", grpc_default ? Maybe<Millis>() : policy.timeout_headers);
  leaves.duration("timeout.per_try", policy.timeout_per_try);
  leaves.duration("timeout.idle", policy.timeout_idle);
}

void add_retry(Leaves& leaves, const config::Policy& policy) {
  leaves.optional("retry.attempts", policy.retry_attempts);
  if (policy.retry_when)
    leaves.add("retry.when", written(policy.retry_when->value), policy.retry_when->mark);
  if (const auto& backoff = policy.retry_backoff)
    leaves.add("retry.backoff", written(backoff->value.min) + ".." + written(backoff->value.max),
               backoff->mark);
  if (policy.retry_budget)
    leaves.add("retry.budget", written_share(policy.retry_budget->value),
               policy.retry_budget->mark);
  if (const auto& methods = policy.retry_methods)
    leaves.add("retry.methods", methods->value == config::RetryMethods::kAll ? "all" : "idempotent",
               methods->mark);
  if (policy.retry_buffer)
    leaves.add("retry.buffer", written_size(policy.retry_buffer->value), policy.retry_buffer->mark);
}

void add_body(Leaves& leaves, const config::Policy& policy, const config::Listener& listener) {
  const bool of_route = policy.body_max.has_value();
  const config::Leaf<std::uint64_t>& leaf = of_route ? *policy.body_max : listener.limits.body;
  leaves.add("body.max", leaf.value == 0 ? Json() : Json(written_size(leaf.value)), leaf.mark);
}

void add_rewrite(Leaves& leaves, const config::Policy& policy) {
  leaves.optional("rewrite.path", policy.rewrite_path);
  leaves.optional("rewrite.host", policy.rewrite_host);
  if (!policy.rewrite_regex) return;
  Json list = Json::array();
  for (const auto& [regex, replacement] : policy.rewrite_regex->value)
    list.push_back(regex + " -> " + replacement);
  leaves.add("rewrite.regex", std::move(list), policy.rewrite_regex->mark);
}

// What the service says of its servers.
void add_service(Leaves& leaves, const config::Service& service) {
  if (service.health.on()) leaves.add("health.probe", service.health.text, service.health.mark);
  const config::Eject& eject = service.eject;
  if (eject.on) {
    const auto failures = [&](const char* key, const config::Leaf<unsigned>& leaf) {
      leaves.add(key,
                 leaf.value == 0 ? Json()
                                 : Json(std::to_string(leaf.value) +
                                        (leaf.value == 1 ? " failure" : " failures")),
                 leaf.mark);
    };
    failures("eject.after", eject.after);
    if (eject.after_5xx.value != 0) failures("eject.after_5xx", eject.after_5xx);
    if (eject.after_local.value != 0) failures("eject.after_local", eject.after_local);
    leaves.add("eject.for", config::written(eject.span.value), eject.span.mark);
    leaves.add("eject.at_most", config::written_share(eject.at_most.value), eject.at_most.mark);
    if (eject.success.value > 0)
      leaves.add("eject.outliers.success", config::written_share(eject.success.value),
                 eject.success.mark);
    if (eject.latency.value != 0)
      leaves.add("eject.outliers.latency", eject.latency.value, eject.latency.mark);
    if (eject.compares())
      leaves.add("eject.outliers.volume", eject.volume.value, eject.volume.mark);
    if (eject.observe) leaves.add("eject.mode", "observe", service.mark);
  } else {
    leaves.add("eject", Json(), service.mark);
  }
  const config::ServiceLimits& limits = service.limits;
  const auto limit = [&](const char* key, const config::Leaf<std::uint64_t>& leaf) {
    leaves.add(key, leaf.value == 0 ? Json() : Json(leaf.value), leaf.mark);
  };
  limit("limits.connections", limits.connections);
  limit("limits.pending", limits.pending);
  leaves.add("limits.pending_time", config::written(limits.pending_time.value),
             limits.pending_time.mark);
  limit("limits.requests", limits.requests);
  limit("limits.retries", limits.retries);
  if (limits.adaptive.value) leaves.add("limits.concurrency", "adaptive", limits.adaptive.mark);
}

// What only filters know.
void add_told(Leaves& leaves, const config::Policy& policy, bool forwards) {
  std::vector<config::ShownLeaf> shown;
  for (const auto& [extension, settings] : policy.told)
    if (forwards || !extension->upstream) extension->show(settings.get(), shown);
  for (config::ShownLeaf& leaf : shown)
    leaves.add(std::move(leaf.name),
               leaf.value.list ? Json(leaf.value.values) : Json(leaf.value.values.front()),
               leaf.mark);
}

}  // namespace

std::vector<PolicyLeaf> policy_leaves(const Exchange& x, const config::Config& config) {
  Leaves leaves;
  const config::Policy& policy = *x.target->policy;
  if (x.request.version == Version::kTcp) {
    leaves.duration("timeout.idle", policy.timeout_idle);
    return std::move(leaves.all);
  }
  if (x.target->target != nullptr) {
    add_timeouts(leaves, policy, x.is_grpc);
    add_retry(leaves, policy);
    if (policy.hedge_after && policy.hedge_after->value.count() != 0) {
      leaves.duration("hedge.after", policy.hedge_after);
      leaves.optional("hedge.at_most", policy.hedge_at_most);
    }
    if (policy.mirror && policy.mirror->value.share > 0) {
      const config::Target& to = policy.mirror->value.target;
      leaves.add("mirror",
                 to.service + (to.subset.empty() ? "" : "@" + to.subset) + " " +
                     written_share(policy.mirror->value.share),
                 policy.mirror->mark);
    }
    add_body(leaves, policy, *x.client.listener);
    leaves.optional("upgrade", policy.upgrade);
    if (const auto& when = policy.when_empty)
      leaves.add("when_empty", when->value == config::WhenEmpty::kSpill ? "spill" : "fail",
                 when->mark);
    add_service(leaves, config.services[x.target->service]);
    add_rewrite(leaves, policy);
    leaves.headers("headers.request", policy.request_headers);
  }
  leaves.headers("headers.response", policy.response_headers);
  add_told(leaves, policy, x.target->target != nullptr);
  return std::move(leaves.all);
}

}  // namespace outrider
