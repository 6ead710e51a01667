#include "platforms/network/lone_phase.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/check.h"
#include "platforms/network/lane_time.h"
#include "platforms/network/wide.h"

namespace epsim {

template <bool kMasked>
[[gnu::always_inline]] inline void LonePhase::OfferBlock(const Block& block) {
  constexpr int kWides = kBlock / 4;
  WideDouble k[kWides], offered[kWides], latest[kWides];
  WideInt rank[kWides];
  for (int w = 0; w < kWides; ++w) {
    std::memcpy(&k[w], block.picoseconds_per_byte + 4 * w, sizeof(WideDouble));
    offered[w] = latest[w] = WideDouble{};
    const int64_t first = block.first + 4 * w;
    rank[w] = WideInt{first, first + 1, first + 2, first + 3};
  }
  for (int i = 0; i < block.count; ++i) {
    const Row& row = block.rows[i];
#pragma GCC unroll 2
    for (int w = 0; w < kWides; ++w) {
      WideInt bytes;
      std::memcpy(&bytes, row.bytes + block.first + 4 * w, sizeof(bytes));
      if (kMasked) {
        const WideInt inside = (rank[w] >= row.near_begin) & (rank[w] < row.near_end);
        bytes &= block.near ? inside : ~inside;
      }
      // The double of 0 <= x < 2^52: as the low bits of 2^52's mantissa, which takes less than a conversion.
      offered[w] += (WideDouble)(bytes | 0x4330000000000000) - 0x1p52;
      const WideDouble finish = (WideDouble)((offered[w] > 0.0) & (WideInt)(row.time + k[w] * offered[w]));
      latest[w] = latest[w] > finish ? latest[w] : finish;
    }
  }
  for (int w = 0; w < kWides; ++w) {
    std::memcpy(block.offered + 4 * w, &offered[w], sizeof(WideDouble));
    std::memcpy(block.latest + 4 * w, &latest[w], sizeof(WideDouble));
  }
}

void LonePhase::OfferBlockBaseline(const Block& block, bool masked) {
  masked ? OfferBlock<true>(block) : OfferBlock<false>(block);
}
[[EPSIM_AVX2]] void LonePhase::OfferBlockAvx2(const Block& block, bool masked) {
  masked ? OfferBlock<true>(block) : OfferBlock<false>(block);
}

int LonePhase::ListRowsOf(int begin, int end) {
  places_.assign(place_.begin() + begin, place_.begin() + end);
  std::sort(places_.begin(), places_.end());
  for (size_t i = 0; i < places_.size(); ++i) some_[i] = rows_[places_[i]];
  return end - begin;
}

int LonePhase::ListRowsBut(int begin, int end) {
  places_.assign(place_.begin() + begin, place_.begin() + end);
  std::sort(places_.begin(), places_.end());
  auto to = some_.begin();
  auto from = rows_.begin();
  for (const int place : places_) {
    to = std::copy(from, rows_.begin() + place, to);
    from = rows_.begin() + place + 1;
  }
  std::copy(from, rows_.end(), to);
  return static_cast<int>(rows_.size()) - (end - begin);
}

void LonePhase::OfferPorts(const PhaseTraffic& traffic, const RouteTable::Port& port) {
  const RouteTable& routes = traffic.routes();
  const int ranks = routes.ranks();
  static const auto offer_block = HasAvx2() ? OfferBlockAvx2 : OfferBlockBaseline;
  const bool all = (port.near || !routes.has_near()) && (port.far || !routes.has_far());
  int listed_begin = -1, listed_end = -1, listed = 0;
  for (int first = 0; first < ranks; first += kBlock) {
    const int last = std::min(first + kBlock, ranks) - 1;
    double k[kBlock] = {}, offered[kBlock], latest[kBlock];
    for (int rank = first; rank <= last; ++rank) k[rank - first] = traffic.picoseconds_per_byte(port.in(rank));
    Block block{rows_.data(), ranks, first, port.near, k, offered, latest};
    bool masked = false;
    if (!all) {
      // The nodes of the block: only their ranks are near to it; if it is one node, the others are far to all of it.
      const int begin = routes.near_begin(first), end = routes.near_end(last);
      masked = end != routes.near_end(first);
      if (port.near || !masked) {
        if (begin != listed_begin || end != listed_end) {
          listed = port.near ? ListRowsOf(begin, end) : ListRowsBut(begin, end);
          listed_begin = begin;
          listed_end = end;
        }
        block.rows = some_.data();
        block.count = listed;
      }
    }
    offer_block(block, masked);
    for (int rank = first; rank <= last; ++rank) {
      offered_[port.in(rank)] = offered[rank - first];
      latest_[port.in(rank)] = latest[rank - first];
    }
  }
  for (int i = 0; i < ranks; ++i) {
    const int rank = order_[i].rank, out = port.out(rank);
    const int64_t bytes = (port.near ? traffic.sent_near(rank) : 0) + (port.far ? traffic.sent_far(rank) : 0);
    if (bytes > 0) Offer(out, static_cast<double>(bytes), rows_[i].time, traffic.picoseconds_per_byte(out));
  }
}

void LonePhase::OfferLink(const PhaseTraffic& traffic, int link) {
  // By place in order_.
  places_.clear();
  traffic.ForEachSource(link, [&](int source, int64_t bytes) {
    const int place = place_[source];
    if (sent_[place] == 0) places_.push_back(place);
    sent_[place] += bytes;
  });
  const double k = traffic.picoseconds_per_byte(link);
  double offered = 0, latest = 0;
  const auto offer = [&](int place) {
    const auto bytes = static_cast<double>(std::exchange(sent_[place], 0));
    offered += bytes;
    latest = std::max(latest, bytes > 0 ? rows_[place].time + k * offered : 0);
  };
  if (places_.size() < 16) {
    std::sort(places_.begin(), places_.end());
    for (const int place : places_) offer(place);
  } else {
    for (size_t place = 0; place < sent_.size(); ++place) offer(static_cast<int>(place));
  }
  offered_[link] = offered;
  latest_[link] = latest;
}

void LonePhase::Solve(const PhaseTraffic& traffic, absl::Span<const SimTime> release, absl::Span<const SimTime> free,
                      absl::Span<int64_t> bytes, absl::Span<SimTime> finish) {
  const RouteTable& routes = traffic.routes();
  const int ranks = routes.ranks();
  order_.resize(ranks);
  rows_.resize(ranks);
  some_.resize(ranks);
  sent_.resize(ranks);
  place_.resize(ranks);
  for (int rank = 0; rank < ranks; ++rank) order_[rank] = {release[rank], rank};
  std::sort(order_.begin(), order_.end(), [](const Sender& a, const Sender& b) {
    return a.release != b.release ? a.release > b.release : a.rank < b.rank;
  });
  const SimTime origin = order_.back().release;
  for (int i = 0; i < ranks; ++i) {
    const int rank = order_[i].rank;
    place_[rank] = i;
    rows_[i] = {traffic.row(rank), static_cast<double>((order_[i].release - origin).count()), routes.near_begin(rank),
                routes.near_end(rank)};
  }
  offered_.assign(routes.links(), 0.0);
  latest_.assign(routes.links(), 0.0);
  for (const RouteTable::Port& port : routes.ports()) OfferPorts(traffic, port);
  for (const int link : routes.shared()) OfferLink(traffic, link);
  if (traffic.has_from_host()) {
    for (const int link : routes.host_only()) OfferLink(traffic, link);
    // Ports that carry it besides.
    for (int rank = 0; rank < ranks; ++rank) {
      if (traffic.from_host(rank) == 0) continue;
      for (const Link link : routes.from_host(rank)) {
        if (routes.port_of(static_cast<int>(link)) >= 0) OfferLink(traffic, static_cast<int>(link));
      }
    }
  }

  for (int link = 0; link < routes.links(); ++link) {
    bytes[link] = static_cast<int64_t>(offered_[link]);
    if (bytes[link] == 0) continue;
    const double queued =
        static_cast<double>((free[link] - origin).count()) + traffic.picoseconds_per_byte(link) * offered_[link];
    finish[link] = RoundUpFrom(origin, std::max(queued, latest_[link]));
  }
}

}  // namespace epsim
