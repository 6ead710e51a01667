#include "models/simulation/simulation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/costs/step_executor.h"
#include "models/schedule/schedule_config.h"
#include "models/simulation/balanced_work.h"
#include "models/simulation/profiling.h"
#include "models/simulation/step_work.h"
#include "models/simulation/survivor_batch.h"
#include "models/simulation/workers.h"

namespace epsim {
namespace {

// With kLongestStep for each of the three stages of an exchange, in each of the most layers that a model may have, a
// step that starts before this ends well before the end of time.
constexpr auto kLongestRun = std::chrono::hours(24 * 30);

absl::Status CheckStepTime(const StepBatch& batch, SimTime start, SimTime now) {
  if (now - start >= kLongestStep) {
    return absl::OutOfRangeError(absl::StrCat("step ", batch.index, ", of ", batch.tokens, " tokens, takes ",
                                              kLongestStep / std::chrono::seconds(1),
                                              " s of simulated time or more; no longer step is simulated"));
  }
  if (now - SimTime{} >= kLongestRun) {
    return absl::OutOfRangeError(
        absl::StrCat("step ", batch.index, " passes 30 days of simulated time, the longest run"));
  }
  return absl::OkStatus();
}

absl::Status OfStep(const StepBatch& batch, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("step ", batch.index, ", of ", batch.tokens,
                                                  " tokens: ", absl::string_view(status.message())));
}

}  // namespace

Simulation::Simulation(const ForwardContext& context, PlacedRouting* routing, RebalanceSetup rebalance,
                       StepRouting* policy)
    : context_(context),
      routing_(routing),
      policy_(policy),
      shape_(routing->placement().shape()),
      quantizes_(context.costs->Quantize(1).time > Duration{}),
      pass_([&] {
        ForwardContext watched = context;
        watched.observers.push_back(this);
        return watched;
      }()),
      expert_time_(static_cast<size_t>(shape_.layers) * shape_.ranks) {
  const bool stays = rebalance.config.mode_case() == RebalanceConfig::MODE_NOT_SET || rebalance.config.has_none();
  if (stays && rebalance.elastic.failures().empty()) return;
  profiler_ = rebalance.profiler;
  rebalancer_ = std::make_unique<Rebalancer>(std::move(rebalance), context_, routing, &pass_);
}

Simulation::~Simulation() = default;

void Simulation::OnHook(const HookRecord& hook) {
  if (rebalancer_ != nullptr) rebalancer_->OnHook(hook);
}

const std::deque<RebalanceRecord>& Simulation::rebalances() const {
  static const std::deque<RebalanceRecord> kNone;
  return rebalancer_ == nullptr ? kNone : rebalancer_->records();
}

absl::Status Simulation::ExecuteStep(Workers& workers, const StopToken& stop) {
  StepExecutor* const executor = context_.costs->executor();
  if (executor == nullptr) return absl::OkStatus();
  workers.ForEach(shape_.layers, [&](int layer) {
    if (!stop.stop_requested()) CountLayer(*routing_, shape_, layer, &work_);
  });
  RETURN_IF_ERROR(stop.Check());
  std::vector<int64_t> router_tokens;
  for (size_t part = 0; part < work_.split.attention.size(); ++part) {
    for (int rank = 0; rank < shape_.ranks; ++rank) router_tokens.push_back(work_.RowsOfPart(part, rank));
  }
  return executor->Execute({.layers = shape_.layers,
                            .pieces = work_.pieces(),
                            .ranks = shape_.ranks,
                            .tokens_per_slot = [this](int layer, int piece) -> absl::Span<const int32_t> {
                              return work_.routed[static_cast<size_t>(layer) * work_.pieces() + piece].tokens_per_slot;
                            },
                            .router_tokens = router_tokens},
                           stop);
}

