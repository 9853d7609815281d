// Token buckets of one limit, by key, for the whole process: a bucket holds `burst` tokens and gets
// one back every `step`. Invariant: what a key is given between two moments is never more than
// burst + (time between them) / step, however many threads ask at once, whatever clocks they bring
// and however keys come and go, as long as no more than kLimitKeys of them are in debt at once.
//
// A bucket is one number, the moment at which it will be full again (the generic cell rate
// algorithm): no token is counted, so none can be negative, and a bucket that nobody asks costs
// nothing. Keys are hashes; the table is split so that threads seldom meet at a lock.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

namespace outrider {

struct Allowance {
  std::uint64_t step_ns = 0;  // what a token costs, rounded up
  std::uint64_t burst = 0;
  std::uint64_t full_ns() const { return step_ns * burst; }  // to fill an empty bucket
  friend bool operator==(const Allowance&, const Allowance&) = default;
};

// A bucket after it was asked. `debt_ns`: until it is full.
struct Drawn {
  bool admitted = false;
  std::uint64_t debt_ns = 0;
  std::uint64_t remaining(const Allowance& of) const {
    return debt_ns >= of.full_ns() ? 0 : (of.full_ns() - debt_ns) / of.step_ns;
  }
  std::uint64_t wait_ns(const Allowance& of) const {  // until there is a token
    const std::uint64_t needed = debt_ns + of.step_ns;
    return needed > of.full_ns() ? needed - of.full_ns() : 0;
  }
};

class TokenBuckets {
 public:
  explicit TokenBuckets(const Allowance& allowance) : allowance_(allowance) {}
  TokenBuckets(const TokenBuckets&) = delete;
  TokenBuckets& operator=(const TokenBuckets&) = delete;

  // Takes a token of the key's bucket if there is one. `now_ns` is monotonic.
  Drawn take(std::uint64_t key, std::uint64_t now_ns);
  // The same, taking none.
  Drawn look(std::uint64_t key, std::uint64_t now_ns);
  const Allowance& allowance() const { return allowance_; }
  std::size_t keys();  // that are remembered

 private:
  struct Bucket {
    std::uint64_t key;
    std::uint64_t full_at_ns;
    std::uint32_t before, after;  // in the order of use
  };
  // Open addressing over the buckets, which keep their places; the order of use is a ring through
  // them, whose newest one is `newest`.
  class alignas(64) Shard {
   public:
    Drawn take(const Allowance& allowance, std::uint64_t key, std::uint64_t now_ns);
    Drawn look(const Allowance& allowance, std::uint64_t key, std::uint64_t now_ns);
    std::size_t size();

   private:
    Bucket* find(std::uint64_t key);
    Bucket& insert(std::uint64_t key, std::uint64_t now_ns);
    void use(std::uint32_t at);
    void link(std::uint32_t at);
    void enter(std::uint32_t at);
    void leave(std::uint32_t at);
    void grow();
    std::size_t slot_of(std::uint64_t key) const;

    std::mutex mutex_;
    std::vector<Bucket> buckets_;
    std::vector<std::uint32_t> slots_;  // index in buckets_ plus 1; 0: free; a power of two
    std::uint32_t newest_ = 0;          // meaningless without buckets
  };
  static constexpr std::size_t kShards = 64;
  Shard& shard(std::uint64_t key) { return shards_[key >> 58]; }

  const Allowance allowance_;
  std::array<Shard, kShards> shards_;
};

}  // namespace outrider
