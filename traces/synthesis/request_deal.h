// Which requests come: their domains in the configured shares, their lengths from each domain's list.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/random_stream.h"
#include "traces/synthesis/synthesis.pb.h"

namespace epsim {

class RequestDeal {
 public:
  struct Request {
    uint64_t id = 0;  // Counts from 0.
    int domain = 0;
    RequestLength length;
  };

  // `config` is valid and outlives this.
  explicit RequestDeal(const SynthesisConfig& config);

  // After any number of requests each domain has had its share of them within one request (for two domains; within
  // less than the number of domains for more), and each entry of its list as often as any other, within one.
  Request Next();

 private:
  struct Deck {
    double share;  // Of all requests; the shares sum to 1.
    uint64_t dealt = 0;
    std::vector<uint32_t> order;  // Of the list, for this pass.
  };

  const SynthesisConfig& config_;
  std::vector<Deck> decks_;
  uint64_t next_id_ = 0;
  RandomStream random_;
};

inline uint64_t RecordedTokens(const RequestLength& length) {
  return uint64_t{length.prefill_tokens()} + length.decode_tokens() + length.unknown_tokens();
}

}  // namespace epsim