absl::Status Simulation::RunStep(const StepBatch& composed, Workers& workers, const StopToken& stop) {
  const SimTime start = context_.queue->now();
  if (rebalancer_ != nullptr) {
    if (absl::Status status = rebalancer_->BeforeStep(composed.index, stop); !status.ok()) {
      return absl::IsCancelled(status) ? status : OfStep(composed, status);
    }
    if (!rebalancer_->away().empty()) survivor_batch_ = DealOverSurvivors(composed, rebalancer_->away());
  }
  const bool dealt = rebalancer_ != nullptr && !rebalancer_->away().empty();
  const StepBatch* captured = dealt ? &survivor_batch_ : &composed;
  if (policy_ != nullptr) {
    absl::StatusOr<const StepBatch*> routed = policy_->Route(*captured, workers.for_each());
    if (!routed.ok()) return OfStep(composed, routed.status());
    captured = *routed;
  }
  const StepBatch& batch = *captured;
  absl::StatusOr<BatchSplit> split = SplitBatch(context_.schedule, batch);
  if (!split.ok()) return OfStep(batch, split.status());
  const absl::Status admitted = context_.communication->Admit(
      {.max_tokens_per_rank = split->max_tokens_per_rank,
       .chunks = split->shape.chunks,
       .prefill = std::any_of(batch.attention.begin(), batch.attention.end(),
                              [](const AttentionLoad& load) { return load.decode_tokens < load.tokens; })});
  if (!admitted.ok()) return OfStep(batch, admitted);

  const ProgramFacts facts = FactsOf(context_.schedule, *context_.communication, quantizes_);
  PrepareStep(
      batch, *std::move(split),
      {.padding = context_.schedule.has_external() ? context_.schedule.external().padding() : ExternalSchedule::NEVER,
       .gathers_rows = GathersRows(*context_.communication),
       .has_dispatch = facts.has_dispatch,
       .quantizes_received = facts.quantization == Quantization::kAfterDispatch},
      shape_.layers, &work_);
  if (policy_ != nullptr) policy_->Charge(*context_.cluster, shape_.layers, &work_);
  const bool in_pieces = work_.pieces() > 1 || work_.padded;
  whole_.resize(in_pieces ? shape_.layers : 0);
  work_.level = !bound_of_.empty();
  std::vector<ComparedWork> compared;
  for (const Simulation* other : bound_of_) compared.push_back({&other->work_, &other->routing_->placement()});
  const bool counted = compared.empty() && context_.costs->executor() != nullptr;
  if (counted) RETURN_IF_ERROR(ExecuteStep(workers, stop));
  workers.ForEach(shape_.layers, [&](int layer) {
    if (stop.stop_requested()) return;
    if (compared.empty()) {
      if (!counted) CountLayer(*routing_, shape_, layer, &work_);
      CostLayer(*routing_, *context_.costs, context_.expert_cost_scale, *context_.cluster, shape_, layer, &work_);
      if (policy_ != nullptr) {
        policy_->Measure(*routing_, *context_.costs, *context_.cluster, shape_, work_, layer);
      }
    } else {
      BalanceLayer(compared, *context_.costs, context_.expert_cost_scale, *context_.cluster, shape_, layer, &work_);
    }
    if (in_pieces) AddUpPieces(work_, layer, &whole_[layer]);
    for (int rank = 0; rank < shape_.ranks; ++rank) {
      Duration& time = expert_time_[static_cast<size_t>(layer) * shape_.ranks + rank];
      time = Duration{};
      for (int piece = layer * work_.pieces(); piece < (layer + 1) * work_.pieces(); ++piece) {
        time += work_.expert_costs[static_cast<size_t>(piece) * shape_.ranks + rank].time;
      }
    }
  });
  RETURN_IF_ERROR(stop.Check());
  const std::vector<RoutedLayer>& layers = in_pieces ? whole_ : work_.routed;
  if (rebalancer_ != nullptr) rebalancer_->StepStarts(batch, layers);
  const bool profiled = profiler_ != nullptr && profiler_->BeginStep();
  if (profiled) {
    // Each layer's experts take longer by what profiling adds; its first piece has it.
    const size_t of_layer = static_cast<size_t>(work_.pieces()) * shape_.ranks;
    for (size_t i = 0; i < work_.expert_costs.size(); ++i) {
      if (i % of_layer < static_cast<size_t>(shape_.ranks)) work_.expert_costs[i].time += profiler_->layer_overhead();
    }
  }
  pass_.Begin(programs_.Get(context_, facts, work_.split.shape), work_);
  while (!pass_.done()) {
    RETURN_IF_ERROR(stop.Check());
    context_.queue->Step();
    RETURN_IF_ERROR(CheckStepTime(batch, start, context_.queue->now()));
  }
  if (profiled) {
    for (int layer = 0; layer < shape_.layers; ++layer) {
      ProfileLayer(*context_.costs, context_.expert_cost_scale, routing_->placement(), Layer{layer},
                   layers[layer].tokens_per_slot, profiler_);
    }
  }
  if (rebalancer_ != nullptr) rebalancer_->StepEnded(batch.tokens, context_.queue->now() - start);
  const StepRecord record{.start = start,
                          .finish = context_.queue->now(),
                          .batch = &batch,
                          .layers = layers,
                          .expert_time = expert_time_,
                          .routing = policy_ == nullptr ? absl::Span<const LayerRouting>() : policy_->layers()};
  for (Observer* observer : context_.observers) observer->OnStepEnd(record);
  return absl::OkStatus();
}

