// See limit_book.h.
#include "filters/limit_book.h"

#include <algorithm>

#include "filters/random.h"

namespace outrider {

namespace {
constexpr std::size_t kCleanAt = 64;
}  // namespace

LimitBook::LimitBook() : seed_(thread_random().next()) {}

std::shared_ptr<TokenBuckets> LimitBook::buckets(const std::string& name,
                                                 const Allowance& allowance) {
  if (buckets_.size() >= clean_at_) {
    std::erase_if(buckets_, [](const auto& entry) { return entry.second.expired(); });
    clean_at_ = buckets_.size() * 2 + kCleanAt;
  }
  std::weak_ptr<TokenBuckets>& known = buckets_[name];
  std::shared_ptr<TokenBuckets> buckets = known.lock();
  if (buckets == nullptr) known = buckets = std::make_shared<TokenBuckets>(allowance);
  return buckets;
}

std::shared_ptr<SharedStore> LimitBook::store(const config::StoreUrl& url) {
  for (const auto& known : stores_)
    if (auto store = known.lock(); store != nullptr && store->url == url) return store;
  auto store = std::make_shared<SharedStore>(url);
  stores_.push_back(store);
  return store;
}

std::vector<std::shared_ptr<SharedStore>> LimitBook::stores() {
  std::erase_if(stores_, [](const auto& known) { return known.expired(); });
  std::vector<std::shared_ptr<SharedStore>> all;
  for (const auto& known : stores_) all.push_back(known.lock());
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a->name < b->name; });
  return all;
}

}  // namespace outrider
