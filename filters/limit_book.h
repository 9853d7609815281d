// What rate limits remember beyond one configuration: the buckets of each limit, by its name, and
// the stores that limits share. A book belongs to a process and goes from one generation to the
// next; what no generation uses any more is gone. The control thread alone opens it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "filters/limit_store.h"
#include "filters/token_buckets.h"

namespace outrider {

class LimitBook {
 public:
  LimitBook();
  // `name` says which limit of which route it is, and what it is: another rate is another limit.
  std::shared_ptr<TokenBuckets> buckets(const std::string& name, const Allowance& allowance);
  std::shared_ptr<SharedStore> store(const config::StoreUrl& url);
  std::vector<std::shared_ptr<SharedStore>> stores();  // in use, by name
  // What keys are hashed with here, so that nobody outside can choose where they fall.
  std::uint64_t seed() const { return seed_; }

 private:
  const std::uint64_t seed_;
  std::map<std::string, std::weak_ptr<TokenBuckets>> buckets_;
  std::size_t clean_at_ = 0;  // size at which names that nobody uses are dropped
  std::vector<std::weak_ptr<SharedStore>> stores_;
};

}  // namespace outrider
