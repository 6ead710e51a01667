// The orders in which serving engines launch the operations of MoE layers.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "models/schedule/layer_run.h"

namespace epsim {

// Adds `layers`, one after the other.  The first waits for `inputs`; what needs the last one's results waits for what
// is returned.
//
// One batch, exchanges between kernels: attention, router, shared experts, then for each chunk dispatch, experts,
// combine.  Where chunks overlap, chunk c + 1 is dispatched before the experts compute chunk c.
// One batch, exchange inside the kernel: attention, router, shared experts, then the chunks, in lock step.
// Two halves A and B, prefill (SGLang, operations_strategy: three stages a layer, both halves in turn):
//   shared experts of the layer before, attention, router, dispatch | experts, combine | ...
// Two halves, decode (five stages a layer, B two stages behind A):
//   attention, first step | second step, router | dispatch, shared experts | experts, combine | wait
std::vector<int> AddLayers(const ProgramPlan& plan, absl::Span<const MoeLayer> layers, int repeat,
                           std::vector<int> inputs, ProgramBuilder* builder);

}  // namespace epsim
