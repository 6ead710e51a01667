// What one phase puts on the links: its matrix, copied in the form that is quick to work on, and how long a byte takes.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "platforms/network/network.h"
#include "platforms/network/route_table.h"

namespace epsim {

class PhaseTraffic {
 public:
  // `routes` is of the matrix's way and must outlive this.
  // REQUIRES: 0 <= bytes < 2^52 off the diagonal, and 0 < efficiency <= 1.
  void Assign(const TrafficMatrix& traffic, const RouteTable& routes);

  const RouteTable& routes() const { return *routes_; }
  // Bytes from a rank to all; zero on the diagonal and from `ranks` to `stride`, a multiple of 8.
  const int64_t* row(int source) const { return bytes_.data() + static_cast<size_t>(source) * stride_; }
  int64_t bytes(int source, int destination) const { return row(source)[destination]; }
  size_t stride() const { return stride_; }
  // Sum over the near (far) destinations of a source.
  int64_t sent_near(int source) const { return sent_near_[source]; }
  int64_t sent_far(int source) const { return sent_far_[source]; }
  bool has_from_host() const { return !from_host_.empty(); }
  int64_t from_host(int rank) const { return from_host_.empty() ? 0 : from_host_[rank]; }
  // Time that a byte takes on a link that serves it alone.
  double picoseconds_per_byte(int link) const { return picoseconds_per_byte_[link]; }

  // Calls visit(source, destination, bytes) for the flows on a link: the pairs with bytes whose route crosses it, by
  // source, then what comes from the host, which is its own source.
  template <typename Visit>
  void ForEachFlow(int link, Visit visit) const {
    routes_->ForEachRun(link, [&](const RouteTable::Run& run) {
      for (int destination = run.begin; destination < run.end; ++destination) {
        if (const int64_t b = bytes(run.source, destination); b > 0) visit(run.source, destination, b);
      }
    });
    if (from_host_.empty()) return;
    for (const int rank : routes_->host_users(link)) {
      if (from_host_[rank] > 0) visit(rank, rank, from_host_[rank]);
    }
  }
  // Calls visit(source, bytes) for what each source sends over a link, by source, maybe in parts, then what comes from
  // the host.
  template <typename Visit>
  void ForEachSource(int link, Visit visit) const {
    routes_->ForEachRun(link, [&](const RouteTable::Run& run) {
      const int64_t* const from = row(run.source);
      int64_t sum = 0;
      for (int destination = run.begin; destination < run.end; ++destination) sum += from[destination];
      if (sum > 0) visit(run.source, sum);
    });
    if (from_host_.empty()) return;
    for (const int rank : routes_->host_users(link)) {
      if (from_host_[rank] > 0) visit(rank, from_host_[rank]);
    }
  }
  // Of the route of a flow.
  Duration latency(int source, int destination) const {
    return source == destination ? routes_->host_latency(source) : routes_->latency(source, destination);
  }

 private:
  const RouteTable* routes_ = nullptr;
  size_t stride_ = 0;
  std::vector<int64_t> bytes_;                 // [ranks, stride]
  std::vector<int64_t> sent_near_, sent_far_;  // [ranks]
  std::vector<int64_t> from_host_;             // [ranks], or empty: none.
  LinkEfficiency efficiency_;
  std::vector<double> picoseconds_per_byte_;  // [links]
};

}  // namespace epsim
