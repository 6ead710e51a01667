#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// The choice that a serving engine makes by itself.
//
// TENSORRT_LLM (CommunicationFactory): the first that is feasible of nvlink_one_sided, nvlink_two_sided, deepep_normal,
// deepep_low_latency, allgather_reducescatter; after nvlink_one_sided straight to the last if the ranks do not divide
// the experts.  Its optional NCCL EP library, between the second and the third, is taken as not installed.
// deepep_normal quantises after dispatch unless tokens are NVFP4; deepep_low_latency takes max_tokens_per_rank of the
// setup.  The first forward pass that the strategy cannot take switches to allgather_reducescatter for the rest of the
// run.  (Without data-parallel attention the engine exchanges nothing: all_reduce is then to be chosen by name.)
//
// SGLANG (--deepep-mode auto, DeepEPMode.resolve): both of DeepEP's kernels at hand, normal for passes with prompts on
// any rank, low_latency for decode, which fails where its buffers do not take the batch.  Where only one of them is
// feasible it runs all passes.  The buffers are those of both.
//
// Fails, with every strategy's reason, if none is feasible.
absl::StatusOr<std::unique_ptr<Communication>> NewAutomatic(const AutomaticCommunication& config,
                                                            const CommunicationSetup& setup, const LibraryTiming& own);

}  // namespace epsim
