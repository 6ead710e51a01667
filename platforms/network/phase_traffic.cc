#include "platforms/network/phase_traffic.h"

#include <algorithm>

#include "engine/check.h"
#include "platforms/network/wide.h"

namespace epsim {
namespace {

// Copies `count` numbers; returns their sum and adds every bit that was seen to `bits`.
[[gnu::always_inline]] inline int64_t CopyBytes(const int64_t* __restrict from, int count, int64_t* __restrict to,
                                                uint64_t* bits) {
  int64_t sum = 0;
  uint64_t seen = 0;
  for (int i = 0; i < count; ++i) {
    to[i] = from[i];
    sum += from[i];
    seen |= static_cast<uint64_t>(from[i]);
  }
  *bits |= seen;
  return sum;
}

// Copies row after row without the diagonal, and sums what is near and far.  Returns every bit that was seen.
struct Copy {
  const RouteTable& routes;
  const int64_t* from;
  int64_t* to;
  size_t stride;
  int64_t *near, *far;
};
[[gnu::always_inline]] inline uint64_t CopyRows(const Copy& copy) {
  const int ranks = copy.routes.ranks();
  uint64_t bits = 0;
  for (int source = 0; source < ranks; ++source) {
    const int64_t* const from = copy.from + static_cast<size_t>(source) * ranks;
    int64_t* const to = copy.to + source * copy.stride;
    const auto part = [&](int begin, int end) __attribute__((always_inline)) {
      return CopyBytes(from + begin, end - begin, to + begin, &bits);
    };
    // Around the diagonal, inside [begin, end) and outside.
    int begin = copy.routes.near_begin(source), end = copy.routes.near_end(source);
    if (begin == end) begin = source, end = source + 1;
    copy.near[source] = part(begin, source) + part(source + 1, end);
    copy.far[source] = part(0, begin) + part(end, ranks);
    to[source] = 0;
  }
  return bits;
}
using CopyFunction = decltype(CopyRows);
uint64_t CopyRowsBaseline(const Copy& copy) { return CopyRows(copy); }
[[EPSIM_AVX2]] uint64_t CopyRowsAvx2(const Copy& copy) { return CopyRows(copy); }

}  // namespace

void PhaseTraffic::Assign(const TrafficMatrix& traffic, const RouteTable& routes) {
  const size_t ranks = static_cast<size_t>(routes.ranks());
  EPSIM_CHECK(static_cast<size_t>(traffic.ranks) == ranks && traffic.bytes.size() == ranks * ranks);
  EPSIM_CHECK(traffic.from_host.empty() || (traffic.from_host.size() == ranks && routes.has_host()));
  EPSIM_CHECK(traffic.efficiency.node > 0 && traffic.efficiency.node <= 1);
  EPSIM_CHECK(traffic.efficiency.network > 0 && traffic.efficiency.network <= 1);
  const bool same_links = routes_ == &routes && efficiency_.node == traffic.efficiency.node &&
                          efficiency_.network == traffic.efficiency.network;
  const size_t stride = (ranks + 7) / 8 * 8;
  if (stride != stride_ || bytes_.size() != ranks * stride) bytes_.assign(ranks * stride, 0);
  stride_ = stride;
  routes_ = &routes;
  sent_near_.resize(ranks);
  sent_far_.resize(ranks);
  static CopyFunction* const copy_rows = HasAvx2() ? CopyRowsAvx2 : CopyRowsBaseline;
  uint64_t bits = copy_rows({routes, traffic.bytes.data(), bytes_.data(), stride, sent_near_.data(), sent_far_.data()});
  from_host_ = traffic.from_host;
  for (const int64_t bytes : from_host_) bits |= static_cast<uint64_t>(bytes);
  EPSIM_CHECK(bits >> 52 == 0);

  if (same_links) return;
  efficiency_ = traffic.efficiency;
  const absl::Span<const LinkSpec> links = routes.cluster().links();
  picoseconds_per_byte_.resize(links.size());
  for (size_t link = 0; link < links.size(); ++link) {
    const bool network = links[link].link_class >= LinkClass::kNic;
    const double efficiency = network ? traffic.efficiency.network : traffic.efficiency.node;
    picoseconds_per_byte_[link] = 1e12 / (static_cast<double>(links[link].bandwidth.count()) * efficiency);
  }
}

}  // namespace epsim
