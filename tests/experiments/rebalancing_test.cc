// The closed loop in whole runs: what a rebalance moves is what it counts, nothing changes before it, tokens are
// conserved while ranks come and go, and the report is a function of configuration and trace.
#include <cmath>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "experiments/answer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/catalogue.h"
#include "tests/experiments/drawn_trace.h"
#include "tests/experiments/small_run.h"
#include "tests/experiments/witnessed_run.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

constexpr int kSteps = 40, kScored = 30, kInterval = 5;

class Rebalancing : public SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    drawn_ = Draw({.parts = kSteps, .least_tokens = 60, .most_tokens = 120, .skew = 20});
    WriteSteps(drawn_, 8, (folder_ / "small.eptrace").string());
    WriteExperiment("");
  }

  void WriteExperiment(const std::string& more) {
    WriteFile("small.experiment", R"(trace: "small.eptrace" model: "model.txtpb" platform: "platform.txtpb" ranks: 8
      workload { recorded {} } seed: 7 placement { eplb {} } )" +
                                      more);
  }
  void ReplaceInPlatform(const std::string& from, const std::string& to) {
    std::string platform = ReadFile((folder_ / "platform.txtpb").string());
    ASSERT_NE(platform.find(from), std::string::npos) << from;
    platform.replace(platform.find(from), from.size(), to);
    WriteFile("platform.txtpb", platform);
  }

  RunReport Report(const std::vector<std::string>& set, const RunOptions& options = {}) {
    const absl::StatusOr<RunReport> report = Run(set, options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value();
  }
  WitnessedRun Seen(const std::vector<std::string>& set = {}) {
    return Witness(ResolveExperiment({.path = experiment_, .trace = {}, .set = set, .seed = {}}).value()).value();
  }
  // The columns of steps.csv of a run, by name.
  std::map<std::string, std::vector<double>> Steps(const std::vector<std::string>& set) {
    const std::string out = (folder_ / "steps").string();
    Report(set, {.out = out});
    std::istringstream lines(ReadFile(out + "/steps.csv"));
    std::string line;
    std::getline(lines, line);
    const std::vector<std::string> names = absl::StrSplit(line, ',');
    std::map<std::string, std::vector<double>> columns;
    while (std::getline(lines, line)) {
      const std::vector<std::string> cells = absl::StrSplit(line, ',');
      for (size_t i = 0; i < names.size(); ++i) {
        if (names[i] != "limiting_stage") columns[names[i]].push_back(std::stod(cells[i]));
      }
    }
    return columns;
  }

  DrawnTrace drawn_;
};

double Mean(const std::vector<double>& values, size_t first, size_t end) {
  return std::accumulate(values.begin() + first, values.begin() + end, 0.0) / static_cast<double>(end - first);
}

int64_t AllBytes(const Json& json) {
  int64_t bytes = 0;
  for (const auto& [way, count] : json["bytes"].items()) bytes += count.get<int64_t>();
  return bytes;
}

// --- Every mode. ---

struct Mode {
  const char* name;
  std::vector<std::string> set;
  bool host = false;
};
void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

const Mode kModes[] = {
    {"Blocking", {"rebalance.mode=blocking", "rebalance.interval_steps=5"}},
    {"BlockingFromHost",
     {"rebalance.mode=blocking", "rebalance.interval_steps=5", "rebalance.migration.source=HOST"},
     true},
    {"Chunked", {"rebalance.chunked.layers_per_chunk=1", "rebalance.interval_steps=5"}},
    {"AsyncLayer", {"rebalance.mode=async_layer", "rebalance.interval_steps=5"}},
    {"AsyncLayerPlannedBeside", {"rebalance.async_layer.background_planning=true", "rebalance.interval_steps=5"}},
    {"Online", {"rebalance.mode=online", "rebalance.first_after_steps=5"}, true},
    {"OnlineByDecay",
     {"rebalance.online.layer_updates_per_iter=2", "rebalance.first_after_steps=5", "rebalance.statistics.memory=decay",
      "rebalance.statistics.cleared_by_planning=true"},
     true},
};

