#include "models/schedule/layer_run.h"

#include <utility>

namespace epsim {

int AddDenseLayer(int layer, int part, std::vector<int> after, ProgramBuilder* builder) {
  const bool beside_exchange = part > 0;
  const int attention =
      builder->Add({.kind = StageKind::kAttention, .layer = layer, .part = part, .beside_exchange = beside_exchange},
                   std::move(after));
  return builder->Add({.kind = StageKind::kDenseMlp, .layer = layer, .part = part, .beside_exchange = beside_exchange},
                      {attention});
}

LayerRun::LayerRun(const ProgramPlan& plan, const MoeLayer& layer, int repeat, int part, std::vector<int> inputs,
                   ProgramBuilder* builder)
    : plan_(plan), layer_(layer), repeat_(repeat), part_(part), builder_(*builder), inputs_(std::move(inputs)) {}

int LayerRun::Add(StageKind kind, int chunk, bool beside_exchange, std::vector<int> after, bool lock_step) {
  return builder_.Add({.kind = kind,
                       .layer = layer_.layer,
                       .moe_layer = layer_.moe_layer,
                       .repeat = repeat_,
                       .part = part_,
                       .chunk = chunk,
                       .beside_exchange = beside_exchange || (part_ > 0 && StreamOf(kind) == GpuStream::kCompute),
                       .lock_step = lock_step},
                      std::move(after));
}

bool LayerRun::last_run() const {
  const bool repeats = layer_.moe_layer == static_cast<int>(plan_.model.moe_layers()) - 1;
  return part_ != 1 && repeat_ == (repeats ? static_cast<int>(plan_.config.mtp_runs()) : 0);
}

void LayerRun::AddDenseLayers() {
  for (const int layer : layer_.dense_layers) inputs_ = {AddDenseLayer(layer, part_, inputs_, &builder_)};
}

void LayerRun::AddAttention(AttentionStep step) {
  inputs_ = {builder_.Add({.kind = StageKind::kAttention,
                           .layer = layer_.layer,
                           .moe_layer = layer_.moe_layer,
                           .repeat = repeat_,
                           .part = part_,
                           .step = step,
                           .beside_exchange = part_ > 0},
                          inputs_)};
}

void LayerRun::AddRouter() {
  router_ = Add(StageKind::kRouter, 0, false, inputs_);
  done_.assign(plan_.shape.chunks, router_);
  if (first_run()) {
    builder_.Mark(EplbHook::kStartWaitGpu, false);
    builder_.Mark(EplbHook::kDoneWaitGpu, true);
  }
  if (plan_.facts.statistics && last_run()) Add(StageKind::kStatistics, 0, false, {router_});
  builder_.Mark(EplbHook::kUpdateStatistic, true);
  builder_.Mark(EplbHook::kRoute, true);
}

void LayerRun::AddSharedExperts() {
  if (plan_.model.shared_intermediate() == 0) return;
  const bool beside_dispatch =
      plan_.config.has_external() && plan_.config.overlap_shared_experts() && plan_.facts.has_dispatch;
  shared_ = Add(StageKind::kSharedExperts, 0, beside_dispatch, {router_});
}

void LayerRun::AddEarlyQuantization(int chunk) {
  if (plan_.facts.quantization != Quantization::kBeforeDispatch) return;
  done_[chunk] = Add(StageKind::kQuantize, chunk, plan_.overlap_chunks(), {done_[chunk], chunk_before()});
}

void LayerRun::AddDispatch(int chunk) {
  if (!plan_.facts.has_dispatch) return;
  const int shared = plan_.config.overlap_shared_experts() ? -1 : shared_;
  done_[chunk] = Add(StageKind::kDispatch, chunk, false, {done_[chunk], chunk_before(), shared});
}

void LayerRun::AddExperts(int chunk) {
  if (plan_.facts.quantization == Quantization::kAfterDispatch) {
    done_[chunk] = Add(StageKind::kQuantize, chunk, plan_.overlap_chunks(), {done_[chunk], chunk_before()});
  }
  done_[chunk] = Add(StageKind::kRoutedExperts, chunk, plan_.overlap_chunks(), {done_[chunk], chunk_before()});
  if (last_run() && last_chunk(chunk)) builder_.Mark(EplbHook::kStartSetCpu, true);
}

void LayerRun::AddCombine(int chunk) {
  done_[chunk] = combined_ = Add(StageKind::kCombine, chunk, false, {done_[chunk]});
  if (last_run() && last_chunk(chunk)) builder_.Mark(EplbHook::kDoneSetCpu, true);
}

void LayerRun::AddFusedExperts(int chunk) {
  done_[chunk] = combined_ =
      Add(StageKind::kFusedExperts, chunk, false, {done_[chunk], chunk_before()}, /*lock_step=*/chunk > 0);
  if (!last_run() || !last_chunk(chunk)) return;
  builder_.Mark(EplbHook::kStartSetCpu, true);
  builder_.Mark(EplbHook::kDoneSetCpu, true);
}

}  // namespace epsim
