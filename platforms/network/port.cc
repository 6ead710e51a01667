#include "platforms/network/port.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "platforms/network/lanes.h"
#include "platforms/network/lone_phase.h"
#include "platforms/network/shared_link.h"

namespace epsim {
namespace {

constexpr SimTime kNoReport = SimTime::max();

// A phase, until all of its finishes are past.
struct Exchange {
  PhaseId id;
  StreamId stream;
  Network::Listener listener;
  std::vector<int64_t> traffic;          // [ranks, ranks]
  std::vector<SimTime> release, finish;  // [ranks]
  std::vector<int64_t> bytes;            // [lanes]
  std::vector<SimTime> begin;            // [lanes]: when the lane is free of the stream's earlier phases.
  std::vector<SimTime> lane_finish;      // [lanes]: meaningless where there are no bytes.
  std::vector<uint8_t> shared;           // [lanes]: whether its lane's SharedLink has been told of it.
  SimTime last_lane_finish, last_finish;
  LinkClass limiting;
  bool settled, reported, reporting;
  bool changed;  // lane_finish is newer than finish.
  SimTime report_at;
  uint64_t report;  // Counts scheduled reports: only the last is valid.
};

class PortNetwork : public Network {
 public:
  PortNetwork(const Cluster& cluster, EventQueue* queue)
      : lanes_(cluster),
        queue_(*queue),
        lone_(lanes_),
        shared_(lanes_.size()),
        bytes_on_link_(cluster.links().size()),
        limiting_(lanes_.link_class(Reach::kNode)) {}

  PhaseId Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                Listener listener) override;
  void Revise(PhaseId phase, absl::Span<const SimTime> release) override;
  absl::Span<const int64_t> bytes_on_link() const override { return bytes_on_link_; }
  LinkClass limiting_class() const override { return limiting_; }

 private:
  struct StreamState {
    StreamId stream;
    std::vector<SimTime> free;  // [lanes]: when the stream's phases so far have left the lane.
  };

  std::vector<SimTime>& FreeOf(StreamId stream);
  Exchange* Find(PhaseId phase);
  // Drops phases of which nothing is to come.
  void Forget();
  // What `exchange` offers to a lane from `from` on, in order of time.
  std::vector<OfferedWork> Offers(const Exchange& exchange, int lane, SimTime from) const;
  // Whether another stream's phase is still to use a lane that `exchange` uses.
  bool Contended(const Exchange& exchange, int lane) const;
  // Brings a lane's SharedLink up to now, with all phases that are still to use the lane except `newcomer`.
  void ServeShared(int lane, const Exchange* newcomer);
  // Has the new `exchange` share the lane with what is on it.
  void Share(Exchange* exchange, int lane);
  // Takes over the finishes of all phases on a lane's SharedLink.
  void SolveShared(int lane);
  // Brings the finishes of ranks in line with those of lanes, and has the changes reported.
  void Settle();
  void SolveRanks(Exchange* exchange, std::vector<SimTime>* finish) const;
  void ScheduleReport(Exchange* exchange, SimTime when);
  void Report(PhaseId phase, uint64_t report);

