#include "traces/synthesis/layer_draws.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/check.h"

namespace epsim {

AliasTable::AliasTable(absl::Span<const uint32_t> weights) : entries_(weights.size()) {
  // In units of 1 / experts, an entry holds `total`.  Small weights are filled up from great ones (Vose).
  EPSIM_CHECK(!weights.empty() && weights.size() <= 65536);
  uint64_t total = 0;
  for (uint32_t weight : weights) {
    EPSIM_CHECK(weight <= uint32_t{1} << 24);
    total += weight;
  }
  EPSIM_CHECK(total > 0);
  std::vector<uint64_t> rest(weights.size());
  std::vector<uint32_t> small, great;
  for (size_t i = 0; i < weights.size(); ++i) {
    rest[i] = weights[i] * static_cast<uint64_t>(weights.size());
    (rest[i] < total ? small : great).push_back(static_cast<uint32_t>(i));
  }
  while (!small.empty()) {
    const uint32_t s = small.back();
    small.pop_back();
    // The rests of all open entries sum to `total` each, so where one has less another has more.
    EPSIM_CHECK(!great.empty());
    const uint32_t g = great.back();
    entries_[s] = {static_cast<uint32_t>((static_cast<unsigned __int128>(rest[s]) << 32) / total), g};
    rest[g] -= total - rest[s];
    if (rest[g] < total) {
      great.pop_back();
      small.push_back(g);
    }
  }
  for (uint32_t g : great) entries_[g] = {0, g};
}

LayerDraws::LayerDraws(int top_k, double keep_previous, std::vector<std::vector<uint32_t>> weights, RandomStream random)
    : top_k_(top_k),
      keep_(static_cast<uint32_t>(keep_previous * 65536 + 0.5)),
      weights_(std::move(weights)),
      name_(weights_[0].size()),
      mark_(weights_[0].size(), 0),
      random_(random) {
  EPSIM_CHECK(keep_previous >= 0 && keep_previous <= 1);
  for (const std::vector<uint32_t>& w : weights_) {
    EPSIM_CHECK(std::count_if(w.begin(), w.end(), [](uint32_t x) { return x > 0; }) >= top_k);
    tables_.emplace_back(w);
  }
  std::iota(name_.begin(), name_.end(), uint16_t{0});
}

LayerDraws LayerDraws::Dealt(int experts, int top_k, RandomStream random) {
  LayerDraws result(top_k, 0, {std::vector<uint32_t>(experts, 1)}, random);
  result.dealt_ = true;
  for (int i = experts - 1; i > 0; --i) std::swap(result.name_[i], result.name_[result.random_.Below(i + 1)]);
  return result;
}

void LayerDraws::Rotate(int by) {
  for (uint16_t& id : name_) id = static_cast<uint16_t>((id + by) % name_.size());
}

void LayerDraws::Deal(uint16_t* ids) {
  for (int i = 0; i < top_k_; ++i) {
    ids[i] = name_[next_dealt_];
    if (++next_dealt_ == name_.size()) next_dealt_ = 0;
  }
}

void LayerDraws::StartMarksAnew() {
  std::fill(mark_.begin(), mark_.end(), 0);
  now_ = 1;
}

void LayerDraws::Complete(int domain, int n, uint16_t* ids) {
  const std::vector<uint32_t>& weights = weights_[domain];
  for (; n < top_k_; ++n) {
    uint64_t left = 0;
    for (size_t e = 0; e < weights.size(); ++e) left += mark_[name_[e]] == now_ ? 0 : weights[e];
    EPSIM_CHECK(left > 0);
    uint64_t draw = random_.Below(left);
    for (size_t e = 0;; ++e) {
      if (mark_[name_[e]] == now_) continue;
      if (draw < weights[e]) {
        ids[n] = name_[e];
        break;
      }
      draw -= weights[e];
    }
    mark_[ids[n]] = now_;
  }
}

}  // namespace epsim