class RebalancingModes : public Rebalancing, public testing::WithParamInterface<Mode> {
 protected:
  std::vector<std::string> Set(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> set = GetParam().set;
    set.push_back("rebalance.planning_time_per_layer=50 us");
    // What is remembered is short, so that each plan differs from the one before.
    if (GetParam().name != std::string("OnlineByDecay")) set.push_back("rebalance.statistics.window.steps=3");
    set.insert(set.end(), more.begin(), more.end());
    return set;
  }
};

TEST_P(RebalancingModes, TheReportDoesNotDependOnTheNumberOfThreads) {
  for (const int threads : {1, 2})
    Report(Set(), {.out = (folder_ / absl::StrCat(threads)).string(), .threads = threads});
  for (const char* file : {"summary.json", "steps.csv", "timeline.json", "manifest.txtpb"}) {
    const std::string one = ReadFile((folder_ / "1" / file).string());
    EXPECT_FALSE(one.empty());
    EXPECT_EQ(one, ReadFile((folder_ / "2" / file).string())) << file;
  }
}

TEST_P(RebalancingModes, EverySlotThatMovesIsOneExpertOnItsWay) {
  const ResolvedExperiment resolved =
      ResolveExperiment({.path = experiment_, .trace = {}, .set = Set(), .seed = {}}).value();
  const int64_t expert = ExpertBytes(resolved.model(), BF16).count();
  const Json rebalancing = Report(Set()).summary["rebalancing"];
  EXPECT_GT(rebalancing["slots_moved"].get<int64_t>(), 0);
  EXPECT_GT(rebalancing["carried_out"].get<int64_t>(), 1);
  EXPECT_EQ(AllBytes(rebalancing), rebalancing["slots_moved"].get<int64_t>() * expert);
  EXPECT_EQ(rebalancing["bytes"]["host"].get<int64_t>(), GetParam().host ? AllBytes(rebalancing) : 0);
  int64_t slots = 0;
  double stall = 0, planning = 0;
  for (const Json& event : rebalancing["events"]) {
    EXPECT_EQ(AllBytes(event), event["slots_moved"].get<int64_t>() * expert);
    EXPECT_EQ(event["slots_moved"].get<int64_t>() > 0, event["layers_changed"].get<int64_t>() > 0);
    EXPECT_FALSE(event.contains("out_of_service_us"));
    slots += event["slots_moved"].get<int64_t>();
    stall += event["stall_us"].get<double>();
    planning += event["planning_us"].get<double>();
  }
  EXPECT_EQ(slots, rebalancing["slots_moved"].get<int64_t>());
  EXPECT_NEAR(stall, rebalancing["stall_us"].get<double>(), 1e-6);
  EXPECT_NEAR(planning, rebalancing["planning_us"].get<double>(), 1e-6);
}

// What comes from the hosts is all that PCIe carries to GPUs.  A transfer that is under way when the run ends, beside
// serving, has been counted when it started.
TEST_P(RebalancingModes, PcieCarriesWhatComesFromHosts) {
  const WitnessedRun run = Seen(Set());
  const absl::Span<const LinkSpec> links = run.parts->cluster.links();
  int64_t carried = 0;
  for (size_t link = 0; link < links.size(); ++link) {
    if (links[link].link_class == LinkClass::kPcie) carried += run.steps.back().bytes_on_link[link];
  }
  const int64_t moved = Report(Set()).summary["rebalancing"]["bytes"]["host"];
  EXPECT_LE(carried, moved);
  EXPECT_EQ(carried > 0, GetParam().host);
  if (absl::StartsWith(GetParam().name, "Blocking")) EXPECT_EQ(carried, moved);
}

TEST_P(RebalancingModes, TheBreakdownSumsToTheStepTime) {
  const RunReport report = Report(Set());
  const double step = report.summary["step_time_us"]["mean"].get<double>();
  double sum = 0, provenance = 0;
  for (const auto& [stage, us] : report.summary["breakdown_us"].items()) sum += us.get<double>();
  for (const auto& [source, share] : report.summary["provenance"].items()) provenance += share.get<double>();
  EXPECT_NEAR(sum, step, 1e-9 * step);
  EXPECT_NEAR(provenance, 1, 1e-9);
}

