// What the router of one MoE layer hands to a replica choice in one exchange: the logical experts that the tokens of
// every source rank have chosen.  The exchange is of a whole batch or of a piece of it, a half that overlaps with the
// other or a chunk.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "engine/ids.h"

namespace epsim {

struct RouterCall {
  int64_t step = 0;
  Layer layer{};
  // Drawn once for the run: what is random is a function of this, the step, the layer, the token and its k.
  uint64_t random = 0;

  // The tokens [begin[r], end[r]) of the step are of source rank r; empty for ranks without tokens.  [ranks]
  absl::Span<const int32_t> begin, end;
  int top_k = 0;
  int id_bytes = 1;                      // 1 or 2.
  const std::byte* ids = nullptr;        // [tokens of the step, top_k], all below the experts where valid.
  const uint8_t* valid_count = nullptr;  // [tokens of the step]: the first so many ids are real.  Null: all are.

  int valid(int32_t token) const { return valid_count != nullptr ? valid_count[token] : top_k; }
  size_t tokens() const {
    size_t tokens = 0;
    for (size_t s = 0; s < begin.size(); ++s) tokens += static_cast<size_t>(end[s] - begin[s]);
    return tokens;
  }
};

// read(ids), with the ids as uint8_t or uint16_t.
template <typename Read>
void ReadIds(const RouterCall& call, const Read& read) {
  if (call.id_bytes == 1) {
    read(reinterpret_cast<const uint8_t*>(call.ids));
  } else {
    read(reinterpret_cast<const uint16_t*>(call.ids));
  }
}

}  // namespace epsim
