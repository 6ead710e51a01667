#include "models/kernels/co_occurrence.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

// Adds up whom the tokens of one expert chose.  Two rows of counters, so that a token does not wait for the one before.
// row[0]: the others' -1.  kTopK: of all tokens, 0: `top_k`.
template <size_t kTopK>
void CountRow(const int32_t* ids, const int32_t* first, const int32_t* last, size_t top_k, int32_t* row,
              int32_t* other_row) {
  const size_t width = kTopK > 0 ? kTopK : top_k;
  const auto add = [&](int32_t token, int32_t* to) {
    const int32_t* const chosen = ids + static_cast<size_t>(token) * width;
    for (size_t k = 0; k < width; ++k) ++to[chosen[k] + 1];
  };
  for (; last - first >= 2; first += 2) {
    add(first[0], row);
    add(first[1], other_row);
  }
  if (first != last) add(*first, row);
}

}  // namespace

absl::Status CanImplement(const CoOccurrenceOptions& options) {
  const auto error = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("co-occurrence: ", parts...));
  };
  if (options.tokens < 0) return error(options.tokens, " tokens");
  if (options.experts < 1 || options.experts > kMostCoOccurrenceExperts) {
    return error(options.experts, " experts; 1 to ", kMostCoOccurrenceExperts, " would fit");
  }
  if (options.top_k < 1 || options.top_k > options.experts) {
    return error("top_k of ", options.top_k, " experts; 1 to ", options.experts, " would fit");
  }
  if (int64_t{options.tokens} * options.top_k > (int64_t{1} << 31) - 1) {
    return error(options.tokens, " tokens with ", options.top_k, " experts each; up to 2^31 - 1 pairs would fit");
  }
  return absl::OkStatus();
}

absl::Status CountCoOccurrence(const CoOccurrenceOptions& options, absl::Span<const int32_t> ids,
                               absl::Span<int32_t> counts) {
  RETURN_IF_ERROR(CanImplement(options));
  const size_t experts = static_cast<size_t>(options.experts), top_k = static_cast<size_t>(options.top_k);
  EPSIM_CHECK(ids.size() == static_cast<size_t>(options.tokens) * top_k && counts.size() == experts * experts);
  // Tokens by expert, so that the counters of a row stay next to the core.
  std::vector<int32_t> end(experts + 2);  // end[e + 1]: behind the tokens of e; expert -1 is at 0.
  for (const int32_t id : ids) {
    EPSIM_CHECK(id >= -1 && id < options.experts);
    ++end[static_cast<size_t>(id + 1)];
  }
  for (size_t e = 1; e < end.size(); ++e) end[e] += end[e - 1];
  std::vector<int32_t> begin(experts + 1), tokens(ids.size());
  for (size_t e = 1; e <= experts; ++e) begin[e] = end[e - 1];
  std::vector<int32_t> next = begin;
  size_t pair = 0;
  for (int32_t token = 0; token < options.tokens; ++token) {
    for (size_t k = 0; k < top_k; ++k, ++pair)
      tokens[static_cast<size_t>(next[static_cast<size_t>(ids[pair] + 1)]++)] = token;
  }
  tbb::parallel_for(size_t{0}, experts, [&](size_t expert) {
    thread_local std::vector<int32_t> rows;
    rows.assign(2 * (experts + 1), 0);
    int32_t* const row = rows.data();
    int32_t* const other_row = row + experts + 1;
    const int32_t* const first = tokens.data() + begin[expert + 1];
    const int32_t* const last = tokens.data() + end[expert + 1];
    const auto count = top_k == 8 ? &CountRow<8> : &CountRow<0>;
    count(ids.data(), first, last, top_k, row, other_row);
    int32_t* const out = &counts[expert * experts];
    for (size_t e = 0; e < experts; ++e) out[e] = row[e + 1] + other_row[e + 1];
  });
  return absl::OkStatus();
}

}  // namespace epsim
