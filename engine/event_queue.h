// The simulated clock and what is still to happen.  A run owns one queue; there is no other source of time.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "engine/units.h"

namespace epsim {

// Order of events at one instant: completions free resources before new work claims them, decisions see the state
// that results, observers look last.
enum class Phase : uint8_t { kComplete, kArrive, kDecide, kObserve };

// Events run in the order (time, phase, scheduling order): a total order, so a run is a pure function of its inputs.
// At most 2^24 events may be pending and 2^38 be scheduled in a queue's life; both are checked.
class EventQueue {
 public:
  using Action = absl::AnyInvocable<void() &&>;

  SimTime now() const { return now_; }
  bool empty() const { return heap_.empty(); }
  size_t pending() const { return heap_.size(); }

  // REQUIRES: when >= now().  `action` may schedule further events.
  void Schedule(SimTime when, Phase phase, Action action);

  // Advances now() to the earliest event and runs it.  REQUIRES: !empty().
  void Step();

 private:
  // Keys are kept apart from the actions, so that the heap moves 16 bytes a level.
  // order = phase (2 bits) | sequence (38) | index into actions_ (24): sequence is unique, so the index never decides.
  struct Key {
    int64_t when;
    uint64_t order;
    friend bool operator<(const Key& a, const Key& b) {
      return a.when != b.when ? a.when < b.when : a.order < b.order;
    }
  };

  SimTime now_{};
  uint64_t next_sequence_ = 0;
  std::vector<Key> heap_;  // 4-ary, smallest first.
  std::vector<Action> actions_;
  std::vector<uint32_t> free_;  // Unused places in actions_.
};

}  // namespace epsim
