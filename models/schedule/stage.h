// The stages of a forward pass, and the record of one that ran.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "engine/units.h"
#include "models/costs/cost_model.h"
#include "platforms/cluster.h"

namespace epsim {

enum class StageKind : uint8_t {
  kAttention,
  kDenseMlp,
  kRouter,
  kDispatch,
  kSharedExperts,
  kRoutedExperts,
  kCombine,
  kLmHead,
};
inline constexpr int kStageKinds = 8;

std::string_view Name(StageKind kind);  // "attention", "dense_mlp", ...

// A GPU runs one stage at a time on each of its two streams.
enum class GpuStream : uint8_t { kCompute, kCommunication };
constexpr GpuStream StreamOf(StageKind kind) {
  return kind == StageKind::kDispatch || kind == StageKind::kCombine ? GpuStream::kCommunication : GpuStream::kCompute;
}

// One stage of one layer, with one start and one finish per rank.
struct StageRecord {
  StageKind kind;
  int layer = 0;  // Of the model, dense ones included; layers in all for the LM head.
  CostSource source;
  LinkClass link_class;              // The link that set the latest finish; communication stages only.
  absl::Span<const SimTime> start;   // [ranks]
  absl::Span<const SimTime> finish;  // [ranks]
};

}  // namespace epsim
