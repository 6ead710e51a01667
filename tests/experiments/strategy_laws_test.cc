// The laws that a whole run keeps under every communication strategy, schedule and network model: no token is lost in a
// piece, the links carry what the strategy's definition puts there, causes come before effects, and the report is a
// function of the configuration.
#include <algorithm>
#include <map>
#include <numeric>
#include <ostream>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/schedule/batch_split.h"
#include "tests/experiments/drawn_trace.h"
#include "tests/experiments/small_run.h"
#include "tests/experiments/witnessed_run.h"

namespace epsim {
namespace {

using ::testing::ElementsAreArray;

constexpr int kMoeLayers = DrawnToken::kLayers, kExperts = DrawnToken::kExperts, kTopK = DrawnToken::kTopK;
constexpr int64_t kHidden = 2048, kBf16Row = 2 * kHidden;
// In fp8 a float32 scale goes with each 128 values.
constexpr int64_t kFp8Row = kHidden + kHidden / 128 * 4;
constexpr int64_t kIdsAndWeights = 8 * kTopK;  // int32 and float32.
constexpr int64_t kStatistics = 4 * kExperts;  // An int32 an expert.
constexpr int kMtpRuns = 2, kMaxTokens = 40;

struct Strategy {
  const char* name;
  const char* set;
  const char* platform = "h100-sxm";  // 8 GPUs a node.
  int ranks = 16;
};

void PrintTo(const Strategy& strategy, std::ostream* out) { *out << strategy.set; }

const Strategy kStrategies[] = {
    {"AllToAll", "all_to_all {}"},
    {"DeepEpNormal", "deepep_normal {}"},
    {"DeepEpLowLatency", "deepep_low_latency {}"},
    {"DeepEpLowLatencyRdmaOnly", "deepep_low_latency { rdma_only: true }"},
    {"NvlinkOneSided", "nvlink_one_sided {}", "gb200-nvl72", 8},
    {"NvlinkTwoSided", "nvlink_two_sided {}", "gb200-nvl72", 8},
    {"AllGatherReduceScatter", "allgather_reducescatter {}"},
    {"AllGatherReduceScatterPadded", "allgather_reducescatter { pad_to_max: true }"},
    {"AllReduce", "all_reduce {}"},
    {"NcclAllToAll", "nccl_all_to_all {}"},
    // The first that is feasible on two nodes is deepep_normal, which takes no chunks and then gives way for good.
    {"AutomaticTensorRtLlm", "automatic { order: TENSORRT_LLM }"},
    // Low latency for steps without prompts: some are, some are not.
    {"AutomaticSglang", "automatic { order: SGLANG }"},
};

enum class Cut { kWhole, kHalves, kChunks };
struct Schedule {
  const char* name;
  const char* set;
  Cut cut = Cut::kWhole;
  bool fp8 = false;
};

void PrintTo(const Schedule& schedule, std::ostream* out) { *out << schedule.set; }

const Schedule kSchedules[] = {
    {"External", "external {}"},
    {"Fp8Dispatch", "external {}", Cut::kWhole, true},
    {"SharedExpertsFirst", "external {} overlap_shared_experts: false"},
    {"AlwaysPadded", "external { padding: ALWAYS }"},
    {"Chunks", "external {} max_tokens: 40", Cut::kChunks},
    {"ChunkOverlap", "external { chunk_overlap: true } max_tokens: 40", Cut::kChunks},
    {"TwoBatchOverlapPrefill", "external { two_batch_overlap { order: PREFILL } }", Cut::kHalves},
    {"TwoBatchOverlapDecode", "external { two_batch_overlap { order: DECODE } }", Cut::kHalves},
    {"MtpRuns", "external {} mtp_runs: 2"},
    {"LoadStatistics", "external {} load_statistics: true"},
    {"Fused", "fused {} max_tokens: 40", Cut::kChunks},
};

using Case = std::tuple<Strategy, Schedule, const char*>;

// Why the assembly refuses the combination, or null.
const char* Refusal(const Strategy& strategy, const Schedule& schedule) {
  const std::string communication = strategy.set, kind = schedule.name;
  const bool collective = communication.starts_with("allgather") || communication.starts_with("all_reduce");
  if (kind == "Fused" && !communication.starts_with("all_to_all")) return "or an external schedule would do";
  if (kind == "ChunkOverlap" && !collective) return "allgather_reducescatter or all_reduce would do";
  if (schedule.cut == Cut::kHalves && communication.starts_with("all_reduce")) return "has no dispatch to overlap with";
  if (schedule.cut == Cut::kChunks &&
      (communication.starts_with("deepep") || std::string(strategy.name) == "AutomaticSglang")) {
    return "it takes all tokens of a layer in one exchange";
  }
  return nullptr;
}

std::vector<Case> Cases(bool refused) {
  std::vector<Case> cases;
  for (const Strategy& strategy : kStrategies) {
    for (const Schedule& schedule : kSchedules) {
      for (const char* network : {"port", "max_min"}) {
        if ((Refusal(strategy, schedule) != nullptr) == refused) cases.emplace_back(strategy, schedule, network);
      }
    }
  }
  return cases;
}

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  const auto& [strategy, schedule, network] = info.param;
  return std::string(strategy.name) + "_" + schedule.name + "_" + network;
}

class StrategyLaws : public SmallRun, public testing::WithParamInterface<Case> {
 protected:
  const Strategy& strategy() const { return std::get<0>(GetParam()); }
  const Schedule& schedule() const { return std::get<1>(GetParam()); }

