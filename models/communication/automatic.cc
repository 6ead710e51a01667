#include "models/communication/automatic.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

using Strategies = std::vector<std::unique_ptr<Communication>>;

// One of several strategies at a time; what is asked of it is asked of that one.
class Choice : public Communication {
 public:
  // REQUIRES: `strategies` is not empty; the first is in use.
  Choice(Strategies strategies, std::vector<std::string> notes)
      : strategies_(std::move(strategies)), notes_(std::move(notes)) {
    for (const std::unique_ptr<Communication>& strategy : strategies_) {
      const RoutingDetail detail = strategy->detail();
      detail_.pairs_between |= detail.pairs_between;
      detail_.tokens_to_node |= detail.tokens_to_node;
    }
  }

  std::string name() const override { return current().name(); }
  RoutingDetail detail() const override { return detail_; }
  CommunicationFootprint footprint() const override { return current().footprint(); }
  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override { current().Dispatch(routed, exchange); }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override { current().Combine(routed, exchange); }
  void Statistics(int layers, Exchange* exchange) const override { current().Statistics(layers, exchange); }
  std::vector<std::string> notes() const override {
    std::vector<std::string> notes = notes_;
    for (const std::unique_ptr<Communication>& strategy : strategies_) {
      for (std::string& note : strategy->notes()) {
        if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(std::move(note));
      }
    }
    return notes;
  }

 protected:
  const Communication& current() const { return *strategies_[current_]; }
  const Strategies& strategies() const { return strategies_; }
  void Use(size_t strategy) { current_ = strategy; }
  void Note(std::string note) { notes_.push_back(std::move(note)); }

 private:
  const Strategies strategies_;
  RoutingDetail detail_;  // What any of them is made of.
  size_t current_ = 0;
  std::vector<std::string> notes_;
};

// The last strategy takes what the first cannot, from then on.
class PermanentFallback : public Choice {
 public:
  using Choice::Choice;

  absl::Status Admit(const ForwardShape& shape) override {
    const absl::Status status = strategies()[in_use_]->Admit(shape);
    const size_t last = strategies().size() - 1;
    if (status.ok() || in_use_ == last) return status;
    Note(absl::StrCat(strategies()[in_use_]->name(), " gave way to ", strategies()[last]->name(),
                      " for the rest of the run: ", status.message()));
    Use(in_use_ = last);
    return strategies()[last]->Admit(shape);
  }

 private:
  size_t in_use_ = 0;
};

// The first strategy for decode, the last for passes with prompts.
class ByPhase : public Choice {
 public:
  using Choice::Choice;

  absl::Status Admit(const ForwardShape& shape) override {
    Use(shape.prefill ? strategies().size() - 1 : 0);
    return strategies()[shape.prefill ? strategies().size() - 1 : 0]->Admit(shape);
  }
  CommunicationFootprint footprint() const override {
    CommunicationFootprint footprint = current().footprint();
    footprint.buffers = Bytes(0);
    for (const std::unique_ptr<Communication>& strategy : strategies()) {
      footprint.buffers += strategy->footprint().buffers;
    }
    return footprint;
  }
};

// Makes each of `configs` that is feasible, at most `most` of them, and notes why others are not.
absl::StatusOr<Strategies> MakeFeasible(const std::vector<CommunicationConfig>& configs,
                                        const CommunicationSetup& setup, size_t most,
                                        std::vector<std::string>* passed_over) {
  Strategies strategies;
  for (const CommunicationConfig& config : configs) {
    if (strategies.size() == most) break;
    absl::StatusOr<std::unique_ptr<Communication>> strategy = NewCommunication(config, setup);
    if (strategy.ok()) {
      strategies.push_back(*std::move(strategy));
    } else if (strategy.status().code() == absl::StatusCode::kFailedPrecondition) {
      passed_over->push_back(absl::StrCat("passed over ", strategy.status().message()));
    } else {
      return std::move(strategy).status();
    }
  }
  if (!strategies.empty()) return strategies;
  return absl::FailedPreconditionError(
      absl::StrCat("communication.automatic: no strategy is feasible: ", absl::StrJoin(*passed_over, "; ")));
}

absl::StatusOr<std::unique_ptr<Communication>> NewTensorRtLlm(uint32_t max_tokens_per_rank,
                                                              const CommunicationSetup& setup,
                                                              const LibraryTiming& own) {
  CommunicationConfig config;
  *config.mutable_timing() = own;
  std::vector<CommunicationConfig> order;
  config.mutable_nvlink_one_sided();
  order.push_back(config);
  if (setup.model.experts() % setup.cluster->ranks() == 0) {
    config.mutable_nvlink_two_sided();
    order.push_back(config);
    config.mutable_deepep_normal()->set_bf16_dispatch(setup.precision.dispatch() != NVFP4);
    order.push_back(config);
    config.mutable_deepep_low_latency()->set_max_tokens_per_rank(
        max_tokens_per_rank > 0 ? max_tokens_per_rank : static_cast<uint32_t>(setup.max_tokens_per_rank));
    order.push_back(config);
  }
  config.mutable_allgather_reducescatter();
  const CommunicationConfig last = config;
  order.push_back(last);

  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(Strategies strategies, MakeFeasible(order, setup, 1, &notes));
  if (!absl::StartsWith(strategies.front()->name(), "nvlink")) {
    notes.push_back("communication.automatic: TensorRT-LLM's NCCL EP is not modelled: taken as not installed");
  }
  if (strategies.front()->name() != "allgather_reducescatter") {
    ASSIGN_OR_RETURN(std::unique_ptr<Communication> fallback, NewCommunication(last, setup));
    strategies.push_back(std::move(fallback));
  }
  return std::make_unique<PermanentFallback>(std::move(strategies), std::move(notes));
}

absl::StatusOr<std::unique_ptr<Communication>> NewSglang(uint32_t max_tokens_per_rank, const CommunicationSetup& setup,
                                                         const LibraryTiming& own) {
  CommunicationConfig low_latency, normal;
  *low_latency.mutable_timing() = *normal.mutable_timing() = own;
  low_latency.mutable_deepep_low_latency()->set_max_tokens_per_rank(max_tokens_per_rank);
  normal.mutable_deepep_normal();
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(Strategies strategies, MakeFeasible({low_latency, normal}, setup, 2, &notes));
  return std::make_unique<ByPhase>(std::move(strategies), std::move(notes));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewAutomatic(const AutomaticCommunication& config,
                                                            const CommunicationSetup& setup, const LibraryTiming& own) {
  switch (config.order()) {
    case AutomaticCommunication::TENSORRT_LLM:
      return NewTensorRtLlm(config.max_tokens_per_rank(), setup, own);
    case AutomaticCommunication::SGLANG:
      return NewSglang(config.max_tokens_per_rank(), setup, own);
    case AutomaticCommunication_Order_AutomaticCommunication_Order_INT_MIN_SENTINEL_DO_NOT_USE_:
    case AutomaticCommunication_Order_AutomaticCommunication_Order_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("communication.automatic.order: ", static_cast<int>(config.order()), " is not known"));
}

}  // namespace epsim
