#include "models/load/alias_table.h"

#include <algorithm>
#include <cstddef>

#include "engine/check.h"

namespace epsim {

AliasTable::AliasTable(absl::Span<const double> weights) {
  // Over the largest, so that neither the sum nor a share overflows.
  const auto heaviest = std::max_element(weights.begin(), weights.end());
  EPSIM_CHECK(heaviest != weights.end() && *heaviest > 0);
  double sum = 0;
  for (const double weight : weights) sum += weight / *heaviest;
  const double scale = static_cast<double>(weights.size()) / sum;
  std::vector<int32_t> below, above;  // Columns with less and with more than they hold.
  std::vector<double> left;
  // What rounding leaves over is the heaviest's, never that of an index without weight.
  const int32_t spare = static_cast<int32_t>(heaviest - weights.begin());
  for (size_t i = 0; i < weights.size(); ++i) {
    const int32_t index = static_cast<int32_t>(i);
    left.push_back(weights[i] / *heaviest * scale);
    columns_.push_back({.threshold = left[i], .own = index, .alias = spare});
    (left[i] < 1 ? below : above).push_back(index);
  }
  while (!below.empty() && !above.empty()) {
    const int32_t small = below.back(), large = above.back();
    below.pop_back();
    columns_[small].alias = large;
    left[large] -= 1 - left[small];
    if (left[large] < 1) {
      columns_[large].threshold = left[large];
      above.pop_back();
      below.push_back(large);
    }
  }
  for (const int32_t index : above) columns_[index].threshold = 1;
}

}  // namespace epsim
