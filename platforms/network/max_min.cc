#include "platforms/network/max_min.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "platforms/network/flow.h"
#include "platforms/network/flow_network.h"
#include "platforms/network/flow_order.h"
#include "platforms/network/max_min_rates.h"

namespace epsim {
namespace {

// A dense phase has a million flows and takes hours.
constexpr int kMostRanks = 1024;
// Ends that are closer are the same instant, up to the rounding of sums of that length.
constexpr double kSameInstant = 1e-6, kSameInstantOfTime = 1e-14;

class MaxMinModel : public FlowModel {
 public:
  void Run(SimTime from, std::optional<SimTime> until, absl::Span<Flow> flows, absl::Span<double> end) override;
  double rounding() const override { return 0x1p-10; }
};

void MaxMinModel::Run(SimTime from, std::optional<SimTime> until, absl::Span<Flow> flows, absl::Span<double> end) {
  const auto after_from = [from](SimTime time) { return static_cast<double>((time - from).count()); };
  const double stop = until.has_value() ? after_from(*until) : kNotEnded;
  std::fill(end.begin(), end.end(), kNotEnded);

  FlowOrder order(flows);
  MaxMinRates rates(flows);
  std::vector<std::pair<double, int>> releases;  // To come, latest first.
  for (size_t i = 0; i < flows.size(); ++i) {
    releases.emplace_back(std::max(0.0, after_from(flows[i].release)), static_cast<int>(i));
  }
  std::sort(releases.begin(), releases.end(), std::greater<>());
  struct Progress {
    double work;       // Left
    double since = 0;  // at this time,
    double rate = 0;   // from then on.
    int place = -1;    // In `going`.
    bool released = false;

    double WorkAt(double time) const { return std::max(0.0, work - (time - since) * rate); }
  };
  std::vector<Progress> progress(flows.size());
  for (size_t i = 0; i < flows.size(); ++i) progress[i].work = flows[i].work;
  std::vector<int> going;   // Flows.
  std::vector<double> due;  // [going]: the end at the present rate.
  std::vector<int> ended, next;

  double now = 0;
  const auto begin = [&](int flow) {
    progress[flow].since = now;
    progress[flow].place = static_cast<int>(going.size());
    going.push_back(flow);
    due.push_back(kNotEnded);
    rates.Add(flow);
  };
  while (true) {
    while (!releases.empty() && releases.back().first <= now) {
      const int flow = releases.back().second;
      releases.pop_back();
      progress[flow].released = true;
      if (order.may_go(flow)) begin(flow);
    }
    rates.Fill([&](double rate, absl::Span<const int> changed) {
      const double picoseconds = 1 / rate;
      for (int flow : changed) {
        Progress& p = progress[flow];
        if (p.rate == rate) continue;
        p.work = p.WorkAt(now);
        p.since = now;
        p.rate = rate;
        due[p.place] = now + p.work * picoseconds;
      }
    });
    const double first_end = Least(due);
    const double first_release = releases.empty() ? kNotEnded : releases.back().first;
    const double event = std::min({first_end, first_release, stop});
    if (event == kNotEnded) break;
    now = event;
    const double ends_by = now + std::max(kSameInstant, now * kSameInstantOfTime);
    if (first_end <= ends_by) {
      ended.clear();
      for (size_t i = 0; i < going.size(); ++i) {
        if (due[i] <= ends_by) ended.push_back(going[i]);
      }
      for (int flow : ended) {
        const int place = progress[flow].place;
        end[flow] = due[place];
        progress[flow].work = progress[flow].rate = 0;
        progress[going.back()].place = place;
        going[place] = going.back();
        due[place] = due.back();
        going.pop_back();
        due.pop_back();
        rates.Remove(flow);
      }
      next.clear();
      for (int flow : ended) order.End(flow, &next);
      for (int flow : next) {
        if (progress[flow].released) begin(flow);
      }
    }
    if (now >= stop) break;
  }
  for (size_t i = 0; i < flows.size(); ++i) flows[i].work = progress[i].WorkAt(now);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Network>> NewMaxMinNetwork(const MaxMinNetworkConfig&, const Cluster& cluster,
                                                          EventQueue* queue) {
  if (cluster.ranks() > kMostRanks) {
    return absl::InvalidArgumentError(absl::StrCat("network.max_min: takes at most ", kMostRanks, " ranks, not ",
                                                   cluster.ranks(), "; network.port takes any number"));
  }
  return NewFlowNetwork(cluster, queue, std::make_unique<MaxMinModel>());
}

}  // namespace epsim
