// What an event does: a callable taking nothing that is run once.  Callables of up to 48 bytes (six pointers or times)
// are kept in place, so that scheduling them allocates nothing; larger ones go to the heap.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "engine/check.h"

namespace epsim {

// One cache line.  Neither copied nor moved: it is made where it stays.
class alignas(64) EventAction {
 public:
  static constexpr size_t kInlineBytes = 48;

  EventAction() = default;
  ~EventAction() { Clear(); }
  EventAction(const EventAction&) = delete;
  EventAction& operator=(const EventAction&) = delete;

  bool empty() const { return run_ == nullptr; }

  // REQUIRES: empty().
  template <typename F>
  requires std::invocable<std::decay_t<F> &&> void Set(F&& callable) {
    using Callable = std::decay_t<F>;
    EPSIM_CHECK(empty());
    if constexpr (sizeof(Callable) <= kInlineBytes && alignof(Callable) <= alignof(std::max_align_t)) {
      new (storage_) Callable(std::forward<F>(callable));
      run_ = [](void* storage) { std::move (*std::launder(static_cast<Callable*>(storage)))(); };
      if constexpr (!std::is_trivially_destructible_v<Callable>) {
        destroy_ = [](void* storage) { std::destroy_at(std::launder(static_cast<Callable*>(storage))); };
      }
    } else {
      Set([held = std::make_unique<Callable>(std::forward<F>(callable))]() mutable { std::move (*held)(); });
    }
  }

  // Runs the callable and destroys it.  REQUIRES: !empty().
  void RunOnce() {
    EPSIM_CHECK(!empty());
    run_(storage_);
    Clear();
  }

 private:
  void Clear() {
    run_ = nullptr;
    if (destroy_ != nullptr) std::exchange(destroy_, nullptr)(storage_);
  }

  alignas(std::max_align_t) std::byte storage_[kInlineBytes];
  void (*run_)(void* storage) = nullptr;
  void (*destroy_)(void* storage) = nullptr;  // Null where there is nothing to destroy.
};

}  // namespace epsim
