#include "policies/placement/risk_deployment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int kNone = -1;
constexpr double kEpsilon = 0.01;  // So that a sample without load counts as balanced.

// Ranks while replicas are dealt to them.
class Deployment {
 public:
  Deployment(const LoadStatistics& statistics, absl::Span<const int32_t> replicas, int ranks, double z)
      : statistics_(statistics),
        replicas_(replicas),
        ranks_(ranks),
        z_(z),
        width_(std::accumulate(replicas.begin(), replicas.end(), 0) / ranks),
        experts_of_rank_(ranks),
        mean_(ranks),
        variance_(ranks) {
    for (int32_t n : replicas) per_replica_.push_back(1.0 / n);
    for (std::vector<int>& experts : experts_of_rank_) experts.reserve(width_);
  }

  void Deal(int expert) {
    int best = kNone, holder = kNone;
    double best_risk = 0, holder_risk = 0;
    for (int rank = 0; rank < ranks_; ++rank) {
      if (Full(rank)) continue;
      const double risk = RiskOf(MeanWith(rank, expert), VarianceWith(rank, expert));
      const bool holds = Holds(rank, expert);
      int& candidate = holds ? holder : best;
      double& least = holds ? holder_risk : best_risk;
      if (candidate == kNone || risk < least) {
        candidate = rank;
        least = risk;
      }
    }
    if (best != kNone) {
      Add(best, expert);
    } else if (!MakeRoom(holder, expert)) {
      Add(holder, expert);  // On every rank already.
    }
  }

  std::vector<LogicalExpert> experts_of_slots() const {
    std::vector<LogicalExpert> experts_of_slots;
    for (const std::vector<int>& experts : experts_of_rank_) {
      for (int expert : experts) experts_of_slots.push_back(LogicalExpert(expert));
    }
    return experts_of_slots;
  }

 private:
  bool Full(int rank) const { return experts_of_rank_[rank].size() == static_cast<size_t>(width_); }
  bool Holds(int rank, int expert) const {
    const std::vector<int>& experts = experts_of_rank_[rank];
    return std::find(experts.begin(), experts.end(), expert) != experts.end();
  }

  double RiskOf(double mean, double variance) const { return mean + z_ * std::sqrt(std::max(variance, 0.0)); }
  double MeanWith(int rank, int expert) const { return mean_[rank] + statistics_.mean[expert] * per_replica_[expert]; }
  double VarianceWith(int rank, int expert) const {
    const double* const covariance = statistics_.covariance.data() + expert * replicas_.size();
    double with_others = 0;
    for (int other : experts_of_rank_[rank]) with_others += covariance[other] * per_replica_[other];
    return variance_[rank] + per_replica_[expert] * (covariance[expert] * per_replica_[expert] + 2 * with_others);
  }

  void Add(int rank, int expert) {
    variance_[rank] = VarianceWith(rank, expert);
    mean_[rank] = MeanWith(rank, expert);
    experts_of_rank_[rank].push_back(expert);
  }

  // `rank` anew, holding `experts`.
  void Refill(int rank, std::vector<int> experts) {
    experts_of_rank_[rank].clear();
    mean_[rank] = variance_[rank] = 0;
    for (int expert : experts) Add(rank, expert);
  }
  double Risk(int rank) const { return RiskOf(mean_[rank], variance_[rank]); }

  // `holder` has a slot free and holds `expert`: an expert of another rank goes there, and `expert` takes its slot.
  // False if every rank holds `expert`.
  bool MakeRoom(int holder, int expert) {
    const std::vector<int> holders_experts = experts_of_rank_[holder];
    int best_rank = kNone, best_guest = kNone;
    double best_risk = std::numeric_limits<double>::infinity();
    const auto exchange = [&](int rank, const std::vector<int>& experts, int guest) {
      std::vector<int> with_expert = experts;
      *std::find(with_expert.begin(), with_expert.end(), guest) = expert;
      Refill(rank, std::move(with_expert));
      Add(holder, guest);
    };
    for (int rank = 0; rank < ranks_; ++rank) {
      if (Holds(rank, expert)) continue;
      const std::vector<int> experts = experts_of_rank_[rank];
      for (int guest : experts) {
        if (Holds(holder, guest)) continue;
        exchange(rank, experts, guest);
        const double risk = std::max(Risk(rank), Risk(holder));
        if (risk < best_risk) {
          best_risk = risk;
          best_rank = rank;
          best_guest = guest;
        }
        Refill(rank, experts);
        Refill(holder, holders_experts);
      }
    }
    if (best_rank == kNone) return false;
    exchange(best_rank, std::vector<int>(experts_of_rank_[best_rank]), best_guest);
    return true;
  }

