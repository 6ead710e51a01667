// A run wired as experiments/run.cc wires it, with everything that happens in it written down: every stage, every
// exchange handed to the network, the counts of every layer and piece, and the bytes on every link after every step.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "experiments/assembly.h"
#include "experiments/plan.h"
#include "experiments/setup.h"
#include "models/routing/token_routing.h"
#include "models/schedule/stage.h"

namespace epsim {

struct SeenStage {
  StageKind kind;
  int layer, part, chunk, repeat;
  std::vector<SimTime> start, finish;  // [ranks]
};

// What was counted of one MoE layer of one piece of a step.
struct SeenPiece {
  int layer;
  TokenRange range;
  RoutedLayer routed;  // Without what is set after counting: padding.
};

struct SeenStep {
  int64_t index = 0;
  SimTime start, finish;
  std::vector<int32_t> rank_begin;              // [ranks + 1]
  std::vector<RoutedLayer> layers;              // [MoE layers]
  std::vector<std::vector<int32_t>> rows;       // [tokens], the ids of all layers, -1 where there is none.
  std::vector<SeenStage> stages;                // In the order they were told.
  std::vector<std::vector<int64_t>> exchanges;  // [started], bytes [ranks, ranks].
  std::vector<Way> ways;                        // [started]
  std::vector<SeenPiece> pieces;                // In the order they were counted.
  std::vector<int64_t> bytes_on_link;           // [links], since the start of the run.

  int tokens_of(int rank) const { return rank_begin[rank + 1] - rank_begin[rank]; }
};

struct WitnessedPlan {
  Placement placement;
  int64_t left_out_steps = 0, scored_steps = 0;
};

struct WitnessedRun {
  std::unique_ptr<Assembly> parts;
  std::unique_ptr<TraceReader> trace;
  WitnessedPlan plan;
  ReplicaTable table;
  std::vector<SeenStep> steps;  // Scored.
};

absl::StatusOr<WitnessedRun> Witness(const ResolvedExperiment& resolved);

}  // namespace epsim
