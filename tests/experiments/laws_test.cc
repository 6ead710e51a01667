// The laws that every run keeps, whatever its trace, its batches, its placement and its machine: tokens are conserved,
// bytes balance, causes come before effects, and the report is a function of configuration and trace alone.
#include <algorithm>
#include <iterator>
#include <map>
#include <ostream>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experiments/drawn_trace.h"
#include "tests/experiments/expected_steps.h"
#include "tests/experiments/small_run.h"
#include "tests/experiments/witnessed_run.h"

namespace epsim {
namespace {

using ::testing::ElementsAreArray;

constexpr int kMoeLayers = DrawnToken::kLayers, kExperts = DrawnToken::kExperts;
constexpr int64_t kHidden = 1024;  // Of SmallRun's model.

enum class TraceKind { kSteps, kRequests, kCounts };

struct World {
  const char* name;
  TraceKind kind;
  DrawRules draw;
  TraceForm form;
  std::vector<std::string> set;
  int gpus_per_node = 4;
};

const DrawRules kManyTokens{.parts = 30, .least_tokens = 150, .most_tokens = 300};
const DrawRules kFewRaggedTokens{.least_tokens = 1, .most_tokens = 40, .ragged = true, .skew = 20};
const TraceForm kSmallChunks{.chunk_bytes = 512}, kWideSmallChunks{.id_bytes = 2, .chunk_bytes = 512};

const World kWorlds[] = {
    {"RecordedOnTwoNodes", TraceKind::kSteps, kManyTokens, {}, {"ranks=8", "workload.batching=recorded"}},
    {"RecordedRaggedUnderEplb",
     TraceKind::kSteps,
     kFewRaggedTokens,
     kSmallChunks,
     {"ranks=8", "workload.batching=recorded", "placement.policy=eplb"}},
    {"RecordedManyUnderEplb",
     TraceKind::kSteps,
     kManyTokens,
     {.zstd = false, .chunk_bytes = 1000},
     {"ranks=8", "workload.batching=recorded", "placement.policy=eplb", "redundant_slots_per_rank=3",
      "planning.plan=hindsight"}},
    {"RecordedMergedOntoOneNode",
     TraceKind::kSteps,
     kFewRaggedTokens,
     kWideSmallChunks,
     {"ranks=4", "workload.batching=recorded", "placement.policy=eplb"}},
    {"RecordedDealtOverMoreRanks",
     TraceKind::kSteps,
     {.sources = 4, .ragged = true},
     {.id_bytes = 2},
     {"ranks=8", "workload.batching=recorded"}},
    {"RecordedOnOneRank", TraceKind::kSteps, kManyTokens, {}, {"ranks=1", "workload.batching=recorded"}},
    {"ContinuousRaggedUnderEplb",
     TraceKind::kRequests,
     {.most_prefill = 12, .ragged = true, .skew = 20},
     kSmallChunks,
     {"ranks=8", "workload.continuous.running_requests_per_rank=2", "placement.policy=eplb",
      "redundant_slots_per_rank=2"}},
    {"ContinuousOnNodesOfTwo",
     TraceKind::kRequests,
     {.least_tokens = 20, .most_tokens = 40, .most_prefill = 40},
     kWideSmallChunks,
     {"ranks=4", "workload.continuous.running_requests_per_rank=3", "placement.policy=eplb",
      "schedule.overlap_shared_experts=false"},
     2},
    {"ContinuousFp8Dispatch",
     TraceKind::kRequests,
     {.parts = 100},
     {},
     {"ranks=8", "workload.continuous.running_requests_per_rank=4", "redundant_slots_per_rank=1",
      "costs.precision.dispatch=FP8"}},
    {"LockStepOnOneNode",
     TraceKind::kRequests,
     {.most_prefill = 30},
     {.zstd = false},
     {"ranks=4", "workload.lock_step.requests_per_rank=4"}},
    {"LockStepOnOneRankUnderEplb",
     TraceKind::kRequests,
     kFewRaggedTokens,
     kWideSmallChunks,
     {"ranks=1", "workload.lock_step.requests_per_rank=6", "placement.policy=eplb"}},
    {"CountsOnTwoNodes", TraceKind::kCounts, kManyTokens, {}, {"ranks=8", "workload.batching=recorded"}},
    {"CountsRaggedUnderEplb",
     TraceKind::kCounts,
     kFewRaggedTokens,
     kSmallChunks,
     {"ranks=8", "workload.batching=recorded", "placement.policy=eplb", "redundant_slots_per_rank=2"}},
    {"CountsOnOneNode",
     TraceKind::kCounts,
     kManyTokens,
     kWideSmallChunks,
     {"ranks=4", "workload.batching=recorded", "placement.policy=eplb"}},
    {"CountsOnOneRank", TraceKind::kCounts, {}, {}, {"ranks=1", "workload.batching=recorded"}},
};

void PrintTo(const World& world, std::ostream* out) { *out << world.name; }

class Laws : public SmallRun, public testing::WithParamInterface<World> {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    WritePlatform(GetParam().gpus_per_node);
    WriteDrawn(GetParam().form);
  }