  const LoadStatistics& statistics_;
  const absl::Span<const int32_t> replicas_;
  const int ranks_;
  const double z_;
  const int width_;                  // Slots of a rank.
  std::vector<double> per_replica_;  // [experts] 1 / replicas.
  std::vector<std::vector<int>> experts_of_rank_;
  std::vector<double> mean_, variance_;  // [ranks]
};

}  // namespace

LoadSamples::LoadSamples(int experts, std::vector<double> load)
    : experts_(experts), size_(static_cast<int>(load.size()) / experts), load_(std::move(load)), total_(size_) {
  EPSIM_CHECK(size_ > 0 && load_.size() == static_cast<size_t>(experts_) * size_);
  for (int expert = 0; expert < experts_; ++expert) {
    const absl::Span<const double> row = of(expert);
    for (int sample = 0; sample < size_; ++sample) total_[sample] += row[sample];
  }
}

LoadStatistics::LoadStatistics(const LoadSamples& samples)
    : mean(samples.experts()), covariance(static_cast<size_t>(samples.experts()) * samples.experts()) {
  const size_t experts = samples.experts(), size = samples.size();
  std::vector<double> centred(size * experts);  // [samples, experts]
  for (size_t expert = 0; expert < experts; ++expert) {
    const absl::Span<const double> row = samples.of(expert);
    mean[expert] = std::accumulate(row.begin(), row.end(), 0.0) / static_cast<double>(size);
    for (size_t sample = 0; sample < size; ++sample) centred[sample * experts + expert] = row[sample] - mean[expert];
  }
  if (size == 1) return;
  for (size_t a = 0; a < experts; ++a) {
    double* const row = covariance.data() + a * experts;
    for (size_t sample = 0; sample < size; ++sample) {
      const double* const x = centred.data() + sample * experts;
      const double scale = x[a];
      for (size_t b = a; b < experts; ++b) row[b] += scale * x[b];
    }
    for (size_t b = a; b < experts; ++b) {
      row[b] /= static_cast<double>(size - 1);
      covariance[b * experts + a] = row[b];
    }
  }
}

double LoadStatistics::Risk(size_t expert, double z) const {
  return mean[expert] + z * std::sqrt(covariance[expert * mean.size() + expert]);
}

std::vector<LogicalExpert> DeployByRisk(const LoadStatistics& statistics, absl::Span<const int32_t> replicas, int ranks,
                                        double z) {
  EPSIM_CHECK(replicas.size() == statistics.mean.size());
  std::vector<std::pair<double, int>> order;  // By falling risk per replica, then expert.
  for (size_t expert = 0; expert < replicas.size(); ++expert) {
    EPSIM_CHECK(replicas[expert] > 0);
    order.emplace_back(-statistics.Risk(expert, z) / replicas[expert], static_cast<int>(expert));
  }
  std::sort(order.begin(), order.end());
  Deployment deployment(statistics, replicas, ranks, z);
  for (const auto& [risk, expert] : order) {
    for (int32_t replica = 0; replica < replicas[expert]; ++replica) deployment.Deal(expert);
  }
  return deployment.experts_of_slots();
}

double PeakToAverage(const LoadSamples& samples, absl::Span<const LogicalExpert> experts_of_slots, int ranks) {
  std::vector<int> count(samples.experts());
  for (LogicalExpert expert : experts_of_slots) {
    if (expert != kNoExpert) ++count[Index(expert)];
  }
  const size_t size = samples.size(), width = experts_of_slots.size() / ranks;
  std::vector<double> load(size), peak(size);
  for (size_t begin = 0; begin < experts_of_slots.size(); begin += width) {
    std::fill(load.begin(), load.end(), 0);
    for (LogicalExpert expert : experts_of_slots.subspan(begin, width)) {
      if (expert == kNoExpert) continue;
      const double* const of_expert = samples.of(Index(expert)).data();
      const double n = count[Index(expert)];
      for (size_t sample = 0; sample < size; ++sample) load[sample] += of_expert[sample] / n;
    }
    for (size_t sample = 0; sample < size; ++sample) peak[sample] = std::max(peak[sample], load[sample]);
  }
  double sum = 0;
  for (size_t sample = 0; sample < size; ++sample) {
    sum += (peak[sample] * ranks + kEpsilon) / (samples.total()[sample] + kEpsilon);
  }
  return sum / static_cast<double>(size);
}

}  // namespace epsim
