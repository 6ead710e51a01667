#include "engine/event_queue.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int kPlaceBits = 24;
constexpr int kSequenceBits = 38;
constexpr size_t kFirstCapacity = 16;
constexpr unsigned __int128 kNoEvent = ~static_cast<unsigned __int128>(0);

// As conditional moves: which of two keys is smaller cannot be predicted.
template <typename Key>
inline Key Smaller(Key a, Key b) {
  return a < b ? a : b;
}

}  // namespace

EventQueue::EventQueue() : capacity_(kFirstCapacity), tree_(2 * kFirstCapacity, kNoEvent) {}

void EventQueue::Grow() {
  EPSIM_CHECK(capacity_ < (size_t{1} << kPlaceBits));
  std::vector<Key> tree(4 * capacity_, kNoEvent);
  std::copy(tree_.begin() + capacity_, tree_.end(), tree.begin() + 2 * capacity_);
  capacity_ *= 2;
  tree_ = std::move(tree);
  for (size_t node = capacity_ - 1; node > 0; --node) tree_[node] = Smaller(tree_[2 * node], tree_[2 * node + 1]);
}

EventAction& EventQueue::PlaceFor(SimTime when, Phase phase) {
  EPSIM_CHECK(when >= now_);
  EPSIM_CHECK(next_sequence_ < (uint64_t{1} << kSequenceBits));
  size_t place;
  if (free_.empty()) {
    place = slab_.size();
    if (place == capacity_) Grow();
    slab_.emplace_back();
  } else {
    place = free_.back();
    free_.pop_back();
  }
  const uint64_t order =
      static_cast<uint64_t>(phase) << (kSequenceBits + kPlaceBits) | next_sequence_++ << kPlaceBits | place;
  // Times are not negative, since now() never is.
  const Key key = static_cast<Key>(static_cast<uint64_t>(when.time_since_epoch().count())) << 64 | order;
  for (size_t node = capacity_ + place; node > 0; node /= 2) tree_[node] = Smaller(tree_[node], key);
  ++pending_;
  return slab_[place];
}

void EventQueue::Step() {
  EPSIM_CHECK(!empty());
  const Key key = tree_[1];
  const size_t place = static_cast<size_t>(key) & ((size_t{1} << kPlaceBits) - 1);
  now_ = SimTime(Duration(static_cast<int64_t>(static_cast<uint64_t>(key >> 64))));

  Key winner = kNoEvent;
  size_t node = capacity_ + place;
  tree_[node] = winner;
  for (; node > 1; node /= 2) {
    winner = Smaller(winner, tree_[node ^ 1]);
    tree_[node / 2] = winner;
  }
  --pending_;
  slab_[place].RunOnce();
  free_.push_back(static_cast<uint32_t>(place));
}

}  // namespace epsim