absl::Status Replay(StepSource& source, absl::Span<Simulation* const> simulations, const SimulationOptions& options) {
  Workers workers(options.threads);
  for (int64_t steps = 0;; ++steps) {
    if (options.progress != nullptr) options.progress->Set(steps);
    RETURN_IF_ERROR(options.stop.Check());
    // No batching depends on time yet: every alternative gets the same steps.
    ASSIGN_OR_RETURN(const StepBatch* batch, source.Next(SimTime{}));
    if (batch == nullptr) return absl::OkStatus();
    for (Simulation* simulation : simulations) RETURN_IF_ERROR(simulation->RunStep(*batch, workers, options.stop));
  }
}

absl::StatusOr<RecordedLoad> RecordLoad(StepSource& source, int64_t steps, int layers, int experts, int max_rows,
                                        const SimulationOptions& options, const StepWatcher& watch,
                                        StepRouting* policy) {
  // On one rank with one slot an expert, tokens per slot are tokens per logical expert.
  const PlacementShape shape{.layers = layers, .experts = experts, .slots = experts, .ranks = 1};
  ReplicaTable table{.layers = layers, .ranks = 1, .experts = experts, .slot = {}};
  for (int layer = 0; layer < layers; ++layer) {
    for (int expert = 0; expert < experts; ++expert) table.slot.push_back(static_cast<uint16_t>(expert));
  }
  const std::unique_ptr<TokenRouting> routing = NewTokenRouting(shape, table);
  Workers workers(options.threads);
  const size_t row_size = static_cast<size_t>(layers) * experts;
  RecordedLoad load;
  load.window.steps_per_row = 1;
  while (steps > max_rows * load.window.steps_per_row) load.window.steps_per_row *= 2;
  load.tokens.reserve(static_cast<size_t>((steps + load.window.steps_per_row - 1) / load.window.steps_per_row) *
                      row_size);
  std::vector<RoutedLayer> routed(layers);
  StepBatch whole;              // The batch seen as one rank's.
  std::vector<int32_t> tokens;  // Of the step, for `watch`.
  for (; load.steps < steps; ++load.steps) {
    RETURN_IF_ERROR(options.stop.Check());
    ASSIGN_OR_RETURN(const StepBatch* batch, source.Next(SimTime{}));
    if (batch == nullptr) break;
    if (policy != nullptr) {
      ASSIGN_OR_RETURN(batch, policy->Route(*batch, workers.for_each()));
    }
    whole = *batch;
    whole.rank_begin = {0, batch->tokens};
    if (load.steps % load.window.steps_per_row == 0) load.tokens.resize(load.tokens.size() + row_size);
    double* const row = load.tokens.data() + load.tokens.size() - row_size;
    workers.ForEach(layers, [&](int layer) {
      if (options.stop.stop_requested()) return;
      routing->Count(whole, WholeBatch(whole), Layer(layer), &routed[layer]);
      for (int expert = 0; expert < experts; ++expert) {
        row[static_cast<size_t>(layer) * experts + expert] += routed[layer].tokens_per_slot[expert];
      }
    });
    RETURN_IF_ERROR(options.stop.Check());
    if (watch != nullptr) {
      tokens.clear();
      for (const RoutedLayer& layer : routed) {
        tokens.insert(tokens.end(), layer.tokens_per_slot.begin(), layer.tokens_per_slot.end());
      }
      watch(*batch, tokens);
    }
    if (options.progress != nullptr) options.progress->Set(load.steps);
  }
  load.window.rows = static_cast<int>(load.tokens.size() / row_size);
  load.window.layers = layers;
  load.window.experts = experts;
  load.window.tokens = load.tokens;
  return load;
}

}  // namespace epsim
