// What a run gives.
#pragma once

#include <vector>

#include "nlohmann/json.hpp"

namespace epsim {

struct RunReport {
  nlohmann::ordered_json summary;
  std::vector<double> step_time_us;  // [scored steps]
};

}  // namespace epsim
