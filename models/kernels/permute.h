// The way of token rows to the order in which grouped GEMMs want them, and back: for each token a row for each of its
// slots, the rows of a slot next to one another; afterwards the weighted sum of a token's rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "models/kernels/vector_set.h"

namespace epsim {

struct PermuteOptions {
  int tokens = 0;
  int top_k = 0;
  int slots = 0;      // Physical experts; slots / ranks on each rank, in order.
  int ranks = 1;      // Divides the slots.
  int alignment = 1;  // Each slot begins at a multiple of so many rows, as GEMMs with tiles want it.
};

inline constexpr int kMostPermuteSlots = 1024;
inline constexpr int kMostPermuteTopK = 32;

// Ok, or which figure does not fit and what would.
absl::Status CanImplement(const PermuteOptions& options);

// Rows that there can be, those that only align included: whatever the slots chosen, none is beyond.
int64_t MostRows(const PermuteOptions& options);

// Where rows go.
struct RowPlan {
  absl::Span<int32_t> rows;             // [tokens, top_k]: of each pair; -1 where the pair's slot is -1.
  absl::Span<int32_t> offsets;          // [slots + 1]: the first row of each slot, and the end of the last.
  absl::Span<int32_t> counts;           // [slots]: rows that the slot has, without those that only align.
  absl::Span<int32_t> tokens_per_rank;  // [ranks]: tokens with at least one slot there, as they are dispatched.
};
// slots: [tokens, top_k], each -1 (none) or below options.slots.  In a slot rows are in the order of tokens, and in a
// token in the order of its list.  Fails as CanImplement does.
absl::Status PlanRows(const PermuteOptions& options, absl::Span<const int32_t> slots, const RowPlan& plan);

// How long rows are: values of 1 or 2 bytes, and what scales they have (float32 per 128 values of fp8).
struct RowBytes {
  size_t values = 0;  // A multiple of 16.
  size_t scales = 0;  // A multiple of 4; 0 without.
};

// Copies the row of each token to its places: values [tokens, bytes.values] to permuted_values [rows, bytes.values],
// and scales likewise.  Rows that only align are not written.  rows: as PlanRows made it.
absl::Status PermuteRows(const PermuteOptions& options, const RowBytes& bytes, absl::Span<const int32_t> rows,
                         absl::Span<const uint8_t> values, absl::Span<const uint8_t> scales,
                         absl::Span<uint8_t> permuted_values, absl::Span<uint8_t> permuted_scales);

// Back, of bf16 values (exact_float.h): for each token the sum over its pairs of weight * row, in their order and in
// float32, each product and sum rounded.  permuted: [rows, hidden], weights: [tokens, top_k], out: [tokens, hidden].
// hidden: a multiple of 8.  A token without rows gets zeros.
absl::Status UnpermuteRows(const PermuteOptions& options, int hidden, absl::Span<const int32_t> rows,
                           absl::Span<const float> weights, absl::Span<const uint16_t> permuted,
                           absl::Span<uint16_t> out, VectorSet vectors = VectorSet::kFastest);

// Ok, or why rows of that length cannot be moved.
absl::Status CheckRowBytes(const RowBytes& bytes);
absl::Status CheckHidden(int hidden);

}  // namespace epsim
