#include "traces/statistics/trace_statistics.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/status_macros.h"

namespace epsim {
namespace {

// Tokens whose ids are counted before the next layer is: their rows and one layer's tables stay in the nearest cache.
constexpr int64_t kBlock = 64;

// Counts ids and the overlap of consecutive tokens.  Each token gets a serial number, one more than that of the token
// it follows and at least two more than that of any other before it; an id agrees with the previous token's where the
// last token that had it bears the number before.
class IdCounter {
 public:
  IdCounter(int layers, int experts, int top_k, int id_bytes)
      : layers_(layers),
        experts_(experts),
        top_k_(top_k),
        id_bytes_(id_bytes),
        tokens_of_expert_(static_cast<size_t>(layers) * static_cast<size_t>(experts)),
        last_serial_(tokens_of_expert_.size(), -1) {}

  // serial: [chunk.tokens].  `token_major`: the ids are [tokens, layers, top_k], else [layers, tokens, top_k].
  void Add(const TraceChunk& chunk, bool token_major, const std::vector<int64_t>& serial) {
    if (id_bytes_ == 1) {
      AddIds<uint8_t>(chunk, token_major, serial);
    } else {
      AddIds<uint16_t>(chunk, token_major, serial);
    }
  }

  int64_t agreeing_ids() const { return agreeing_ids_; }
  int64_t missing_ids() const { return missing_ids_; }
  int64_t tokens_missing_ids() const { return tokens_missing_ids_; }
  std::vector<uint64_t>& tokens_of_expert() { return tokens_of_expert_; }

 private:
  template <typename Id>
  void AddIds(const TraceChunk& chunk, bool token_major, const std::vector<int64_t>& serial) {
    const int64_t token_step = token_major ? layers_ : 1;
    const int64_t layer_step = token_major ? 1 : chunk.tokens;
    std::vector<bool> missing(static_cast<size_t>(chunk.valid_count == nullptr ? 0 : chunk.tokens));
    for (int64_t block = 0; block < chunk.tokens; block += kBlock) {
      const int64_t end = std::min(block + kBlock, chunk.tokens);
      for (int64_t layer = 0; layer < layers_; ++layer) {
        uint64_t* const tokens_of = tokens_of_expert_.data() + layer * experts_;
        int64_t* const last = last_serial_.data() + layer * experts_;
        for (int64_t t = block; t < end; ++t) {
          const int64_t cell = t * token_step + layer * layer_step;
          const std::byte* const ids = chunk.ids + cell * top_k_ * static_cast<int64_t>(sizeof(Id));
          int valid = top_k_;
          if (chunk.valid_count != nullptr && chunk.valid_count[cell] < top_k_) {
            valid = chunk.valid_count[cell];
            missing_ids_ += top_k_ - valid;
            missing[static_cast<size_t>(t)] = true;
          }
          for (int k = 0; k < valid; ++k) {
            Id id;
            std::memcpy(&id, ids + static_cast<size_t>(k) * sizeof(Id), sizeof(Id));
            ++tokens_of[id];
            agreeing_ids_ += last[id] == serial[static_cast<size_t>(t)] - 1 ? 1 : 0;
            last[id] = serial[static_cast<size_t>(t)];
          }
        }
      }
    }
    tokens_missing_ids_ += std::count(missing.begin(), missing.end(), true);
  }

  const int64_t layers_, experts_;
  const int top_k_, id_bytes_;
  std::vector<uint64_t> tokens_of_expert_;  // [layers, experts]
  std::vector<int64_t> last_serial_;        // [layers, experts], of the last token that had it.
  int64_t agreeing_ids_ = 0, missing_ids_ = 0, tokens_missing_ids_ = 0;
};

// Numbers the tokens of a trace in order, for IdCounter.
class TokenSerials {
 public:
  explicit TokenSerials(const TraceReader& trace) : trace_(trace) {}

  // serial()[t] of the tokens of the next chunk.
  void Next(const TraceChunk& chunk) {
    serial_.resize(static_cast<size_t>(chunk.tokens));
    const bool by_step = trace_.header().granularity() == STEP;
    for (int64_t t = 0; t < chunk.tokens; ++t) {
      bool follows;
      if (!by_step) {
        const int64_t row = chunk.first_token + t;
        while (next_request_ < trace_.requests().size() && trace_.requests()[next_request_].first_token() < row) {
          ++next_request_;
        }
        follows = any_ &&
                  !(next_request_ < trace_.requests().size() && trace_.requests()[next_request_].first_token() == row);
      } else {
        const bool same_step = any_ && chunk.step == last_step_;
        if (chunk.request_index != nullptr) {
          follows = same_step && had_request_ && chunk.request_index[t] == last_request_;
          last_request_ = chunk.request_index[t];
        } else {
          follows = same_step && !had_request_ && chunk.phase != nullptr && chunk.phase[t] == PREFILL;
        }
        had_request_ = chunk.request_index != nullptr;
        last_step_ = chunk.step;
      }
      any_ = true;
      last_serial_ += follows ? 1 : 2;
      if (follows) ++pairs_;
      serial_[static_cast<size_t>(t)] = last_serial_;
    }
  }

  const std::vector<int64_t>& serial() const { return serial_; }
  int64_t pairs() const { return pairs_; }

