#include "policies/placement/balanced_packing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

// Both sort keys by their high 32 bits, equal ones as they stand.

// Least significant digit first, a byte at a time.
void SortByDigits(std::vector<uint64_t>& keys, std::vector<uint64_t>& scratch) {
  std::array<std::array<uint32_t, 256>, 4> count{};
  for (uint64_t key : keys) {
    for (int digit = 0; digit < 4; ++digit) ++count[digit][key >> (32 + 8 * digit) & 255];
  }
  scratch.resize(keys.size());
  for (int digit = 0; digit < 4; ++digit) {
    const int shift = 32 + 8 * digit;
    if (count[digit][keys[0] >> shift & 255] == keys.size()) continue;  // All equal here.
    uint32_t begin = 0;
    for (uint32_t& place : count[digit]) place = std::exchange(begin, begin + place);
    for (uint64_t key : keys) scratch[count[digit][key >> shift & 255]++] = key;
    keys.swap(scratch);
  }
}

// Counts for each key how many are smaller, sixteen keys side by side: faster than digits for up to kFew keys.
constexpr size_t kFew = 128;
void SortByCounting(std::vector<uint64_t>& keys, std::vector<uint64_t>& scratch) {
  using Lanes [[gnu::vector_size(16)]] = int32_t;
  constexpr size_t kLanes = 4, kAbreast = 4;
  const size_t size = keys.size(), blocks = (size + kLanes * kAbreast - 1) / (kLanes * kAbreast);
  std::array<Lanes, kFew / kLanes> value, count;
  std::array<int32_t, kFew> placed{};
  for (size_t i = 0; i < blocks * kLanes * kAbreast; ++i) {
    // Signed, in the same order.
    value[i / kLanes][i % kLanes] = i < size ? static_cast<int32_t>(keys[i] >> 32 ^ 0x8000'0000) : 0;
  }
  for (size_t block = 0; block < blocks; ++block) {
    const Lanes* const mine = &value[block * kAbreast];
    Lanes a{}, b{}, c{}, d{};
    for (size_t i = 0; i < size; ++i) {
      const Lanes other = Lanes{} + value[i / kLanes][i % kLanes];
      a -= other < mine[0];  // True is -1.
      b -= other < mine[1];
      c -= other < mine[2];
      d -= other < mine[3];
    }
    Lanes* const smaller = &count[block * kAbreast];
    smaller[0] = a, smaller[1] = b, smaller[2] = c, smaller[3] = d;
  }
  scratch.resize(size);
  for (size_t i = 0; i < size; ++i) {
    const int32_t smaller = count[i / kLanes][i % kLanes];
    scratch[smaller + placed[smaller]++] = keys[i];
  }
  keys.swap(scratch);
}

void SortByWeight(std::vector<uint64_t>& keys, std::vector<uint64_t>& scratch) {
  if (keys.size() <= kFew) {
    SortByCounting(keys, scratch);
  } else {
    SortByDigits(keys, scratch);
  }
}

}  // namespace

absl::Span<const size_t> BalancedPacking::Pack(absl::Span<const float> weight, size_t packs) {
  const size_t items = weight.size(), capacity = items / packs;
  EPSIM_CHECK(capacity * packs == items);
  keys_.resize(items);
  for (size_t item = 0; item < items; ++item) keys_[item] = HeaviestFirst(weight[item], item);
  SortByWeight(keys_, sort_scratch_);

  place_.resize(items);
  filled_.assign(packs, 0);
  tree_.Reset(packs);
  for (size_t pack = 0; pack < packs; ++pack) tree_.Set(pack, LightestFirst(0, pack));
  tree_.PlayAll();
  for (uint64_t key : keys_) {
    const size_t item = PlayerOf(key), pack = PlayerOf(tree_.best());
    const float load = std::bit_cast<float>(static_cast<uint32_t>(tree_.best() >> 32)) + weight[item];
    place_[item] = pack * capacity + filled_[pack];
    tree_.Replay(pack, ++filled_[pack] == capacity ? WinnerTree::kOut : LightestFirst(load, pack));
  }
  return place_;
}

absl::Span<const size_t> BalancedPacking::Pack(absl::Span<const double> weight, size_t packs) {
  const size_t items = weight.size(), capacity = items / packs;
  EPSIM_CHECK(capacity * packs == items);
  order_.resize(items);
  std::iota(order_.begin(), order_.end(), 0);
  std::sort(order_.begin(), order_.end(),
            [weight](size_t a, size_t b) { return weight[a] > weight[b] || (weight[a] == weight[b] && a < b); });

  place_.resize(items);
  filled_.assign(packs, 0);
  load_.assign(packs, 0);
  for (size_t item : order_) {
    const size_t pack = std::min_element(load_.begin(), load_.end()) - load_.begin();
    place_[item] = pack * capacity + filled_[pack];
    load_[pack] += weight[item];
    if (++filled_[pack] == capacity) load_[pack] = std::numeric_limits<double>::infinity();
  }
  return place_;
}

}  // namespace epsim
