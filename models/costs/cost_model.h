// What one operation of a forward pass costs on one GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/units.h"
#include "models/costs/costs.pb.h"
#include "models/model.pb.h"
#include "platforms/platform.pb.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// Where a predicted time comes from.
// kGiven: by the configuration; kExtended: from a measurement or an execution of something else, by the utilisation
// that was reached there.
enum class CostSource : uint8_t { kRoofline, kMeasured, kReplay, kNetwork, kGiven, kExtended };
inline constexpr int kCostSources = 6;
std::string_view Name(CostSource source);  // "roofline", ...

struct Cost {
  Duration time{};
  CostSource source = CostSource::kRoofline;
};

class StepExecutor;
class WorkTimes;

// Every method gives the time of all kernels of that stage in one layer on one GPU, at most kLongestStep; zero tokens
// cost what the stage's kernels cost when launched empty.  All may be called from several threads.
class CostModel {
 public:
  virtual ~CostModel() = default;

  // Projections, attention and output projection, averaged over the model's full and local layers.
  virtual Cost Attention(const AttentionLoad& load) const = 0;
  // The MLP of a dense layer.
  virtual Cost DenseMlp(int64_t tokens) const = 0;
  // Gate GEMM and top-k selection.
  virtual Cost Router(int64_t tokens) const = 0;
  // Activations of `tokens` from bf16 to what travels or what the expert GEMMs take; 0 where both are bf16.
  virtual Cost Quantize(int64_t tokens) const = 0;
  // 0 for a model without.
  virtual Cost SharedExperts(int64_t tokens) const = 0;
  // The grouped GEMMs of the routed experts on one rank, from the whole histogram: slots without tokens are not read.
  // With CostConfig.permutation the rows are brought there and back, one a token-expert pair.
  // The expert of slot i takes scale[i] times as long as one of scale 1 (expert_cost_scale.h).
  // REQUIRES: `scale` [slots] is positive, or empty: all 1.
  virtual Cost RoutedExperts(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale) const = 0;
  Cost RoutedExperts(absl::Span<const int32_t> tokens_per_slot) const { return RoutedExperts(tokens_per_slot, {}); }
  // A time that the busiest of `gpus` GPUs, of the specified speed in the mean, cannot stay below however a layer's
  // work is spread over them: `active` experts to be read, once each, and `pairs` token-expert pairs to be computed,
  // both weighted by the experts' scale.  0 where none is known.
  virtual Cost LeastExperts(double /*active*/, double /*pairs*/, int /*gpus*/) const { return {}; }
  // Final projection to the vocabulary for the tokens that need logits; once a forward pass.
  virtual Cost LmHead(int64_t tokens) const = 0;

  // To be shown every step before it is costed; null where nothing is executed.  Stays the model's.
  virtual StepExecutor* executor() const { return nullptr; }
  // What the reader of a report must know of where times come from, so far.
  virtual std::vector<std::string> notes() const { return {}; }
};

// `config` with every default for `gpu` filled in, as reports show it; without a model it gets `roofline`, and without
// a word about permutation it permutes.  Fails on values out of range.
absl::StatusOr<CostConfig> CompleteCostConfig(const CostConfig& config, const GpuSpec& gpu);

// The roofline of `config`: its own, or what stands in for that which is not measured or executed.
const RooflineConfig& RooflineOf(const CostConfig& config);

// Defaults need not be filled in.  Fails where GPU, precision and model do not go together (fp8 on a GPU without fp8
// units), and where tables are missing or do not say what they would be asked: the error says what would do.  `replay`
// takes its times from `times`, which may be shared between models; null: it executes on the first GPU of this machine.
absl::StatusOr<std::unique_ptr<CostModel>> NewCostModel(const CostConfig& config, const ModelSpec& model,
                                                        const GpuSpec& gpu, std::shared_ptr<WorkTimes> times = nullptr);

}  // namespace epsim
