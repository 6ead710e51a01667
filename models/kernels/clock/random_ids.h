// Lists of distinct ids, as routers give them.
#pragma once

#include <cstdint>
#include <vector>

namespace epsim {

// [tokens, top_k]: in each list distinct ids below `ids`, every list equally likely.  REQUIRES: 1 <= top_k <= ids.
std::vector<int32_t> DrawDistinctIds(int64_t tokens, int top_k, int ids);

}  // namespace epsim
