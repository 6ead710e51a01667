// Does every replica choice keep the promise of replica_choice.h?  Run over every alternative of the oneof.
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "policies/placement/eplb_placement.h"
#include "policies/replica/replica_choice.h"
#include "tests/policies/replica/drawn_call.h"
#include "tests/policies/replica/drawn_placement.h"

namespace epsim {
namespace {

std::vector<std::string> ChoiceNames() {
  std::vector<std::string> names;
  const auto* choices = ReplicaChoiceConfig::descriptor()->FindOneofByName("choice");
  for (int i = 0; i < choices->field_count(); ++i) names.push_back(choices->field(i)->name());
  return names;
}

// EPLB placements of skewed random loads; one at random, where ranks hold an expert twice; and one with failed ranks.
std::vector<Placement> Placements() {
  std::vector<Placement> placements;
  RandomStream random(3, "loads");
  for (const PlacementShape& shape :
       {PlacementShape{.layers = 3, .experts = 64, .slots = 96, .ranks = 16, .nodes = 4, .expert_groups = 8},
        PlacementShape{.layers = 2, .experts = 8, .slots = 64, .ranks = 32, .nodes = 2},
        PlacementShape{.layers = 2, .experts = 32, .slots = 32, .ranks = 8},
        PlacementShape{.layers = 1, .experts = 1, .slots = 1, .ranks = 1}}) {
    std::vector<float> weight(shape.layers * shape.experts);
    for (float& load : weight) load = static_cast<float>(1 / (0.01 + random.Unit()));
    placements.push_back(Eplb(weight, shape, EplbPlacement::AUTO));
  }
  placements.push_back(DrawPlacement({.layers = 2, .experts = 10, .slots = 40, .ranks = 4, .nodes = 2}, &random));
  const PlacementShape shape{.layers = 1, .experts = 6, .slots = 16, .ranks = 8, .nodes = 4};
  std::vector<LogicalExpert> experts;
  for (int slot = 0; slot < shape.slots; ++slot) {
    experts.push_back(slot / 2 == 3 || slot / 2 == 5 ? kNoExpert : LogicalExpert(slot % 6));
  }
  placements.push_back(Placement(shape, experts));
  return placements;
}

class ReplicaChoiceContract : public testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<ReplicaChoice> New() {
    ReplicaChoiceConfig config;
    config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(GetParam()));
    if (config.has_plugin()) config.mutable_plugin()->set_library(EPSIM_EXAMPLE_PLUGIN);
    return NewReplicaChoice(config).value();
  }
};

TEST_P(ReplicaChoiceContract, IsOfOneKind) {
  const std::unique_ptr<ReplicaChoice> choice = New();
  EXPECT_NE(choice->fixed() == nullptr, choice->per_call() == nullptr);
}

// What waits for the counts of all ranks has something to work out with them.
TEST_P(ReplicaChoiceContract, PlanningTakesTimeWhereCountsAreGathered) {
  const ReplicaPlanning planning = New()->planning();
  EXPECT_EQ(planning.gathers_counts, planning.time > Duration{});
}

TEST_P(ReplicaChoiceContract, EveryEntryIsAReplicaOfItsExpert) {
  const std::unique_ptr<ReplicaChoice> choice = New();
  if (choice->fixed() == nullptr) return;
  for (const Placement& placement : Placements()) {
    const PlacementShape& shape = placement.shape();
    RandomStream random(1, "replica");
    const ReplicaTable table = choice->fixed()->Choose(placement, &random);
    ASSERT_EQ(table.layers, shape.layers);
    ASSERT_EQ(table.ranks, shape.ranks);
    ASSERT_EQ(table.experts, shape.experts);
    ASSERT_EQ(table.slot.size(), static_cast<size_t>(shape.layers) * shape.ranks * shape.experts);
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int rank = 0; rank < shape.ranks; ++rank) {
        const absl::Span<const uint16_t> slots = table.of(Layer(layer), Rank(rank));
        for (int expert = 0; expert < shape.experts; ++expert) {
          ASSERT_LT(slots[expert], shape.slots);
          ASSERT_EQ(placement.experts_of_slots(Layer(layer))[slots[expert]], LogicalExpert(expert));
        }
      }
    }
  }
}

