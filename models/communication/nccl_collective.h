// NCCL's collectives: which bytes cross which links, and how long its kernels take.  Strategies exchange with them, and
// they can be asked by themselves.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/units.h"
#include "models/communication/exchange.h"
#include "models/timing/library_timing.h"
#include "platforms/cluster.h"

namespace epsim {

enum class NcclOperation { kAllGather, kReduceScatter, kAllReduce, kAllToAll };

// With n ranks on N nodes of L, w[r] the bytes that rank r contributes (all-gather) or keeps (reduce-scatter), W their
// sum, and p = W / n.
//
// Rings.  Rank r passes on to the next, r', all of W but w[r'] (all-gather) or all but w[r] (reduce-scatter); an
// all-reduce of W bytes is both, with w[r] = p.  Between nodes there are L rings with one L-th of the bytes each, which
// cross nodes over the NICs of different GPUs: ring j enters node i at its GPU (j - i) mod L and leaves it at the one
// before.  A rank sends (n - 1) p (L - 1) / L over NVLink and (n - 1) p / L over its NIC in each pass.
//
// Times, with l the latency of the longest route, a = launch + l, c = channel_bandwidth * channels, e =
// link_efficiency * bandwidth of NVLink or PCIe, m passes (2 for an all-reduce, else 1):
//   latency                 a + m (n - 1) hop + m (N - 1) l
//   low-latency protocol    latency + m (n - 1) p / low_latency_bandwidth
//   simple, over NVLink     latency + 2 hop + m (n - 1) (p / min(e, c) + min(p, window) / c)
//   simple, over PCIe       latency + m (n - 1) (p / e + window / (2 c))
//   reduction in NVSwitch   latency + W / (nvls_efficiency min(e, c)) + 2 (n - 1) min(p, window) / c
// whichever is the least; the last for an all-reduce of 16 MB and more in one NVLink domain of GPUs that can (from
// compute capability 90 on).  There every GPU sends and receives W (n + 1) / n, and where nodes are several the slower
// of NVLink and NICs counts.
//
// All-to-all: sends and receives in one group, straight to every peer.  With o[r] bytes that rank r sends or, if these
// are more, receives, p their mean for one peer:
//   latency                 a + (2 + (n - 2) / 4) hop
//   low-latency protocol    latency + max(o, s) / low_latency_bandwidth                p <= 16 KiB (NCCL's default)
//   simple                  latency + a + (n - 2) min(p, 4 MiB) / (2 c)
//                             + max(o (1 + spread_loss) / e, o n / (n - 1) / c)        over NVLink, n > 2 for the loss
//                             + max(o / e, s / socket_bandwidth)                       over PCIe
// Hosts without NVLink and with more than 4 GPUs have two sockets; s bytes pass from the half of the GPUs to the other.
//
// Forms and values were fitted to nccl-tests-like measurements of aiconfigurator on H100, B200 and RTX PRO 6000; NCCL's
// algorithms and protocols are as in its src/graph/tuning.cc.  What is between nodes is assumed: nothing is measured.
class NcclCollective {
 public:
  // The timing of the catalogue, with what `own` sets.  `cluster` must outlive the collective.
  static absl::StatusOr<NcclCollective> Create(const Cluster& cluster, const LibraryTiming& own,
                                               std::vector<std::string>* notes);

  // `contributed` and `kept`: bytes [ranks].  `exchange` is replaced.
  void AllGather(absl::Span<const int64_t> contributed, Exchange* exchange) const;
  void ReduceScatter(absl::Span<const int64_t> kept, Exchange* exchange) const;
  void AllReduce(Bytes size, Exchange* exchange) const;
  // The bytes of the exchange's traffic are given, the rest is replaced.
  void AllToAll(Exchange* exchange) const;
  // With sizes as nccl-tests state them: the gathered output, the whole input, the buffer, what one rank sends in all,
  // its own part included.
  void Run(NcclOperation operation, Bytes size, Exchange* exchange) const;

  // That its kernels hold: one a channel.
  int sms() const { return channels_; }
  // Of GPU memory: 4 MiB (NCCL_BUFFSIZE) for each channel of a rank and each rank that it receives from, which in rings
  // is one.
  Bytes buffers(NcclOperation operation) const;

 private:
  // In picoseconds, those of bandwidths a byte, as all times here.
  struct Protocol {
    double before = 0;    // Until the first byte is on a link, the latency of the longest route included.
    double per_byte = 0;  // Of a port inside a node.
    double network_efficiency = 1;
    double time = 0;  // Of an even exchange.
  };

  NcclCollective(const Cluster& cluster, const NcclTiming& timing);

  // W - skipped[r] bytes more are passed on to rank r (`to`), or by rank r.  [ranks]
  void AddRings(absl::Span<const int64_t> skipped, bool to, TrafficMatrix* traffic) const;
  // The times of rings with W = `size`, and where the switch reduces the traffic as well.
  void TimeRings(int passes, int64_t size, Exchange* exchange) const;
  // The most that passes between the sockets of each rank's host in one direction.  [ranks]
  std::vector<double> BytesBetweenSockets(const TrafficMatrix& traffic) const;
  void Apply(const Protocol& protocol, Exchange* exchange) const;

  const Cluster* cluster_;
  int ranks_, nodes_, per_node_;
  bool nvlink_, reduces_in_switch_;
  double latency_, launch_, hop_;
  double peak_ = 0, link_ = 0;  // Of NVLink or PCIe: all of its bandwidth, and what the simple protocol gets.
  double nic_ = 0;              // Of the NICs of a node, shared among its ranks.
  double low_latency_, channels_time_, socket_;
  double nvls_efficiency_, spread_loss_, network_efficiency_, window_;
  int channels_;
};

}  // namespace epsim