 private:
  const TraceReader& trace_;
  size_t next_request_ = 0;
  bool any_ = false, had_request_ = false;
  uint32_t last_request_ = 0;
  int64_t last_step_ = 0, last_serial_ = 0, pairs_ = 0;
  std::vector<int64_t> serial_;
};

void AddPhases(const TraceChunk& chunk, TraceStatistics* statistics) {
  if (chunk.phase == nullptr) {
    statistics->unknown_phase_tokens += chunk.tokens;
    return;
  }
  for (int64_t t = 0; t < chunk.tokens; ++t) {
    switch (chunk.phase[t]) {
      case PREFILL:
        ++statistics->prefill_tokens;
        break;
      case DECODE:
        ++statistics->decode_tokens;
        break;
      default:
        ++statistics->unknown_phase_tokens;
    }
  }
}

void AddCounts(const TraceChunk& chunk, TraceStatistics* statistics) {
  const size_t layers = static_cast<size_t>(statistics->layers), experts = static_cast<size_t>(statistics->experts);
  for (int64_t step = 0; step < chunk.tokens; ++step) {
    const uint32_t* counts = chunk.counts + static_cast<size_t>(step) * layers * experts;
    int64_t tokens = 0;
    for (size_t layer = 0; layer < layers; ++layer) {
      int64_t pairs = 0;
      for (size_t e = 0; e < experts; ++e) {
        pairs += counts[layer * experts + e];
        statistics->tokens_of_expert[layer * experts + e] += counts[layer * experts + e];
      }
      tokens = std::max(tokens, (pairs + statistics->top_k - 1) / statistics->top_k);
    }
    statistics->tokens += tokens;
  }
}

void Summarise(TraceStatistics* statistics) {
  const int experts = statistics->experts;
  std::vector<int> ranks;
  for (int r = 4; r <= experts; r *= 2) {
    if (experts % r == 0) ranks.push_back(r);
  }
  TraceStatistics::Skew skew;
  std::vector<double> balancedness(ranks.size());
  int used_layers = 0;
  for (int layer = 0; layer < statistics->layers; ++layer) {
    const uint64_t* tokens = statistics->tokens_of_expert.data() + static_cast<size_t>(layer) * experts;
    uint64_t sum = 0, most = 0;
    for (int e = 0; e < experts; ++e) {
      sum += tokens[e];
      most = std::max(most, tokens[e]);
    }
    if (sum == 0) continue;
    ++used_layers;
    const double layer_skew = static_cast<double>(most) * experts / static_cast<double>(sum);
    skew.mean += layer_skew;
    if (layer_skew > skew.worst) {
      skew.worst = layer_skew;
      skew.worst_layer = layer;
    }
    for (size_t i = 0; i < ranks.size(); ++i) {
      const int width = experts / ranks[i];
      uint64_t busiest = 0;
      for (int r = 0; r < ranks[i]; ++r) {
        uint64_t load = 0;
        for (int e = r * width; e < (r + 1) * width; ++e) load += tokens[e];
        busiest = std::max(busiest, load);
      }
      balancedness[i] += static_cast<double>(sum) / ranks[i] / static_cast<double>(busiest);
    }
  }
  if (used_layers == 0) return;
  skew.mean /= used_layers;
  statistics->skew = skew;
  for (size_t i = 0; i < ranks.size(); ++i) {
    statistics->balancedness.push_back({ranks[i], balancedness[i] / used_layers});
  }
}

}  // namespace

absl::StatusOr<TraceStatistics> MeasureTrace(const TraceReader& trace, const StopToken& stop, Progress* progress) {
  const TraceHeader& header = trace.header();
  TraceStatistics statistics;
  statistics.layers = static_cast<int>(header.layers());
  statistics.experts = static_cast<int>(header.experts());
  statistics.top_k = static_cast<int>(header.top_k());
  statistics.tokens = trace.index().tokens();
  statistics.steps = trace.index().steps();
  statistics.requests = static_cast<int64_t>(trace.requests().size());
  for (const RequestInfo& request : trace.requests()) {
    ++statistics.requests_of_domain[request.domain()];
    statistics.longest_request = std::max(statistics.longest_request, request.tokens());
  }
  const bool counts_only = header.granularity() == COUNTS;
  if (counts_only) {
    statistics.tokens = 0;
    statistics.tokens_of_expert.resize(static_cast<size_t>(statistics.layers) *
                                       static_cast<size_t>(statistics.experts));
  }
  IdCounter counter(statistics.layers, statistics.experts, statistics.top_k, static_cast<int>(header.id_bytes()));
  TokenSerials serials(trace);
  for (int64_t i = 0; i < trace.index().chunks_size(); ++i) {
    RETURN_IF_ERROR(stop.Check());
    if (progress != nullptr) progress->Set(i);
    ASSIGN_OR_RETURN(const TraceChunk chunk, trace.ReadChunk(i));
    if (counts_only) {
      AddCounts(chunk, &statistics);
      continue;
    }
    serials.Next(chunk);
    counter.Add(chunk, header.granularity() == REQUEST, serials.serial());
    AddPhases(chunk, &statistics);
    statistics.has_position |= chunk.position != nullptr;
    statistics.has_request |= chunk.request_index != nullptr;
    statistics.has_source_rank |= chunk.source_rank != nullptr;
    statistics.has_gate_weights |= chunk.gate_weights != nullptr;
    statistics.has_scores |= chunk.scores != nullptr;
  }
  if (!counts_only) {
    statistics.missing_ids = counter.missing_ids();
    statistics.tokens_missing_ids = counter.tokens_missing_ids();
    statistics.tokens_of_expert = std::move(counter.tokens_of_expert());
    if (serials.pairs() > 0) {
      const double ids = static_cast<double>(serials.pairs()) * statistics.layers * statistics.top_k;
      statistics.overlap = {static_cast<double>(counter.agreeing_ids()) / ids,
                            static_cast<double>(statistics.top_k) / statistics.experts, serials.pairs()};
    }
  }
  Summarise(&statistics);
  return statistics;
}

}  // namespace epsim
