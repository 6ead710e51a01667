#include "platforms/network/flow_network.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "engine/check.h"
#include "platforms/network/lane_time.h"

namespace epsim {
namespace {

constexpr SimTime kNoReport = SimTime::max();

// The latest arrival of several flows, and the class of the link that made it late.
struct Last {
  SimTime time = SimTime::min();
  LinkClass limiting{};
};

// A phase, until all of its finishes are past.
struct Exchange {
  PhaseId id;
  Way way;
  Network::Listener listener;
  std::vector<SimTime> release;  // [ranks]
  std::vector<SimTime> heard;    // [ranks]: when the rank has heard from every other.
  std::vector<SimTime> arrived;  // [ranks]: the latest arrival of the flows that have ended.
  std::vector<SimTime> finish;   // [ranks]
  std::vector<double> time;      // [links]: picoseconds that all bytes of the phase take.
  Last last_ended;               // Of the flows that have ended.
  LinkClass limiting;
  bool solved = false, changed = true, reported = false, reporting = false;
  SimTime report_at = kNoReport;
  uint64_t report = 0;  // Counts scheduled reports: only the last is valid.
};

// The end of a flow, as it was told: rounded up, and by how much.
struct End {
  SimTime time = SimTime::max();
  double rounded_by = 0;
};

class FlowNetwork : public Network {
 public:
  FlowNetwork(const Cluster& cluster, EventQueue* queue, std::unique_ptr<FlowModel> model)
      : cluster_(cluster),
        queue_(*queue),
        model_(std::move(model)),
        bytes_on_link_(cluster.links().size()),
        limiting_(cluster.has_nvlink() ? LinkClass::kNvlink : LinkClass::kPcie) {}

  PhaseId Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                Listener listener) override;
  void Revise(PhaseId phase, absl::Span<const SimTime> release) override;
  absl::Span<const int64_t> bytes_on_link() const override { return bytes_on_link_; }
  LinkClass limiting_class() const override { return limiting_; }

 private:
  Exchange* Find(PhaseId phase);
  // Drops phases of which nothing is to come.
  void Forget();
  Route RouteOf(const Flow& flow) const;
  void AddFlow(const LinkEfficiency& efficiency, int64_t bytes, Flow flow, Exchange* exchange);
  void Hear(Exchange* exchange) const;
  // The last to be heard.
  Last LastHeard(const Exchange& exchange) const;
  // Notes the arrival of a flow that ends at `end`, in `arrived` [ranks] and as the last if it is.
  void Arrive(const Flow& flow, SimTime end, const Exchange& exchange, absl::Span<SimTime> arrived, Last* last) const;
  // Of the links of a route the one that took the longest for what the phase has put on it.
  LinkClass Slowest(const Route& route, const Exchange& exchange) const;
  // Brings the flows up to now and drops those that have ended.
  void Advance();
  // Runs the flows to their ends and has the finishes that change reported.
  void Solve();
  void SolveRanks(Exchange* exchange);
  void ScheduleReport(Exchange* exchange, SimTime when);
  void Report(PhaseId phase, uint64_t report);

