#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// All tokens to all ranks by NCCL's all-gather; every rank computes its experts for all of them, and a reduce-scatter
// sums the results on the way back.  What a rank contributes is
//   dispatch  tokens * (q + 8 K)   with experts and weights
//   combine   tokens * 2 H         bf16: NCCL sums while it passes on
// with q bytes of a dispatched activation, K top_k, H hidden; with pad_to_max all ranks count as many tokens as the
// fullest.  Links and times are those of nccl_collective.h: rings in which every rank passes on what all others
// contribute.  Always feasible.
//
// Buffers: R max_tokens_per_rank (q + 8 K + 2 H), all tokens gathered and the results that are to be scattered, and the
// channels of NCCL.
absl::StatusOr<std::unique_ptr<Communication>> NewAllGatherReduceScatter(
    const AllGatherReduceScatterCommunication& config, const CommunicationSetup& setup, const LibraryTiming& own);

}  // namespace epsim
