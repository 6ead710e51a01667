// Runs flows in SimGrid for the `simgrid` network model, which talks to it over standard input (simgrid_wire.h).
//
// SimGrid computes in seconds with a fixed precision of 1e-9 and takes whole bytes.  Here its second is a microsecond
// and its byte a 1024th of one, so that neither is felt in a picosecond.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "platforms/network/flow_order.h"
#include "platforms/network/simgrid_wire.h"
#include "simgrid/s4u.hpp"

namespace epsim {
namespace {

namespace s4u = simgrid::s4u;

constexpr double kPicosecondsPerSecond = 1e6, kPartsPerByte = 1024;

class SimGrid {
 public:
  SimGrid(int64_t stations, const std::vector<double>& bandwidths, const std::vector<SimGridRoute>& routes);
  // As FlowModel::Run.
  void Run(SimTime from, double until, std::vector<Flow>* flows, std::vector<double>* end);

 private:
  // Gives links their bandwidth and flows their parts to send.
  void Scale(const std::vector<Flow>& flows);
  double now() const { return (s4u::Engine::get_clock() - begin_) * kPicosecondsPerSecond; }
  void Begin(int flow);
  void OnEnd(int flow);

  s4u::Engine engine_;
  std::vector<double> bandwidths_;  // [links]
  std::vector<s4u::Host*> hosts_;   // [stations]
  std::vector<s4u::Link*> links_;   // [links]