  const Cluster& cluster_;
  EventQueue& queue_;
  const std::unique_ptr<FlowModel> model_;
  std::vector<int64_t> bytes_on_link_;
  LinkClass limiting_;
  std::vector<std::unique_ptr<Exchange>> live_;  // In order of Start.
  SimTime at_{};                                 // What flows_ is the state of.
  std::vector<Flow> flows_;                      // That have not ended, by phase.
  std::vector<End> ends_;                        // [flows]
  std::vector<Flow> run_;
  std::vector<double> run_ends_;
  std::vector<SimTime> told_;
  int64_t next_phase_ = 0;
};

Exchange* FlowNetwork::Find(PhaseId phase) {
  const auto found = std::find_if(live_.begin(), live_.end(), [phase](const auto& x) { return x->id == phase; });
  return found == live_.end() ? nullptr : found->get();
}

void FlowNetwork::Forget() {
  std::erase_if(live_, [now = queue_.now()](const auto& x) {
    return x->reported && !x->reporting && x->report_at == kNoReport &&
           *std::max_element(x->finish.begin(), x->finish.end()) <= now;
  });
}

Route FlowNetwork::RouteOf(const Flow& flow) const {
  if (flow.source == Flow::kFromHost) return cluster_.from_host(Rank(flow.destination));
  return cluster_.route(Rank(flow.source), Rank(flow.destination), flow.way);
}

void FlowNetwork::AddFlow(const LinkEfficiency& efficiency, int64_t bytes, Flow flow, Exchange* exchange) {
  EPSIM_CHECK(bytes >= 0 && bytes < int64_t{1} << 52);
  if (bytes == 0) return;
  const Route route = RouteOf(flow);
  const auto share_of = [&](Link link) {
    const LinkClass c = cluster_.links()[Index(link)].link_class;
    const bool above_node = c == LinkClass::kNic || c == LinkClass::kLeaf || c == LinkClass::kSpine;
    return above_node ? efficiency.network : efficiency.node;
  };
  const double first_share = share_of(route.links().front());
  flow.work = static_cast<double>(bytes) / first_share;
  for (Link link : route.links()) {
    const auto bytes_per_second = static_cast<double>(cluster_.links()[Index(link)].bandwidth.count());
    const double picoseconds = 1e12 / bytes_per_second * (first_share / share_of(link));
    flow.links_of_route[flow.link_count++] = {link, picoseconds};
    exchange->time[Index(link)] += picoseconds * flow.work;
    bytes_on_link_[Index(link)] += bytes;
  }
  flows_.push_back(flow);
  ends_.emplace_back();
}

PhaseId FlowNetwork::Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                           Listener listener) {
  const int ranks = cluster_.ranks();
  EPSIM_CHECK(traffic.ranks == ranks && traffic.bytes.size() == static_cast<size_t>(ranks) * ranks);
  EPSIM_CHECK(traffic.from_host.empty() || traffic.from_host.size() == static_cast<size_t>(ranks));
  EPSIM_CHECK(release.size() == static_cast<size_t>(ranks) &&
              *std::min_element(release.begin(), release.end()) >= queue_.now());
  for (double share : {traffic.efficiency.node, traffic.efficiency.network}) EPSIM_CHECK(share > 0 && share <= 1);
  Advance();
  Forget();

  auto exchange = std::make_unique<Exchange>();
  Exchange& x = *exchange;
  x.id = PhaseId(next_phase_++);
  x.way = traffic.way;
  x.listener = std::move(listener);
  x.release.assign(release.begin(), release.end());
  x.arrived.assign(ranks, SimTime{});
  x.time.resize(cluster_.links().size());
  const auto flow = [&](int source, int destination) {
    return Flow{.phase = x.id,
                .stream = stream,
                .source = source,
                .destination = destination,
                .way = traffic.way,
                .release = release[source == Flow::kFromHost ? destination : source],
                .work = 0,
                .links_of_route = {}};
  };
  for (int source = 0; source < ranks; ++source) {
    for (int destination = 0; destination < ranks; ++destination) {
      if (source == destination) continue;
      const int64_t bytes = traffic.bytes[static_cast<size_t>(source) * ranks + destination];
      AddFlow(traffic.efficiency, bytes, flow(source, destination), &x);
    }
  }
  for (size_t rank = 0; rank < traffic.from_host.size(); ++rank) {
    AddFlow(traffic.efficiency, traffic.from_host[rank], flow(Flow::kFromHost, static_cast<int>(rank)), &x);
  }
  Hear(&x);
  live_.push_back(std::move(exchange));
  Solve();
  return x.id;
}

void FlowNetwork::Revise(PhaseId phase, absl::Span<const SimTime> release) {
  Advance();
  Forget();
  Exchange* const x = Find(phase);
  EPSIM_CHECK(x != nullptr && !x->reported);
  EPSIM_CHECK(release.size() == x->release.size());
  const SimTime now = queue_.now();
  for (size_t rank = 0; rank < release.size(); ++rank) {
    EPSIM_CHECK(release[rank] == x->release[rank] || (release[rank] >= now && x->release[rank] >= now));
  }
  x->release.assign(release.begin(), release.end());
  x->changed = true;
  Hear(x);
  for (Flow& flow : flows_) {
    if (flow.phase != phase) continue;
    flow.release = release[flow.source == Flow::kFromHost ? flow.destination : flow.source];
  }
  Solve();
}

void FlowNetwork::Advance() {
  const SimTime now = queue_.now();
  if (now == at_) return;
  // The end that was told decides, not the last fraction of a picosecond.
  const bool left = std::any_of(ends_.begin(), ends_.end(), [now](const End& end) { return end.time > now; });
  if (left) {
    run_ends_.resize(flows_.size());
    model_->Run(at_, now, absl::MakeSpan(flows_), absl::MakeSpan(run_ends_));
  }
  at_ = now;
  size_t kept = 0;
  for (size_t i = 0; i < flows_.size(); ++i) {
    if (ends_[i].time > now) {
      flows_[kept] = flows_[i];
      ends_[kept++] = ends_[i];
    } else {
      Exchange* const x = Find(flows_[i].phase);
      EPSIM_CHECK(x != nullptr);
      Arrive(flows_[i], ends_[i].time, *x, absl::MakeSpan(x->arrived), &x->last_ended);
    }
  }
  flows_.resize(kept);
  ends_.resize(kept);
}

