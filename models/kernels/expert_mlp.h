// The feed-forward networks of the experts on one rank, as a serving engine runs them: the tokens lie sorted by slot,
// and each slot multiplies its own.  With x the rows of a slot,
//   h = x gate_up'                                    [tokens, 2 inter], rounded to bf16
//   a = silu(h[:, :inter]) * h[:, inter:]             [tokens, inter], silu(z) = z / (1 + exp(-z))
//   y = a down'                                       [tokens, hidden], rounded to bf16
// with products added up in float32.  Either everything is bf16, or x, a and the weights are fp8 (e4m3) with the block
// scales of DeepSeek-V3 (DeepSeek-AI 2024, section 3.3): a float32 per 128 values of a row, per 128 x 128 weights. Then
// a is quantised to itself / scale with scale = max(|a|) / 448 over each 128 values.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "models/number_type.pb.h"

namespace epsim {

struct ExpertMlpShape {
  int64_t hidden = 0;
  int64_t inter = 0;
  NumberType values = BF16;          // BF16 or FP8.
  std::vector<int> tokens_per_slot;  // [slots]
};

// Ok, or which dimension does not go: hidden and inter are multiples of 16, in FP8 of 128, and there are tokens.
absl::Status CheckExpertMlp(const ExpertMlpShape& shape);

inline constexpr int64_t kScaleBlock = 128;

// Where the arrays of a shape have what.  A slot's rows are padded to a multiple of 16 in FP8, as tensor cores take
// them; a slot without tokens has none.
class ExpertMlpLayout {
 public:
  // REQUIRES: CheckExpertMlp(shape).ok().
  explicit ExpertMlpLayout(const ExpertMlpShape& shape);

  int64_t slots() const { return static_cast<int64_t>(row_begin_.size()) - 1; }
  int64_t rows() const { return row_begin_.back(); }  // Padding included.
  int64_t row_begin(int64_t slot) const { return row_begin_[static_cast<size_t>(slot)]; }
  int64_t padded_rows(int64_t slot) const { return row_begin(slot + 1) - row_begin(slot); }

  // Scales of activations, FP8 only: of each slot [values / 128, padded_rows(slot)], one slot after the other.  The
  // index of the scale of `row` of `slot`, counted from its first, for values from 128 `block` on; `values` of a row.
  int64_t RowScale(int64_t slot, int64_t row, int64_t block, int64_t values) const {
    return row_begin(slot) * (values / kScaleBlock) + block * padded_rows(slot) + row;
  }
  int64_t row_scales(int64_t values) const { return rows() * (values / kScaleBlock); }  // How many.

 private:
  std::vector<int64_t> row_begin_;  // [slots + 1]
};

// Scales of the weights [rows, columns] of one slot, FP8 only: [rows / 128, columns / 128], a row of them padded to a
// multiple of four.
constexpr int64_t WeightScaleStride(int64_t columns) { return (columns / kScaleBlock + 3) / 4 * 4; }
constexpr int64_t WeightScales(int64_t rows, int64_t columns) {
  return rows / kScaleBlock * WeightScaleStride(columns);
}

// In host or in device memory.  Values are uint16_t in BF16, uint8_t in FP8; the scales are null in BF16.
struct ExpertMlpInputs {
  const void* x = nullptr;                // [rows, hidden]
  const void* gate_up = nullptr;          // [slots, 2 inter, hidden]
  const void* down = nullptr;             // [slots, hidden, inter]
  const float* x_scales = nullptr;        // [row_scales(hidden)]
  const float* gate_up_scales = nullptr;  // [slots, WeightScales(2 inter, hidden)]
  const float* down_scales = nullptr;     // [slots, WeightScales(hidden, inter)]
};

// On all cores of this machine; y: [rows, hidden] in bf16.  Rows of padding are left as they are.  Every instruction
// set gives the same bits.  REQUIRES: CheckExpertMlp(shape).ok(); no input is infinite or not a number.
void ExpertMlpOnCpu(const ExpertMlpShape& shape, const ExpertMlpInputs& inputs, uint16_t* y);

}  // namespace epsim
