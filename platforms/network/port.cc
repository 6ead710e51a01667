#include "platforms/network/port.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "platforms/network/lone_phase.h"
#include "platforms/network/phase_traffic.h"
#include "platforms/network/rank_finish.h"
#include "platforms/network/route_table.h"
#include "platforms/network/shared_link.h"

namespace epsim {
namespace {

constexpr SimTime kNoReport = SimTime::max();

// A phase, until all of its finishes are past.
struct Exchange {
  PhaseId id;
  StreamId stream;
  Network::Listener listener;
  PhaseTraffic traffic;
  std::vector<SimTime> release, finish;        // [ranks]
  std::vector<int64_t> bytes;                  // [links]
  std::vector<SimTime> begin;                  // [links]: when the link is free of the stream's earlier phases.
  std::vector<SimTime> link_finish;            // [links]: meaningless where there are no bytes.
  std::vector<uint8_t> shared;                 // [links]: whether its SharedLink has been told of it.
  std::vector<std::vector<FlowFinish>> flows;  // [links]: of the shared ones; or empty if none is.
  SimTime last_link_finish, last_finish;
  LinkClass limiting;
  bool settled, reported, reporting;
  bool changed;  // link_finish is newer than finish.
  SimTime report_at;
  uint64_t report;  // Counts scheduled reports: only the last is valid.
};

class PortNetwork : public Network {
 public:
  PortNetwork(const Cluster& cluster, EventQueue* queue)
      : cluster_(cluster),
        queue_(*queue),
        shared_(cluster.links().size()),
        bytes_on_link_(cluster.links().size()),
        limiting_(cluster.links().front().link_class) {}

  PhaseId Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                Listener listener) override;
  void Revise(PhaseId phase, absl::Span<const SimTime> release) override;
  absl::Span<const int64_t> bytes_on_link() const override { return bytes_on_link_; }
  LinkClass limiting_class() const override { return limiting_; }

 private:
  struct StreamState {
    StreamId stream;
    std::vector<SimTime> free;  // [links]: when the stream's phases so far have left the link.
  };

  const RouteTable& Routes(Way way);
  int links() const { return static_cast<int>(cluster_.links().size()); }
  std::vector<SimTime>& FreeOf(StreamId stream);
  Exchange* Find(PhaseId phase);
  // Drops phases of which nothing is to come.
  void Forget();
  // What `exchange` offers to a link from `from` on, in order of time.
  std::vector<OfferedFlow> Offers(const Exchange& exchange, int link, SimTime from) const;
  // Whether another stream's phase is still to use a link that `exchange` uses.
  bool Contended(const Exchange& exchange, int link) const;
  // Brings a link's SharedLink up to now, with all phases that are still to use the link except `newcomer`.
  void ServeShared(int link, const Exchange* newcomer);
  // Has the new `exchange` share the link with what is on it.
  void Share(Exchange* exchange, int link);
  // Takes over the finishes of all phases on a link's SharedLink.
  void SolveShared(int link);
  // Brings the finishes of ranks in line with those of links, and has the changes reported.
  void Settle();
  void ScheduleReport(Exchange* exchange, SimTime when);
  void Report(PhaseId phase, uint64_t report);

