// What attention had to do in a captured step, worked out from what the trace knows of its tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "traces/workload/step_batch.h"

namespace epsim {

// The tokens of one step, in the order of the batch.  Each column has one entry a token, or is null: not recorded.
struct RecordedTokens {
  const uint32_t* position = nullptr;
  const uint32_t* request_index = nullptr;
  const uint8_t* phase = nullptr;
};

// Tokens of one request on one rank are one sequence.  Where requests are not recorded, a token starts a sequence
// unless it is not a decode token and its position follows that of the token before it.  Where positions are not
// recorded either, the tokens of a sequence are its first ones.  A sequence's context ends at its highest position.
// Outputs are the decode tokens, and one for each other sequence: a captured prefill is taken to end in its step.
class RecordedAttention {
 public:
  // The load of the tokens [begin, end), one rank's.
  AttentionLoad Of(const RecordedTokens& tokens, int64_t begin, int64_t end);

 private:
  struct Sequence {
    uint32_t request = 0;
    int64_t tokens = 0, decode_phase = 0, context = 0;
  };
  std::vector<Sequence> sequences_;
};

}  // namespace epsim
