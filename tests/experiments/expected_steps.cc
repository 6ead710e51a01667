#include "tests/experiments/expected_steps.h"

#include <algorithm>
#include <cstring>

#include "engine/check.h"

namespace epsim {
namespace {

struct FileToken {
  int64_t step = 0;
  int source = 0;
  bool prefill = false;
  std::vector<std::vector<int>> experts;  // [layers]
};

std::vector<FileToken> ReadTokens(const TraceReader& trace) {
  const TraceHeader& header = trace.header();
  const size_t layers = header.layers(), top_k = header.top_k(), id_bytes = header.id_bytes();
  std::vector<FileToken> tokens;
  for (int64_t c = 0; c < trace.index().chunks_size(); ++c) {
    const TraceChunk chunk = trace.ReadChunk(c).value();
    for (size_t t = 0; t < static_cast<size_t>(chunk.tokens); ++t) {
      FileToken token;
      token.step = chunk.step;
      if (chunk.source_rank != nullptr) token.source = chunk.source_rank[t];
      if (chunk.phase != nullptr) token.prefill = chunk.phase[t] == PREFILL;
      for (size_t layer = 0; layer < layers; ++layer) {
        const size_t at = header.granularity() == REQUEST ? t * layers + layer : layer * chunk.tokens + t;
        std::vector<int>& experts = token.experts.emplace_back();
        for (size_t k = 0; k < (chunk.valid_count == nullptr ? top_k : chunk.valid_count[at]); ++k) {
          uint16_t id = 0;
          std::memcpy(&id, chunk.ids + (at * top_k + k) * id_bytes, id_bytes);
          experts.push_back(id);
        }
      }
      tokens.push_back(std::move(token));
    }
  }
  return tokens;
}

// The tokens of source s of S run on rank s * R / S; where R is more, its n tokens are dealt over its m = R / S ranks:
// the i-th has those from n * i / m on.
std::vector<ExpectedStep> Recorded(const TraceReader& trace, int ranks) {
  const int sources = static_cast<int>(trace.header().source_ranks());
  std::vector<std::vector<FileToken>> by_step;
  int64_t last = -1;
  for (FileToken& token : ReadTokens(trace)) {
    if (by_step.empty() || token.step != last) by_step.emplace_back();
    last = token.step;
    by_step.back().push_back(std::move(token));
  }
  std::vector<ExpectedStep> steps;
  for (const std::vector<FileToken>& tokens : by_step) {
    std::vector<int> total(sources), seen(sources);
    for (const FileToken& token : tokens) ++total[token.source];
    ExpectedStep& step = steps.emplace_back();
    for (const FileToken& token : tokens) {
      const int s = token.source, place = seen[s]++;
      int rank = s * ranks / sources;
      if (const int share = ranks / sources; share > 1) {
        int i = 0;
        while (total[s] * (i + 1) / share <= place) ++i;
        rank = s * share + i;
      }
      step.tokens.push_back({rank, token.experts});
    }
  }
  return steps;
}

// Places are filled in the order place 0 of every rank, place 1 of every rank...; a request gives its whole prefill to
// its first step and one token to each other.
std::vector<ExpectedStep> FromRequests(const TraceReader& trace, int ranks, int requests_per_rank, bool lock_step) {
  const std::vector<FileToken> tokens = ReadTokens(trace);
  struct Place {
    int64_t next = 0, end = 0;
    bool fresh = false;
  };
  std::vector<Place> places(static_cast<size_t>(ranks) * requests_per_rank);  // [requests_per_rank, ranks]
  const size_t requests = trace.requests().size();
  EPSIM_CHECK(requests >= places.size());
  std::vector<ExpectedStep> steps;
  for (size_t started = 0;;) {
    const size_t empty =
        std::count_if(places.begin(), places.end(), [](const Place& place) { return place.next == place.end; });
    if (lock_step ? empty == places.size() : empty > 0) {
      if (requests - started < empty) return steps;
      for (Place& place : places) {
        if (place.next < place.end) continue;
        const RequestInfo& request = trace.requests()[started++];
        place = {request.first_token(), request.first_token() + request.tokens(), true};
      }
    }
    ExpectedStep& step = steps.emplace_back();
    for (size_t p = 0; p < places.size(); ++p) {
      Place& place = places[p];
      if (place.next == place.end) continue;
      const bool prefill = tokens[place.next].prefill;
      EPSIM_CHECK(place.fresh || !prefill);
      do {
        step.tokens.push_back({static_cast<int>(p) % ranks, tokens[place.next++].experts});
      } while (prefill && place.next < place.end && tokens[place.next].prefill);
      place.fresh = false;
    }
  }
}

std::vector<ExpectedStep> FromCounts(const TraceReader& trace) {
  const size_t step_size = size_t{trace.header().layers()} * trace.header().experts();
  std::vector<ExpectedStep> steps;
  for (int64_t c = 0; c < trace.index().chunks_size(); ++c) {
    const TraceChunk chunk = trace.ReadChunk(c).value();
    for (int64_t s = 0; s < chunk.tokens; ++s) {
      steps.emplace_back().counts.assign(chunk.counts + s * step_size, chunk.counts + (s + 1) * step_size);
    }
  }
  return steps;
}

}  // namespace

std::vector<ExpectedStep> ExpectedSteps(const TraceReader& trace, const WorkloadConfig& workload, int ranks) {
  if (trace.header().granularity() == COUNTS) return FromCounts(trace);
  std::vector<ExpectedStep> steps;
  if (workload.has_continuous()) {
    steps = FromRequests(trace, ranks, static_cast<int>(workload.continuous().running_requests_per_rank()), false);
  } else if (workload.has_lock_step()) {
    steps = FromRequests(trace, ranks, static_cast<int>(workload.lock_step().requests_per_rank()), true);
  } else {
    steps = Recorded(trace, ranks);
  }
  const size_t experts = trace.header().experts();
  for (ExpectedStep& step : steps) {
    step.counts.assign(trace.header().layers() * experts, 0);
    for (const ExpectedToken& token : step.tokens) {
      for (size_t layer = 0; layer < token.experts.size(); ++layer) {
        for (const int expert : token.experts[layer]) ++step.counts[layer * experts + expert];
      }
    }
  }
  return steps;
}

}  // namespace epsim