  void WritePlatform(int gpus_per_node) {
    std::string platform = ReadFile((folder_ / "platform.txtpb").string());
    const std::string four = "gpus_per_node: 4";
    platform.replace(platform.find(four), four.size(), "gpus_per_node: " + std::to_string(gpus_per_node));
    const std::string bf16 = "bf16:";
    platform.insert(platform.find(bf16), "fp8: \"200 TFLOP/s\" ");
    WriteFile("platform.txtpb", platform);
  }

  void WriteDrawn(const TraceForm& form) {
    const DrawnTrace trace = Draw(GetParam().draw);
    const std::string path = (folder_ / "small.eptrace").string();
    switch (GetParam().kind) {
      case TraceKind::kSteps:
        return WriteSteps(trace, GetParam().draw.sources, path, form);
      case TraceKind::kRequests:
        return WriteRequests(trace, path, form);
      case TraceKind::kCounts:
        return WriteCounts(trace, path, form);
    }
  }

  ResolvedExperiment Resolve(const std::vector<std::string>& set) {
    return ResolveExperiment({.path = experiment_, .trace = {}, .set = set, .seed = {}}).value();
  }
  WitnessedRun Replay() { return Witness(Resolve(GetParam().set)).value(); }
};

class CountsLaws : public Laws {};

// What a layer has to do, token by token, from the definition of RoutedLayer.
RoutedLayer RouteOneByOne(const ExpectedStep& step, int layer, const PlacementShape& shape, const ReplicaTable& table) {
  RoutedLayer routed;
  routed.tokens_per_slot.resize(shape.slots);
  routed.tokens_between.resize(static_cast<size_t>(shape.ranks) * shape.ranks);
  for (const ExpectedToken& token : step.tokens) {
    std::set<int> visited;
    for (const int expert : token.experts[layer]) {
      const int slot = table.of(Layer(layer), Rank(token.rank))[expert];
      ++routed.tokens_per_slot[slot];
      ++routed.pairs;
      visited.insert(slot / shape.slots_per_rank());
    }
    for (const int rank : visited) ++routed.tokens_between[token.rank * shape.ranks + rank];
  }
  return routed;
}

// Law: every step of the workload runs once, in order, and in every layer each token-expert pair of the trace is
// computed by one slot, a replica of its expert.  A token goes to each rank it visits once, so a rank sends to another
// at most the tokens that it has, and in all at least those that have an expert elsewhere.
TEST_P(Laws, TokensAreConserved) {
  const WitnessedRun run = Replay();
  const PlacementShape& shape = run.parts->shape;
  const std::vector<ExpectedStep> expected =
      ExpectedSteps(*run.trace, Resolve(GetParam().set).experiment().workload(), shape.ranks);
  ASSERT_GE(run.steps.size(), 20u);
  ASSERT_EQ(run.plan.left_out_steps + static_cast<int64_t>(run.steps.size()), static_cast<int64_t>(expected.size()));
  ASSERT_EQ(run.plan.scored_steps, static_cast<int64_t>(run.steps.size()));
  int64_t pairs = 0, left_rank = 0;
  for (size_t i = 0; i < run.steps.size(); ++i) {
    const SeenStep& step = run.steps[i];
    ASSERT_EQ(step.index, run.plan.left_out_steps + static_cast<int64_t>(i));
    const ExpectedStep& wanted = expected[step.index];
    if (GetParam().kind != TraceKind::kCounts) {
      std::vector<int32_t> begin(shape.ranks + 1);
      for (const ExpectedToken& token : wanted.tokens) ++begin[token.rank + 1];
      for (int rank = 0; rank < shape.ranks; ++rank) begin[rank + 1] += begin[rank];
      ASSERT_THAT(step.rank_begin, ElementsAreArray(begin)) << "step " << step.index;
    }
    for (int layer = 0; layer < kMoeLayers; ++layer) {
      SCOPED_TRACE("step " + std::to_string(step.index) + ", layer " + std::to_string(layer));
      const RoutedLayer& routed = step.layers[layer];
      int64_t computed = 0, valid = 0;
      for (const int32_t tokens : routed.tokens_per_slot) computed += tokens;
      for (int expert = 0; expert < kExperts; ++expert) {
        int64_t of_replicas = 0;
        for (const Slot slot : run.plan.placement.replicas(Layer(layer), LogicalExpert(expert))) {
          of_replicas += routed.tokens_per_slot[Index(slot)];
        }
        ASSERT_EQ(of_replicas, wanted.counts[layer * kExperts + expert]) << "expert " << expert;
        valid += of_replicas;
      }
      ASSERT_EQ(computed, valid);
      ASSERT_EQ(routed.pairs, valid);
      pairs += valid;

      for (int source = 0; source < shape.ranks; ++source) {
        int64_t elsewhere = 0, sent = 0;
        for (const ExpectedToken& token : wanted.tokens) {
          if (token.rank != source) continue;
          const auto slot_of = run.table.of(Layer(layer), Rank(source));
          elsewhere += std::any_of(token.experts[layer].begin(), token.experts[layer].end(),
                                   [&](int expert) { return slot_of[expert] / shape.slots_per_rank() != source; });
        }
        for (int rank = 0; rank < shape.ranks; ++rank) {
          const int32_t tokens = routed.tokens_between[source * shape.ranks + rank];
          ASSERT_GE(tokens, 0);
          ASSERT_LE(tokens, step.tokens_of(source));
          if (rank != source) sent += tokens;
        }
        ASSERT_GE(sent, elsewhere) << "source " << source;
        left_rank += sent;
      }
      if (GetParam().kind == TraceKind::kCounts) continue;
      const RoutedLayer one_by_one = RouteOneByOne(wanted, layer, shape, run.table);
      ASSERT_THAT(routed.tokens_per_slot, ElementsAreArray(one_by_one.tokens_per_slot));
      ASSERT_THAT(routed.tokens_between, ElementsAreArray(one_by_one.tokens_between));
    }
  }
  EXPECT_GT(pairs, 500);
  EXPECT_EQ(left_rank > 0, shape.ranks > 1);
}

// With T tokens of which c_e choose expert e independently, a token of a source visits a rank with probability
// 1 - product over the source's experts there of (1 - c_e / T): what a rank receives is the sum, to within one token.
TEST_P(CountsLaws, CountsGiveTheExpectedVisits) {
  const WitnessedRun run = Replay();
  const PlacementShape& shape = run.parts->shape;
  const std::vector<ExpectedStep> expected = ExpectedSteps(*run.trace, {}, shape.ranks);
  for (const SeenStep& step : run.steps) {
    const double tokens = step.rank_begin.back();
    for (int layer = 0; layer < kMoeLayers; ++layer) {
      for (int rank = 0; rank < shape.ranks; ++rank) {
        double visits = 0;
        int64_t received = 0;
        for (int source = 0; source < shape.ranks; ++source) {
          double absent = 1;
          for (int expert = 0; expert < kExperts; ++expert) {
            if (run.table.of(Layer(layer), Rank(source))[expert] / shape.slots_per_rank() != rank) continue;
            absent *= 1 - std::min(1.0, expected[step.index].counts[layer * kExperts + expert] / tokens);
          }
          visits += step.tokens_of(source) * (1 - absent);
          received += step.layers[layer].tokens_between[source * shape.ranks + rank];
        }
        ASSERT_NEAR(static_cast<double>(received), visits, 1 + 1e-9) << "step " << step.index << ", rank " << rank;
      }
    }
  }
}

// Law: a dispatch carries one row of the hidden state for each token and other rank that it visits, a combine one row
// of bf16 back; each lies on one outgoing and one incoming link, NVLink inside a node and the NICs between nodes; and
// the summary's bytes are these.
TEST_P(Laws, BytesBalance) {
  const WitnessedRun run = Replay();
  const Cluster& cluster = run.parts->cluster;
  const int ranks = cluster.ranks();
  const bool fp8 = Resolve(GetParam().set).experiment().costs().precision().dispatch() == FP8;
  // In fp8 a float32 scale goes with each 128 values.
  const int64_t dispatch = fp8 ? kHidden + kHidden / 128 * 4 : 2 * kHidden, combine = 2 * kHidden;

  std::vector<int64_t> on_link(cluster.links().size());
  std::map<std::string_view, int64_t> by_class;
  for (const LinkClass link_class : kAllLinkClasses) by_class[Name(link_class)] = 0;
  const std::map<std::string_view, int64_t> none = by_class;
  for (const SeenStep& step : run.steps) {
    ASSERT_EQ(step.exchanges.size(), 2u * kMoeLayers);
    for (int layer = 0; layer < kMoeLayers; ++layer) {
      for (int source = 0; source < ranks; ++source) {
        for (int owner = 0; owner < ranks; ++owner) {
          const int64_t tokens = source == owner ? 0 : step.layers[layer].tokens_between[source * ranks + owner];
          ASSERT_EQ(step.exchanges[2 * layer][source * ranks + owner], tokens * dispatch);
          ASSERT_EQ(step.exchanges[2 * layer + 1][owner * ranks + source], tokens * combine);
          const bool same_node = source / GetParam().gpus_per_node == owner / GetParam().gpus_per_node;
          by_class[same_node ? "nvlink" : "nic"] += tokens * (dispatch + combine);
          const Route there = cluster.route(Rank(source), Rank(owner)), back = cluster.route(Rank(owner), Rank(source));
          for (const Link link : there.links()) {
            on_link[Index(link)] += tokens * dispatch;
          }
          for (const Link link : back.links()) {
            on_link[Index(link)] += tokens * combine;
          }
        }
      }
    }
    ASSERT_THAT(step.bytes_on_link, ElementsAreArray(on_link)) << "after step " << step.index;
  }

  std::map<std::string_view, int64_t> out = none, in = none;
  for (size_t link = 0; link < on_link.size(); ++link) {
    const LinkSpec& spec = cluster.links()[link];
    (spec.outgoing ? out : in)[Name(spec.link_class)] += run.steps.back().bytes_on_link[link];
  }
  EXPECT_EQ(out, in);
  EXPECT_EQ(out, by_class);
  EXPECT_EQ(by_class["nvlink"] > 0, ranks > 1);
  EXPECT_EQ(by_class["nic"] > 0, ranks > GetParam().gpus_per_node);

  const RunReport report = Run(GetParam().set).value();
  for (const auto& [link_class, bytes] : by_class) {
    EXPECT_EQ(report.summary["bytes"][std::string(link_class)], bytes) << link_class;
  }
  ASSERT_EQ(report.step_time_us.size(), run.steps.size());
  for (size_t i = 0; i < run.steps.size(); ++i) {
    ASSERT_EQ(report.step_time_us[i], Microseconds(run.steps[i].finish - run.steps[i].start)) << "step " << i;
  }
}

// The stages of one step by kind and layer, each told once and in the order of the schedule.
class Stages {
 public:
  Stages(const SeenStep& step, bool quantizes) {
    for (const SeenStage& stage : step.stages)
      EXPECT_TRUE(stages_.emplace(Key(stage.kind, stage.layer), &stage).second);
    // Layer 0 is dense, the others are not.
    const std::vector<StageKind> dense = {StageKind::kAttention, StageKind::kDenseMlp},
                                 to_router = {StageKind::kAttention, StageKind::kRouter},
                                 from_shared = {StageKind::kSharedExperts, StageKind::kDispatch,
                                                StageKind::kRoutedExperts, StageKind::kCombine};
    std::vector<Key> wanted;
    for (const StageKind kind : dense) wanted.emplace_back(kind, 0);
    for (int layer = 1; layer <= kMoeLayers; ++layer) {
      for (const StageKind kind : to_router) wanted.emplace_back(kind, layer);
      if (quantizes) wanted.emplace_back(StageKind::kQuantize, layer);
      for (const StageKind kind : from_shared) wanted.emplace_back(kind, layer);
    }
    wanted.emplace_back(StageKind::kLmHead, kMoeLayers + 1);
    std::vector<Key> told;
    for (const SeenStage& stage : step.stages) told.emplace_back(stage.kind, stage.layer);
    EXPECT_EQ(told, wanted);
  }

