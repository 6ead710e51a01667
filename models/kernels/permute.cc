#include "models/kernels/permute.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/kernels/exact_float.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace epsim {
namespace {

template <typename... Parts>
absl::Status Error(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("permute: ", parts...));
}

// A copy past the cache: what is written is not read soon, and a line that is written whole need not be read first.
void CopyPastCache(const uint8_t* from, uint8_t* to, size_t bytes) {
#if defined(__x86_64__)
  if (reinterpret_cast<uintptr_t>(to) % 16 == 0) {
    for (size_t i = 0; i + 16 <= bytes; i += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    }
    const size_t whole = bytes / 16 * 16;
    std::memcpy(to + whole, from + whole, bytes - whole);
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

void FinishCopies() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// One token's part of `hidden`.  rows: where its pairs' values are, null for none.
EPSIM_HOST_DEVICE void AddRows(const uint16_t* const* rows, const float* weights, int top_k, size_t first, size_t count,
                               float* sum, uint16_t* out) {
  for (size_t i = 0; i < count; ++i) sum[i] = 0;
  for (int k = 0; k < top_k; ++k) {
    if (rows[k] == nullptr) continue;
    const uint16_t* const row = rows[k] + first;
    const float weight = weights[k];
    for (size_t i = 0; i < count; ++i) sum[i] += weight * FloatOfBf16(row[i]);
  }
  for (size_t i = 0; i < count; ++i) out[first + i] = Bf16Of(sum[i]);
}

struct Return {
  int top_k;
  size_t hidden;
  const int32_t* rows;
  const float* weights;
  const uint16_t* permuted;
  uint16_t* out;
};

EPSIM_HOST_DEVICE void ReturnTokens(const Return& work, size_t begin, size_t end) {
  constexpr size_t kPart = 1024;  // Sums that stay in the cache next to the core.
  alignas(64) float sum[kPart];
  const uint16_t* rows[kMostPermuteTopK];
  for (size_t token = begin; token < end; ++token) {
    const size_t first_pair = token * static_cast<size_t>(work.top_k);
    for (int k = 0; k < work.top_k; ++k) {
      const int32_t row = work.rows[first_pair + static_cast<size_t>(k)];
      rows[k] = row < 0 ? nullptr : work.permuted + static_cast<size_t>(row) * work.hidden;
    }
    for (size_t first = 0; first < work.hidden; first += kPart) {
      AddRows(rows, work.weights + first_pair, work.top_k, first, std::min(kPart, work.hidden - first), sum,
              work.out + token * work.hidden);
    }
  }
}

using ReturnFunction = void (*)(const Return&, size_t, size_t);

void ReturnPortable(const Return& work, size_t begin, size_t end) { ReturnTokens(work, begin, end); }

#if defined(__x86_64__)
__attribute__((target("avx2"))) void ReturnAvx2(const Return& work, size_t begin, size_t end) {
  ReturnTokens(work, begin, end);
}
#endif

ReturnFunction ReturnOf([[maybe_unused]] VectorSet vectors) {
#if defined(__x86_64__)
  if (UseAvx2(vectors)) return &ReturnAvx2;
#endif
  return &ReturnPortable;
}

constexpr size_t kGrain = 64;  // Tokens.

}  // namespace

absl::Status CanImplement(const PermuteOptions& options) {
  if (options.tokens < 0) return Error(options.tokens, " tokens");
  if (options.top_k < 1 || options.top_k > kMostPermuteTopK) {
    return Error("top_k of ", options.top_k, "; 1 to ", kMostPermuteTopK, " would fit");
  }
  if (options.slots < 1 || options.slots > kMostPermuteSlots) {
    return Error(options.slots, " slots; 1 to ", kMostPermuteSlots, " would fit");
  }
  if (options.ranks < 1 || options.slots % options.ranks != 0) {
    return Error(options.ranks, " ranks for ", options.slots, " slots; a divisor would fit");
  }
  if (options.alignment < 1) return Error("an alignment of ", options.alignment, " rows; 1 or more would fit");
  if (MostRows(options) > (int64_t{1} << 31) - 1) {
    return Error(options.tokens, " tokens with ", options.top_k, " slots each and an alignment of ", options.alignment,
                 " make ", MostRows(options), " rows, more than 2^31 - 1");
  }
  return absl::OkStatus();
}

int64_t MostRows(const PermuteOptions& options) {
  const int64_t pairs = int64_t{options.tokens} * options.top_k;
  return pairs + std::min<int64_t>(pairs, options.slots) * (options.alignment - 1);
}

absl::Status CheckRowBytes(const RowBytes& bytes) {
  if (bytes.values == 0 || bytes.values % 16 != 0) {
    return Error("rows of ", bytes.values, " bytes; a multiple of 16 would fit");
  }
  if (bytes.scales % 4 != 0) return Error("scales of ", bytes.scales, " bytes; a multiple of 4 would fit");
  return absl::OkStatus();
}

absl::Status CheckHidden(int hidden) {
  if (hidden < 8 || hidden % 8 != 0) return Error("rows of ", hidden, " values; a multiple of 8 would fit");
  return absl::OkStatus();
}

absl::Status PlanRows(const PermuteOptions& options, absl::Span<const int32_t> slots, const RowPlan& plan) {
  RETURN_IF_ERROR(CanImplement(options));
  const size_t pairs = static_cast<size_t>(options.tokens) * static_cast<size_t>(options.top_k);
  EPSIM_CHECK(slots.size() == pairs && plan.rows.size() == pairs);
  EPSIM_CHECK(plan.counts.size() == static_cast<size_t>(options.slots));
  EPSIM_CHECK(plan.offsets.size() == plan.counts.size() + 1);
  EPSIM_CHECK(plan.tokens_per_rank.size() == static_cast<size_t>(options.ranks));
  std::fill(plan.counts.begin(), plan.counts.end(), 0);
  std::fill(plan.tokens_per_rank.begin(), plan.tokens_per_rank.end(), 0);
  const int slots_of_rank = options.slots / options.ranks;
  std::vector<int32_t> last_token(plan.tokens_per_rank.size(), -1);  // That visits the rank.
  size_t pair = 0;
  for (int token = 0; token < options.tokens; ++token) {
    for (int k = 0; k < options.top_k; ++k, ++pair) {
      const int32_t slot = slots[pair];
      EPSIM_CHECK(slot >= -1 && slot < options.slots);
      if (slot < 0) continue;
      ++plan.counts[slot];
      const size_t rank = static_cast<size_t>(slot / slots_of_rank);
      plan.tokens_per_rank[rank] += last_token[rank] != token;
      last_token[rank] = token;
    }
  }
  int32_t next = 0;
  for (size_t slot = 0; slot < plan.counts.size(); ++slot) {
    plan.offsets[slot] = next;
    next += (plan.counts[slot] + options.alignment - 1) / options.alignment * options.alignment;
  }
  plan.offsets[plan.counts.size()] = next;
  std::vector<int32_t> row(plan.offsets.begin(), plan.offsets.end() - 1);  // The next of each slot.
  for (size_t i = 0; i < pairs; ++i) plan.rows[i] = slots[i] < 0 ? -1 : row[slots[i]]++;
  return absl::OkStatus();
}

absl::Status PermuteRows(const PermuteOptions& options, const RowBytes& bytes, absl::Span<const int32_t> rows,
                         absl::Span<const uint8_t> values, absl::Span<const uint8_t> scales,
                         absl::Span<uint8_t> permuted_values, absl::Span<uint8_t> permuted_scales) {
  RETURN_IF_ERROR(CanImplement(options));
  RETURN_IF_ERROR(CheckRowBytes(bytes));
  const size_t tokens = static_cast<size_t>(options.tokens), top_k = static_cast<size_t>(options.top_k);
  EPSIM_CHECK(rows.size() == tokens * top_k);
  EPSIM_CHECK(values.size() == tokens * bytes.values && scales.size() == tokens * bytes.scales);
  tbb::parallel_for(tbb::blocked_range<size_t>(0, tokens, kGrain), [&](const tbb::blocked_range<size_t>& range) {
    for (size_t token = range.begin(); token < range.end(); ++token) {
      for (size_t k = 0; k < top_k; ++k) {
        if (rows[token * top_k + k] < 0) continue;
        const size_t row = static_cast<size_t>(rows[token * top_k + k]);
        EPSIM_CHECK((row + 1) * bytes.values <= permuted_values.size());
        CopyPastCache(&values[token * bytes.values], &permuted_values[row * bytes.values], bytes.values);
        if (bytes.scales == 0) continue;
        EPSIM_CHECK((row + 1) * bytes.scales <= permuted_scales.size());
        CopyPastCache(&scales[token * bytes.scales], &permuted_scales[row * bytes.scales], bytes.scales);
      }
    }
    FinishCopies();
  });
  return absl::OkStatus();
}

absl::Status UnpermuteRows(const PermuteOptions& options, int hidden, absl::Span<const int32_t> rows,
                           absl::Span<const float> weights, absl::Span<const uint16_t> permuted,
                           absl::Span<uint16_t> out, VectorSet vectors) {
  RETURN_IF_ERROR(CanImplement(options));
  RETURN_IF_ERROR(CheckHidden(hidden));
  const size_t tokens = static_cast<size_t>(options.tokens), pairs = tokens * static_cast<size_t>(options.top_k);
  EPSIM_CHECK(rows.size() == pairs && weights.size() == pairs);
  EPSIM_CHECK(out.size() == tokens * static_cast<size_t>(hidden));
  for (const int32_t row : rows) {
    EPSIM_CHECK(row < 0 || (static_cast<size_t>(row) + 1) * static_cast<size_t>(hidden) <= permuted.size());
  }
  const Return work = {.top_k = options.top_k,
                       .hidden = static_cast<size_t>(hidden),
                       .rows = rows.data(),
                       .weights = weights.data(),
                       .permuted = permuted.data(),
                       .out = out.data()};
  const ReturnFunction return_tokens = ReturnOf(vectors);
  tbb::parallel_for(tbb::blocked_range<size_t>(0, tokens, kGrain),
                    [&](const auto& range) { return_tokens(work, range.begin(), range.end()); });
  return absl::OkStatus();
}

}  // namespace epsim
