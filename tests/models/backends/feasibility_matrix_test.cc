// Question: does every combination of backend, formats, communication, schedule and platform either work or say why
// not?
//
// The reasons are those of the checks themselves, in the order in which a run meets them; nothing is listed here as
// infeasible.  What is known of the world is asserted of the combinations that are left.  The table is printed.
//
// The short form (one model, four platforms) runs with the other tests.  All models on all platforms, two million
// combinations and 50,000 lines, run in seconds with
//   feasibility_matrix_test --gtest_also_run_disabled_tests --gtest_filter='*EveryModelOnEveryPlatform'
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/text_proto.h"
#include "gtest/gtest.h"
#include "models/backends/backend.h"
#include "models/catalogue.h"
#include "models/communication/communication.h"
#include "models/costs/cost_model.h"
#include "models/number_type.h"
#include "models/schedule/schedule_config.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

struct Site {
  std::string platform;
  int ranks;
};

struct ScheduleCase {
  const char* name;
  const char* text;
  int chunks;
};
constexpr ScheduleCase kSchedules[] = {
    {"external", "external {}", 1},
    {"chunks", "external {} max_tokens: 256", 2},
    {"chunk_overlap", "external { chunk_overlap: true } max_tokens: 256", 2},
    {"two_batch_overlap", "external { two_batch_overlap {} }", 1},
    {"fused", "fused {}", 1},
};
constexpr int kTokens = 64;  // Of each rank, in decode.

// One combination that works.
struct Feasible {
  std::string backend;
  Precision precision;
  std::string communication;  // As configured.
  std::string in_use;         // What automatic has chosen.
  std::string schedule;
  GpuSpec gpu;
  bool nvlink;
  int nodes;
};

// The first refusal of a combination.  `offenders`: what the reason has to name, one of them at least.
struct Refusal {
  absl::Status status;
  std::vector<std::string> offenders;
};

// Pairs of weights and activations.
const std::vector<std::pair<NumberType, NumberType>>& Formats() {
  static const auto* const formats = new std::vector<std::pair<NumberType, NumberType>>{
      {BF16, BF16},  {FP8, FP8},    {FP8, BF16},  {MXFP8, MXFP8}, {NVFP4, NVFP4},
      {NVFP4, BF16}, {MXFP4, BF16}, {MXFP4, FP8}, {MXFP4, MXFP8}};
  return *formats;
}

std::vector<std::string> Communications() {
  std::vector<std::string> names;
  const google::protobuf::OneofDescriptor* all = CommunicationConfig::descriptor()->FindOneofByName("communication");
  for (int i = 0; i < all->field_count(); ++i) names.push_back(all->field(i)->name());
  return names;
}

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  const absl::Status status = ParseTextProto(text, "test", &message);
  EXPECT_TRUE(status.ok()) << status;
  return message;
}

class Matrix {
 public:
  void Run(const std::vector<std::string>& models, const std::vector<Site>& sites) {
    for (const std::string& model : models) {
      for (const Site& site : sites) {
        const PlatformSpec platform = *FindPlatform(site.platform);
        const absl::StatusOr<Cluster> cluster = Cluster::Create(platform, site.ranks);
        ASSERT_TRUE(cluster.ok()) << cluster.status();
        for (const CatalogueFile& file : BackendCatalogue()) {
          const Backend backend = Parse<Backend>(std::string(file.text));
          for (const auto& [weights, activations] : Formats()) {
            AddRow(model, site, backend, weights, activations, *cluster);
          }
        }
      }
    }
    PrintReasons();
  }

  const std::vector<Feasible>& feasible() const { return feasible_; }
  int64_t combinations() const { return combinations_; }