  const Lanes lanes_;
  EventQueue& queue_;
  LonePhase lone_;
  std::vector<SharedLink> shared_;  // [lanes]
  std::vector<int64_t> bytes_on_link_;
  LinkClass limiting_;
  std::vector<StreamState> streams_;
  std::vector<std::unique_ptr<Exchange>> live_;   // In order of Start.
  std::vector<std::unique_ptr<Exchange>> spare_;  // For their memory.
  std::vector<SimTime> rank_finish_, lane_finish_, told_;
  std::vector<int64_t> lane_bytes_;
  int64_t next_phase_ = 0;
};

std::vector<SimTime>& PortNetwork::FreeOf(StreamId stream) {
  for (StreamState& state : streams_) {
    if (state.stream == stream) return state.free;
  }
  streams_.push_back({stream, std::vector<SimTime>(lanes_.size())});
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
  const size_t ranks = lanes_.ranks();
  EPSIM_CHECK(traffic.ranks == lanes_.ranks() && traffic.bytes.size() == ranks * ranks);
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
  x.traffic.assign(traffic.bytes.begin(), traffic.bytes.end());
  for (size_t rank = 0; rank < ranks; ++rank) x.traffic[rank * (ranks + 1)] = 0;
  x.release.assign(release.begin(), release.end());
  x.begin = FreeOf(stream);
  x.bytes.resize(lanes_.size());
  x.lane_finish.resize(lanes_.size());
  x.shared.assign(lanes_.size(), false);
  x.settled = x.reported = x.reporting = false;
  x.report_at = kNoReport;
  x.report = 0;
  x.changed = true;
  lone_.Solve(x.traffic, x.release, x.begin, absl::MakeSpan(x.bytes), absl::MakeSpan(x.lane_finish));
  live_.push_back(std::move(exchange));

  const bool other_streams = std::any_of(live_.begin(), live_.end(), [&](const auto& other) {
    return other->stream != stream && other->last_lane_finish > queue_.now();
  });
  for (int lane = 0; lane < lanes_.size(); ++lane) {
    if (x.bytes[lane] == 0) continue;
    bytes_on_link_[Index(lanes_.link(lane))] += x.bytes[lane];
    if (other_streams && Contended(x, lane)) Share(&x, lane);
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
  for (int lane = 0; lane < lanes_.size(); ++lane) {
    if (!x->shared[lane]) continue;
    ServeShared(lane, nullptr);
    if (!shared_[lane].Has(x->id)) continue;
    shared_[lane].ReplaceOffersToCome(x->id, Offers(*x, lane, now));
    SolveShared(lane);
  }
  // The phase and those that follow it in its stream, on the lanes that they have to themselves.
  std::vector<SimTime> free = x->begin;
  lane_bytes_.resize(lanes_.size());
  lane_finish_.resize(lanes_.size());
  for (auto it = std::find_if(live_.begin(), live_.end(), [x](const auto& e) { return e.get() == x; });
       it != live_.end(); ++it) {
    Exchange& e = **it;
    if (e.stream != x->stream) continue;
    e.begin = free;
    lone_.Solve(e.traffic, e.release, e.begin, absl::MakeSpan(lane_bytes_), absl::MakeSpan(lane_finish_));
    for (int lane = 0; lane < lanes_.size(); ++lane) {
      if (e.bytes[lane] == 0) continue;
      if (!e.shared[lane] && e.lane_finish[lane] != lane_finish_[lane]) {
        e.lane_finish[lane] = lane_finish_[lane];
        e.changed = true;
      }
      free[lane] = e.lane_finish[lane];
    }
  }
  Settle();
}

std::vector<OfferedWork> PortNetwork::Offers(const Exchange& exchange, int lane, SimTime from) const {
  const Reach reach = lanes_.reach(lane);
  const int rank = lanes_.rank(lane);
  const double picoseconds_per_byte = lanes_.picoseconds_per_byte(reach);
  std::vector<OfferedWork> offers;
  if (lanes_.outgoing(lane)) {
    if (exchange.release[rank] >= from) {
      offers.push_back({exchange.release[rank], picoseconds_per_byte * static_cast<double>(exchange.bytes[lane])});
    }
    return offers;
  }
  const int ranks = lanes_.ranks(), node = rank / lanes_.ranks_per_node();
  std::vector<std::pair<SimTime, int64_t>> senders;
  for (int sender = 0; sender < ranks; ++sender) {
    const bool same_node = sender / lanes_.ranks_per_node() == node;
    const int64_t bytes = exchange.traffic[static_cast<size_t>(sender) * ranks + rank];
    if (bytes == 0 || same_node != (reach == Reach::kNode)) continue;
    if (exchange.release[sender] >= from) senders.emplace_back(exchange.release[sender], bytes);
  }
  std::sort(senders.begin(), senders.end());
  for (size_t i = 0; i < senders.size();) {
    const SimTime time = senders[i].first;
    int64_t bytes = 0;
    for (; i < senders.size() && senders[i].first == time; ++i) bytes += senders[i].second;
    offers.push_back({time, picoseconds_per_byte * static_cast<double>(bytes)});
  }
  return offers;
}

bool PortNetwork::Contended(const Exchange& exchange, int lane) const {
  return std::any_of(live_.begin(), live_.end(), [&](const auto& other) {
    return other->stream != exchange.stream && other->bytes[lane] > 0 && other->lane_finish[lane] > queue_.now();
  });
}

void PortNetwork::ServeShared(int lane, const Exchange* newcomer) {
  SharedLink& link = shared_[lane];
  const SimTime now = queue_.now();
  // What has had the lane to itself so far is served from its beginning, to know how much is left.
  std::vector<std::pair<Exchange*, std::vector<OfferedWork>>> known;
  for (const auto& other : live_) {
    if (other.get() == newcomer || other->bytes[lane] == 0 || other->shared[lane]) continue;
    if (other->lane_finish[lane] > now) known.emplace_back(other.get(), Offers(*other, lane, SimTime{}));
  }
  if (link.empty()) {
    SimTime begin = now;
    for (const auto& [other, offers] : known) begin = std::min(begin, offers.front().time);
    link.Begin(begin);
  }
  for (auto& [other, offers] : known) {
    link.Add(other->id, other->stream, other->begin[lane], std::move(offers));
    other->shared[lane] = true;
  }
  link.ServeUntil(now);
}

void PortNetwork::Share(Exchange* exchange, int lane) {
  ServeShared(lane, exchange);
  shared_[lane].Add(exchange->id, exchange->stream, queue_.now(), Offers(*exchange, lane, queue_.now()));
  exchange->shared[lane] = true;
  SolveShared(lane);
}

void PortNetwork::SolveShared(int lane) {
  shared_[lane].Solve([&](PhaseId phase, SimTime finish) {
    Exchange* const exchange = Find(phase);
    EPSIM_CHECK(exchange != nullptr);
    if (exchange->lane_finish[lane] == finish) return;
    exchange->lane_finish[lane] = finish;
    exchange->changed = true;
  });
}

void PortNetwork::Settle() {
  const SimTime now = queue_.now();
  for (const auto& exchange : live_) {
    Exchange& x = *exchange;
    std::vector<SimTime>& free = FreeOf(x.stream);
    x.last_lane_finish = SimTime{};
    for (int lane = 0; lane < lanes_.size(); ++lane) {
      if (x.bytes[lane] == 0) continue;
      free[lane] = x.lane_finish[lane];
      x.last_lane_finish = std::max(x.last_lane_finish, x.lane_finish[lane]);
    }
    if (!x.changed) continue;
    x.changed = false;
    SolveRanks(&x, &rank_finish_);
    if (x.settled) {
      for (size_t rank = 0; rank < rank_finish_.size(); ++rank) {
        EPSIM_CHECK(rank_finish_[rank] == x.finish[rank] || (rank_finish_[rank] >= now && x.finish[rank] >= now));
      }
      if (x.reported && rank_finish_ != x.finish) ScheduleReport(&x, now);
    }
    x.settled = true;
    std::swap(x.finish, rank_finish_);
    x.last_finish = *std::max_element(x.finish.begin(), x.finish.end());
    if (!x.reported) ScheduleReport(&x, *std::min_element(x.finish.begin(), x.finish.end()));
  }
}

void PortNetwork::SolveRanks(Exchange* exchange, std::vector<SimTime>* finish) const {
  const Exchange& x = *exchange;
  const int ranks = lanes_.ranks(), per_node = lanes_.ranks_per_node();
  // The latest and second latest of a list that grows.
  struct LatestTwo {
    SimTime first = SimTime::min(), second = SimTime::min();
    int holder = -1;
    void Add(SimTime time, int who) {
      if (time > first) {
        second = std::exchange(first, time);
        holder = who;
      } else if (time > second) {
        second = time;
      }
    }
    SimTime OfOthers(int who) const { return who == holder ? second : first; }
  };
  LatestTwo nodes;
  for (int node = 0; node < lanes_.nodes(); ++node) {
    const auto begin = x.release.begin() + node * per_node;
    nodes.Add(*std::max_element(begin, begin + per_node), node);
  }
  const Duration node_latency = lanes_.latency(Reach::kNode);
  const Duration network_latency = lanes_.reaches() > 1 ? lanes_.latency(Reach::kNetwork) : Duration(0);

  finish->resize(ranks);
  SimTime last = SimTime::min();
  for (int node = 0; node < lanes_.nodes(); ++node) {
    LatestTwo in_node;
    for (int rank = node * per_node; rank < (node + 1) * per_node; ++rank) in_node.Add(x.release[rank], rank);
    for (int rank = node * per_node; rank < (node + 1) * per_node; ++rank) {
      SimTime latest = x.release[rank];
      Reach reach = Reach::kNode;
      const auto wait_for = [&](SimTime time, Reach over) {
        if (time < latest) return;
        latest = time;
        reach = over;
      };
      if (per_node > 1) wait_for(in_node.OfOthers(rank) + node_latency, Reach::kNode);
      if (lanes_.nodes() > 1) wait_for(nodes.OfOthers(node) + network_latency, Reach::kNetwork);
      for (int r = 0; r < lanes_.reaches(); ++r) {
        for (bool outgoing : {true, false}) {
          const int lane = lanes_.index(Reach(r), outgoing, rank);
          if (x.bytes[lane] > 0) wait_for(x.lane_finish[lane] + lanes_.latency(Reach(r)), Reach(r));
        }
      }
      (*finish)[rank] = latest;
      if (latest > last) {
        last = latest;
        exchange->limiting = lanes_.link_class(reach);
      }
    }
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