  void SetUp() override {
    SmallRun::SetUp();
    WriteFile("model.txtpb", R"(
      name: "small" layers: 3 moe_layers: 2 hidden: 2048 dense_intermediate: 2048
      experts: 16 top_k: 4 moe_intermediate: 512 shared_experts: 1 shared_intermediate: 512
      expert_groups: 1 top_groups: 1 heads: 8 gqa { kv_heads: 2 head_dim: 128 } vocabulary: 1000 scoring: SOFTMAX
      mtp_layers: 1)");
    drawn_ = Draw({.parts = 16,
                   .least_tokens = 3,
                   .most_tokens = 100,
                   .most_prefill = 16,
                   .sources = 16,
                   .ragged = true,
                   .skew = 10});
    WriteSteps(drawn_, 16, (folder_ / "small.eptrace").string());
    WriteFile("small.experiment",
              std::string("trace: \"small.eptrace\" model: \"model.txtpb\" seed: 7 placement { eplb {} }") +
                  " redundant_slots_per_rank: 1 workload { recorded {} } platform: \"" + strategy().platform +
                  "\" ranks: " + std::to_string(strategy().ranks) + " communication { " + strategy().set +
                  " } schedule { " + schedule().set + " } network { " + std::get<2>(GetParam()) + " {} }" +
                  (schedule().fp8 ? " costs { precision { dispatch: FP8 } }" : ""));
  }

  // On some rank; a single token of a prompt is as good as one of decode.
  bool HasPrompt(const SeenStep& step) const {
    std::map<int, int> prompt_tokens;
    for (const DrawnToken& token : drawn_[step.index]) prompt_tokens[token.source] += token.prefill;
    return std::any_of(prompt_tokens.begin(), prompt_tokens.end(), [](const auto& rank) { return rank.second > 1; });
  }

  WitnessedRun Replay() {
    return Witness(ResolveExperiment({.path = experiment_, .trace = {}, .set = {}, .seed = {}}).value()).value();
  }

