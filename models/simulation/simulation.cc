#include "models/simulation/simulation.h"

#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/schedule/schedule_config.h"
#include "models/simulation/step_work.h"

namespace epsim {
namespace {

// Threads for the layers of a step.
class Workers {
 public:
  explicit Workers(int threads)
      : limit_(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads)), arena_(threads) {}

  // body(i) for 0 <= i < n.  The bodies write to places of their own.
  template <typename Body>
  void ForEach(int n, const Body& body) {
    if (arena_.max_concurrency() == 1) {
      for (int i = 0; i < n; ++i) body(i);
    } else {
      arena_.execute([&] { tbb::parallel_for(0, n, body); });
    }
  }

 private:
  tbb::global_control limit_;  // More threads than cores are allowed: the number asked for is the number used.
  tbb::task_arena arena_;
};

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

// The programs that steps have needed, as a program can be long and a run has few shapes of batch.
class ProgramStore {
 public:
  // Valid until the next call.
  const Program& Get(const ForwardContext& context, const ProgramFacts& facts, const BatchShape& shape) {
    for (const Entry& entry : entries_) {
      if (entry.facts == facts && entry.shape == shape) return entry.program;
    }
    if (entries_.size() == kMost) entries_.pop_front();
    entries_.push_back({facts, shape, MakeProgram(context.schedule, *context.model, facts, shape)});
    return entries_.back().program;
  }

 private:
  static constexpr size_t kMost = 16;
  struct Entry {
    ProgramFacts facts;
    BatchShape shape;
    Program program;
  };
  std::deque<Entry> entries_;
};

}  // namespace

absl::Status Simulate(const ForwardContext& context, const PlacementShape& shape, const TokenRouting& routing,
                      StepSource& source, const SimulationOptions& options) {
  const int layers = shape.layers;
  Workers workers(options.threads);
  StepWork work;
  std::vector<RoutedLayer> whole;  // Where a layer has several pieces.
  std::vector<Duration> expert_time(static_cast<size_t>(layers) * shape.ranks);
  const bool quantizes = context.costs->Quantize(1).time > Duration{};
  ProgramStore programs;
  ForwardPass pass(context);
  int64_t steps = 0;
  while (true) {
    RETURN_IF_ERROR(options.stop.Check());
    ASSIGN_OR_RETURN(const StepBatch* batch, source.Next(context.queue->now()));
    if (batch == nullptr) return absl::OkStatus();
    absl::StatusOr<BatchSplit> split = SplitBatch(context.schedule, *batch);
    if (!split.ok()) return OfStep(*batch, split.status());
    const absl::Status admitted = context.communication->Admit(
        {.max_tokens_per_rank = split->max_tokens_per_rank,
         .chunks = split->shape.chunks,
         .prefill = std::any_of(batch->attention.begin(), batch->attention.end(),
                                [](const AttentionLoad& load) { return load.decode_tokens < load.tokens; })});
    if (!admitted.ok()) return OfStep(*batch, admitted);
    const ProgramFacts facts = FactsOf(context.schedule, *context.communication, quantizes);
    PrepareStep(
        *batch, *std::move(split),
        {.padding = context.schedule.has_external() ? context.schedule.external().padding() : ExternalSchedule::NEVER,
         .gathers_rows = GathersRows(*context.communication),
         .has_dispatch = facts.has_dispatch,
         .quantizes_received = facts.quantization == Quantization::kAfterDispatch},
        layers, &work);
    const bool in_pieces = work.pieces() > 1 || work.padded;
    whole.resize(in_pieces ? layers : 0);
    workers.ForEach(layers, [&](int layer) {
      if (options.stop.stop_requested()) return;
      RouteLayer(routing, *context.costs, *context.cluster, shape, layer, &work);
      if (in_pieces) AddUpPieces(work, layer, &whole[layer]);
      for (int rank = 0; rank < shape.ranks; ++rank) {
        Duration& time = expert_time[static_cast<size_t>(layer) * shape.ranks + rank];
        time = Duration{};
        for (int piece = layer * work.pieces(); piece < (layer + 1) * work.pieces(); ++piece) {
          time += work.expert_costs[static_cast<size_t>(piece) * shape.ranks + rank].time;
        }
      }
    });
    RETURN_IF_ERROR(options.stop.Check());
    const SimTime start = context.queue->now();
    pass.Begin(programs.Get(context, facts, work.split.shape), work);
    while (!pass.done()) {
      RETURN_IF_ERROR(options.stop.Check());
      context.queue->Step();
      RETURN_IF_ERROR(CheckStepTime(*batch, start, context.queue->now()));
    }
    const StepRecord record{.start = start,
                            .finish = context.queue->now(),
                            .batch = batch,
                            .layers = in_pieces ? whole : work.routed,
                            .expert_time = expert_time};
    for (Observer* observer : context.observers) observer->OnStepEnd(record);
    if (options.progress != nullptr) options.progress->Set(++steps);
  }
}

absl::StatusOr<RecordedLoad> RecordLoad(StepSource& source, int64_t steps, int layers, int experts, int max_rows,
                                        const SimulationOptions& options, CoActivationRecorder* co_activation) {
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
  StepBatch whole;  // The batch seen as one rank's.
  for (; load.steps < steps; ++load.steps) {
    RETURN_IF_ERROR(options.stop.Check());
    ASSIGN_OR_RETURN(const StepBatch* batch, source.Next(SimTime{}));
    if (batch == nullptr) break;
    if (co_activation != nullptr) co_activation->Add(*batch);
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
    if (options.progress != nullptr) options.progress->Set(load.steps);
  }
  load.window.rows = static_cast<int>(load.tokens.size() / row_size);
  load.window.layers = layers;
  load.window.experts = experts;
  load.window.tokens = load.tokens;
  return load;
}

}  // namespace epsim
