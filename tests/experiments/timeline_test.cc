// timeline.json as a viewer reads it: rows on which nothing overlaps, and stages told apart by part, chunk and repeat.
#include <map>
#include <set>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

class TimelineTest : public SmallRun {
 protected:
  // The stages of the run with this schedule.
  nlohmann::json Stages(const std::string& schedule) {
    RunOptions options;
    options.out = (folder_ / "out").string();
    EXPECT_TRUE(Run({"schedule=" + schedule, "communication=allgather_reducescatter {}"}, options).ok());
    nlohmann::json stages = nlohmann::json::array();
    const nlohmann::json timeline = nlohmann::json::parse(ReadFile(options.out + "/timeline.json"));
    for (const auto& event : timeline["traceEvents"]) {
      if (event["ph"] == "X") stages.push_back(event);
    }
    return stages;
  }
  static std::set<int> Values(const nlohmann::json& stages, const char* argument) {
    std::set<int> values;
    for (const auto& stage : stages) values.insert(stage["args"][argument].get<int>());
    return values;
  }
};

TEST_F(TimelineTest, HalvesAreToldApartAndOverlap) {
  const nlohmann::json stages = Stages("external { two_batch_overlap { order: DECODE } }");
  EXPECT_EQ(Values(stages, "part"), (std::set<int>{0, 1, 2}));
  int beside = 0;
  std::map<std::pair<int, int>, double> row_ends;  // Of rank and stream.
  for (const auto& stage : stages) {
    const int part = stage["args"]["part"];
    const std::string name = stage["name"];
    EXPECT_EQ(name.find(", half " + std::to_string(part)) != std::string::npos, part > 0) << name;
    const double begin = stage["ts"], end = begin + stage["dur"].get<double>();
    double& row_end = row_ends[{stage["pid"], stage["tid"]}];
    EXPECT_GE(begin, row_end - 1e-5) << name;  // Written to a picosecond, twice.
    row_end = end;
    if (name.find("combine") != 0 || stage["pid"] != 0) continue;
    for (const auto& other : stages) {
      const double at = other["ts"], until = at + other["dur"].get<double>();
      beside += other["pid"] == 0 && other["tid"] == 0 && other["args"]["part"] == 3 - part && until > begin + 1e-3 &&
                at < end - 1e-3;
    }
  }
  EXPECT_GT(beside, 0);
}

TEST_F(TimelineTest, ChunksAreNumbered) {
  const nlohmann::json stages = Stages("external {} max_tokens: 16");
  EXPECT_EQ(Values(stages, "chunk"), (std::set<int>{0, 1}));
  EXPECT_EQ(Values(stages, "part"), (std::set<int>{0}));
}

}  // namespace
}  // namespace epsim
