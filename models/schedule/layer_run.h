// One MoE layer as it is laid out for one part of a batch: the operations of a serving engine, each waiting for what it
// needs.  The orders in which they are added are in layer_order.h.
#pragma once

#include <vector>

#include "models/schedule/program_builder.h"

namespace epsim {

// What the layers of a program have in common.
struct ProgramPlan {
  const ScheduleConfig& config;
  const ModelSpec& model;
  const ProgramFacts& facts;
  const BatchShape& shape;

  bool overlap_chunks() const { return config.external().chunk_overlap() && shape.chunks > 1; }
};

// A MoE layer, and the dense layers between it and the MoE layer before.
struct MoeLayer {
  int layer = 0, moe_layer = 0;
  std::vector<int> dense_layers = {};
};

// Attention and MLP of a dense layer.  Returns the MLP's place.
int AddDenseLayer(int layer, int part, std::vector<int> after, ProgramBuilder* builder);

class LayerRun {
 public:
  // What comes first waits for `inputs`.
  LayerRun(const ProgramPlan& plan, const MoeLayer& layer, int repeat, int part, std::vector<int> inputs,
           ProgramBuilder* builder);

  void AddDenseLayers();
  void AddAttention(AttentionStep step = AttentionStep::kAll);
  // The router of all chunks, and the all-reduce of their statistics.
  void AddRouter();
  // Nothing for a model without.
  void AddSharedExperts();
  // Nothing where it does not belong before dispatch.
  void AddEarlyQuantization(int chunk);
  // Nothing where there is none.
  void AddDispatch(int chunk);
  // With quantisation, where it belongs after dispatch.
  void AddExperts(int chunk);
  void AddCombine(int chunk);
  // Dispatch, experts and combine in one.
  void AddFusedExperts(int chunk);

  // What needs the layer's results waits for these.
  std::vector<int> outputs() const { return {combined_, shared_}; }

 private:
  int Add(StageKind kind, int chunk, bool beside_exchange, std::vector<int> after, bool lock_step = false);
  bool first_run() const { return repeat_ == 0 && part_ <= 1; }
  bool last_run() const;
  bool last_chunk(int chunk) const { return chunk == plan_.shape.chunks - 1; }
  // The chunk before, where the next one starts when its combine has ended.
  int chunk_before() const { return plan_.overlap_chunks() ? -1 : combined_; }

  const ProgramPlan plan_;
  const MoeLayer layer_;
  const int repeat_, part_;
  ProgramBuilder& builder_;
  std::vector<int> inputs_;  // What the router's way waits for next.
  int router_ = -1, shared_ = -1, combined_ = -1;
  std::vector<int> done_;  // [chunks]: the last operation of the chunk; the router before its first.
};

}  // namespace epsim
