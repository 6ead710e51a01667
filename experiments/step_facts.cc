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
  charges_.clear();
  facts_.by_layer.assign(layers_, Duration{});
  facts_.by_rank.assign(cluster_.ranks(), Duration{});
  busy_.assign(cluster_.ranks(), Duration{});
}

void StepMeter::OnStage(const StageRecord& stage) {
  if (StreamOf(stage.kind) == GpuStream::kCompute) {
    for (size_t rank = 0; rank < busy_.size(); ++rank) busy_[rank] += stage.finish[rank] - stage.start[rank];
  }
  const auto last = std::max_element(stage.finish.begin(), stage.finish.end());
  charges_.push_back({.kind = stage.kind,
                      .layer = stage.layer,
                      .source = stage.source,
                      .link_class = stage.link_class,
                      .finish = *last,
                      .rank = static_cast<size_t>(last - stage.finish.begin())});
}

void StepMeter::ChargeStages(SimTime start) {
  std::stable_sort(charges_.begin(), charges_.end(),
                   [](const Charge& a, const Charge& b) { return a.finish < b.finish; });
  SimTime frontier = start;
  for (const Charge& charge : charges_) {
    const Duration advance = charge.finish - frontier;
    frontier = charge.finish;
    facts_.by_stage[static_cast<size_t>(charge.kind)] += advance;
    if (charge.layer < layers_) facts_.by_layer[charge.layer] += advance;
    facts_.by_rank[charge.rank] += advance;
    facts_.by_source[static_cast<size_t>(charge.source)] += advance;
    if (charge.source == CostSource::kNetwork) {
      facts_.by_link_class[static_cast<size_t>(charge.link_class)] += advance;
    }
  }
}

void StepMeter::OnStepEnd(const StepRecord& step) {
  facts_.step = step.batch->index;
  facts_.start = step.start;
  facts_.finish = step.finish;
  facts_.tokens = step.batch->tokens;
  ChargeStages(step.start);

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