  const Cluster& cluster_;
  EventQueue& queue_;
  std::unique_ptr<const RouteTable> fastest_, network_;  // One for each Way, once it is used.
  LonePhase lone_;
  RankFinish solve_ranks_;
  std::vector<SharedLink> shared_;  // [links]
  std::vector<int64_t> bytes_on_link_;
  LinkClass limiting_;
  std::vector<StreamState> streams_;
  std::vector<std::unique_ptr<Exchange>> live_;   // In order of Start.
  std::vector<std::unique_ptr<Exchange>> spare_;  // For their memory.
  std::vector<SimTime> rank_finish_, link_finish_, told_;
  std::vector<int64_t> link_bytes_;
  int64_t next_phase_ = 0;
};

const RouteTable& PortNetwork::Routes(Way way) {
  std::unique_ptr<const RouteTable>& routes = way == Way::kFastest ? fastest_ : network_;
  if (routes == nullptr) routes = std::make_unique<const RouteTable>(cluster_, way);
  return *routes;
}

std::vector<SimTime>& PortNetwork::FreeOf(StreamId stream) {
  for (StreamState& state : streams_) {
    if (state.stream == stream) return state.free;
  }
  streams_.push_back({stream, std::vector<SimTime>(links())});
  return streams_.back().free;
}

Exchange* PortNetwork::Find(PhaseId phase) {
  for (const auto& exchange : live_) {
    if (exchange->id == phase) return exchange.get();
  }
  return nullptr;
}

void PortNetwork::Forget() {
  const SimTime now = queue_.now();
  std::erase_if(live_, [&](std::unique_ptr<Exchange>& exchange) {
    if (!exchange->reported || exchange->reporting || exchange->report_at != kNoReport || exchange->last_finish > now) {
      return false;
    }
    exchange->listener = nullptr;
    spare_.push_back(std::move(exchange));
    return true;
  });
}

PhaseId PortNetwork::Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                           Listener listener) {
  const size_t ranks = static_cast<size_t>(cluster_.ranks());
  EPSIM_CHECK(release.size() == ranks && *std::min_element(release.begin(), release.end()) >= queue_.now());
  Forget();

  std::unique_ptr<Exchange> exchange;
  if (spare_.empty()) {
    exchange = std::make_unique<Exchange>();
  } else {
    exchange = std::move(spare_.back());
    spare_.pop_back();
  }
  Exchange& x = *exchange;
  x.id = PhaseId(next_phase_++);
  x.stream = stream;
  x.listener = std::move(listener);
  x.traffic.Assign(traffic, Routes(traffic.way));
  x.release.assign(release.begin(), release.end());
  x.begin = FreeOf(stream);
  x.bytes.resize(links());
  x.link_finish.resize(links());
  x.shared.assign(links(), false);
  x.flows.clear();
  x.settled = x.reported = x.reporting = false;
  x.report_at = kNoReport;
  x.report = 0;
  x.changed = true;
  lone_.Solve(x.traffic, x.release, x.begin, absl::MakeSpan(x.bytes), absl::MakeSpan(x.link_finish));
  live_.push_back(std::move(exchange));

  const bool other_streams = std::any_of(live_.begin(), live_.end(), [&](const auto& other) {
    return other->stream != stream && other->last_link_finish > queue_.now();
  });
  for (int link = 0; link < links(); ++link) {
    if (x.bytes[link] == 0) continue;
    bytes_on_link_[link] += x.bytes[link];
    if (other_streams && Contended(x, link)) Share(&x, link);
  }
  Settle();
  return x.id;
}

void PortNetwork::Revise(PhaseId phase, absl::Span<const SimTime> release) {
  Forget();
  const SimTime now = queue_.now();
  Exchange* const x = Find(phase);
  EPSIM_CHECK(x != nullptr && !x->reported);
  EPSIM_CHECK(release.size() == x->release.size());
  for (size_t rank = 0; rank < release.size(); ++rank) {
    EPSIM_CHECK(release[rank] == x->release[rank] || (release[rank] >= now && x->release[rank] >= now));
  }
  x->release.assign(release.begin(), release.end());
  x->changed = true;
  for (int link = 0; link < links(); ++link) {
    if (!x->shared[link]) continue;
    ServeShared(link, nullptr);
    if (shared_[link].Has(x->id)) shared_[link].ReplaceFlowsToCome(x->id, Offers(*x, link, now));
    SolveShared(link);
  }
  // The phase and those that follow it in its stream, on the links that they have to themselves.
  std::vector<SimTime> free = x->begin;
  link_bytes_.resize(links());
  link_finish_.resize(links());
  for (auto it = std::find_if(live_.begin(), live_.end(), [x](const auto& e) { return e.get() == x; });
       it != live_.end(); ++it) {
    Exchange& e = **it;
    if (e.stream != x->stream) continue;
    e.begin = free;
    lone_.Solve(e.traffic, e.release, e.begin, absl::MakeSpan(link_bytes_), absl::MakeSpan(link_finish_));
    for (int link = 0; link < links(); ++link) {
      if (e.bytes[link] == 0) continue;
      if (!e.shared[link] && e.link_finish[link] != link_finish_[link]) {
        e.link_finish[link] = link_finish_[link];
        e.changed = true;
      }
      free[link] = e.link_finish[link];
    }
  }
  Settle();
}

std::vector<OfferedFlow> PortNetwork::Offers(const Exchange& exchange, int link, SimTime from) const {
  const double picoseconds_per_byte = exchange.traffic.picoseconds_per_byte(link);
  std::vector<OfferedFlow> flows;
  exchange.traffic.ForEachFlow(link, [&](int source, int destination, int64_t bytes) {
    const SimTime release = exchange.release[source];
    if (release < from) return;
    flows.push_back(
        {release, picoseconds_per_byte * static_cast<double>(bytes), source * cluster_.ranks() + destination});
  });
  std::stable_sort(flows.begin(), flows.end(),
                   [](const OfferedFlow& a, const OfferedFlow& b) { return a.time < b.time; });
  return flows;
}