void FlowNetwork::Solve() {
  run_ = flows_;
  run_ends_.resize(run_.size());
  model_->Run(at_, std::nullopt, absl::MakeSpan(run_), absl::MakeSpan(run_ends_));
  Exchange* exchange = nullptr;
  for (size_t i = 0; i < flows_.size(); ++i) {
    EPSIM_CHECK(run_ends_[i] != kNotEnded);
    const SimTime time = RoundUpFrom(at_, run_ends_[i]);
    End& end = ends_[i];
    // What differs through rounding alone has not changed.
    const double later = static_cast<double>((at_ - end.time).count()) + run_ends_[i] + end.rounded_by;
    if (end.time != SimTime::max() && std::abs(later) <= model_->rounding()) continue;
    end = {time, static_cast<double>((time - at_).count()) - run_ends_[i]};
    if (exchange == nullptr || exchange->id != flows_[i].phase) exchange = Find(flows_[i].phase);
    EPSIM_CHECK(exchange != nullptr);
    exchange->changed = true;
  }
  for (const auto& x : live_) {
    if (std::exchange(x->changed, false)) SolveRanks(x.get());
  }
}

void FlowNetwork::Hear(Exchange* exchange) const {
  const int ranks = cluster_.ranks();
  exchange->heard = exchange->release;
  for (int source = 0; source < ranks; ++source) {
    for (int rank = 0; rank < ranks; ++rank) {
      if (source == rank) continue;
      const Duration latency = cluster_.route(Rank(source), Rank(rank), exchange->way).latency;
      exchange->heard[rank] = std::max(exchange->heard[rank], exchange->release[source] + latency);
    }
  }
}

LinkClass FlowNetwork::Slowest(const Route& route, const Exchange& exchange) const {
  const auto slowest = std::max_element(route.links().begin(), route.links().end(), [&](Link a, Link b) {
    return exchange.time[Index(a)] < exchange.time[Index(b)];
  });
  EPSIM_CHECK(slowest != route.links().end());
  return cluster_.links()[Index(*slowest)].link_class;
}

Last FlowNetwork::LastHeard(const Exchange& exchange) const {
  Last last;
  const auto rank = std::max_element(exchange.heard.begin(), exchange.heard.end()) - exchange.heard.begin();
  last.time = exchange.heard[rank];
  last.limiting = limiting_;
  for (int source = 0; source < cluster_.ranks(); ++source) {
    if (source == rank) continue;
    const Route route = cluster_.route(Rank(source), Rank(static_cast<int>(rank)), exchange.way);
    if (exchange.release[source] + route.latency == last.time) last.limiting = Slowest(route, exchange);
  }
  return last;
}

void FlowNetwork::Arrive(const Flow& flow, SimTime end, const Exchange& exchange, absl::Span<SimTime> arrived,
                         Last* last) const {
  const Route route = RouteOf(flow);
  const SimTime arrival = end + route.latency;
  if (flow.source != Flow::kFromHost) arrived[flow.source] = std::max(arrived[flow.source], arrival);
  arrived[flow.destination] = std::max(arrived[flow.destination], arrival);
  if (arrival > last->time) *last = {arrival, Slowest(route, exchange)};
}

void FlowNetwork::SolveRanks(Exchange* exchange) {
  Exchange& x = *exchange;
  const SimTime now = queue_.now();
  std::vector<SimTime> finish = x.arrived;
  Last last = x.last_ended;
  for (size_t i = 0; i < flows_.size(); ++i) {
    if (flows_[i].phase == x.id) Arrive(flows_[i], ends_[i].time, x, absl::MakeSpan(finish), &last);
  }
  for (size_t rank = 0; rank < finish.size(); ++rank) finish[rank] = std::max(finish[rank], x.heard[rank]);
  if (const Last heard = LastHeard(x); heard.time > last.time) last = heard;
  x.limiting = last.limiting;
  if (x.solved) {
    for (size_t rank = 0; rank < finish.size(); ++rank) {
      EPSIM_CHECK(finish[rank] == x.finish[rank] || (finish[rank] >= now && x.finish[rank] >= now));
    }
    if (x.reported && finish != x.finish) ScheduleReport(&x, now);
  }
  x.solved = true;
  x.finish = std::move(finish);
  if (!x.reported) ScheduleReport(&x, *std::min_element(x.finish.begin(), x.finish.end()));
}

void FlowNetwork::ScheduleReport(Exchange* exchange, SimTime when) {
  if (exchange->report_at == when) return;
  exchange->report_at = when;
  const PhaseId phase = exchange->id;
  const uint64_t report = ++exchange->report;
  queue_.Schedule(when, Phase::kComplete, [this, phase, report] { Report(phase, report); });
}

void FlowNetwork::Report(PhaseId phase, uint64_t report) {
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

std::unique_ptr<Network> NewFlowNetwork(const Cluster& cluster, EventQueue* queue, std::unique_ptr<FlowModel> model) {
  return std::make_unique<FlowNetwork>(cluster, queue, std::move(model));
}

}  // namespace epsim
