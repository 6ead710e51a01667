// The configuration of rebalancing, made complete and checked.
#pragma once

#include "absl/status/statusor.h"
#include "policies/rebalance/elastic.pb.h"
#include "policies/rebalance/rebalance.pb.h"

namespace epsim {

// `config` with every default filled in, as reports show it.  Without a mode it gets `none`.  Fails on values out of
// range, times above 10 minutes among them; the error names the field, its value, and what would fit.
absl::StatusOr<RebalanceConfig> CompleteRebalanceConfig(RebalanceConfig config);

// Likewise; times are at most 10 minutes, and a day for failures and returns.
absl::StatusOr<ElasticConfig> CompleteElasticConfig(ElasticConfig config);

}  // namespace epsim