  // Of the run under way.
  double begin_ = 0;  // SimGrid's clock at its beginning.
  const std::vector<Flow>* flows_ = nullptr;
  FlowOrder* order_ = nullptr;
  std::vector<double>* end_ = nullptr;
  int active_ = 0;
  std::vector<uint8_t> released_;    // [flows]
  std::vector<double> parts_;        // [flows]
  std::vector<s4u::CommPtr> comms_;  // [flows]: null until it begins.
  std::vector<int> next_;
};

s4u::Engine NewEngine() {
  static std::vector<std::string> arguments = {"epsim_simgrid", "--log=root.thresh:error", "--cfg=network/model:CM02",
                                               "--cfg=network/crosstraffic:0", "--cfg=network/TCP-gamma:0"};
  static std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  static int count = static_cast<int>(arguments.size());
  return s4u::Engine(&count, pointers.data());
}

SimGrid::SimGrid(int64_t stations, const std::vector<double>& bandwidths, const std::vector<SimGridRoute>& routes)
    : engine_(NewEngine()), bandwidths_(bandwidths) {
  // Whoever interrupts the simulation interrupts the program that uses this one, and this ends with it.
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGTERM, SIG_IGN);
  s4u::NetZone* const zone = s4u::create_full_zone("cluster");
  for (int64_t i = 0; i < stations; ++i) hosts_.push_back(zone->create_host("station " + std::to_string(i), 1e9));
  for (size_t i = 0; i < bandwidths.size(); ++i) {
    const double parts_per_second = bandwidths[i] * kPartsPerByte / (1e12 / kPicosecondsPerSecond);
    links_.push_back(zone->create_link("link " + std::to_string(i), parts_per_second)->set_latency(0.0));
  }
  for (const SimGridRoute& route : routes) {
    std::vector<s4u::LinkInRoute> links;
    for (int64_t i = 0; i < route.link_count; ++i) links.emplace_back(links_[route.links[i]]);
    zone->add_route(hosts_[route.from]->get_netpoint(), hosts_[route.to]->get_netpoint(), nullptr, nullptr, links,
                    false);
  }
  zone->seal();
  s4u::Activity::on_completion_cb([this](const s4u::Activity& activity) {
    if (activity.get_state() != s4u::Activity::State::FINISHED) return;
    OnEnd(std::stoi(activity.get_name()));
  });
}

// A unit of work of a flow takes picoseconds / (1e12 / bandwidth) =: times of what it would take of the link's time at
// its full bandwidth.  With bandwidths times `scale` and work times `weight` that is weight = scale * times, on all
// links of a route; scales are chosen so as the flows come.
void SimGrid::Scale(const std::vector<Flow>& flows) {
  std::vector<double> scale(links_.size(), 0);
  parts_.resize(flows.size());
  for (size_t i = 0; i < flows.size(); ++i) {
    const auto times = [&](const FlowLink& link) { return link.picoseconds * bandwidths_[Index(link.link)] / 1e12; };
    double weight = 0;
    for (const FlowLink& link : flows[i].links()) weight = std::max(weight, scale[Index(link.link)] * times(link));
    if (weight == 0) weight = times(flows[i].links().front());
    for (const FlowLink& link : flows[i].links()) {
      double& chosen = scale[Index(link.link)];
      if (chosen == 0) chosen = weight / times(link);
    }
    parts_[i] = std::max(1.0, std::round(flows[i].work * weight * kPartsPerByte));
  }
  for (size_t i = 0; i < links_.size(); ++i) {
    const double parts_per_second = bandwidths_[i] * kPartsPerByte / (1e12 / kPicosecondsPerSecond);
    const double scaled = parts_per_second * (scale[i] == 0 ? 1 : scale[i]);
    if (links_[i]->get_bandwidth() != scaled) links_[i]->set_bandwidth(scaled);
  }
}

void SimGrid::Begin(int flow) {
  const Flow& f = (*flows_)[flow];
  const SimGridStations stations = StationsOf(f.source, f.destination, f.way);
  comms_[flow] = s4u::Comm::sendto_init(hosts_[stations.from], hosts_[stations.to]);
  comms_[flow]->set_name(std::to_string(flow));
  comms_[flow]->set_payload_size(static_cast<uint64_t>(parts_[flow]));
  comms_[flow]->start();
  ++active_;
}

void SimGrid::OnEnd(int flow) {
  (*end_)[flow] = now();
  --active_;
  next_.clear();
  order_->End(flow, &next_);
  for (int follower : next_) {
    if (released_[follower]) Begin(follower);
  }
}

void SimGrid::Run(SimTime from, double until, std::vector<Flow>* flows, std::vector<double>* end) {
  FlowOrder order(*flows);
  flows_ = flows;
  order_ = &order;
  end_ = end;
  end->assign(flows->size(), kNotEnded);
  begin_ = s4u::Engine::get_clock();
  comms_.assign(flows->size(), nullptr);
  Scale(*flows);
  std::vector<std::pair<double, int>> releases;  // To come, latest first.
  released_.assign(flows->size(), false);
  for (const Flow& flow : *flows) {
    const auto release = static_cast<double>((flow.release - from).count());
    releases.emplace_back(std::max(0.0, release), static_cast<int>(releases.size()));
  }
  std::sort(releases.begin(), releases.end(), std::greater<>());

  for (double reached = 0; reached < until;) {
    while (!releases.empty() && releases.back().first <= reached) {
      const int flow = releases.back().second;
      releases.pop_back();
      released_[flow] = true;
      if (order.may_go(flow)) Begin(flow);
    }
    const double next = std::min(releases.empty() ? kNotEnded : releases.back().first, until);
    if (active_ == 0) {
      // SimGrid's clock stands while there is nothing to do.
      if (next == kNotEnded) break;
      begin_ = s4u::Engine::get_clock() - next / kPicosecondsPerSecond;
    } else if (next == kNotEnded) {
      engine_.run();
      break;
    } else {
      engine_.run_until(begin_ + next / kPicosecondsPerSecond);
    }
    reached = next;
  }

  for (size_t i = 0; i < flows->size(); ++i) {
    double& work = (*flows)[i].work;
    if ((*end)[i] != kNotEnded) {
      work = 0;
    } else if (comms_[i] != nullptr) {
      work *= comms_[i]->get_remaining() / parts_[i];
      comms_[i]->cancel();
    }
  }
  // Takes the cancelled ones out; the clock stands.
  if (active_ > 0) engine_.run();
  active_ = 0;
  comms_.clear();
}

// Both end the program when the other side has gone.
template <typename T>
std::vector<T> ReceiveVector(int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  if (!ReceiveAll(STDIN_FILENO, values.data(), values.size() * sizeof(T))) std::exit(0);
  return values;
}
template <typename T>
void SendVector(const std::vector<T>& values) {
  if (!SendAll(STDIN_FILENO, values.data(), values.size() * sizeof(T))) std::exit(0);
}

int Main() {
  const SimGridPlatform platform = ReceiveVector<SimGridPlatform>(1)[0];
  const std::vector<double> bandwidths = ReceiveVector<double>(platform.links);
  const std::vector<SimGridRoute> routes = ReceiveVector<SimGridRoute>(platform.routes);
  SimGrid simgrid(platform.stations, bandwidths, routes);
  SendVector(std::vector<char>{1});  // Ready.
  while (true) {
    const SimGridRun run = ReceiveVector<SimGridRun>(1)[0];
    std::vector<Flow> flows = ReceiveVector<Flow>(run.flows);
    std::vector<double> end, left;
    simgrid.Run(run.from, run.until, &flows, &end);
    for (const Flow& flow : flows) left.push_back(flow.work);
    SendVector(left);
    SendVector(end);
  }
}

}  // namespace
}  // namespace epsim

int main() { return epsim::Main(); }