// Nothing is different before the first plan.  Online balancing gathers counts in every step.
TEST_P(RebalancingModes, StepsBeforeTheFirstPlanAreAsWithoutRebalancing) {
  const bool online = absl::StartsWith(GetParam().name, "Online");
  const RunReport without = Report({absl::StrCat("schedule.load_statistics=", online ? "true" : "false")});
  const RunReport with = Report(Set());
  ASSERT_EQ(without.step_time_us.size(), static_cast<size_t>(kScored));
  ASSERT_EQ(with.step_time_us.size(), static_cast<size_t>(kScored));
  for (int step = 0; step < kInterval; ++step) EXPECT_EQ(with.step_time_us[step], without.step_time_us[step]) << step;
  EXPECT_NE(with.step_time_us, without.step_time_us);
  EXPECT_EQ(with.summary["rebalancing"]["events"][0]["step"], kSteps - kScored + kInterval);
  EXPECT_TRUE(without.summary["rebalancing"].is_null());
}

TEST_P(RebalancingModes, EveryTokenIsRoutedInEveryStep) {
  const WitnessedRun run = Seen(Set());
  ASSERT_EQ(run.steps.size(), static_cast<size_t>(kScored));
  for (const SeenStep& step : run.steps) {
    const int64_t pairs = static_cast<int64_t>(drawn_[step.index].size()) * kTopK;
    for (const RoutedLayer& layer : step.layers) {
      EXPECT_EQ(layer.pairs, pairs);
      EXPECT_EQ(std::accumulate(layer.tokens_per_slot.begin(), layer.tokens_per_slot.end(), int64_t{0}), pairs);
    }
    for (const SeenStage& stage : step.stages) {
      for (size_t rank = 0; rank < stage.start.size(); ++rank) EXPECT_LE(stage.start[rank], stage.finish[rank]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RebalancingModes, testing::ValuesIn(kModes),
                         [](const testing::TestParamInfo<Mode>& info) { return info.param.name; });

// --- What rebalancing does. ---

// With the placements the same whatever the time, a faster link slows no step, and the one that weights take makes
// rebalances shorter.
TEST_F(Rebalancing, AFasterLinkSlowsNoStep) {
  const std::string platform = ReadFile((folder_ / "platform.txtpb").string());
  for (const char* mode : {"rebalance.mode=blocking", "rebalance.chunked.layers_per_chunk=1"}) {
    for (const char* source : {"PEER", "HOST"}) {
      const std::vector<std::string> set = {mode, "rebalance.interval_steps=4", "rebalance.statistics.window.steps=3",
                                            std::string("rebalance.migration.source=") + source};
      const RunReport base = Report(set);
      for (const auto& [slow, fast] :
           {std::pair{"100 GB/s", "200 GB/s"}, {"25 GB/s", "50 GB/s"}, {"20 GB/s", "40 GB/s"}, {"3 us", "1 us"}}) {
        SCOPED_TRACE(absl::StrCat(mode, " ", source, " ", fast));
        ReplaceInPlatform(slow, fast);
        const RunReport faster = Report(set);
        WriteFile("platform.txtpb", platform);
        EXPECT_EQ(faster.summary["rebalancing"]["slots_moved"], base.summary["rebalancing"]["slots_moved"]);
        for (int step = 0; step < kScored; ++step) EXPECT_LE(faster.step_time_us[step], base.step_time_us[step]);
        const double stall = base.summary["rebalancing"]["stall_us"], less = faster.summary["rebalancing"]["stall_us"];
        EXPECT_LE(less, stall);
        if (source == std::string("HOST") && fast == std::string("40 GB/s")) EXPECT_LT(less, stall);
      }
    }
  }
}

// The hot experts become others in the middle of the scored steps.  A placement that was planned before stays as it
// is; one that is planned anew, on the last steps or on those that count for most, follows.
TEST_F(Rebalancing, ThePlacementFollowsADriftingTrace) {
  DrawnTrace drift = Draw({.parts = 80, .least_tokens = 100, .most_tokens = 140, .skew = 60});
  const size_t changes = 40;
  for (size_t step = changes; step < drift.size(); ++step) {
    for (DrawnToken& token : drift[step]) {
      for (auto& layer : token.ids) {
        for (int32_t& id : layer) id = (id + 7) % kExperts;
      }
    }
  }
  WriteSteps(drift, 8, (folder_ / "small.eptrace").string());
  // The first 20 are planned on; the change comes after 20 of the 60 scored.
  const auto balance = [&](const std::vector<std::string>& set) {
    const std::vector<double> all = Steps(set)["tokens_balancedness"];
    EXPECT_EQ(all.size(), 60u);
    return std::pair{Mean(all, 0, 20), Mean(all, 40, 60)};
  };
  const auto [before, after] = balance({});
  EXPECT_LT(after, before - 0.05) << "the change does not hurt";
  for (const char* memory : {"window.steps=10", "decay.decay=0.8"}) {
    for (const char* mode : {"rebalance.mode=blocking", "rebalance.mode=async_layer"}) {
      const auto [same, followed] =
          balance({mode, "rebalance.interval_steps=10", "rebalance.planning_time_per_layer=1 us",
                   absl::StrCat("rebalance.statistics.", memory)});
      EXPECT_GT(followed, after + 0.05) << memory << " " << mode;
      EXPECT_GT(followed, before - 0.05) << memory << " " << mode;
      EXPECT_NEAR(same, before, 0.06);
    }
  }
}

TEST_F(Rebalancing, AThresholdSkipsAndSaysSo) {
  const RunReport without = Report({});
  const RunReport report =
      Report({"rebalance.mode=blocking", "rebalance.interval_steps=5", "rebalance.min_utilization_threshold=0.1"});
  const Json& rebalancing = report.summary["rebalancing"];
  EXPECT_EQ(rebalancing["carried_out"], 0);
  EXPECT_EQ(rebalancing["skipped"], 5);
  EXPECT_EQ(rebalancing["slots_moved"], 0);
  EXPECT_THAT(rebalancing["events"][0]["skipped"].get<std::string>(), HasSubstr("is above the threshold"));
  EXPECT_EQ(report.step_time_us, without.step_time_us);
  EXPECT_THAT(AnswerText(report.summary), HasSubstr("blocking: 0 carried out, 5 skipped"));
}

TEST_F(Rebalancing, PlansMayTakeWhatTheyTakeHere) {
  const std::vector<std::string> set = {"rebalance.mode=blocking", "rebalance.interval_steps=5"};
  std::vector<std::string> measured = set;
  measured.push_back("rebalance.measure_planning_time=true");
  const RunReport report = Report(measured);
  EXPECT_THAT(report.summary["notes"].dump(), HasSubstr("plans took what they took on this machine"));
  EXPECT_GT(report.summary["rebalancing"]["planning_us"], 0);
  EXPECT_THAT(Report(set).summary["notes"].dump(), Not(HasSubstr("on this machine")));
  // 5 plans of 2 layers at 10 ms.
  EXPECT_EQ(Report(set).summary["rebalancing"]["planning_us"], 100'000);
}

TEST_F(Rebalancing, RefusesWhatWouldChangeNothing) {
  const auto error = [&](const std::vector<std::string>& set) { return std::string(Run(set).status().message()); };
  EXPECT_THAT(error({"rebalance.mode=blocking", "placement.policy=contiguous"}),
              HasSubstr("rebalance: placement contiguous does not go by load: it would change nothing"));
  EXPECT_THAT(error({"rebalance.mode=blocking", "planning.plan=hindsight"}),
              HasSubstr("rebalance: a placement planned in hindsight is a bound that stays as it is"));
  ReplaceInPlatform("pcie { bandwidth: \"20 GB/s\" latency: \"2 us\" }", "");
  const char* refusal = "rebalance.migration.source: HOST, but the platform states no PCIe between GPU and host";
  EXPECT_THAT(error({"rebalance.mode=blocking", "rebalance.migration.source=HOST"}), HasSubstr(refusal));
  EXPECT_THAT(error({"rebalance.mode=online"}), HasSubstr(refusal));
  EXPECT_TRUE(Run({"rebalance.mode=blocking"}).ok());
}

// --- Ranks that fail and return. ---

class Elastic : public Rebalancing {
 protected:
  // The end of the first `steps` scored steps, in us, where nothing fails.
  double EndOf(int steps, const std::string& more = "") {
    WriteExperiment(more);
    const RunReport report = Report({});
    return std::accumulate(report.step_time_us.begin(), report.step_time_us.begin() + steps, 0.0);
  }
  static std::string Us(double us) { return absl::StrCat("\"", static_cast<int64_t>(us), " us\""); }
};

// Rank 3 fails during step 8, which still ends; it returns about as much later as 12 steps and the stall take.
TEST_F(Elastic, ARankFailsAndReturns) {
  const double fails = EndOf(8) + 1, returns = EndOf(20);
  const WitnessedRun whole = Seen();
  WriteExperiment(absl::StrCat("elastic { failures { rank: 3 at: ", Us(fails),
                               " returns_after: ", Us(returns - fails + 1e4), " } detection_time: \"10 ms\" }"));
  for (const char* mode : {"none", "chunked", "async_layer", "online"}) {
    SCOPED_TRACE(mode);
    std::vector<std::string> set = {std::string("rebalance.mode=") + mode, "rebalance.planning_time_per_layer=10 us"};
    if (mode != std::string("online")) set.push_back("rebalance.interval_steps=6");
    const WitnessedRun run = Seen(set);
    ASSERT_EQ(run.steps.size(), whole.steps.size());
    size_t returned = 9;  // The step before which it has.
    while (returned < run.steps.size() && run.steps[returned].tokens_of(3) == 0) ++returned;
    int away = 0, changes = 0;
    bool was_away = false;
    for (size_t i = 0; i < run.steps.size(); ++i) {
      const SeenStep& step = run.steps[i];
      EXPECT_EQ(step.rows, whole.steps[i].rows) << "the tokens of step " << i;
      const int64_t pairs = static_cast<int64_t>(step.rows.size()) * kTopK;
      const bool is_away = step.tokens_of(3) == 0;
      if (mode == std::string("none")) {
        EXPECT_EQ(is_away, i >= 9 && i < returned) << i;
      }
      changes += is_away != was_away;
      was_away = is_away;
      away += is_away;
      for (const RoutedLayer& layer : step.layers) {
        EXPECT_EQ(layer.pairs, pairs);
        EXPECT_EQ(std::accumulate(layer.tokens_per_slot.begin(), layer.tokens_per_slot.end(), int64_t{0}), pairs);
        if (!is_away) continue;
        for (int slot = 9; slot < 12; ++slot) EXPECT_EQ(layer.tokens_per_slot[slot], 0) << "slot of rank 3";
      }
      if (!is_away) continue;
      // The others have one token more than another at most.
      int least = 1 << 30, most = 0;
      for (int rank = 0; rank < 8; ++rank) {
        if (rank == 3) continue;
        least = std::min(least, step.tokens_of(rank));
        most = std::max(most, step.tokens_of(rank));
      }
      EXPECT_LE(most - least, 1);
    }
    EXPECT_EQ(changes, 2) << "it leaves, and returns";
    EXPECT_GE(away, 3);
    EXPECT_GT(run.steps.back().layers[0].tokens_per_slot[9] + run.steps.back().layers[0].tokens_per_slot[10] +
                  run.steps.back().layers[0].tokens_per_slot[11],
              0)
        << "it has its share again";
  }
}

TEST_F(Elastic, TheReportSaysHowLongAndHowFast) {
  const double fails = EndOf(8) + 1;
  WriteExperiment(absl::StrCat("elastic { failures { rank: 3 at: ", Us(fails), " } detection_time: \"10 ms\" }"));
  const RunReport report = Report({});
  const Json& rebalancing = report.summary["rebalancing"];
  ASSERT_FALSE(rebalancing.is_null());
  EXPECT_EQ(rebalancing["mode"], "none");
  ASSERT_EQ(rebalancing["events"].size(), 1u);
  const Json& event = rebalancing["events"][0];
  EXPECT_EQ(event["reason"], "rank 3 failed");
  EXPECT_EQ(event["step"], kSteps - kScored + 9);
  // 10 ms until it is noticed, 20 ms of planning two layers, 100 us of launching and the transfers.
  EXPECT_GT(event["out_of_service_us"], 30'100);
  EXPECT_LT(event["out_of_service_us"], 40'000);
  EXPECT_EQ(event["out_of_service_us"], event["stall_us"]);
  EXPECT_GT(event["bytes"]["host"], 0) << "lost experts come from the host";

  // 9 steps before; after the one that holds the stall, the 20 that are left.
  const std::vector<double> tokens = Steps({})["tokens"];
  const auto rate = [&](size_t first, size_t end) {
    double time = 0, sum = 0;
    for (size_t i = first; i < end; ++i) {
      time += report.step_time_us[i] * 1e-6;
      sum += tokens[i];
    }
    return sum / time;
  };
  EXPECT_NEAR(event["tokens_per_s_before"].get<double>(), rate(0, 9), 1e-6 * rate(0, 9));
  EXPECT_NEAR(event["tokens_per_s_after"].get<double>(), rate(10, 30), 1e-6 * rate(10, 30));
  EXPECT_GT(report.step_time_us[9], event["stall_us"].get<double>());
  EXPECT_THAT(AnswerText(report.summary), HasSubstr("rank 3 failed at "));
  EXPECT_EQ(report.summary["trace"]["scored_tokens"].get<double>(), std::accumulate(tokens.begin(), tokens.end(), 0.0));
  // The same for any number of threads.
  EXPECT_EQ(Report({}, {.threads = 1}).summary.dump(), Report({}, {.threads = 3}).summary.dump());
}

TEST_F(Elastic, ANodeFails) {
  const double fails = EndOf(8, "redundant_slots_per_rank: 2") + 1;
  WriteExperiment(absl::StrCat("redundant_slots_per_rank: 2 elastic { failures { node: 0 at: ", Us(fails),
                               " } detection_time: \"1 ms\" }"));
  const WitnessedRun run = Seen();
  ASSERT_EQ(run.steps.size(), static_cast<size_t>(kScored));
  for (size_t i = 0; i < run.steps.size(); ++i) {
    const SeenStep& step = run.steps[i];
    const bool away =
        step.tokens_of(0) == 0 && step.tokens_of(1) == 0 && step.tokens_of(2) == 0 && step.tokens_of(3) == 0;
    EXPECT_EQ(away, i >= 9) << "step " << i;
    if (!away) continue;
    for (const RoutedLayer& layer : step.layers) {
      EXPECT_EQ(layer.pairs, static_cast<int64_t>(step.rows.size()) * kTopK);
      for (int slot = 0; slot < 16; ++slot) EXPECT_EQ(layer.tokens_per_slot[slot], 0);
    }
  }
  EXPECT_EQ(Report({}).summary["rebalancing"]["events"][0]["reason"], "node 0 failed");
}

TEST_F(Elastic, RefusesWhatTheOthersCannotHold) {
  const auto error = [&](const std::string& elastic) {
    WriteExperiment("elastic { " + elastic + " }");
    return std::string(Run().status().message());
  };
  // 4 ranks of 3 slots for 16 experts.
  EXPECT_THAT(error("failures { node: 1 at: \"1 s\" }"), HasSubstr("redundant_slots_per_rank"));
  // Two ranks at once leave 18 slots, three 15; one after the other they do not matter.
  EXPECT_THAT(
      error("failures { rank: 0 at: \"1 s\" } failures { rank: 1 at: \"2 s\" } failures { rank: 2 at: \"3 s\" }"),
      HasSubstr("redundant_slots_per_rank"));
  EXPECT_EQ(error("failures { rank: 0 at: \"1 s\" returns_after: \"1 s\" } failures { rank: 1 at: \"2 s\" } "
                  "failures { rank: 2 at: \"3 s\" }"),
            "");
  EXPECT_THAT(error("failures { rank: 8 at: \"1 s\" }"), HasSubstr("elastic.failures: rank 8 fails, but there are 8"));
  EXPECT_THAT(error("failures { node: 2 at: \"1 s\" }"), HasSubstr("elastic.failures: node 2 fails, but there are 2"));
  EXPECT_THAT(error("failures { at: \"1 s\" }"), HasSubstr("says neither rank nor node fails"));
  EXPECT_THAT(error("failures { rank: 1 }"), HasSubstr("does not say when"));
  ReplaceInPlatform("pcie { bandwidth: \"20 GB/s\" latency: \"2 us\" }", "");
  EXPECT_THAT(error("failures { rank: 1 at: \"1 s\" }"), HasSubstr("the platform states no PCIe"));
}

}  // namespace
}  // namespace epsim
