// See token_buckets.h.
#include "filters/token_buckets.h"

#include <algorithm>

#include "config/limits.h"
#include "discovery/hash.h"

namespace outrider {
namespace {

// Keys do not fall evenly, so a shard has room for an eighth more than its share.
constexpr std::size_t kBucketsPerShard = (limits::kLimitKeys / 64 + 1) * 9 / 8;
constexpr std::size_t kFirstSlots = 8;

// A bucket that is full stays full; and a clock that is behind another worker's only makes it
// stricter.
Drawn drawn_of(const Allowance& allowance, std::uint64_t full_at_ns, std::uint64_t now_ns) {
  const std::uint64_t debt = full_at_ns > now_ns ? full_at_ns - now_ns : 0;
  return {debt + allowance.step_ns <= allowance.full_ns(), debt};
}

}  // namespace

Drawn TokenBuckets::take(std::uint64_t key, std::uint64_t now_ns) {
  return shard(key).take(allowance_, key, now_ns);
}

Drawn TokenBuckets::look(std::uint64_t key, std::uint64_t now_ns) {
  return shard(key).look(allowance_, key, now_ns);
}

std::size_t TokenBuckets::keys() {
  std::size_t sum = 0;
  for (Shard& shard : shards_) sum += shard.size();
  return sum;
}

Drawn TokenBuckets::Shard::take(const Allowance& allowance, std::uint64_t key,
                                std::uint64_t now_ns) {
  const std::lock_guard lock(mutex_);
  Bucket* bucket = find(key);
  if (bucket == nullptr) bucket = &insert(key, now_ns);
  use(static_cast<std::uint32_t>(bucket - buckets_.data()));
  const Drawn before = drawn_of(allowance, bucket->full_at_ns, now_ns);
  if (!before.admitted) return before;
  const std::uint64_t debt = before.debt_ns + allowance.step_ns;
  bucket->full_at_ns = now_ns + debt;
  return {true, debt};
}

Drawn TokenBuckets::Shard::look(const Allowance& allowance, std::uint64_t key,
                                std::uint64_t now_ns) {
  const std::lock_guard lock(mutex_);
  const Bucket* const bucket = find(key);
  return drawn_of(allowance, bucket != nullptr ? bucket->full_at_ns : 0, now_ns);
}

std::size_t TokenBuckets::Shard::size() {
  const std::lock_guard lock(mutex_);
  return buckets_.size();
}

std::size_t TokenBuckets::Shard::slot_of(std::uint64_t key) const {
  return key & (slots_.size() - 1);
}

TokenBuckets::Bucket* TokenBuckets::Shard::find(std::uint64_t key) {
  if (slots_.empty()) return nullptr;
  for (std::size_t slot = slot_of(key); slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1))
    if (buckets_[slots_[slot] - 1].key == key) return &buckets_[slots_[slot] - 1];
  return nullptr;
}

// In place of the one used longest ago if that is full, which says no more than a new one would, or
// if there is no room.
TokenBuckets::Bucket& TokenBuckets::Shard::insert(std::uint64_t key, std::uint64_t now_ns) {
  if (!buckets_.empty()) {
    const std::uint32_t oldest = buckets_[newest_].after;
    if (buckets_[oldest].full_at_ns <= now_ns || buckets_.size() >= kBucketsPerShard) {
      leave(oldest);
      buckets_[oldest].key = key;
      buckets_[oldest].full_at_ns = 0;
      enter(oldest);
      return buckets_[oldest];
    }
  }
  if ((buckets_.size() + 1) * 2 > slots_.size()) grow();
  const auto at = static_cast<std::uint32_t>(buckets_.size());
  buckets_.push_back({key, 0, at, at});
  enter(at);
  if (at != 0) link(at);
  return buckets_.back();
}

// Makes it the newest. The ring goes from each to the next older one by `before`, and closes from
// the oldest to the newest.
void TokenBuckets::Shard::use(std::uint32_t at) {
  if (at == newest_) return;
  Bucket& bucket = buckets_[at];
  buckets_[bucket.before].after = bucket.after;
  buckets_[bucket.after].before = bucket.before;
  link(at);
}

void TokenBuckets::Shard::link(std::uint32_t at) {
  Bucket& bucket = buckets_[at];
  Bucket& newest = buckets_[newest_];
  bucket.before = newest_;
  bucket.after = newest.after;  // the oldest
  buckets_[newest.after].before = at;
  newest.after = at;
  newest_ = at;
}

void TokenBuckets::Shard::enter(std::uint32_t at) {
  std::size_t slot = slot_of(buckets_[at].key);
  while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = at + 1;
}

// Those behind it that were pushed on move up, so that no search ends too early.
void TokenBuckets::Shard::leave(std::uint32_t at) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t free = slot_of(buckets_[at].key);
  while (slots_[free] != at + 1) free = (free + 1) & mask;
  for (std::size_t slot = (free + 1) & mask; slots_[slot] != 0; slot = (slot + 1) & mask) {
    const std::size_t home = slot_of(buckets_[slots_[slot] - 1].key);
    if (((slot - home) & mask) < ((slot - free) & mask)) continue;
    slots_[free] = slots_[slot];
    free = slot;
  }
  slots_[free] = 0;
}

void TokenBuckets::Shard::grow() {
  slots_.assign(std::max(slots_.size() * 2, kFirstSlots), 0);
  for (std::uint32_t i = 0; i < buckets_.size(); ++i) enter(i);
}

}  // namespace outrider
