#include "models/kernels/co_occurrence.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

// Counts what tokens chose behind `place`: ++row[id + 1], so that row[0] counts the -1.  Every second token counts in
// other_row: so it does not wait for the one before, where they chose the same.  kBehind: top_k - place - 1 as a
// constant; -1: any.
template <int kBehind>
void CountBehind(const int32_t* ids, const int32_t* first, const int32_t* last, size_t top_k, size_t place,
                 int32_t* row, int32_t* other_row) {
  const size_t behind = kBehind >= 0 ? static_cast<size_t>(kBehind) : top_k - place - 1;
  const int32_t* const first_behind = ids + place + 1;
  const auto add = [&](int32_t token, int32_t* to) {
    const int32_t* const chosen = first_behind + static_cast<size_t>(token) * top_k;
    for (size_t k = 0; k < behind; ++k) ++to[chosen[k] + 1];
  };
  for (; last - first >= 2; first += 2) {
    add(first[0], row);
    add(first[1], other_row);
  }
  if (first != last) add(*first, row);
}

using CountFunction = decltype(&CountBehind<-1>);
constexpr CountFunction kCountBehind[] = {&CountBehind<0>, &CountBehind<1>, &CountBehind<2>, &CountBehind<3>,
                                          &CountBehind<4>, &CountBehind<5>, &CountBehind<6>, &CountBehind<7>};

// The tokens of each expert at each place of their lists.
struct TokensByPlace {
  std::vector<int32_t> begin;   // [(experts + 1) * top_k + 1]: of expert e at place p: (e + 1) top_k + p.
  std::vector<int32_t> tokens;  // [pairs]
};

TokensByPlace Sort(const CoOccurrenceOptions& options, absl::Span<const int32_t> ids) {
  const size_t top_k = static_cast<size_t>(options.top_k);
  TokensByPlace sorted;
  sorted.begin.resize((static_cast<size_t>(options.experts) + 1) * top_k + 2);
  sorted.tokens.resize(ids.size());
  int32_t least = 0, most = 0;
  for (const int32_t id : ids) least = std::min(least, id), most = std::max(most, id);
  EPSIM_CHECK(least >= -1 && most < options.experts);
  int32_t* const next = sorted.begin.data() + 1;  // next[i + 1] counts i, then becomes where i ends.
  for (size_t pair = 0; pair < ids.size(); pair += top_k) {
    for (size_t k = 0; k < top_k; ++k) ++next[static_cast<size_t>(ids[pair + k] + 1) * top_k + k + 1];
  }
  for (size_t i = 1; i + 1 < sorted.begin.size(); ++i) next[i] += next[i - 1];
  int32_t token = 0;
  for (size_t pair = 0; pair < ids.size(); pair += top_k, ++token) {
    for (size_t k = 0; k < top_k; ++k) {
      sorted.tokens[static_cast<size_t>(next[static_cast<size_t>(ids[pair + k] + 1) * top_k + k]++)] = token;
    }
  }
  return sorted;
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
  // By expert, so that the counters of a row stay next to the core; and each pair from its first place only: half.
  const TokensByPlace sorted = Sort(options, ids);
  const size_t width = experts + 1;
  std::vector<int32_t> half(experts * width);
  tbb::parallel_for(size_t{0}, experts, [&](size_t expert) {
    thread_local std::vector<int32_t> other;
    other.assign(width, 0);
    int32_t* const row = &half[expert * width];
    const int32_t* const begin = &sorted.begin[(expert + 1) * top_k];
    for (size_t place = 0; place + 1 < top_k; ++place) {
      const size_t behind = top_k - place - 1;
      const CountFunction count = behind < std::size(kCountBehind) ? kCountBehind[behind] : &CountBehind<-1>;
      count(ids.data(), sorted.tokens.data() + begin[place], sorted.tokens.data() + begin[place + 1], top_k, place, row,
            other.data());
    }
    for (size_t i = 0; i < width; ++i) row[i] += other[i];
    row[expert + 1] = 0;
  });
  constexpr size_t kTile = 16;  // Experts, whose lines stay in the cache while they are transposed.
  tbb::parallel_for(tbb::blocked_range<size_t>(0, (experts + kTile - 1) / kTile), [&](const auto& range) {
    for (size_t first = range.begin() * kTile; first < std::min(experts, range.end() * kTile); first += kTile) {
      const size_t last = std::min(experts, first + kTile);
      for (size_t column = 0; column < experts; column += kTile) {
        const size_t end = std::min(experts, column + kTile);
        for (size_t a = first; a < last; ++a) {
          for (size_t b = column; b < end; ++b) {
            counts[a * experts + b] = half[a * width + b + 1] + half[b * width + a + 1];
          }
        }
      }
      for (size_t a = first; a < last; ++a) {
        const size_t of_expert = (a + 1) * top_k;
        counts[a * experts + a] = sorted.begin[of_expert + top_k] - sorted.begin[of_expert];
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace epsim
