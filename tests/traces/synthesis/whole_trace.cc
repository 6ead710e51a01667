#include "tests/traces/synthesis/whole_trace.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/status_macros.h"

namespace epsim {

absl::StatusOr<WholeTrace> LoadWholeTrace(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> reader, TraceReader::Open(path));
  WholeTrace trace;
  trace.header = reader->header();
  trace.requests.assign(reader->requests().begin(), reader->requests().end());
  trace.layers = trace.header.layers();
  trace.experts = trace.header.experts();
  trace.top_k = trace.header.top_k();
  trace.tokens = reader->index().tokens();
  trace.steps = reader->index().steps();
  trace.ids.resize(trace.tokens * trace.layers * trace.top_k);
  size_t next_request = 0;
  for (int64_t c = 0; c < reader->index().chunks_size(); ++c) {
    ASSIGN_OR_RETURN(const TraceChunk chunk, reader->ReadChunk(c));
    for (int64_t t = 0; t < chunk.tokens; ++t) {
      const int64_t token = chunk.first_token + t;
      for (int l = 0; l < trace.layers; ++l) {
        const int64_t place = trace.header.granularity() == STEP ? l * chunk.tokens + t : t * trace.layers + l;
        for (int k = 0; k < trace.top_k; ++k) {
          const int64_t from = place * trace.top_k + k;
          trace.ids[(token * trace.layers + l) * trace.top_k + k] =
              trace.header.id_bytes() == 1 ? reinterpret_cast<const uint8_t*>(chunk.ids)[from]
                                           : reinterpret_cast<const uint16_t*>(chunk.ids)[from];
        }
      }
      if (chunk.position != nullptr) trace.position.push_back(chunk.position[t]);
      if (chunk.phase != nullptr) trace.phase.push_back(chunk.phase[t]);
      if (chunk.source_rank != nullptr) trace.source_rank.push_back(chunk.source_rank[t]);
      trace.step.push_back(chunk.step);
      if (trace.header.granularity() == REQUEST) {
        while (next_request < trace.requests.size() && trace.requests[next_request].first_token() <= token) {
          ++next_request;
        }
        trace.request.push_back(static_cast<uint32_t>(next_request - 1));
      } else if (chunk.request_index != nullptr) {
        trace.request.push_back(chunk.request_index[t]);
      }
    }
  }
  return trace;
}

std::vector<int64_t> ExpertCounts(const WholeTrace& trace, int layer, int64_t begin, int64_t end) {
  std::vector<int64_t> counts(trace.experts, 0);
  for (int64_t t = begin; t < end; ++t) {
    for (int k = 0; k < trace.top_k; ++k) ++counts[trace.at(t, layer)[k]];
  }
  return counts;
}

double Balancedness(const WholeTrace& trace, const std::vector<int64_t>& tokens, int ranks) {
  double sum = 0;
  for (int l = 0; l < trace.layers; ++l) {
    std::vector<int64_t> load(ranks, 0);
    for (int64_t t : tokens) {
      for (int k = 0; k < trace.top_k; ++k) ++load[trace.at(t, l)[k] * ranks / trace.experts];
    }
    const double mean = static_cast<double>(tokens.size()) * trace.top_k / ranks;
    sum += mean / static_cast<double>(*std::max_element(load.begin(), load.end()));
  }
  return sum / trace.layers;
}

std::vector<double> AdjacentOverlap(const WholeTrace& trace) {
  std::vector<double> result(trace.layers, 0.0);
  int64_t pairs = 0;
  std::map<uint32_t, int64_t> last;  // Request -> row.
  for (int64_t t = 0; t < trace.tokens; ++t) {
    const auto [entry, first] = last.try_emplace(trace.request[t], t);
    if (first) continue;
    ++pairs;
    for (int l = 0; l < trace.layers; ++l) {
      const uint16_t* const before = trace.at(entry->second, l);
      for (int k = 0; k < trace.top_k; ++k) {
        result[l] += std::find(before, before + trace.top_k, trace.at(t, l)[k]) != before + trace.top_k;
      }
    }
    entry->second = t;
  }
  for (double& x : result) x /= static_cast<double>(pairs * trace.top_k);
  return result;
}

std::vector<double> PopularityDistance(const WholeTrace& a, const WholeTrace& b) {
  std::vector<double> result;
  for (int l = 0; l < a.layers; ++l) {
    const std::vector<int64_t> x = ExpertCounts(a, l), y = ExpertCounts(b, l);
    double distance = 0;
    for (int e = 0; e < a.experts; ++e) {
      distance += std::abs(static_cast<double>(x[e]) / static_cast<double>(a.tokens * a.top_k) -
                           static_cast<double>(y[e]) / static_cast<double>(b.tokens * b.top_k)) /
                  2;
    }
    result.push_back(distance);
  }
  return result;
}

}  // namespace epsim