 private:
  DrawnTrace drawn_;
};

// The pieces of a step, from the rules of the schedule: the first half of n tokens has floor(n / 2); chunk c of
// k = ceil(ranks * most / max_tokens) has n / k, and one more where c < n mod k.
std::vector<TokenRange> Pieces(const SeenStep& step, Cut cut, int ranks) {
  int most = 0;
  for (int rank = 0; rank < ranks; ++rank) most = std::max(most, step.tokens_of(rank));
  int pieces = 1;
  if (cut == Cut::kHalves && most > 1) pieces = 2;
  if (cut == Cut::kChunks) pieces = (ranks * most + kMaxTokens - 1) / kMaxTokens;
  std::vector<TokenRange> ranges(pieces);
  for (int rank = 0; rank < ranks; ++rank) {
    int at = step.rank_begin[rank];
    for (int piece = 0; piece < pieces; ++piece) {
      const int tokens = step.tokens_of(rank), longer = tokens % pieces;
      const bool one_more = cut == Cut::kHalves ? piece >= pieces - longer : piece < longer;
      ranges[piece].begin.push_back(at);
      ranges[piece].end.push_back(at += tokens / pieces + one_more);
    }
  }
  return ranges;
}

struct Counts {
  std::vector<int32_t> tokens_per_slot, tokens_between, pairs_between, tokens_to_node, tokens;
};

Counts CountOneByOne(const SeenStep& step, const TokenRange& range, int layer, const PlacementShape& shape,
                     const ReplicaTable& table) {
  const int ranks = shape.ranks, nodes = shape.nodes;
  Counts counts;
  counts.tokens_per_slot.resize(shape.slots);
  counts.tokens_between.resize(static_cast<size_t>(ranks) * ranks);
  counts.pairs_between.resize(static_cast<size_t>(ranks) * ranks);
  counts.tokens_to_node.resize(static_cast<size_t>(ranks) * nodes);
  for (int source = 0; source < ranks; ++source) {
    counts.tokens.push_back(range.end[source] - range.begin[source]);
    for (int token = range.begin[source]; token < range.end[source]; ++token) {
      std::set<int> visited, nodes_visited;
      for (int k = 0; k < kTopK; ++k) {
        const int expert = step.rows[token][layer * kTopK + k];
        if (expert < 0) continue;
        const int slot = table.of(Layer(layer), Rank(source))[expert], owner = slot / shape.slots_per_rank();
        ++counts.tokens_per_slot[slot];
        ++counts.pairs_between[source * ranks + owner];
        visited.insert(owner);
        nodes_visited.insert(owner / (ranks / nodes));
      }
      for (const int owner : visited) ++counts.tokens_between[source * ranks + owner];
      for (const int node : nodes_visited) ++counts.tokens_to_node[source * nodes + node];
    }
  }
  return counts;
}

// Law: every token is in one piece, and every token-expert pair of the trace is computed by one slot in it.
TEST_P(StrategyLaws, TokensAreConservedInPieces) {
  const WitnessedRun run = Replay();
  const PlacementShape& shape = run.parts->shape;
  ASSERT_GE(run.steps.size(), 10u);
  int64_t pairs = 0;
  size_t most_pieces = 0;
  for (const SeenStep& step : run.steps) {
    SCOPED_TRACE("step " + std::to_string(step.index));
    const std::vector<TokenRange> ranges = Pieces(step, schedule().cut, shape.ranks);
    most_pieces = std::max(most_pieces, ranges.size());
    ASSERT_EQ(step.pieces.size(), ranges.size() * kMoeLayers);
    std::vector<std::vector<int32_t>> whole(kMoeLayers, std::vector<int32_t>(shape.slots));
    std::vector<size_t> piece_of(kMoeLayers);
    for (const SeenPiece& seen : step.pieces) {
      const TokenRange& range = ranges[piece_of[seen.layer]++];
      ASSERT_THAT(seen.range.begin, ElementsAreArray(range.begin));
      ASSERT_THAT(seen.range.end, ElementsAreArray(range.end));
      const Counts counts = CountOneByOne(step, range, seen.layer, shape, run.table);
      ASSERT_THAT(seen.routed.tokens_per_slot, ElementsAreArray(counts.tokens_per_slot));
      ASSERT_THAT(seen.routed.tokens_between, ElementsAreArray(counts.tokens_between));
      for (int slot = 0; slot < shape.slots; ++slot) whole[seen.layer][slot] += counts.tokens_per_slot[slot];
    }
    for (int layer = 0; layer < kMoeLayers; ++layer) {
      ASSERT_THAT(step.layers[layer].tokens_per_slot, ElementsAreArray(whole[layer]));
      int64_t valid = 0;
      for (const std::vector<int32_t>& row : step.rows) {
        for (int k = 0; k < kTopK; ++k) valid += row[layer * kTopK + k] >= 0;
      }
      ASSERT_EQ(std::accumulate(whole[layer].begin(), whole[layer].end(), int64_t{0}), valid);
      ASSERT_EQ(step.layers[layer].pairs, valid);
      pairs += valid;
    }
  }
  EXPECT_GT(pairs, 500);
  EXPECT_EQ(most_pieces > 1, schedule().cut != Cut::kWhole);
}

// What goes from each rank to each other in one exchange of one piece, where the strategy says it pair by pair.
std::vector<int64_t> StraightBytes(const std::string& name, bool combine, int64_t row, const Counts& counts, int ranks,
                                   int nodes) {
  std::vector<int64_t> bytes(static_cast<size_t>(ranks) * ranks);
  const auto add = [&](int from, int to, int64_t of_pair) {
    if (from != to) bytes[combine ? to * ranks + from : from * ranks + to] += of_pair;
  };
  const int per_node = ranks / nodes;
  const auto to_16 = [](int64_t size) { return (size + 15) / 16 * 16; };
  // DeepEP's copy between nodes also has its flags and, for each expert, id and weight or, on the way back, the weight.
  const int64_t between_nodes = to_16(row + 8 + (combine ? 4 : 8) * kTopK);
  for (int source = 0; source < ranks; ++source) {
    for (int owner = 0; owner < ranks; ++owner) {
      const int64_t tokens = counts.tokens_between[source * ranks + owner];
      const int64_t pairs = counts.pairs_between[source * ranks + owner];
      if (name == "all_to_all") {
        add(source, owner, tokens * row);
      } else if (name.starts_with("nvlink")) {
        add(source, owner, tokens * (row + (combine ? 0 : kIdsAndWeights)));
      } else if (name == "nccl_all_to_all") {
        add(source, owner, pairs * row);
      } else if (name == "deepep_low_latency") {
        add(source, owner, pairs * (row + (combine ? 0 : 16)));
      } else {
        EXPECT_EQ(name, "deepep_normal");
        // To the GPU with the source's place on the owner's node, one copy a node, and on from there.
        const int peer = owner / per_node * per_node + source % per_node;
        if (owner == peer) add(source, peer, counts.tokens_to_node[source * nodes + owner / per_node] * between_nodes);
        add(peer, owner, tokens * row);
      }
    }
  }
  return bytes;
}

// A collective in rings: each rank sends, or receives, everything but its own part; in all, `parts` are carried
// ranks - 1 times.
void ExpectRings(const std::vector<int64_t>& bytes, const std::vector<int64_t>& parts, bool gathers, int ranks) {
  const int64_t all = std::accumulate(parts.begin(), parts.end(), int64_t{0});
  for (int rank = 0; rank < ranks; ++rank) {
    int64_t sent = 0, received = 0;
    for (int other = 0; other < ranks; ++other) {
      sent += bytes[rank * ranks + other];
      received += bytes[other * ranks + rank];
    }
    ASSERT_EQ(gathers ? received : sent, all - parts[rank]) << "rank " << rank;
  }
  ASSERT_EQ(std::accumulate(bytes.begin(), bytes.end(), int64_t{0}), (ranks - 1) * all);
}

// Law: each exchange carries what the strategy's definition says of the tokens of its piece, and what is on a link is
// the sum over the exchanges whose routes cross it.
TEST_P(StrategyLaws, LinksCarryWhatTheStrategySends) {
  const WitnessedRun run = Replay();
  const Cluster& cluster = run.parts->cluster;
  const PlacementShape& shape = run.parts->shape;
  const int ranks = shape.ranks, nodes = shape.nodes;
  const std::string set = strategy().set;
  std::vector<int64_t> on_link(cluster.links().size());
  std::set<std::string> names_seen;
  bool gave_way = false;
  int padded_steps = 0;
  for (const SeenStep& step : run.steps) {
    SCOPED_TRACE("step " + std::to_string(step.index));
    const std::vector<TokenRange> ranges = Pieces(step, schedule().cut, ranks);
    bool some_rank_empty = false;
    std::vector<std::vector<Counts>> counts(kMoeLayers);
    for (int layer = 0; layer < kMoeLayers; ++layer) {
      for (const TokenRange& range : ranges) {
        counts[layer].push_back(CountOneByOne(step, range, layer, shape, run.table));
        const std::vector<int32_t>& tokens = counts[layer].back().tokens;
        const auto [least, greatest] = std::minmax_element(tokens.begin(), tokens.end());
        some_rank_empty |= *least == 0 && *greatest > 0;
      }
    }
    std::string name = set.substr(0, set.find(' '));
    if (std::string(strategy().name) == "AutomaticSglang") {
      name = HasPrompt(step) ? "deepep_normal" : "deepep_low_latency";
    } else if (name == "automatic") {
      gave_way |= schedule().cut == Cut::kChunks && ranges.size() > 1;
      name = gave_way ? "allgather_reducescatter" : "deepep_normal";
    }
    names_seen.insert(name);
    const bool pads = std::string(schedule().name) == "AlwaysPadded" ||
                      (name == "allgather_reducescatter" && some_rank_empty && std::string(schedule().name) != "Fused");
    padded_steps += pads;

    size_t next = 0;
    for (const SeenStage& stage : step.stages) {
      if (StreamOf(stage.kind) != GpuStream::kCommunication && stage.kind != StageKind::kFusedExperts) continue;
      SCOPED_TRACE(std::string(Name(stage.kind)) + " of layer " + std::to_string(stage.layer));
      ASSERT_LT(next, step.exchanges.size());
      const std::vector<int64_t>& bytes = step.exchanges[next];
      const Way way = step.ways[next++];
      ASSERT_EQ(way == Way::kNetwork,
                set.find("rdma_only") != std::string::npos && stage.kind != StageKind::kStatistics);
      for (int source = 0; source < ranks; ++source) {
        for (int owner = 0; owner < ranks; ++owner) {
          if (source == owner) {
            ASSERT_EQ(bytes[source * ranks + owner], 0);
            continue;
          }
          const Route route = cluster.route(Rank(source), Rank(owner), way);
          for (const Link link : route.links()) {
            on_link[Index(link)] += bytes[source * ranks + owner];
          }
        }
      }
      // Layer 0 is dense.
      const Counts& piece = counts[stage.layer - 1][stage.part == 0 ? stage.chunk : stage.part - 1];
      // TensorRT-LLM quantises for deepep_normal when tokens have arrived, all but NVFP4.
      const bool fp8 = schedule().fp8 && !(name == "deepep_normal" && set.find("TENSORRT") != std::string::npos);
      const int64_t dispatch_row = fp8 ? kFp8Row : kBf16Row;
      const bool combine = stage.kind == StageKind::kCombine;
      std::vector<int64_t> rows(piece.tokens.begin(), piece.tokens.end());
      const int64_t fullest = *std::max_element(rows.begin(), rows.end());
      if (pads) std::fill(rows.begin(), rows.end(), fullest);
      const int64_t all_rows = std::accumulate(rows.begin(), rows.end(), int64_t{0});
      if (stage.kind == StageKind::kStatistics) {
        // Reduce-scatter and all-gather.
        ASSERT_EQ(std::accumulate(bytes.begin(), bytes.end(), int64_t{0}), 2 * (ranks - 1) * kStatistics);
      } else if (name == "all_reduce") {
        ASSERT_TRUE(combine);
        ASSERT_EQ(std::accumulate(bytes.begin(), bytes.end(), int64_t{0}), 2 * (ranks - 1) * all_rows * kBf16Row);
      } else if (name == "allgather_reducescatter") {
        if (set.find("pad_to_max") != std::string::npos) std::fill(rows.begin(), rows.end(), fullest);
        for (int64_t& row : rows) row *= combine ? kBf16Row : dispatch_row + kIdsAndWeights;
        ExpectRings(bytes, rows, !combine, ranks);
      } else if (stage.kind == StageKind::kFusedExperts) {
        std::vector<int64_t> both = StraightBytes(name, false, dispatch_row, piece, ranks, nodes);
        const std::vector<int64_t> back = StraightBytes(name, true, kBf16Row, piece, ranks, nodes);
        for (size_t i = 0; i < both.size(); ++i) both[i] += back[i];
        ASSERT_THAT(bytes, ElementsAreArray(both));
      } else {
        ASSERT_THAT(bytes, ElementsAreArray(
                               StraightBytes(name, combine, combine ? kBf16Row : dispatch_row, piece, ranks, nodes)));
      }
    }
    ASSERT_EQ(next, step.exchanges.size());
    ASSERT_THAT(step.bytes_on_link, ElementsAreArray(on_link)) << "after step " << step.index;
  }
  std::map<std::string, int64_t> by_class;
  for (size_t link = 0; link < on_link.size(); ++link) {
    const LinkSpec& spec = cluster.links()[link];
    if (spec.outgoing) by_class[std::string(Name(spec.link_class))] += on_link[link];
  }
  EXPECT_EQ(by_class["nic"] > 0, nodes > 1);
  const RunReport report = Run().value();
  for (const auto& [link_class, bytes] : by_class) EXPECT_EQ(report.summary["bytes"][link_class], bytes) << link_class;
  if (std::string(strategy().name) == "AutomaticSglang") {
    EXPECT_EQ(names_seen.size(), 2u);
  }
  if (set.starts_with("allgather") || std::string(schedule().name) == "AlwaysPadded") {
    EXPECT_GT(padded_steps, 0);
  }
}

// Law: no rank does two things at once on a stream; each stage starts when what it needs is there; an exchange ends on
// no rank before every rank has begun it and could be heard from; every layer runs as often as it should.
TEST_P(StrategyLaws, CausesPrecedeEffects) {
  const WitnessedRun run = Replay();
  const Cluster& cluster = run.parts->cluster;
  const int ranks = cluster.ranks();
  const std::string kind = schedule().name;
  const bool overlaps_chunks = kind == "ChunkOverlap";
  SimTime last_finish{};
  int64_t overlapped = 0;
  for (const SeenStep& step : run.steps) {
    SCOPED_TRACE("step " + std::to_string(step.index));
    ASSERT_EQ(step.start, last_finish);
    last_finish = step.finish;
    const size_t pieces = Pieces(step, schedule().cut, ranks).size();
    const bool halves = schedule().cut == Cut::kHalves && pieces == 2;
    const int chunks = schedule().cut == Cut::kChunks ? static_cast<int>(pieces) : 1;

    // [layer, part, chunk, repeat]
    using Key = std::tuple<StageKind, int, int, int, int>;
    std::map<Key, std::vector<const SeenStage*>> stages;
    SimTime latest{};
    for (const SeenStage& stage : step.stages) {
      stages[{stage.kind, stage.layer, stage.part, stage.chunk, stage.repeat}].push_back(&stage);
      latest = std::max(latest, *std::max_element(stage.finish.begin(), stage.finish.end()));
    }
    ASSERT_EQ(step.finish, latest);
    const auto of = [&](StageKind wanted, int layer, int part, int chunk, int repeat) {
      const auto found = stages.find({wanted, layer, part, chunk, repeat});
      return found == stages.end() ? std::vector<const SeenStage*>{} : found->second;
    };

    for (int rank = 0; rank < ranks; ++rank) {
      std::map<GpuStream, SimTime> free;
      for (const SeenStage& stage : step.stages) {
        SCOPED_TRACE(std::string(Name(stage.kind)) + " of layer " + std::to_string(stage.layer));
        ASSERT_GE(stage.finish[rank], stage.start[rank]);
        for (const GpuStream stream : {GpuStream::kCompute, GpuStream::kCommunication}) {
          if (stream != StreamOf(stage.kind) && stage.kind != StageKind::kFusedExperts) continue;
          SimTime& until = free.emplace(stream, step.start).first->second;
          ASSERT_GE(stage.start[rank], until);
          until = stage.finish[rank];
        }
      }
    }

    for (const SeenStage& stage : step.stages) {
      if (StreamOf(stage.kind) != GpuStream::kCommunication && stage.kind != StageKind::kFusedExperts) continue;
      for (int rank = 0; rank < ranks; ++rank) {
        for (int other = 0; other < ranks; ++other) {
          if (other == rank) continue;
          ASSERT_GE(stage.finish[rank], stage.start[other] + cluster.route(Rank(other), Rank(rank)).latency)
              << Name(stage.kind) << " on rank " << rank << " after rank " << other;
        }
        if (stage.chunk > 0 && stage.kind == StageKind::kFusedExperts) {
          ASSERT_EQ(stage.start[rank], stage.start[0]);
        }
      }
    }

    const int repeats = kind == "MtpRuns" ? 1 + kMtpRuns : 1;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      for (const int part : halves ? std::vector<int>{1, 2} : std::vector<int>{0}) {
        for (int rank = 0; rank < ranks; ++rank) {
          SimTime before = step.start;
          for (int layer = repeat == 0 ? 1 : kMoeLayers; layer <= kMoeLayers; ++layer) {
            SCOPED_TRACE("layer " + std::to_string(layer) + ", part " + std::to_string(part) + ", run " +
                         std::to_string(repeat));
            const auto attention = of(StageKind::kAttention, layer, part, 0, repeat);
            ASSERT_EQ(attention.size(), halves && kind == "TwoBatchOverlapDecode" ? 2u : 1u);
            ASSERT_GE(attention[0]->start[rank], before);
            const auto router = of(StageKind::kRouter, layer, part, 0, repeat);
            ASSERT_EQ(router.size(), 1u);
            ASSERT_GE(router[0]->start[rank], attention.back()->finish[rank]);
            SimTime after_router = router[0]->finish[rank];
            for (const SeenStage* statistics : of(StageKind::kStatistics, layer, part, 0, repeat)) {
              ASSERT_GE(statistics->start[rank], after_router);
            }
            SimTime results{}, chunk_before{};
            for (int chunk = 0; chunk < chunks; ++chunk) {
              const auto fused = of(StageKind::kFusedExperts, layer, part, chunk, repeat);
              if (!fused.empty()) {
                ASSERT_EQ(kind, "Fused");
                ASSERT_GE(fused[0]->start[rank], std::max(after_router, chunk_before));
                results = chunk_before = fused[0]->finish[rank];
                continue;
              }
              SimTime arrived = after_router;
              const auto dispatch = of(StageKind::kDispatch, layer, part, chunk, repeat);
              ASSERT_EQ(dispatch.empty(), std::string(strategy().name) == "AllReduce");
              const auto quantize = of(StageKind::kQuantize, layer, part, chunk, repeat);
              if (!dispatch.empty()) {
                ASSERT_GE(dispatch[0]->start[rank], after_router);
                if (!overlaps_chunks) {
                  ASSERT_GE(dispatch[0]->start[rank], chunk_before);
                }
                arrived = dispatch[0]->finish[rank];
                if (!quantize.empty()) {
                  ASSERT_TRUE(quantize[0]->finish[rank] <= dispatch[0]->start[rank] ||
                              quantize[0]->start[rank] >= arrived);
                }
              }
              const auto experts = of(StageKind::kRoutedExperts, layer, part, chunk, repeat);
              ASSERT_EQ(experts.size(), 1u);
              ASSERT_GE(experts[0]->start[rank], arrived);
              if (!quantize.empty()) {
                ASSERT_GE(experts[0]->start[rank], quantize[0]->finish[rank]);
              }
              const auto combine = of(StageKind::kCombine, layer, part, chunk, repeat);
              ASSERT_EQ(combine.size(), 1u);
              ASSERT_GE(combine[0]->start[rank], experts[0]->finish[rank]);
              results = std::max(results, combine[0]->finish[rank]);
              chunk_before = combine[0]->finish[rank];
            }
            const auto shared = of(StageKind::kSharedExperts, layer, part, 0, repeat);
            ASSERT_EQ(shared.size(), 1u);
            ASSERT_GE(shared[0]->start[rank], attention.back()->finish[rank]);
            if (kind == "SharedExpertsFirst") {
              for (const SeenStage* dispatch : of(StageKind::kDispatch, layer, part, 0, repeat)) {
                ASSERT_GE(dispatch->start[rank], shared[0]->finish[rank]);
              }
            }
            before = std::max(results, shared[0]->finish[rank]);
          }
          const auto head = of(StageKind::kLmHead, kMoeLayers + 1, 0, 0, repeat);
          ASSERT_EQ(head.size(), 1u);
          ASSERT_GE(head[0]->start[rank], before);
          if (repeat == 0) continue;
          // A prediction layer takes what the pass before has predicted.
          const auto predicted = of(StageKind::kLmHead, kMoeLayers + 1, 0, 0, repeat - 1);
          ASSERT_GE(of(StageKind::kAttention, kMoeLayers, part, 0, repeat)[0]->start[rank], predicted[0]->finish[rank]);
        }
      }
    }
    ASSERT_TRUE(of(StageKind::kRouter, kMoeLayers, halves ? 1 : 0, 0, repeats).empty());

    // Attention or experts of one piece beside an exchange of another.
    for (const SeenStage& exchange : step.stages) {
      if (exchange.kind != StageKind::kDispatch && exchange.kind != StageKind::kCombine) continue;
      for (const SeenStage& stage : step.stages) {
        if (stage.kind != StageKind::kAttention && stage.kind != StageKind::kRoutedExperts) continue;
        for (int rank = 0; rank < ranks; ++rank) {
          overlapped += stage.start[rank] < exchange.finish[rank] && exchange.start[rank] < stage.finish[rank];
        }
      }
    }
  }
  EXPECT_EQ(overlapped > 0, schedule().cut == Cut::kHalves || overlaps_chunks);
}

