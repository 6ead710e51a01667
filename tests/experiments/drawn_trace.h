// A small routing trace drawn at random and kept in memory, so that a test knows what it holds and can change it before
// it is written in one of the forms that a replay reads.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace epsim {

struct DrawnToken {
  static constexpr int kLayers = 2, kExperts = 16, kTopK = 4;  // Of the model of SmallRun.

  std::array<std::array<int32_t, kTopK>, kLayers> ids;  // -1: not captured.
  uint16_t source = 0;                                  // Its rank, in a trace of steps.
  bool prefill = false;
};

using DrawnTrace = std::vector<std::vector<DrawnToken>>;  // [requests or steps], [tokens].

struct DrawRules {
  int parts = 48;  // Requests or steps.
  int least_tokens = 2, most_tokens = 30;
  int most_prefill = 0;  // The first tokens of a part are prefill: 0 to this many.
  int sources = 8;
  bool ragged = false;  // An id is dropped with probability 0.3, so that a token may have none at all.
  double skew = 4;      // The hottest expert of a layer is as many times as likely as its coldest.
  uint64_t seed = 1;
};

// No two tokens have the same ids.  Layer 0 is hottest at expert 0, layer 1 at expert 11; rank 0 is the source of a
// token twice as often as another.  The tokens of a part lie in the order of their sources.
DrawnTrace Draw(const DrawRules& rules);

// Tokens per expert.  [layers, experts]
std::vector<uint32_t> ExpertLoad(const std::vector<DrawnToken>& tokens);

struct TraceForm {
  int id_bytes = 1;
  bool zstd = true;
  int64_t chunk_bytes = int64_t{8} << 20;
};

void WriteRequests(const DrawnTrace& requests, const std::string& path, const TraceForm& form = {});
void WriteSteps(const DrawnTrace& steps, int source_ranks, const std::string& path, const TraceForm& form = {});
void WriteCounts(const DrawnTrace& steps, const std::string& path, const TraceForm& form = {});

}  // namespace epsim
