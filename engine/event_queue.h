// The simulated clock and what is still to happen.  A run owns one queue; there is no other source of time.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "engine/event_action.h"
#include "engine/units.h"

namespace epsim {

// Order of events at one instant: completions free resources before new work claims them, decisions see the state
// that results, observers look last.
enum class Phase : uint8_t { kComplete, kArrive, kDecide, kObserve };

// Events run in the order (time, phase, scheduling order): a total order, so a run is a pure function of its inputs.
// At most 2^24 events may be pending and 2^38 be scheduled in a queue's life; both are checked.
//
// The pending events are the players of a tournament: place i of the slab is leaf i of a binary tree whose every inner
// node holds the smaller key of its two children, so the root is the next event.  Taking an event out plays its leaf's
// path again, putting one in lowers the keys on a path; both touch log2(capacity) nodes whose addresses depend on the
// place alone, without a branch that depends on the keys.
class EventQueue {
 public:
  EventQueue();
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  SimTime now() const { return now_; }
  bool empty() const { return pending_ == 0; }
  size_t pending() const { return pending_; }

  // `action`, a callable taking nothing, is run once at `when`, and may schedule further events.  REQUIRES: when >=
  // now().
  template <typename Action>
  void Schedule(SimTime when, Phase phase, Action&& action) {
    PlaceFor(when, phase).Set(std::forward<Action>(action));
  }

  // Advances now() to the earliest event and runs it.  REQUIRES: !empty().
  void Step();

 private:
  // time (64 bits) | phase (2) | sequence (38) | place (24).  The sequence is unique, so the place never decides.
  using Key = unsigned __int128;

  // Puts an event into the tournament and returns where its action is to be set.
  EventAction& PlaceFor(SimTime when, Phase phase);
  // Doubles the leaves.
  void Grow();

  SimTime now_{};
  uint64_t next_sequence_ = 0;
  size_t pending_ = 0;
  size_t capacity_ = 0;           // Leaves; a power of two.
  std::vector<Key> tree_;         // [2 capacity]: the root at 1, children of i at 2i and 2i+1, the leaves at the end.
  std::deque<EventAction> slab_;  // [<= capacity]: an action stays where it is while it runs and schedules others.
  std::vector<uint32_t> free_;    // Places that hold no action.
};

}  // namespace epsim
