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
  kStatistics,  // All-reduce of tokens per expert.
  kQuantize,
  kDispatch,
  kSharedExperts,
  kRoutedExperts,
  kFusedExperts,  // Dispatch, experts and combine in one kernel.
  kCombine,
  kLmHead,
  kPlanning,   // Serving stands still while a placement is planned,
  kMigration,  // or while weights move,
  kDetection,  // or until the failure of a rank has been noticed.
};
inline constexpr int kStageKinds = 14;

std::string_view Name(StageKind kind);  // "attention", "dense_mlp", ...

// A GPU runs one stage at a time on each of its two streams.
enum class GpuStream : uint8_t { kCompute, kCommunication };
// A fused kernel computes and keeps the links busy: it holds both streams, and counts as computing.
constexpr GpuStream StreamOf(StageKind kind) {
  switch (kind) {
    case StageKind::kStatistics:
    case StageKind::kDispatch:
    case StageKind::kCombine:
    case StageKind::kPlanning:
    case StageKind::kMigration:
    case StageKind::kDetection:
      return GpuStream::kCommunication;
    default:
      return GpuStream::kCompute;
  }
}

// One stage of one layer, with one start and one finish per rank.
struct StageRecord {
  StageKind kind;
  int layer = 0;   // Of the model, dense ones included; layers in all for the LM head.
  int part = 0;    // 0: the whole batch; 1 and 2: its halves under two-batch overlap.
  int chunk = 0;   // Of the layer's tokens.
  int repeat = 0;  // Which run of the layer in this forward pass.
  CostSource source;
  LinkClass link_class;              // The link that set the latest finish; where `source` is the network only.
  absl::Span<const SimTime> start;   // [ranks]
  absl::Span<const SimTime> finish;  // [ranks]
};

// Where a serving engine lets its load balancer in, in production order (TensorRT-LLM).  Weights may change between
// kDoneSetCpu of one forward pass and kDoneWaitGpu of the next: a layer that runs in several chunks, or several times,
// waits before the first and gives way after the last.
enum class EplbHook : uint8_t {
  kStartWaitGpu,     // Before routing: waits for what the balancer changes.
  kDoneWaitGpu,      // After routing: the layer's weights are the new ones.
  kUpdateStatistic,  // The layer's tokens per expert are known; in each run.
  kRoute,            // Replicas are chosen; in each run.
  kStartSetCpu,      // After the experts: the balancer may plan and copy.
  kDoneSetCpu,       // After combine.
};
std::string_view Name(EplbHook hook);  // "start_wait_gpu", ...

struct HookRecord {
  EplbHook hook;
  int moe_layer = 0;
  int repeat = 0;
  absl::Span<const SimTime> time;  // [ranks]
};

}  // namespace epsim