  const SeenStage& of(StageKind kind, int layer) const { return *stages_.at(Key(kind, layer)); }

 private:
  using Key = std::pair<StageKind, int>;
  std::map<Key, const SeenStage*> stages_;
};

// Law: no rank does two things at once on a stream; each stage starts when what it needs is there; a rank is finished
// with an exchange when every other has been released and could be heard from, and when what it sends and receives can
// have passed its links; a step starts when the last rank has finished the one before.
TEST_P(Laws, CausesPrecedeEffects) {
  const WitnessedRun run = Replay();
  const Cluster& cluster = run.parts->cluster;
  const int ranks = cluster.ranks();
  const bool overlap = Resolve(GetParam().set).experiment().schedule().overlap_shared_experts();
  const bool quantizes = Resolve(GetParam().set).experiment().costs().precision().dispatch() == FP8;
  constexpr Duration kRounding(1);
  SimTime last_finish{};
  int overlapped = 0;
  for (const SeenStep& step : run.steps) {
    SCOPED_TRACE("step " + std::to_string(step.index));
    ASSERT_EQ(step.start, last_finish);
    last_finish = step.finish;
    ASSERT_GT(step.finish, step.start);

    const Stages stages(step, quantizes);
    if (testing::Test::HasFailure()) return;
    const SeenStage& head = stages.of(StageKind::kLmHead, kMoeLayers + 1);
    ASSERT_EQ(step.finish, *std::max_element(head.finish.begin(), head.finish.end()));
    for (int rank = 0; rank < ranks; ++rank) {
      ASSERT_EQ(stages.of(StageKind::kAttention, 0).start[rank], step.start);
      std::map<GpuStream, SimTime> free;
      for (const SeenStage& stage : step.stages) {
        ASSERT_GE(stage.start[rank], step.start) << Name(stage.kind);
        ASSERT_GE(stage.finish[rank], stage.start[rank]) << Name(stage.kind);
        ASSERT_LE(stage.finish[rank], step.finish) << Name(stage.kind);
        SimTime& stream = free.emplace(StreamOf(stage.kind), step.start).first->second;
        ASSERT_GE(stage.start[rank], stream) << Name(stage.kind) << " of layer " << stage.layer << ", rank " << rank;
        stream = stage.finish[rank];
      }
      for (int layer = 1; layer <= kMoeLayers; ++layer) {
        const SeenStage &router = stages.of(StageKind::kRouter, layer),
                        &dispatch = stages.of(StageKind::kDispatch, layer),
                        &shared = stages.of(StageKind::kSharedExperts, layer),
                        &experts = stages.of(StageKind::kRoutedExperts, layer),
                        &combine = stages.of(StageKind::kCombine, layer);
        ASSERT_GE(dispatch.start[rank], router.finish[rank]);
        if (quantizes) {
          ASSERT_GE(dispatch.start[rank], stages.of(StageKind::kQuantize, layer).finish[rank]);
        }
        ASSERT_GE(dispatch.start[rank], overlap ? SimTime{} : shared.finish[rank]);
        overlapped += dispatch.start[rank] < shared.finish[rank];
        ASSERT_GE(experts.start[rank], dispatch.finish[rank]);
        ASSERT_GE(combine.start[rank], experts.finish[rank]);
        const SeenStage& next = layer < kMoeLayers ? stages.of(StageKind::kAttention, layer + 1) : head;
        ASSERT_GE(next.start[rank], combine.finish[rank]);
        ASSERT_GE(next.start[rank], shared.finish[rank]);
      }
    }

    for (int exchange = 0; exchange < 2 * kMoeLayers; ++exchange) {
      const SeenStage& stage =
          stages.of(exchange % 2 == 0 ? StageKind::kDispatch : StageKind::kCombine, 1 + exchange / 2);
      const std::vector<int64_t>& bytes = step.exchanges[exchange];
      for (int rank = 0; rank < ranks; ++rank) {
        const SimTime last_release = *std::max_element(stage.start.begin(), stage.start.end());
        ASSERT_GE(stage.finish[rank], last_release);
        std::vector<int64_t> through(cluster.links().size());  // Bytes of this rank.
        for (int other = 0; other < ranks; ++other) {
          if (other == rank) continue;
          const Route from = cluster.route(Rank(other), Rank(rank)), to = cluster.route(Rank(rank), Rank(other));
          ASSERT_GT(from.latency.count(), 0);
          ASSERT_GE(stage.finish[rank], stage.start[other] + from.latency) << "of rank " << rank << " after " << other;
          const int64_t received = bytes[other * ranks + rank];
          if (received > 0) {
            const BytesPerSecond bandwidth = cluster.links()[Index(from.links().back())].bandwidth;
            ASSERT_GE(stage.finish[rank] + kRounding, stage.start[other] + Bytes(received) / bandwidth + from.latency);
          }
          through[Index(to.links().front())] += bytes[rank * ranks + other];
        }
        for (size_t link = 0; link < through.size(); ++link) {
          if (through[link] == 0) continue;
          ASSERT_GE(stage.finish[rank] + kRounding,
                    stage.start[rank] + Bytes(through[link]) / cluster.links()[link].bandwidth);
        }
      }
    }
  }
  EXPECT_EQ(overlapped > 0, overlap);
}

// Law: the files of a report are a function of the configuration and of what the trace holds: not of the number of
// threads, and of how the trace is compressed and cut into chunks only by its hash.
TEST_P(Laws, TheReportIsAFunctionOfConfigurationAndTrace) {
  const auto files = [&](const std::string& out, int threads) {
    RunOptions options;
    options.out = (folder_ / out).string();
    options.threads = threads;
    const absl::StatusOr<RunReport> report = Run(GetParam().set, options);
    EXPECT_TRUE(report.ok()) << report.status();
    std::map<std::string, std::string> texts;
    for (const char* file : {"summary.json", "steps.csv", "timeline.json", "manifest.txtpb"}) {
      texts[file] = ReadFile((folder_ / out / file).string());
      EXPECT_FALSE(texts[file].empty()) << file;
    }
    return std::pair(report->summary["trace"]["hash"].get<std::string>(), texts);
  };
  auto [hash, one] = files("one", 1);
  for (const int threads : {2, 5}) {
    const auto [same_hash, texts] = files("threads" + std::to_string(threads), threads);
    EXPECT_EQ(same_hash, hash);
    for (const auto& [file, text] : texts) EXPECT_EQ(text, one[file]) << file << ", " << threads << " threads";
  }

  TraceForm other = GetParam().form;
  other.zstd = !other.zstd;
  const int64_t cut = other.chunk_bytes;
  for (const int64_t chunk_bytes : {cut, cut < 10'000 ? int64_t{1} << 20 : int64_t{700}}) {
    other.chunk_bytes = chunk_bytes;
    WriteDrawn(other);
    auto [other_hash, texts] = files("form" + std::to_string(chunk_bytes), 2);
    EXPECT_NE(other_hash, hash);
    for (auto& [file, text] : texts) {
      const bool tells_hash = file == "summary.json" || file == "manifest.txtpb";
      const size_t at = text.find(other_hash);
      ASSERT_EQ(at != std::string::npos, tells_hash) << file;
      if (tells_hash) text.replace(at, other_hash.size(), hash);
      EXPECT_EQ(text, one[file]) << file << ", chunks of " << chunk_bytes;
    }
  }
}

std::vector<World> CountsWorlds() {
  std::vector<World> worlds;
  std::copy_if(std::begin(kWorlds), std::end(kWorlds), std::back_inserter(worlds),
               [](const World& world) { return world.kind == TraceKind::kCounts; });
  return worlds;
}

std::string NameOf(const testing::TestParamInfo<World>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Worlds, Laws, testing::ValuesIn(kWorlds), NameOf);
INSTANTIATE_TEST_SUITE_P(Worlds, CountsLaws, testing::ValuesIn(CountsWorlds()), NameOf);

// Law: a lock-step replay of requests that fill whole groups runs every token of the trace once.  No two tokens of the
// trace have the same ids, so a token is known by them.
class LockStep : public SmallRun, public testing::WithParamInterface<std::tuple<int, int, bool>> {};

TEST_P(LockStep, EveryTokenIsReplayedOnce) {
  const auto [ranks, requests_per_rank, ragged] = GetParam();
  const int groups = 3;
  const DrawnTrace requests =
      Draw({.parts = groups * ranks * requests_per_rank, .most_prefill = 10, .ragged = ragged, .seed = 5});
  WriteRequests(requests, (folder_ / "small.eptrace").string(), {.chunk_bytes = 600});
  std::map<std::vector<int32_t>, int> wanted;
  for (const auto& request : requests) {
    for (const DrawnToken& token : request) {
      std::vector<int32_t> row;
      for (const auto& layer : token.ids) row.insert(row.end(), layer.begin(), layer.end());
      ASSERT_EQ(wanted[row]++, 0);
    }
  }
  const WitnessedRun run =
      Witness(ResolveExperiment({.path = experiment_,
                                 .trace = {},
                                 .set = {"ranks=" + std::to_string(ranks),
                                         "workload.lock_step.requests_per_rank=" + std::to_string(requests_per_rank),
                                         "planning.fraction=0"},
                                 .seed = {}})
                  .value())
          .value();
  std::map<std::vector<int32_t>, int> seen;
  for (const SeenStep& step : run.steps) {
    for (const std::vector<int32_t>& row : step.rows) ++seen[row];
  }
  EXPECT_EQ(seen, wanted);
}

INSTANTIATE_TEST_SUITE_P(Groups, LockStep,
                         testing::Values(std::tuple(1, 7, false), std::tuple(4, 3, true), std::tuple(8, 4, false),
                                         std::tuple(8, 1, true)));

}  // namespace
}  // namespace epsim
