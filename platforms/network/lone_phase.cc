#include "platforms/network/lone_phase.h"

#include <algorithm>
#include <bit>

#include "engine/check.h"
#include "platforms/network/lane_time.h"

namespace epsim {
namespace {

// The double of 0 <= x < 2^52: as the low bits of 2^52's mantissa, a form that vectorizes where a conversion does not.
[[gnu::always_inline]] inline double ToDouble(int64_t x) {
  return std::bit_cast<double>(static_cast<uint64_t>(x) | 0x4330000000000000) - 0x1p52;
}

// One sender's bytes to `count` neighbouring lanes, offered at `time`, before all that has been offered to them so far.
// Returns the sum; `bits` collects every bit that was seen.
[[gnu::always_inline]] inline int64_t OfferRow(const int64_t* __restrict bytes, int count, double time,
                                               double picoseconds_per_byte, double* __restrict offered,
                                               double* __restrict latest, uint64_t* bits) {
  int64_t sum = 0;
  uint64_t seen = 0;
  for (int i = 0; i < count; ++i) {
    seen |= static_cast<uint64_t>(bytes[i]);
    sum += bytes[i];
    const double total = offered[i] + ToDouble(bytes[i]);
    const double finish = total > 0 ? time + picoseconds_per_byte * total : 0.0;
    offered[i] = total;
    latest[i] = latest[i] > finish ? latest[i] : finish;
  }
  *bits |= seen;
  return sum;
}

// The same arithmetic at the width of every x86-64 machine and of those with AVX2; without contraction the results are
// the same.
using OfferFunction = decltype(OfferRow);
int64_t OfferRowBaseline(const int64_t* bytes, int count, double time, double picoseconds_per_byte, double* offered,
                         double* latest, uint64_t* bits) {
  return OfferRow(bytes, count, time, picoseconds_per_byte, offered, latest, bits);
}
#if defined(__x86_64__)
[[gnu::target("avx2")]] int64_t OfferRowAvx2(const int64_t* bytes, int count, double time, double picoseconds_per_byte,
                                             double* offered, double* latest, uint64_t* bits) {
  return OfferRow(bytes, count, time, picoseconds_per_byte, offered, latest, bits);
}
OfferFunction* ChooseOffer() { return __builtin_cpu_supports("avx2") ? OfferRowAvx2 : OfferRowBaseline; }
#else
OfferFunction* ChooseOffer() { return OfferRowBaseline; }
#endif

}  // namespace

LonePhase::LonePhase(const Lanes& lanes)
    : lanes_(lanes), order_(lanes.ranks()), offered_(lanes.size()), latest_(lanes.size()) {}

void LonePhase::Solve(absl::Span<const int64_t> traffic, absl::Span<const SimTime> release,
                      absl::Span<const SimTime> free, absl::Span<int64_t> bytes, absl::Span<SimTime> finish) {
  const int ranks = lanes_.ranks();
  for (int rank = 0; rank < ranks; ++rank) order_[rank] = {release[rank], rank};
  std::sort(order_.begin(), order_.end(), [](const Sender& a, const Sender& b) {
    return a.release != b.release ? a.release > b.release : a.rank < b.rank;
  });
  std::fill(offered_.begin(), offered_.end(), 0.0);
  std::fill(latest_.begin(), latest_.end(), 0.0);

  static OfferFunction* const offer_row = ChooseOffer();
  const SimTime origin = order_.back().release;
  uint64_t bits = 0;
  for (const Sender& sender : order_) {
    const double time = static_cast<double>((sender.release - origin).count());
    const auto offer = [&](Reach reach, int begin, int end) {
      const int in = lanes_.row(reach, false) + begin;
      return offer_row(traffic.data() + static_cast<size_t>(sender.rank) * ranks + begin, end - begin, time,
                       lanes_.picoseconds_per_byte(reach), offered_.data() + in, latest_.data() + in, &bits);
    };
    const auto send = [&](Reach reach, int64_t sum) {
      const int out = lanes_.index(reach, true, sender.rank);
      offered_[out] = static_cast<double>(sum);
      latest_[out] = time + lanes_.picoseconds_per_byte(reach) * offered_[out];
    };
    const int node_begin = sender.rank / lanes_.ranks_per_node() * lanes_.ranks_per_node();
    const int node_end = node_begin + lanes_.ranks_per_node();
    send(Reach::kNode, offer(Reach::kNode, node_begin, node_end));
    if (lanes_.reaches() > 1) {
      send(Reach::kNetwork, offer(Reach::kNetwork, 0, node_begin) + offer(Reach::kNetwork, node_end, ranks));
    }
  }
  EPSIM_CHECK(bits >> 52 == 0);

  for (int lane = 0; lane < lanes_.size(); ++lane) {
    bytes[lane] = static_cast<int64_t>(offered_[lane]);
    if (bytes[lane] == 0) continue;
    const double queued = static_cast<double>((free[lane] - origin).count()) +
                          lanes_.picoseconds_per_byte(lanes_.reach(lane)) * offered_[lane];
    finish[lane] = RoundUpFrom(origin, std::max(queued, latest_[lane]));
  }
}

}  // namespace epsim
