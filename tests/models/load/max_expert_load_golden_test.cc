// Question: are the 90 values that were worked out with 50 digits reproduced to 1e-9?
#include <cmath>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "models/load/max_expert_load.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

TEST(MaxExpertLoadGolden, AllCells) {
  const std::string path = std::string(EPSIM_SHARED_DATA) + "/golden/max_expert_load.json";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << path << " is not there";
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden["rows"].size(), 90u);
  for (const nlohmann::json& row : golden["rows"]) {
    const LoadCase load{.batch = row["batch"].get<int64_t>(), .chips = row["chips"].get<int>()};
    const double expected = row["exact"].get<double>();
    const absl::StatusOr<double> exact = ExactMaxExpertLoad(load);
    ASSERT_TRUE(exact.ok()) << exact.status();
    EXPECT_NEAR(*exact, expected, 1e-9 * expected) << "batch " << load.batch << " on " << load.chips << " chips";
  }
}

}  // namespace
}  // namespace epsim