 private:
  void AddRow(const std::string& model_name, const Site& site, const Backend& backend, NumberType weights,
              NumberType activations, const Cluster& cluster) {
    const ModelSpec model = *FindModel(model_name);
    CostConfig costs;
    costs.mutable_precision()->set_expert_weights(weights);
    costs.mutable_precision()->set_expert_activations(activations);
    costs = *CompleteCostConfig(costs, cluster.platform().gpu());
    const std::string row =
        absl::StrCat(Name(backend), " | ", NumberType_Name(weights), " x ", NumberType_Name(activations), " | ",
                     model_name, " | ", site.platform, " x ", site.ranks, " | ");
    SCOPED_TRACE(row);
    constexpr int64_t kColumns = std::size(kSchedules);
    const int64_t cells = static_cast<int64_t>(Communications().size()) * kColumns;
    combinations_ += cells;
    const GpuSpec& gpu = cluster.platform().gpu();
    if (const absl::Status can = CanImplement(backend, costs.precision(), gpu, model); !can.ok()) {
      Count({can,
             {NumberType_Name(weights), absl::StrCat(gpu.compute_capability()), absl::StrCat(model.hidden()),
              absl::StrCat(model.moe_intermediate()), absl::StrCat(model.experts()), absl::StrCat(model.top_k())}},
            "CanImplement", cells);
      std::cout << row << can.message() << "\n";
      return;
    }
    // What a backend runs, the GPU has units for.
    EXPECT_TRUE(NewCostModel(costs, model, gpu).ok());
    if (FindQuantisation(backend, costs.precision())->quantised_dispatch()) {
      costs.mutable_precision()->set_dispatch(activations);
    }
    std::vector<std::string> columns;
    for (const std::string& name : Communications()) {
      std::vector<std::string> schedules;
      for (const ScheduleCase& schedule : kSchedules) {
        if (AddCell(backend, costs.precision(), name, schedule, model, cluster)) schedules.push_back(schedule.name);
      }
      if (!schedules.empty()) columns.push_back(absl::StrCat(name, ": ", absl::StrJoin(schedules, " ")));
    }
    std::cout << row << (columns.empty() ? "no communication works" : absl::StrJoin(columns, ", ")) << "\n";
  }

  // Whether it works.
  bool AddCell(const Backend& backend, const Precision& precision, const std::string& name,
               const ScheduleCase& schedule_case, const ModelSpec& model, const Cluster& cluster) {
    SCOPED_TRACE(absl::StrCat(name, " ", schedule_case.name));
    const ScheduleConfig schedule = *CompleteScheduleConfig(Parse<ScheduleConfig>(schedule_case.text));
    const auto refuse = [this](const char* check, const absl::Status& status, std::vector<std::string> offenders) {
      if (!status.ok()) Count({status, std::move(offenders)}, check, 1);
      return !status.ok();
    };
    if (refuse("CanBeScheduled", CanBeScheduled(backend, schedule), {schedule.has_fused() ? "fused" : "external"})) {
      return false;
    }
    if (name != "automatic" && refuse("CanExchangeBy", CanExchangeBy(backend, name), {name})) return false;
    CommunicationSetup setup;
    setup.cluster = &cluster;
    setup.model = model;
    setup.precision = precision;
    // As many slots as experts, made up to whole ranks.
    const int experts = static_cast<int>(model.experts()), ranks = cluster.ranks();
    setup.slots = (experts + ranks - 1) / ranks * ranks;
    setup.max_tokens_per_rank = kTokens;
    auto communication = NewCommunication(Parse<CommunicationConfig>(name + " {}"), setup);
    if (refuse("NewCommunication", communication.status(), {name})) return false;
    const std::string in_use = (*communication)->name();
    if (refuse("CanExchangeBy", CanExchangeBy(backend, in_use), {in_use})) return false;
    if (refuse("CheckSchedule", CheckSchedule(schedule, **communication, model, cluster.platform().gpu()), {in_use})) {
      return false;
    }
    const ForwardShape shape{.max_tokens_per_rank = kTokens, .chunks = schedule_case.chunks};
    if (refuse("Admit", (*communication)->Admit(shape), {in_use})) return false;
    // What has given way for this pass is another strategy.
    const std::string admitted = (*communication)->name();
    if (refuse("CanExchangeBy", CanExchangeBy(backend, admitted), {admitted})) return false;
    feasible_.push_back({Name(backend), precision, name, admitted, schedule_case.name, cluster.platform().gpu(),
                         cluster.has_nvlink(), cluster.nodes()});
    return true;
  }

  // A reason is one line that names what is wrong and what would do.
  void Count(const Refusal& refusal, const char* check, int64_t cells) {
    const std::string reason(refusal.status.message());
    EXPECT_NE(refusal.status.code(), absl::StatusCode::kInternal) << reason;
    EXPECT_FALSE(absl::StrContains(reason, '\n')) << reason;
    bool named = false;
    for (const std::string& offender : refusal.offenders) named = named || absl::StrContains(reason, offender);
    EXPECT_TRUE(named) << check << ": " << reason;
    EXPECT_TRUE(absl::StrContains(reason, "would")) << check << ": " << reason;
    refused_[check] += cells;
    if (cells == 1) reasons_[reason] += 1;
  }

  void PrintReasons() const {
    for (const auto& [reason, cells] : reasons_) std::cout << cells << " combinations: " << reason << "\n";
    std::cout << combinations_ << " combinations, " << feasible_.size() << " feasible";
    for (const auto& [check, cells] : refused_) std::cout << ", " << cells << " refused by " << check;
    std::cout << "\n";
    int64_t refused = 0;
    for (const auto& [check, cells] : refused_) refused += cells;
    EXPECT_EQ(static_cast<int64_t>(feasible_.size()) + refused, combinations_);
  }