bool PortNetwork::Contended(const Exchange& exchange, int link) const {
  return std::any_of(live_.begin(), live_.end(), [&](const auto& other) {
    return other->stream != exchange.stream && other->bytes[link] > 0 && other->link_finish[link] > queue_.now();
  });
}

void PortNetwork::ServeShared(int link, const Exchange* newcomer) {
  SharedLink& shared = shared_[link];
  const SimTime now = queue_.now();
  // What has had the link to itself so far is served from its beginning, to know how much is left.
  std::vector<std::pair<Exchange*, std::vector<OfferedFlow>>> known;
  for (const auto& other : live_) {
    if (other.get() == newcomer || other->bytes[link] == 0 || other->shared[link]) continue;
    if (other->link_finish[link] > now) known.emplace_back(other.get(), Offers(*other, link, SimTime{}));
  }
  if (shared.empty()) {
    SimTime begin = now;
    for (const auto& [other, offers] : known) begin = std::min(begin, offers.front().time);
    shared.Begin(begin);
  }
  for (auto& [other, offers] : known) {
    // What it still has to wait for is on the link too, and may change.
    shared.Add(other->id, other->stream, std::min(other->begin[link], now), std::move(offers));
    other->shared[link] = true;
  }
  if (!known.empty()) SolveShared(link);
  shared.ServeUntil(now);
}

void PortNetwork::Share(Exchange* exchange, int link) {
  ServeShared(link, exchange);
  shared_[link].Add(exchange->id, exchange->stream, queue_.now(), Offers(*exchange, link, queue_.now()));
  exchange->shared[link] = true;
  SolveShared(link);
}

void PortNetwork::SolveShared(int link) {
  shared_[link].Solve([&](PhaseId phase, SimTime finish, absl::Span<const FlowFinish> flows) {
    Exchange* const exchange = Find(phase);
    if (exchange == nullptr) return;  // All of it is past.
    exchange->flows.resize(links());
    // What has left the link may still be on its way.
    std::vector<FlowFinish>& known = exchange->flows[link];
    std::erase_if(known, [&](const FlowFinish& flow) { return flow.finish > shared_[link].served_until(); });
    known.insert(known.end(), flows.begin(), flows.end());
    exchange->link_finish[link] = finish;
    exchange->changed = true;
  });
}

void PortNetwork::Settle() {
  const SimTime now = queue_.now();
  for (const auto& exchange : live_) {
    Exchange& x = *exchange;
    std::vector<SimTime>& free = FreeOf(x.stream);
    x.last_link_finish = SimTime{};
    for (int link = 0; link < links(); ++link) {
      if (x.bytes[link] == 0) continue;
      free[link] = x.link_finish[link];
      x.last_link_finish = std::max(x.last_link_finish, x.link_finish[link]);
    }
    if (!x.changed) continue;
    x.changed = false;
    x.limiting =
        solve_ranks_.Solve(x.traffic, {x.release, x.begin, x.bytes, x.link_finish, x.shared, x.flows}, &rank_finish_);
    if (x.settled) {
      // What is past stays as it was told; what is to come is not before now.
      for (size_t rank = 0; rank < rank_finish_.size(); ++rank) {
        rank_finish_[rank] = x.finish[rank] < now ? x.finish[rank] : std::max(rank_finish_[rank], now);
      }
      if (x.reported && rank_finish_ != x.finish) ScheduleReport(&x, now);
    }
    x.settled = true;
    std::swap(x.finish, rank_finish_);
    x.last_finish = *std::max_element(x.finish.begin(), x.finish.end());
    if (!x.reported) ScheduleReport(&x, *std::min_element(x.finish.begin(), x.finish.end()));
  }
}

void PortNetwork::ScheduleReport(Exchange* exchange, SimTime when) {
  if (exchange->report_at == when) return;
  exchange->report_at = when;
  const PhaseId phase = exchange->id;
  const uint64_t report = ++exchange->report;
  queue_.Schedule(when, Phase::kComplete, [this, phase, report] { Report(phase, report); });
}

void PortNetwork::Report(PhaseId phase, uint64_t report) {
  Exchange* const x = Find(phase);
  if (x == nullptr || x->report != report) return;  // Overtaken by a later one.
  x->report_at = kNoReport;
  x->reported = x->reporting = true;
  limiting_ = x->limiting;
  told_ = x->finish;  // The listener may start phases that change what is still to come.
  x->listener(phase, told_);
  x->reporting = false;
}

}  // namespace

std::unique_ptr<Network> NewPortNetwork(const PortNetworkConfig&, const Cluster& cluster, EventQueue* queue) {
  return std::make_unique<PortNetwork>(cluster, queue);
}

}  // namespace epsim
