// Bodies that filters change on their way. A filter that wants to puts a BodyFilter into the
// exchange's path while it sees the head; bytes then pass through all of them, in the order they
// were put, and leave to the driver. Invariant: nothing is kept for its own sake; what a filter
// holds back is bounded, and `last` or the trailers come out exactly once.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "filters/http/headers.h"

namespace outrider {

class BodyFlow {
 public:
  virtual void on_body(std::string_view bytes, bool last) = 0;  // `bytes` may be empty when `last`
  virtual void on_trailers(Headers& trailers) = 0;              // in place of a `last`
  virtual void on_flush() {}  // let out what is held back; asked for by StreamControl::flush_after

 protected:
  ~BodyFlow() = default;
};

class BodyFilter : public BodyFlow {
 public:
  virtual ~BodyFilter() = default;
  void on_trailers(Headers& trailers) override { next().on_trailers(trailers); }
  void on_flush() override { next().on_flush(); }

 protected:
  BodyFlow& next() { return *next_; }

 private:
  friend class BodyPath;
  BodyFlow* next_ = nullptr;
  std::unique_ptr<BodyFilter> behind_;
};

class BodyPath {
 public:
  void put(std::unique_ptr<BodyFilter> filter) {
    std::unique_ptr<BodyFilter>* place = &first_;
    while (*place != nullptr) {
      if ((*place)->behind_ == nullptr) (*place)->next_ = filter.get();
      place = &(*place)->behind_;
    }
    *place = std::move(filter);
  }
  bool empty() const { return first_ == nullptr; }
  void clear() { first_ = nullptr; }
  // Where bytes enter, so that they leave to `end`.
  BodyFlow& into(BodyFlow& end) {
    if (first_ == nullptr) return end;
    BodyFilter* last = first_.get();
    while (last->behind_ != nullptr) last = last->behind_.get();
    last->next_ = &end;
    return *first_;
  }

 private:
  std::unique_ptr<BodyFilter> first_;
};

}  // namespace outrider
