// How many replicas each expert gets: a search over splits of the redundant slots between hotter and cooler experts,
// each split tried by deploying it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/risk_deployment.h"

namespace epsim {

// Gives `extras` replicas beyond the first, one at a time to the expert with the largest risk per replica (ties: the
// first), though to none with `most` replicas or more while another has fewer.  Returns whom, an index into `risk`, in
// the order of giving: so the first k are what k extras would give.
std::vector<int> MinMaxExtras(absl::Span<const double> risk, int extras, int most);

struct ReplicaSearch {
  double z = 0.674;  // Of the risk: mean + z * standard deviation.
  int depth = 4;
  int width = 8;
};

struct SearchedDeployment {
  std::vector<LogicalExpert> experts_of_slots;
  double peak_to_average = 0;
};

// The experts, by falling risk (ties: the lowest), are cut in `depth` segments of ceil(experts / depth).  Segment by
// segment but for the last: x of the redundant slots that are left go to it, the others to all cooler segments, both
// dealt by MinMaxExtras; x is what MinMaxExtras would give the segment among all that are left, or up to `width` more
// or fewer, whichever deploys (DeployByRisk) with the least PeakToAverage; ties: the nearest, then the fewer.
//
// A split that must put an expert twice on a rank is tried only where every split must.
SearchedDeployment SearchReplicas(const LoadSamples& samples, int slots, int ranks, const ReplicaSearch& search);

}  // namespace epsim
