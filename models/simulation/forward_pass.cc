#include "models/simulation/forward_pass.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

// The one communication stream of a batch; a second batch or a migration would have its own.
constexpr StreamId kBatchStream{0};

SimTime Latest(absl::Span<const SimTime> times) { return *std::max_element(times.begin(), times.end()); }

}  // namespace

bool IsMoeLayer(const ModelSpec& model, int layer) {
  const int dense = static_cast<int>(model.layers() - model.moe_layers());
  if (dense > 0 && dense == static_cast<int>(model.moe_layers())) return layer % 2 == 1;
  return layer >= dense;
}

ForwardPass::ForwardPass(ForwardContext context)
    : context_(std::move(context)),
      ranks_(context_.cluster->ranks()),
      attention_(ranks_),
      router_(ranks_),
      shared_(ranks_),
      dense_(ranks_),
      head_(ranks_),
      ready_(ranks_),
      compute_free_(ranks_),
      shared_finish_(ranks_),
      release_(ranks_) {}

void ForwardPass::Begin(const StepBatch& batch, absl::Span<const RoutedLayer> layers,
                        absl::Span<const Cost> expert_costs) {
  EPSIM_CHECK(done_);
  EPSIM_CHECK(layers.size() == context_.model->moe_layers());
  EPSIM_CHECK(expert_costs.size() == layers.size() * ranks_);
  batch_ = &batch;
  layers_ = layers;
  expert_costs_ = expert_costs;
  const CostModel& costs = *context_.costs;
  for (int rank = 0; rank < ranks_; ++rank) {
    const AttentionLoad& load = batch.attention[rank];
    attention_[rank] = costs.Attention(load);
    router_[rank] = costs.Router(load.tokens);
    shared_[rank] = costs.SharedExperts(load.tokens);
    dense_[rank] = costs.DenseMlp(load.tokens);
    head_[rank] = costs.LmHead(load.output_tokens);
  }
  done_ = false;
  layer_ = moe_layer_ = 0;
  after_.reset();
  last_exchange_.reset();
  next_exchange_.reset();
  next_kind_.reset();
  compute_free_.assign(ranks_, context_.queue->now());
  shared_finish_.assign(ranks_, context_.queue->now());
  const Times now(ranks_, context_.queue->now());
  before_ = {layer_, moe_layer_, compute_free_, shared_finish_};
  RunFrom(now);
}

void ForwardPass::RunFrom(absl::Span<const SimTime> data_ready) {
  layer_ = before_.layer;
  moe_layer_ = before_.moe_layer;
  compute_free_ = before_.compute_free;
  shared_finish_ = before_.shared_finish;
  ready_.assign(data_ready.begin(), data_ready.end());
  if (after_.has_value()) {
    PendingStage& exchange = NewPending(*after_, CostSource::kNetwork);
    exchange.start = release_;
    exchange.finish = ready_;
    exchange.link_class = context_.network->limiting_class();
  }
  if (after_ == StageKind::kDispatch) {
    AfterDispatch();
  } else {
    UntilNextDispatch();
  }
}

void ForwardPass::AfterDispatch() {
  const Cost* costs = expert_costs_.data() + static_cast<size_t>(moe_layer_) * ranks_;
  Compute(StageKind::kRoutedExperts, [&](int rank) { return costs[rank]; });
  context_.communication->Combine(layers_[moe_layer_], &exchange_);
  StartExchange(StageKind::kCombine, exchange_.traffic);
}

void ForwardPass::UntilNextDispatch() {
  if (after_ == StageKind::kCombine) {
    for (int rank = 0; rank < ranks_; ++rank) ready_[rank] = std::max(ready_[rank], shared_finish_[rank]);
    ++layer_;
    ++moe_layer_;
  }
  const int layers = static_cast<int>(context_.model->layers());
  for (; layer_ < layers; ++layer_) {
    Compute(StageKind::kAttention, [&](int rank) { return attention_[rank]; });
    if (IsMoeLayer(*context_.model, layer_)) break;
    Compute(StageKind::kDenseMlp, [&](int rank) { return dense_[rank]; });
  }
  if (layer_ == layers) return Finish();

  Compute(StageKind::kRouter, [&](int rank) { return router_[rank]; });
  const bool shared = context_.model->shared_intermediate() > 0;
  const bool overlap = context_.schedule.overlap_shared_experts();
  const Times routed = ready_;
  if (shared) {
    // Shared experts need only the layer's input: they run while the tokens travel, on the compute stream.
    Compute(StageKind::kSharedExperts, [&](int rank) { return shared_[rank]; });
    shared_finish_ = ready_;
    if (overlap) ready_ = routed;
  }
  context_.communication->Dispatch(layers_[moe_layer_], &exchange_);
  StartExchange(StageKind::kDispatch, exchange_.traffic);
}

void ForwardPass::StartExchange(StageKind kind, const TrafficMatrix& traffic) {
  if (next_exchange_.has_value()) {  // Run again: the exchange is under way, only its releases change.
    context_.network->Revise(*next_exchange_, ready_);
    return;
  }
  next_kind_ = kind;
  next_exchange_ =
      context_.network->Start(kBatchStream, traffic, ready_,
                              [this](PhaseId phase, absl::Span<const SimTime> finish) { OnReport(phase, finish); });
}

void ForwardPass::OnReport(PhaseId phase, absl::Span<const SimTime> finish) {
  if (next_exchange_ == phase) {
    // Every rank has been released, so what led there is final.
    FlushPending();
    release_ = ready_;
    before_ = {layer_, moe_layer_, compute_free_, shared_finish_};
    after_ = next_kind_;
    last_exchange_ = phase;
    next_exchange_.reset();
    RunFrom(finish);
  } else if (last_exchange_ == phase && !done_) {
    for (PendingStage& stage : pending_) spare_.push_back(std::move(stage));
    pending_.clear();
    RunFrom(finish);
  }
}

void ForwardPass::Finish() {
  Compute(StageKind::kLmHead, [&](int rank) { return head_[rank]; });
  const uint64_t event = ++finish_event_;
  context_.queue->Schedule(Latest(ready_), Phase::kComplete, [this, event] {
    if (event != finish_event_) return;
    FlushPending();
    done_ = true;
  });
}

template <typename CostOfRank>
void ForwardPass::Compute(StageKind kind, CostOfRank cost) {
  PendingStage& stage = NewPending(kind, cost(0).source);
  for (int rank = 0; rank < ranks_; ++rank) {
    stage.start[rank] = std::max(ready_[rank], compute_free_[rank]);
    stage.finish[rank] = stage.start[rank] + cost(rank).time;
    ready_[rank] = compute_free_[rank] = stage.finish[rank];
  }
}

ForwardPass::PendingStage& ForwardPass::NewPending(StageKind kind, CostSource source) {
  if (spare_.empty()) {
    pending_.emplace_back();
  } else {
    pending_.push_back(std::move(spare_.back()));
    spare_.pop_back();
  }
  PendingStage& stage = pending_.back();
  stage.kind = kind;
  stage.layer = layer_;
  stage.source = source;
  stage.start.resize(ranks_);
  stage.finish.resize(ranks_);
  return stage;
}

void ForwardPass::FlushPending() {
  for (PendingStage& stage : pending_) {
    const StageRecord record{.kind = stage.kind,
                             .layer = stage.layer,
                             .source = stage.source,
                             .link_class = stage.link_class,
                             .start = stage.start,
                             .finish = stage.finish};
    for (Observer* observer : context_.observers) observer->OnStage(record);
    spare_.push_back(std::move(stage));
  }
  pending_.clear();
}

}  // namespace epsim
