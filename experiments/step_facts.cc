#include "experiments/step_facts.h"

#include <algorithm>
#include <utility>

namespace epsim {

double Balancedness(absl::Span<const int64_t> loads) {
  int64_t sum = 0, max = 0;
  for (int64_t load : loads) {
    sum += load;
    max = std::max(max, load);
  }
  return max == 0 ? 1 : static_cast<double>(sum) / static_cast<double>(loads.size()) / static_cast<double>(max);
}

StepMeter::StepMeter(const Cluster& cluster, const Network& network, int layers,
                     std::function<void(const StepFacts&)> sink)
    : cluster_(cluster),
      network_(network),
      layers_(layers),
      sink_(std::move(sink)),
      bytes_before_(cluster.links().size()) {
  Reset();
}

void StepMeter::Reset() {
  facts_ = StepFacts{};
  beside_dispatch_.reset();
  fresh_ = true;
  facts_.by_layer.assign(layers_, Duration{});
  facts_.by_rank.assign(cluster_.ranks(), Duration{});
  busy_.assign(cluster_.ranks(), Duration{});
}

void StepMeter::OnStage(const StageRecord& stage) {
  if (StreamOf(stage.kind) == GpuStream::kCompute) {
    for (size_t rank = 0; rank < busy_.size(); ++rank) busy_[rank] += stage.finish[rank] - stage.start[rank];
  }
  Charge charge = ChargeOf(stage);
  if (fresh_) frontier_ = stage.start[0];  // The first stage of a step starts on every rank when the step does.
  fresh_ = false;
  // Shared experts run beside the dispatch that follows them in the record: they are charged after it, and only with
  // what they take beyond it.  Where the dispatch waits for them they come first.
  if (stage.kind == StageKind::kSharedExperts) {
    beside_dispatch_ = charge;
    return;
  }
  if (beside_dispatch_.has_value()) {
    const Charge shared = *std::exchange(beside_dispatch_, std::nullopt);
    const SimTime first_start = *std::min_element(stage.start.begin(), stage.start.end());
    const bool overlaps = stage.kind == StageKind::kDispatch && first_start < shared.finish;
    if (overlaps) {
      Add(charge);
      charge = shared;
    } else {
      Add(shared);
    }
  }
  Add(charge);
}

StepMeter::Charge StepMeter::ChargeOf(const StageRecord& stage) {
  const auto last = std::max_element(stage.finish.begin(), stage.finish.end());
  return {.kind = stage.kind,
          .layer = stage.layer,
          .source = stage.source,
          .link_class = stage.link_class,
          .finish = *last,
          .rank = static_cast<size_t>(last - stage.finish.begin())};
}

void StepMeter::Add(const Charge& charge) {
  const Duration advance = std::max(Duration{}, charge.finish - frontier_);
  frontier_ += advance;
  facts_.by_stage[static_cast<size_t>(charge.kind)] += advance;
  if (charge.layer < layers_) facts_.by_layer[charge.layer] += advance;
  facts_.by_rank[charge.rank] += advance;
  facts_.by_source[static_cast<size_t>(charge.source)] += advance;
  if (StreamOf(charge.kind) == GpuStream::kCommunication) {
    facts_.by_link_class[static_cast<size_t>(charge.link_class)] += advance;
  }
}

void StepMeter::OnStepEnd(const StepRecord& step) {
  facts_.step = step.batch->index;
  facts_.start = step.start;
  facts_.finish = step.finish;
  facts_.tokens = step.batch->tokens;

  const size_t ranks = cluster_.ranks();
  std::vector<int64_t> load(ranks);
  double tokens = 0, time = 0;
  for (size_t layer = 0; layer < step.layers.size(); ++layer) {
    const std::vector<int32_t>& slots = step.layers[layer].tokens_per_slot;
    const size_t slots_per_rank = slots.size() / ranks;
    for (size_t rank = 0; rank < ranks; ++rank) {
      load[rank] = 0;
      for (size_t i = 0; i < slots_per_rank; ++i) load[rank] += slots[rank * slots_per_rank + i];
    }
    tokens += Balancedness(load);
    for (size_t rank = 0; rank < ranks; ++rank) load[rank] = step.expert_time[layer * ranks + rank].count();
    time += Balancedness(load);
  }
  if (!step.layers.empty()) {
    facts_.tokens_balancedness = tokens / static_cast<double>(step.layers.size());
    facts_.expert_time_balancedness = time / static_cast<double>(step.layers.size());
  }

  const auto [least, most] = std::minmax_element(busy_.begin(), busy_.end());
  Duration sum{};
  for (Duration busy : busy_) sum += busy;
  const Duration length = step.finish - step.start;
  if (length.count() > 0) facts_.busy = Seconds(sum) / static_cast<double>(ranks) / Seconds(length);
  if (most->count() > 0) facts_.min_over_max = Seconds(*least) / Seconds(*most);

  const absl::Span<const int64_t> bytes = network_.bytes_on_link();
  for (size_t link = 0; link < bytes.size(); ++link) {
    const LinkSpec& spec = cluster_.links()[link];
    if (spec.outgoing) facts_.bytes[static_cast<size_t>(spec.link_class)] += bytes[link] - bytes_before_[link];
    bytes_before_[link] = bytes[link];
  }
  sink_(facts_);
  Reset();
}

}  // namespace epsim
