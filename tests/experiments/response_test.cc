// How a whole run must respond to a change of its world, worked out without knowing its figures.
#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experiments/drawn_trace.h"
#include "tests/experiments/small_run.h"
#include "tests/experiments/witnessed_run.h"

namespace epsim {
namespace {

using ::testing::ElementsAreArray;

constexpr int kMoeLayers = DrawnToken::kLayers, kExperts = DrawnToken::kExperts;

class Response : public SmallRun {
 protected:
  std::string TracePath() const { return (folder_ / "small.eptrace").string(); }

  // The report of the trace as it is on disk now.
  RunReport Report(const std::vector<std::string>& set) {
    const absl::StatusOr<RunReport> report = Run(set);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value();
  }
};

double Aggregate(const RunReport& report) {
  return report.summary["balancedness"]["tokens"]["aggregate"].get<double>();
}
double Balancedness(const RunReport& report) { return report.summary["balancedness"]["tokens"]["mean"].get<double>(); }

// --- A faster part never slows any step. ---

struct FasterPart {
  const char* name;
  const char *from, *to;  // In the platform; or null and an override.
  // Whether the mean step must become faster on one node, on two nodes: where the part is on the critical path.
  bool on_one_node, on_two_nodes;
};

const FasterPart kFasterParts[] = {
    {"MemoryBandwidth", "1 TB/s", "2 TB/s", true, true},
    {"ComputeRate", "100 TFLOP/s", "200 TFLOP/s", true, true},
    {"NvlinkBandwidth", "100 GB/s", "200 GB/s", true, false},
    {"NvlinkLatency", "1 us", "500 ns", true, false},
    {"NicBandwidth", "25 GB/s", "50 GB/s", false, true},
    {"NicLatency", "3 us", "1500 ns", false, true},
    {"PcieBandwidth", "20 GB/s", "40 GB/s", false, false},
    {"PcieLatency", "2 us", "1 us", false, false},
    {"KernelFloor", nullptr, "costs.roofline.gemm.floor=\"800 ns\"", true, true},
    {"GroupedGemmFloor", nullptr, "costs.roofline.gemm.grouped_floor=\"5 us\"", true, true},
};

class FasterPartResponse : public Response, public testing::WithParamInterface<FasterPart> {};
void PrintTo(const FasterPart& part, std::ostream* out) { *out << part.name; }

// A step is a network of maxima and sums of stage times, and none of these grows.
TEST_P(FasterPartResponse, NoStepIsSlower) {
  const FasterPart& part = GetParam();
  // Prefills of hundreds of tokens, so that compute sets the pace of some steps and memory that of others.
  WriteRequests(Draw({.parts = 40, .least_tokens = 10, .most_tokens = 320, .most_prefill = 310, .skew = 10}),
                TracePath());
  const std::string platform = ReadFile((folder_ / "platform.txtpb").string());
  for (const bool two_nodes : {false, true}) {
    for (const char* policy : {"contiguous", "eplb"}) {
      SCOPED_TRACE(std::string(two_nodes ? "two nodes, " : "one node, ") + policy);
      std::vector<std::string> set = {two_nodes ? "ranks=8" : "ranks=4", std::string("placement.policy=") + policy,
                                      "workload.continuous.running_requests_per_rank=2"};
      WriteFile("platform.txtpb", platform);
      const RunReport base = Report(set);
      if (part.from == nullptr) {
        set.push_back(part.to);
      } else {
        std::string faster = platform;
        const size_t at = faster.find(std::string("\"") + part.from);
        ASSERT_NE(at, std::string::npos);
        WriteFile("platform.txtpb", faster.replace(at + 1, std::string(part.from).size(), part.to));
      }
      const RunReport fast = Report(set);
      ASSERT_EQ(fast.step_time_us.size(), base.step_time_us.size());
      ASSERT_GT(base.step_time_us.size(), 20u);
      int faster_steps = 0;
      for (size_t i = 0; i < base.step_time_us.size(); ++i) {
        ASSERT_LE(fast.step_time_us[i], base.step_time_us[i]) << "step " << i;
        faster_steps += fast.step_time_us[i] < base.step_time_us[i];
      }
      if (two_nodes ? part.on_two_nodes : part.on_one_node) {
        EXPECT_GT(faster_steps, 0);
      }
      const bool used =
          part.from == nullptr || (std::string(part.name).find("Pcie") == std::string::npos &&
                                   (two_nodes || std::string(part.name).find("Nic") == std::string::npos));
      if (!used) {
        EXPECT_EQ(fast.summary, base.summary);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Parts, FasterPartResponse, testing::ValuesIn(kFasterParts),
                         [](const auto& info) { return info.param.name; });

// --- Names of experts mean nothing to EPLB. ---

// Loads per replica never tie between two experts, for up to `replicas` of each: EPLB's choices then do not depend on
// the order of the experts.
bool HasNoTies(const DrawnTrace& trace, uint64_t replicas) {
  std::vector<DrawnToken> all;
  for (const auto& part : trace) all.insert(all.end(), part.begin(), part.end());
  const std::vector<uint32_t> load = ExpertLoad(all);
  for (int layer = 0; layer < kMoeLayers; ++layer) {
    for (int a = 0; a < kExperts; ++a) {
      for (int b = 0; b < a; ++b) {
        for (uint64_t i = 1; i <= replicas; ++i) {
          for (uint64_t j = 1; j <= replicas; ++j) {
            if (load[layer * kExperts + a] * i == load[layer * kExperts + b] * j) return false;
          }
        }
      }
    }
  }
  return true;
}

DrawnTrace DrawWithoutTies(DrawRules rules, uint64_t replicas) {
  while (true) {
    DrawnTrace trace = Draw(rules);
    if (HasNoTies(trace, replicas)) return trace;
    ++rules.seed;
  }
}

// Applies a permutation of the experts to each layer.
DrawnTrace Relabelled(DrawnTrace trace, uint64_t seed) {
  RandomStream random(seed, "relabel");
  for (int layer = 0; layer < kMoeLayers; ++layer) {
    std::array<int32_t, kExperts> name;
    std::iota(name.begin(), name.end(), 0);
    for (int i = kExperts; i > 1; --i) std::swap(name[i - 1], name[random.Below(i)]);
    for (auto& part : trace) {
      for (DrawnToken& token : part) {
        for (int32_t& id : token.ids[layer]) {
          if (id >= 0) id = name[id];
        }
      }
    }
  }
  return trace;
}

// With one replica of each expert nothing is drawn: the same experts under other names come to lie in the same slots,
// and the whole report is the same but for the trace's hash.
TEST_F(Response, RelabelledExpertsAreReplayedTheSameUnderEplb) {
  const DrawnTrace trace = DrawWithoutTies({.parts = 96, .ragged = true, .skew = 30}, 1);
  const std::vector<std::string> set = {"placement.policy=eplb", "redundant_slots_per_rank=0",
                                        "workload.lock_step.requests_per_rank=4", "planning.plan=hindsight",
                                        "planning.fraction=0"};
  WriteRequests(trace, TracePath());
  RunReport base = Report(set);
  for (const uint64_t seed : {1, 2, 3}) {
    WriteRequests(Relabelled(trace, seed), TracePath());
    RunReport relabelled = Report(set);
    EXPECT_NE(relabelled.summary["trace"]["hash"], base.summary["trace"]["hash"]);
    relabelled.summary["trace"]["hash"] = base.summary["trace"]["hash"];
    EXPECT_EQ(relabelled.summary, base.summary);
    EXPECT_THAT(relabelled.step_time_us, ElementsAreArray(base.step_time_us));
  }
  // The names do matter to a placement that goes by them.
  const std::vector<std::string> contiguous = {"workload.lock_step.requests_per_rank=4", "planning.fraction=0"};
  const RunReport renamed = Report(contiguous);
  WriteRequests(trace, TracePath());
  EXPECT_NE(Aggregate(renamed), Aggregate(Report(contiguous)));
}

// On two ranks the replicas of an expert are all on one, or each rank has its own: whatever is drawn, the tokens of a
// rank are the same.
TEST_F(Response, RelabelledExpertsAreBalancedTheSameWithReplicas) {
  for (const int redundant : {1, 2, 4}) {
    const DrawnTrace trace = DrawWithoutTies({.parts = 40, .least_tokens = 20, .most_tokens = 60, .skew = 30}, 5);
    const std::vector<std::string> set = {"ranks=2",
                                          "placement.policy=eplb",
                                          "redundant_slots_per_rank=" + std::to_string(redundant),
                                          "workload.lock_step.requests_per_rank=4",
                                          "planning.plan=hindsight",
                                          "planning.fraction=0"};
    WriteRequests(trace, TracePath());
    const RunReport base = Report(set);
    EXPECT_LT(Balancedness(base), 1);
    for (const uint64_t seed : {1, 2, 3}) {
      WriteRequests(Relabelled(trace, seed), TracePath());
      const RunReport relabelled = Report(set);
      EXPECT_EQ(Balancedness(relabelled), Balancedness(base)) << redundant << " redundant slots";
      EXPECT_EQ(Aggregate(relabelled), Aggregate(base)) << redundant << " redundant slots";
    }
  }
}

// --- Experts that cost more take more. ---

// Each stage of the experts: 2 * 9.276 + 3 * 1.61 us of floors (deep_gemm on Hopper; SwiGLU, rows there and back) and
// the rest.
TEST_F(Response, TwiceTheCostOfEveryExpertDoublesItsStageBeyondTheFloors) {
  constexpr double kFloors = 23.382e6;
  const auto witness = [&](std::vector<std::string> set) {
    set.push_back("ranks=4");
    return Witness(*ResolveExperiment({.path = experiment_, .trace = {}, .set = set, .seed = {}})).value();
  };
  const auto scales = [](const char* scale) {
    std::string list = std::string("costs.expert_cost_scale.scale=[") + scale;
    for (int expert = 1; expert < kExperts; ++expert) list += std::string(", ") + scale;
    return list + "]";
  };
  const WitnessedRun base = witness({}), one = witness({scales("1")}), two = witness({scales("2")});
  ASSERT_EQ(two.steps.size(), base.steps.size());
  int stages = 0;
  for (size_t step = 0; step < base.steps.size(); ++step) {
    ASSERT_EQ(two.steps[step].stages.size(), base.steps[step].stages.size());
    for (size_t i = 0; i < base.steps[step].stages.size(); ++i) {
      const SeenStage &before = base.steps[step].stages[i], &after = two.steps[step].stages[i];
      for (size_t rank = 0; rank < before.start.size(); ++rank) {
        EXPECT_EQ(one.steps[step].stages[i].finish[rank], before.finish[rank]);
        if (before.kind != StageKind::kRoutedExperts) continue;
        const double once = 1.0 * (before.finish[rank] - before.start[rank]).count() - kFloors;
        EXPECT_NEAR(1.0 * (after.finish[rank] - after.start[rank]).count() - kFloors, 2 * once, 2);
        ++stages;
      }
    }
  }
  EXPECT_GT(stages, 0);
}

// A spread is drawn from the run's seed and said in the report.
TEST_F(Response, ASpreadOfExpertCostsIsDrawnFromTheSeed) {
  const std::string spread = "costs.expert_cost_scale.spread=0.5";
  const RunReport base = Report({}), spread_out = Report({spread});
  EXPECT_NE(spread_out.step_time_us, base.step_time_us);
  EXPECT_THAT(Report({spread}).step_time_us, ElementsAreArray(spread_out.step_time_us));
  EXPECT_NE(spread_out.summary.dump().find("experts of unequal cost: drawn log-normal with spread 0.5"),
            std::string::npos);
}

// --- Twice the same traffic is balanced as once. ---

class RepeatedRequests : public Response {
 protected:
  // 64 requests: two groups of 8 ranks x 4.
  const DrawnTrace once_ = Draw({.parts = 64, .most_prefill = 5, .skew = 12});
  const std::vector<std::string> set_ = {"workload.lock_step.requests_per_rank=4", "planning.fraction=0"};

  DrawnTrace Twice(bool each) const {
    DrawnTrace twice;
    for (const auto& request : once_) twice.insert(twice.end(), each ? 2 : 1, request);
    if (!each) twice.insert(twice.end(), once_.begin(), once_.end());
    return twice;
  }
};

// Every expert's load doubles and with it every rank's: mean / max stays.
TEST_F(RepeatedRequests, LeaveTheAggregateOfContiguousPlacement) {
  WriteRequests(once_, TracePath());
  const RunReport once = Report(set_);
  EXPECT_LT(Aggregate(once), 0.95);
  for (const bool each : {true, false}) {
    WriteRequests(Twice(each), TracePath());
    const RunReport twice = Report(set_);
    EXPECT_EQ(twice.summary["trace"]["scored_tokens"].get<int64_t>(),
              2 * once.summary["trace"]["scored_tokens"].get<int64_t>());
    EXPECT_DOUBLE_EQ(Aggregate(twice), Aggregate(once)) << (each ? "each request twice" : "the whole trace twice");
  }
}

// The trace twice over is the same groups twice: EPLB sees doubled loads and places the same, and every step comes
// twice.
TEST_F(RepeatedRequests, LeaveThePlacementOfEplb) {
  std::vector<std::string> set = set_;
  set.insert(set.end(), {"placement.policy=eplb", "redundant_slots_per_rank=2", "planning.plan=hindsight"});
  WriteRequests(once_, TracePath());
  const RunReport once = Report(set);
  WriteRequests(Twice(false), TracePath());
  const RunReport twice = Report(set);
  std::vector<double> expected = once.step_time_us;
  expected.insert(expected.end(), once.step_time_us.begin(), once.step_time_us.end());
  EXPECT_THAT(twice.step_time_us, ElementsAreArray(expected));
  EXPECT_DOUBLE_EQ(Aggregate(twice), Aggregate(once));
}

// --- Ranks of a node, and whole nodes, are interchangeable. ---

using RankOrder = std::array<int, 8>;  // New rank of each rank.

class Interchange : public Response, public testing::WithParamInterface<RankOrder> {};

// Contiguous placement has expert e on rank e / 2: moving tokens and experts together moves the ranks.
TEST_P(Interchange, LeavesEveryStepTime) {
  const RankOrder& order = GetParam();
  constexpr int kPerRank = kExperts / 8;
  const DrawnTrace trace = Draw({.parts = 60, .least_tokens = 5, .most_tokens = 200, .skew = 10});
  const auto moved = [&](bool experts) {
    DrawnTrace result = trace;
    for (auto& step : result) {
      for (DrawnToken& token : step) {
        token.source = static_cast<uint16_t>(order[token.source]);
        for (auto& layer : token.ids) {
          for (int32_t& id : layer) {
            if (experts) id = order[id / kPerRank] * kPerRank + id % kPerRank;
          }
        }
      }
      std::stable_sort(step.begin(), step.end(),
                       [](const DrawnToken& a, const DrawnToken& b) { return a.source < b.source; });
    }
    return result;
  };
  const std::vector<std::string> set = {"workload.batching=recorded"};
  WriteSteps(trace, 8, TracePath());
  const RunReport base = Report(set);
  WriteSteps(moved(true), 8, TracePath());
  const RunReport interchanged = Report(set);
  EXPECT_THAT(interchanged.step_time_us, ElementsAreArray(base.step_time_us));
  for (const char* what :
       {"step_time_us", "tokens_per_s", "balancedness", "gpu_utilization", "bytes", "breakdown_us"}) {
    EXPECT_EQ(interchanged.summary[what], base.summary[what]) << what;
  }
  // Tokens that leave their experts behind have other ways to go.
  WriteSteps(moved(false), 8, TracePath());
  EXPECT_NE(Report(set).step_time_us, base.step_time_us);
}

INSTANTIATE_TEST_SUITE_P(Orders, Interchange,
                         testing::Values(RankOrder{4, 5, 6, 7, 0, 1, 2, 3}, RankOrder{1, 2, 3, 0, 4, 5, 6, 7},
                                         RankOrder{7, 6, 5, 4, 3, 2, 1, 0}));

// --- Redundant slots help. ---

class RedundantSlots : public Response {
 protected:
  struct Outcome {
    std::array<double, kMoeLayers> hottest;  // The most tokens that a replica would have if replicas shared evenly.
    double planned = 0;                      // Aggregate balancedness, if they did; mean over layers.
    double aggregate = 0, mean = 0;          // As the report says.
  };

  // In hindsight over the whole trace, drawn from `seed`.
  Outcome Eplb(int ranks, int redundant, uint64_t seed) {
    const DrawnTrace trace =
        Draw({.parts = 64, .least_tokens = 30, .most_tokens = 30, .sources = 1, .skew = 15, .seed = seed});
    WriteRequests(trace, TracePath());
    const std::vector<std::string> set = {"ranks=" + std::to_string(ranks),
                                          "placement.policy=eplb",
                                          "redundant_slots_per_rank=" + std::to_string(redundant),
                                          "workload.lock_step.requests_per_rank=" + std::to_string(64 / ranks),
                                          "planning.plan=hindsight",
                                          "planning.fraction=0"};
    const RunReport report = Report(set);
    const WitnessedRun run =
        Witness(ResolveExperiment({.path = experiment_, .trace = {}, .set = set, .seed = {}}).value()).value();
    const PlacementShape& shape = run.parts->shape;
    std::vector<DrawnToken> all;
    for (const auto& request : trace) all.insert(all.end(), request.begin(), request.end());
    const std::vector<uint32_t> load = ExpertLoad(all);
    Outcome outcome{.hottest = {}, .planned = 0, .aggregate = Aggregate(report), .mean = Balancedness(report)};
    for (int layer = 0; layer < kMoeLayers; ++layer) {
      std::vector<double> of_rank(shape.ranks);
      for (int expert = 0; expert < kExperts; ++expert) {
        const auto replicas = run.plan.placement.replicas(Layer(layer), LogicalExpert(expert));
        const double share = load[layer * kExperts + expert] / static_cast<double>(replicas.size());
        outcome.hottest[layer] = std::max(outcome.hottest[layer], share);
        for (const Slot slot : replicas) of_rank[Index(shape.rank_of(slot))] += share;
      }
      outcome.planned += std::accumulate(of_rank.begin(), of_rank.end(), 0.0) / shape.ranks /
                         *std::max_element(of_rank.begin(), of_rank.end()) / kMoeLayers;
    }
    return outcome;
  }

  void SetUp() override {
    Response::SetUp();
    std::string platform = ReadFile((folder_ / "platform.txtpb").string());
    const std::string four = "gpus_per_node: 4";
    WriteFile("platform.txtpb", platform.replace(platform.find(four), four.size(), "gpus_per_node: 16"));
  }
};

// EPLB gives every further slot to the expert with the most load per replica, so no replica is planned to bear more.
TEST_F(RedundantSlots, NeverRaiseTheHottestReplica) {
  for (const int ranks : {2, 4, 8, 16}) {
    Outcome last = Eplb(ranks, 0, 1);
    for (const int redundant : {1, 2, 3, 5, 8}) {
      const Outcome outcome = Eplb(ranks, redundant, 1);
      for (int layer = 0; layer < kMoeLayers; ++layer) {
        EXPECT_LE(outcome.hottest[layer], last.hottest[layer])
            << ranks << " ranks, " << redundant << " redundant slots";
      }
      last = outcome;
    }
    EXPECT_LT(last.hottest[0], Eplb(ranks, 0, 1).hottest[0] / 2);
  }
}

// With one expert a rank there is nothing to place: the hottest expert sets the pace until it has replicas.  The plan
// gets better with every slot, on the average of traces (ranks are filled greedily, hence 0.01).  A run gets less than
// its plan, because each source rank keeps to one replica, and 16 sources share n replicas evenly only where n divides
// 16: it is always better off than without, but not with every slot.
TEST_F(RedundantSlots, HelpWhereARankHasOneExpert) {
  constexpr int kTraces = 5;
  Outcome without, last;
  for (const int redundant : {0, 1, 2, 3, 4}) {
    SCOPED_TRACE(std::to_string(redundant) + " redundant slots");
    Outcome average;
    for (uint64_t seed = 1; seed <= kTraces; ++seed) {
      const Outcome outcome = Eplb(16, redundant, seed);
      average.planned += outcome.planned / kTraces;
      average.aggregate += outcome.aggregate / kTraces;
      average.mean += outcome.mean / kTraces;
    }
    if (redundant == 0) {
      // One replica each: the run is as planned.
      EXPECT_NEAR(average.aggregate, average.planned, 1e-12);
      without = average;
    } else {
      EXPECT_GE(average.planned, last.planned - 0.01);
      EXPECT_GT(average.planned, 0.9);
      EXPECT_GT(average.aggregate, without.aggregate + 0.2);
      EXPECT_GT(average.mean, without.mean + 0.1);
    }
    last = average;
  }
}

}  // namespace
}  // namespace epsim
