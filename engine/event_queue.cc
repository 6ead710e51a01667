#include "engine/event_queue.h"

#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int kIndexBits = 24;
constexpr int kSequenceBits = 38;
constexpr size_t kArity = 4;

}  // namespace

void EventQueue::Schedule(SimTime when, Phase phase, Action action) {
  EPSIM_CHECK(when >= now_);
  uint32_t index;
  if (free_.empty()) {
    index = static_cast<uint32_t>(actions_.size());
    EPSIM_CHECK(index < (1u << kIndexBits));
    actions_.push_back(std::move(action));
  } else {
    index = free_.back();
    free_.pop_back();
    actions_[index] = std::move(action);
  }
  EPSIM_CHECK(next_sequence_ < (uint64_t{1} << kSequenceBits));
  const Key key{when.time_since_epoch().count(), static_cast<uint64_t>(phase) << (kIndexBits + kSequenceBits) |
                                                     next_sequence_++ << kIndexBits | index};
  size_t hole = heap_.size();
  heap_.push_back(key);
  while (hole > 0) {
    const size_t parent = (hole - 1) / kArity;
    if (!(key < heap_[parent])) break;
    heap_[hole] = heap_[parent];
    hole = parent;
  }
  heap_[hole] = key;
}

void EventQueue::Step() {
  EPSIM_CHECK(!empty());
  const Key top = heap_.front();
  const Key last = heap_.back();
  heap_.pop_back();
  const size_t size = heap_.size();
  size_t hole = 0;
  while (true) {
    const size_t first = hole * kArity + 1;
    if (first >= size) break;
    const size_t end = first + kArity < size ? first + kArity : size;
    size_t least = first;
    for (size_t child = first + 1; child < end; ++child) {
      if (heap_[child] < heap_[least]) least = child;
    }
    if (!(heap_[least] < last)) break;
    heap_[hole] = heap_[least];
    hole = least;
  }
  if (size > 0) heap_[hole] = last;

  now_ = SimTime(Duration(top.when));
  const uint32_t index = top.order & ((1u << kIndexBits) - 1);
  Action action = std::move(actions_[index]);
  free_.push_back(index);
  std::move(action)();
}

}  // namespace epsim