  std::vector<Feasible> feasible_;
  int64_t combinations_ = 0;
  std::map<std::string, int64_t> refused_;  // Combinations by check.
  std::map<std::string, int64_t> reasons_;  // By what a check of a single combination says.
};

// What is known of the world.
void ExpectKnownFacts(const std::vector<Feasible>& feasible) {
  const std::set<std::string> fused_backends = {"tensorrt_llm/megamoe_cutedsl", "tensorrt_llm/megamoe_deepgemm"};
  for (const Feasible& f : feasible) {
    SCOPED_TRACE(absl::StrCat(f.backend, " ", f.communication, " ", f.schedule, " ", f.gpu.name(), " ",
                              f.precision.ShortDebugString()));
    const uint32_t generation = f.gpu.compute_capability();
    // Units for fp4 came with Blackwell, for fp8 with Ada and Hopper.
    if (IsFourBit(f.precision.expert_activations())) {
      EXPECT_GE(generation, 100);
    }
    if (IsEightBit(f.precision.expert_activations())) {
      EXPECT_GE(generation, 89);
    }
    // An exchange inside the kernel is a matter of the backend, and leaves none to a library.
    EXPECT_EQ(f.schedule == "fused", fused_backends.contains(f.backend));
    if (f.schedule == "fused") {
      EXPECT_EQ(f.in_use, "all_to_all");
      EXPECT_GE(generation, 100);
    }
    // Kernels that reach their peers' memory end where NVLink does.
    if (f.in_use == "nvlink_one_sided" || f.in_use == "nvlink_two_sided") {
      EXPECT_TRUE(f.nvlink);
      EXPECT_EQ(f.nodes, 1);
    }
    // DeepEP takes a layer's tokens in one exchange (TensorRT-LLM).
    if (f.schedule == "chunks") {
      EXPECT_FALSE(f.in_use == "deepep_normal" || f.in_use == "deepep_low_latency") << f.in_use;
    }
    // Only collectives overlap chunks; what has no dispatch overlaps no batches.
    if (f.schedule == "chunk_overlap") {
      EXPECT_TRUE(f.in_use == "allgather_reducescatter" || f.in_use == "all_reduce") << f.in_use;
    }
    if (f.schedule == "two_batch_overlap") {
      EXPECT_NE(f.in_use, "all_reduce");
    }
    if (f.communication != "automatic") {
      EXPECT_EQ(f.in_use, f.communication);
    }
  }
}

TEST(FeasibilityMatrix, ShortForm) {
  Matrix matrix;
  matrix.Run({"deepseek-v3"}, {{"a100-pcie", 8}, {"h100-sxm", 16}, {"b200-sxm", 8}, {"gb200-nvl72", 32}});
  EXPECT_EQ(matrix.combinations(), 4 * 14 * 9 * 9 * 5);  // Platforms, backends, formats, strategies, schedules.
  ExpectKnownFacts(matrix.feasible());
  // Nothing is dead weight: each backend, strategy, schedule and pair of formats works somewhere.
  std::set<std::string> backends, communications, schedules;
  std::set<std::pair<NumberType, NumberType>> formats;
  for (const Feasible& f : matrix.feasible()) {
    backends.insert(f.backend);
    communications.insert(f.communication);
    schedules.insert(f.schedule);
    formats.insert({f.precision.expert_weights(), f.precision.expert_activations()});
  }
  EXPECT_EQ(backends.size(), BackendCatalogue().size());
  EXPECT_EQ(communications.size(), Communications().size());
  EXPECT_EQ(schedules.size(), std::size(kSchedules));
  EXPECT_EQ(formats.size(), Formats().size());
}

TEST(FeasibilityMatrix, DISABLED_EveryModelOnEveryPlatform) {
  std::vector<std::string> models;
  for (const CatalogueFile& file : ModelCatalogue()) models.emplace_back(file.name);
  std::vector<Site> sites;
  for (const CatalogueFile& file : PlatformCatalogue()) {
    const PlatformSpec platform = *FindPlatform(file.name);
    const int per_node = static_cast<int>(platform.gpus_per_node());
    sites.push_back({std::string(file.name), per_node});
    if (platform.has_nic()) sites.push_back({std::string(file.name), 2 * per_node});
  }
  Matrix matrix;
  matrix.Run(models, sites);
  ExpectKnownFacts(matrix.feasible());
}

}  // namespace
}  // namespace epsim
