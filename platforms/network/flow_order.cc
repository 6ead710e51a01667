#include "platforms/network/flow_order.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {

FlowOrder::FlowOrder(absl::Span<const Flow> flows)
    : flows_(flows), waits_(flows.size()), line_of_stream_(flows.size(), -1) {
  struct Stream {
    StreamId id;
    PhaseId first_phase;
    int lines;  // -1: of one phase so far.
  };
  std::vector<Stream> streams;
  size_t links = 0;
  int lines = 0;
  const auto stream_of = [&](const Flow& flow) {
    return std::find_if(streams.begin(), streams.end(), [&](const Stream& s) { return s.id == flow.stream; });
  };
  for (const Flow& flow : flows) {
    for (const FlowLink& link : flow.links()) links = std::max(links, Index(link.link) + 1);
  }
  for (const Flow& flow : flows) {
    const auto stream = stream_of(flow);
    if (stream == streams.end()) {
      streams.push_back({flow.stream, flow.phase, -1});
    } else if (stream->lines < 0 && stream->first_phase != flow.phase) {
      stream->lines = lines;
      lines += static_cast<int>(links);
    }
  }
  if (lines == 0) return;

  lines_.resize(lines);
  for (size_t i = 0; i < flows.size(); ++i) {
    line_of_stream_[i] = stream_of(flows[i])->lines;
    for (size_t k = 0; k < flows[i].links().size(); ++k) {
      Line* const own = line(static_cast<int>(i), k);
      if (own == nullptr) break;
      if (own->groups.empty() || own->groups.back().phase != flows[i].phase) {
        EPSIM_CHECK(own->groups.empty() || own->groups.back().phase < flows[i].phase);
        own->groups.push_back({flows[i].phase, {}, 0});
      }
      own->groups.back().flows.push_back(static_cast<int>(i));
      ++own->groups.back().left;
      if (own->groups.size() > 1) ++waits_[i];
    }
  }
}

void FlowOrder::End(int flow, std::vector<int>* next) {
  EPSIM_CHECK(may_go(flow));
  for (size_t k = 0; k < flows_[flow].links().size(); ++k) {
    Line* const own = line(flow, k);
    if (own == nullptr) return;
    if (--own->groups[own->first].left > 0 || ++own->first == own->groups.size()) continue;
    for (int follower : own->groups[own->first].flows) {
      if (--waits_[follower] == 0) next->push_back(follower);
    }
  }
}

}  // namespace epsim
