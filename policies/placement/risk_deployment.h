// Where replicas lie when loads are uncertain: a rank's risk is what it carries on average and some of the spread of
// that, so that experts which are hot together are kept apart.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement.h"

namespace epsim {

// The load of each expert of a layer in some samples.
class LoadSamples {
 public:
  // `load`: [experts, samples].  REQUIRES: a sample or more.
  LoadSamples(int experts, std::vector<double> load);

  int experts() const { return experts_; }
  int size() const { return size_; }
  // [samples]
  absl::Span<const double> of(size_t expert) const { return absl::MakeConstSpan(load_).subspan(expert * size_, size_); }
  // Over experts.  [samples]
  absl::Span<const double> total() const { return total_; }

 private:
  const int experts_, size_;
  const std::vector<double> load_;
  std::vector<double> total_;
};

// mean[e]; covariance[a, b] = sum over samples of (x[a] - mean[a]) * (x[b] - mean[b]) / (samples - 1), 0 of one sample.
struct LoadStatistics {
  explicit LoadStatistics(const LoadSamples& samples);

  // mean + z * sqrt(variance).
  double Risk(size_t expert, double z) const;

  std::vector<double> mean;        // [experts]
  std::vector<double> covariance;  // [experts, experts]
};

// Experts onto ranks, those with the largest risk per replica first (ties: the lowest expert); each replica to the rank
// with a slot free that does not hold the expert and has, with it, the least risk (ties: the lowest rank):
//   rank mean + mean[e] / n[e] + z * sqrt(rank variance + covariance[e, e] / n[e]^2 + 2 * shared / n[e])
//   shared = sum over experts s on the rank of covariance[e, s] / n[s]
// with n = replicas.  Where every rank with a slot free holds the expert, another expert moves into such a slot to make
// room (of all exchanges the one that leaves the least of the larger risk of the two ranks): so no rank holds an expert
// twice, unless the expert has more replicas than there are ranks.
// `replicas`: [experts], 1 or more, `slots` in all, which `ranks` divide.  Returns the expert of each slot.
std::vector<LogicalExpert> DeployByRisk(const LoadStatistics& statistics, absl::Span<const int32_t> replicas, int ranks,
                                        double z);

// Peak over average load of the ranks: the mean over samples of (max * ranks + 0.01) / (total + 0.01), max being the
// load of the most loaded rank, where every replica of an expert carries as much.  Slots may be empty.
double PeakToAverage(const LoadSamples& samples, absl::Span<const LogicalExpert> experts_of_slots, int ranks);

}  // namespace epsim