// Law: the files of a report are the same again, for any number of threads.
TEST_P(StrategyLaws, TheReportIsTheSame) {
  const auto files = [&](const std::string& out, int threads) {
    RunOptions options;
    options.out = (folder_ / out).string();
    options.threads = threads;
    EXPECT_TRUE(Run({}, options).ok());
    std::map<std::string, std::string> texts;
    for (const char* file : {"summary.json", "steps.csv", "timeline.json", "manifest.txtpb"}) {
      texts[file] = ReadFile((folder_ / out / file).string());
      EXPECT_FALSE(texts[file].empty()) << file;
    }
    return texts;
  };
  const auto one = files("one", 1);
  EXPECT_EQ(files("three", 3), one);
  EXPECT_EQ(files("again", 1), one);
}

INSTANTIATE_TEST_SUITE_P(All, StrategyLaws, testing::ValuesIn(Cases(false)), NameOf);

class RefusedStrategy : public StrategyLaws {};

TEST_P(RefusedStrategy, SaysWhy) {
  const absl::StatusOr<RunReport> report = Run();
  ASSERT_FALSE(report.ok());
  EXPECT_THAT(std::string(report.status().message()), testing::HasSubstr(Refusal(strategy(), schedule())));
}

INSTANTIATE_TEST_SUITE_P(All, RefusedStrategy, testing::ValuesIn(Cases(true)), NameOf);

}  // namespace
}  // namespace epsim