TEST_P(ReplicaChoiceContract, EqualStreamsGiveEqualTables) {
  const std::unique_ptr<ReplicaChoice> choice = New(), other = New();
  if (choice->fixed() == nullptr) return;
  for (const Placement& placement : Placements()) {
    RandomStream a(1, "replica"), b(1, "replica");
    // Nothing is left from the placement before.
    EXPECT_EQ(New()->fixed()->Choose(placement, &a).slot, choice->fixed()->Choose(placement, &b).slot);
    EXPECT_EQ(a.Next(), b.Next());
  }
}

constexpr CallForm kForms[] = {{},
                               {.tokens_per_rank = 2},
                               {.tokens_per_rank = 300, .top_k = 8, .id_bytes = 2},
                               {.tokens_per_rank = 40, .ragged = true},
                               {.tokens_per_rank = 0}};
constexpr uint16_t kUntouched = 0xfffe;

std::vector<uint16_t> Deal(const PerCallReplicaChoice& choice, const Placement& placement, const RouterCall& call) {
  std::vector<uint16_t> slots(call.tokens() * call.top_k, kUntouched);
  choice.Deal(placement, call, absl::MakeSpan(slots));
  return slots;
}

TEST_P(ReplicaChoiceContract, EverySlotIsAReplicaOfItsExpertAndNothingElseIsWritten) {
  const std::unique_ptr<ReplicaChoice> choice = New();
  if (choice->per_call() == nullptr) return;
  RandomStream random(5, "calls");
  for (const Placement& placement : Placements()) {
    for (const CallForm& form : kForms) {
      DrawnCall drawn(placement.shape(), form, &random);
      RouterCall& call = drawn.call;
      for (int layer = 0; layer < placement.shape().layers; ++layer) {
        call.layer = Layer(layer);
        const std::vector<uint16_t> slots = Deal(*choice->per_call(), placement, call);
        for (int32_t token = 0; token < static_cast<int32_t>(call.tokens()); ++token) {
          for (int k = 0; k < call.top_k; ++k) {
            const uint16_t slot = slots[token * call.top_k + k];
            if (k >= call.valid(token)) {
              ASSERT_EQ(slot, kUntouched);
              continue;
            }
            ASSERT_LT(slot, placement.shape().slots);
            ASSERT_EQ(placement.experts_of_slots(Layer(layer))[slot], LogicalExpert(drawn.expert(token, k)));
          }
        }
      }
    }
  }
}

// A piece of a batch: tokens are numbered in the step, and slots begin with the first token of the piece.
TEST_P(ReplicaChoiceContract, DealsAPieceOfABatch) {
  const std::unique_ptr<ReplicaChoice> choice = New();
  if (choice->per_call() == nullptr) return;
  RandomStream random(6, "calls");
  for (const Placement& placement : Placements()) {
    DrawnCall drawn(placement.shape(), {.tokens_per_rank = 30, .ragged = true}, &random);
    RouterCall call = drawn.call;
    std::vector<int32_t> begin, end;
    for (size_t s = 0; s < call.begin.size(); ++s) {
      const int32_t tokens = call.end[s] - call.begin[s];
      begin.push_back(call.begin[s] + tokens / 3);
      end.push_back(call.end[s] - tokens / 4);
    }
    call.begin = begin;
    call.end = end;
    const std::vector<uint16_t> slots = Deal(*choice->per_call(), placement, call);
    size_t place = 0;
    for (size_t s = 0; s < begin.size(); ++s) {
      for (int32_t token = begin[s]; token < end[s]; ++token, place += call.top_k) {
        for (int k = 0; k < call.valid(token); ++k) {
          ASSERT_EQ(placement.experts_of_slots(Layer(0))[slots[place + k]], LogicalExpert(drawn.expert(token, k)));
        }
      }
    }
    ASSERT_EQ(place, slots.size());
  }
}

