#include "platforms/network/max_min_rates.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int kUnfound = std::numeric_limits<int>::max();
constexpr size_t kGroupsBetweenCheckpoints = 8;
constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

// Several at once: one chain of comparisons would wait for each.
double Least(absl::Span<const double> values) {
  constexpr size_t kAtOnce = 8;
  double least[kAtOnce];
  std::fill(std::begin(least), std::end(least), kNever);
  size_t i = 0;
  for (; i + kAtOnce <= values.size(); i += kAtOnce) {
    for (size_t k = 0; k < kAtOnce; ++k) least[k] = values[i + k] < least[k] ? values[i + k] : least[k];
  }
  for (; i < values.size(); ++i) least[0] = std::min(least[0], values[i]);
  return *std::min_element(std::begin(least), std::end(least));
}

MaxMinRates::MaxMinRates(absl::Span<const Flow> flows) : there_(flows.size()), group_(flows.size(), kUnfound) {
  size_t links = 0;
  first_use_.reserve(flows.size() + 1);
  first_use_.push_back(0);
  for (const Flow& flow : flows) {
    for (const FlowLink& link : flow.links()) {
      uses_.push_back({static_cast<int>(Index(link.link)), link.picoseconds});
      links = std::max(links, Index(link.link) + 1);
    }
    first_use_.push_back(static_cast<int>(uses_.size()));
  }
  flows_on_link_.resize(links);
  checkpoints_.push_back({0, std::vector<LinkState>(links)});
}

// At the rate of the last group the links have room for everybody on them, the newcomer included.
bool MaxMinRates::StaysWith(const Checkpoint& checkpoint, int flow) const {
  if (checkpoint.groups == 0) return true;
  const double rate = groups_[checkpoint.groups - 1].rate;
  const absl::Span<const Use> route = uses(flow);
  return std::all_of(route.begin(), route.end(), [&](const Use& use) {
    const LinkState& link = checkpoint.links[use.link];
    return rate * (link.weight + use.picoseconds) <= link.room;
  });
}

void MaxMinRates::Add(int flow) {
  EPSIM_CHECK(!there_[flow]);
  there_[flow] = true;
  group_[flow] = kUnfound;
  while (!StaysWith(checkpoints_[kept_ - 1], flow)) --kept_;
  for (const Use& use : uses(flow)) {
    flows_on_link_[use.link].push_back(flow);
    for (size_t i = 0; i < kept_; ++i) {
      checkpoints_[i].links[use.link].weight += use.picoseconds;
      ++checkpoints_[i].links[use.link].unfound;
    }
  }
}

void MaxMinRates::Remove(int flow) {
  EPSIM_CHECK(there_[flow]);
  there_[flow] = false;
  while (checkpoints_[kept_ - 1].groups > static_cast<size_t>(group_[flow])) --kept_;
  for (const Use& use : uses(flow)) {
    for (size_t i = 0; i < kept_; ++i) {
      checkpoints_[i].links[use.link].weight -= use.picoseconds;
      --checkpoints_[i].links[use.link].unfound;
    }
  }
}

void MaxMinRates::KeepCheckpoint() {
  if (kept_ == checkpoints_.size()) checkpoints_.emplace_back();
  Checkpoint& next = checkpoints_[kept_++];
  next.groups = groups_.size();
  next.links = links_;
}

double MaxMinRates::FullAt(int link) const {
  const LinkState& state = links_[link];
  return state.unfound > 0 ? std::max(0.0, state.room) / state.weight : kNever;
}

void MaxMinRates::Find(int link, double rate) {
  const int group = static_cast<int>(groups_.size());
  groups_.push_back({rate, found_.size()});
  std::vector<int>& on_link = flows_on_link_[link];
  size_t kept = 0;
  for (int flow : on_link) {
    if (!there_[flow]) continue;
    on_link[kept++] = flow;
    if (group_[flow] != kUnfound) continue;
    group_[flow] = group;
    found_.push_back(flow);
    for (const Use& use : uses(flow)) {
      LinkState& other = links_[use.link];
      other.room -= rate * use.picoseconds;
      other.weight -= use.picoseconds;
      --other.unfound;
      if (use.link != link) full_at_[place_[use.link]] = FullAt(use.link);
    }
  }
  on_link.resize(kept);
}

void MaxMinRates::Fill(absl::FunctionRef<void(double rate, absl::Span<const int> flows)> changed) {
  const Checkpoint& from = checkpoints_[kept_ - 1];
  links_ = from.links;
  const size_t first_group = from.groups;
  const size_t first_found = first_group < groups_.size() ? groups_[first_group].first : found_.size();
  for (size_t i = first_found; i < found_.size(); ++i) group_[found_[i]] = kUnfound;
  groups_.resize(first_group);
  found_.resize(first_found);

  filling_.clear();
  full_at_.clear();
  place_.resize(links_.size());
  for (size_t link = 0; link < links_.size(); ++link) {
    if (links_[link].unfound == 0) continue;
    place_[link] = static_cast<int>(filling_.size());
    filling_.push_back(static_cast<int>(link));
    full_at_.push_back(FullAt(static_cast<int>(link)));
  }
  while (true) {
    const double rate = Least(full_at_);
    if (rate == kNever) break;
    size_t full = 0;
    while (full_at_[full] != rate) ++full;
    if (groups_.size() == checkpoints_[kept_ - 1].groups + kGroupsBetweenCheckpoints) KeepCheckpoint();
    Find(filling_[full], rate);
    full_at_[full] = kNever;
  }
  for (size_t group = first_group; group < groups_.size(); ++group) {
    const size_t first = groups_[group].first;
    const size_t end = group + 1 < groups_.size() ? groups_[group + 1].first : found_.size();
    changed(groups_[group].rate, absl::MakeConstSpan(found_).subspan(first, end - first));
  }
}

}  // namespace epsim
