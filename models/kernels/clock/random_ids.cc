#include "models/kernels/clock/random_ids.h"

#include <numeric>
#include <utility>

#include "engine/check.h"
#include "engine/random_stream.h"

namespace epsim {

std::vector<int32_t> DrawDistinctIds(int64_t tokens, int top_k, int ids) {
  EPSIM_CHECK(1 <= top_k && top_k <= ids);
  RandomStream random(1, "distinct ids");
  std::vector<int32_t> order(static_cast<size_t>(ids));
  std::iota(order.begin(), order.end(), 0);
  std::vector<int32_t> lists;
  lists.reserve(static_cast<size_t>(tokens * top_k));
  for (int64_t token = 0; token < tokens; ++token) {
    // The beginning of a shuffle (Fisher, Yates); what is shuffled already is as good to begin with.
    for (int k = 0; k < top_k; ++k) {
      const uint64_t other = static_cast<uint64_t>(k) + random.Below(static_cast<uint64_t>(ids - k));
      std::swap(order[static_cast<size_t>(k)], order[other]);
      lists.push_back(order[static_cast<size_t>(k)]);
    }
  }
  return lists;
}

}  // namespace epsim