TEST_P(ReplicaChoiceContract, EqualCallsGiveEqualSlotsInAnyThread) {
  const std::unique_ptr<ReplicaChoice> choice = New();
  if (choice->per_call() == nullptr) return;
  RandomStream random(7, "calls");
  for (const Placement& placement : Placements()) {
    const DrawnCall drawn(placement.shape(), {.tokens_per_rank = 50}, &random),
        other(placement.shape(), {.tokens_per_rank = 20}, &random);
    const std::vector<uint16_t> wanted = Deal(*New()->per_call(), placement, drawn.call);
    std::vector<std::vector<uint16_t>> slots(4);
    std::vector<std::thread> threads;
    for (std::vector<uint16_t>& of_thread : slots) {
      threads.emplace_back([&] {
        Deal(*choice->per_call(), placement, other.call);
        of_thread = Deal(*choice->per_call(), placement, drawn.call);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::vector<uint16_t>& of_thread : slots) EXPECT_EQ(of_thread, wanted);
  }
}

TEST_P(ReplicaChoiceContract, SharesAreOfReplicasOfExpertsWithPairs) {
  const std::unique_ptr<ReplicaChoice> choice = New();
  if (choice->per_call() == nullptr) return;
  RandomStream random(8, "counts");
  for (const Placement& placement : Placements()) {
    const PlacementShape& shape = placement.shape();
    std::vector<uint32_t> pairs(shape.experts), weight(shape.slots, 7);
    for (uint32_t& count : pairs) count = random.Below(3) == 0 ? 0 : static_cast<uint32_t>(random.Below(100000));
    pairs[0] = ~uint32_t{0};  // The most that there can be.
    choice->per_call()->Share(placement, Layer(0), pairs, absl::MakeSpan(weight));
    std::vector<uint64_t> sum(shape.experts);
    for (int slot = 0; slot < shape.slots; ++slot) {
      const LogicalExpert expert = placement.experts_of_slots(Layer(0))[slot];
      if (expert == kNoExpert) {
        EXPECT_EQ(weight[slot], 0u);
      } else {
        sum[Index(expert)] += weight[slot];
      }
    }
    for (int e = 0; e < shape.experts; ++e) {
      EXPECT_EQ(sum[e] > 0, pairs[e] > 0) << e;
      EXPECT_LE(sum[e], uint64_t{1} << 32);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryChoice, ReplicaChoiceContract, testing::ValuesIn(ChoiceNames()),
                         [](const auto& info) { return info.param; });

TEST(NewReplicaChoice, NeedsAChoice) {
  EXPECT_EQ(NewReplicaChoice(ReplicaChoiceConfig()).status(), absl::InvalidArgumentError("replica: no choice is made"));
}

TEST(NewReplicaChoice, TakesThePlanningTimeThatIsGiven) {
  ReplicaChoiceConfig config;
  config.mutable_lp();
  EXPECT_EQ(NewReplicaChoice(config).value()->planning().time, std::chrono::microseconds(100));
  config.mutable_lp()->set_planning_time("1.5 ms");
  EXPECT_EQ(NewReplicaChoice(config).value()->planning().time, std::chrono::microseconds(1500));
  config.mutable_least_loaded();
  EXPECT_EQ(NewReplicaChoice(config).value()->planning().time, std::chrono::microseconds(5));
  config.mutable_least_loaded()->set_planning_time("20 us");
  EXPECT_EQ(NewReplicaChoice(config).value()->planning().time, std::chrono::microseconds(20));
}

TEST(NewReplicaChoice, RefusesTimesThatAreNone) {
  ReplicaChoiceConfig config;
  config.mutable_lp()->set_planning_time("100");
  EXPECT_EQ(NewReplicaChoice(config).status().message(),
            "replica_choice.lp.planning_time: \"100\" has no unit; expected a time such as \"1.8 us\"");
  config.mutable_least_loaded()->set_planning_time("2 s");
  EXPECT_EQ(NewReplicaChoice(config).status().message(),
            "replica_choice.least_loaded.planning_time: \"2 s\" is more than a second; \"100 us\" would fit");
}

TEST(CompleteReplicaChoiceConfig, FillsInWhatIsNotSaid) {
  const auto complete = [](const ReplicaChoiceConfig& config) {
    return CompleteReplicaChoiceConfig(config).ShortDebugString();
  };
  ReplicaChoiceConfig config;
  EXPECT_EQ(complete(config), "static_nearest { }");
  config.mutable_round_robin();
  EXPECT_EQ(complete(config), "round_robin { offset_by_ep_rank: true }");
  config.mutable_round_robin()->set_offset_by_ep_rank(false);
  EXPECT_EQ(complete(config), "round_robin { offset_by_ep_rank: false }");
  config.mutable_lp();
  EXPECT_EQ(complete(config), "lp { planning_time: \"100 us\" }");
  config.mutable_lp()->set_planning_time("80 us");
  EXPECT_EQ(complete(config), "lp { planning_time: \"80 us\" }");
}

}  // namespace
}  // namespace epsim
