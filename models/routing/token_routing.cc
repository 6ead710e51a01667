#include "models/routing/token_routing.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "engine/check.h"
#include "models/routing/expected_routing.h"
#include "models/routing/token_routing_avx512.h"
#include "models/routing/token_routing_portable.h"

namespace epsim {
namespace {

constexpr int kWordRanks = 64;
// Sources with fewer tokens are not worth setting up the registers for.
constexpr int kAvx512Tokens = 16;

class CountingRouting : public TableRouting {
 public:
  CountingRouting(const PlacementShape& shape, const ReplicaTable& table, const RoutingDetail& detail, InstructionSet set)
      : shape_(shape), detail_(detail), table_(table) {
    EPSIM_CHECK(table.layers == shape.layers && table.ranks == shape.ranks && table.experts == shape.experts);
    EPSIM_CHECK(shape.ranks > 0 && shape.ranks <= 1 << 16 && shape.slots % shape.ranks == 0);
    EPSIM_CHECK(shape.nodes > 0 && shape.ranks % shape.nodes == 0);
    for (int slot = 0; slot < shape.slots; ++slot) {
      const size_t rank = Index(shape.rank_of(Slot(slot)));
      rank_of_slot_.push_back(static_cast<uint16_t>(rank));
      node_of_slot_.push_back(static_cast<uint16_t>(Index(shape.node_of(Rank(static_cast<int32_t>(rank))))));
      rank_bit_of_slot_.push_back(uint64_t{1} << rank % kWordRanks);
    }
    if (set == InstructionSet::kAvx512 && shape.experts <= Avx512Tokens::kIds &&
        shape.ranks <= Avx512Tokens::kMembers) {
      const size_t entries =
          static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.ranks) * Avx512Tokens::kIds;
      rank_of_expert_.resize(entries);
      if (detail.tokens_to_node) node_of_expert_.resize(entries);
      varying_experts_.resize(static_cast<size_t>(shape.layers));
    }
    for (int layer = 0; layer < shape.layers; ++layer) Refresh(Layer(layer));
  }

  void Refresh(Layer layer) override {
    const size_t experts = static_cast<size_t>(shape_.experts);
    std::vector<bool> varies(experts);
    const absl::Span<const uint16_t> first = table_.of(layer, Rank(0));
    size_t row = Index(layer) * static_cast<size_t>(shape_.ranks) * Avx512Tokens::kIds;
    for (int s = 0; s < shape_.ranks; ++s, row += Avx512Tokens::kIds) {
      const absl::Span<const uint16_t> slots = table_.of(layer, Rank(s));
      EPSIM_CHECK(std::all_of(slots.begin(), slots.end(), [&](uint16_t slot) { return slot < shape_.slots; }));
      if (rank_of_expert_.empty()) continue;
      for (size_t e = 0; e < experts; ++e) {
        rank_of_expert_[row + e] = static_cast<uint8_t>(rank_of_slot_[slots[e]]);
        if (detail_.tokens_to_node) node_of_expert_[row + e] = static_cast<uint8_t>(node_of_slot_[slots[e]]);
        if (slots[e] != first[e]) varies[e] = true;
      }
    }
    if (rank_of_expert_.empty()) return;
    std::vector<uint16_t>& varying = varying_experts_[Index(layer)];
    varying.clear();
    for (size_t e = 0; e < experts; ++e) {
      if (varies[e]) varying.push_back(static_cast<uint16_t>(e));
    }
  }

  void Count(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const override {
    const size_t ranks = static_cast<size_t>(shape_.ranks);
    EPSIM_CHECK(batch.rank_begin.size() == ranks + 1 && range.begin.size() == ranks && range.end.size() == ranks);
    routed->tokens.resize(ranks);
    for (size_t s = 0; s < ranks; ++s) {
      EPSIM_CHECK(batch.rank_begin[s] <= range.begin[s] && range.begin[s] <= range.end[s] &&
                  range.end[s] <= batch.rank_begin[s + 1]);
      routed->tokens[s] = range.end[s] - range.begin[s];
    }
    if (batch.ids == nullptr) return CountExpected(batch, range, layer, shape_, table_, detail_, routed);
    EPSIM_CHECK(batch.layers == shape_.layers && Index(layer) < static_cast<size_t>(shape_.layers));
    routed->tokens_per_slot.assign(static_cast<size_t>(shape_.slots), 0);
    routed->tokens_between.assign(ranks * ranks, 0);
    routed->pairs_between.assign(detail_.pairs_between ? ranks * ranks : 0, 0);
    routed->tokens_to_node.assign(detail_.tokens_to_node ? ranks * static_cast<size_t>(shape_.nodes) : 0, 0);
    if (batch.id_bytes == 1) {
      CountLayer<uint8_t>(batch, range, layer, routed);
    } else {
      CountLayer<uint16_t>(batch, range, layer, routed);
    }
    routed->pairs = 0;
    for (const int32_t tokens : routed->tokens_per_slot) routed->pairs += tokens;
  }

 private:
  // Adds to *routed, which is zero.
  template <typename Id>
  void CountLayer(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const {
    const size_t ranks = static_cast<size_t>(shape_.ranks), nodes = static_cast<size_t>(shape_.nodes);
    const size_t top_k = static_cast<size_t>(batch.top_k);
    const Id* ids = reinterpret_cast<const Id*>(batch.layer_ids(static_cast<int>(layer)));
    const uint8_t* valid_count =
        batch.valid_count == nullptr ? nullptr : batch.valid_count + Index(layer) * static_cast<size_t>(batch.tokens);
    const SlotPlaces places{rank_of_slot_.data(), node_of_slot_.data(), rank_bit_of_slot_.data(), shape_.ranks,
                            shape_.ranks / shape_.nodes};
    SourceCounts counts;
    counts.tokens_per_slot = routed->tokens_per_slot.data();

    const bool avx512 = sizeof(Id) == 1 && !rank_of_expert_.empty() && batch.top_k <= Avx512Tokens::kMaxTopK;
    // What was counted by expert in the sources so far, and how much of it has been moved to tokens_per_slot: experts
    // whose slot depends on the source are moved after each source, the others at the end.
    int32_t tokens_of_expert[Avx512Tokens::kMembers] = {}, moved[Avx512Tokens::kMembers] = {};
    const auto move = [&](size_t expert, const uint16_t* slot_of_expert) {
      counts.tokens_per_slot[slot_of_expert[expert]] += tokens_of_expert[expert] - moved[expert];
      moved[expert] = tokens_of_expert[expert];
    };
    std::vector<int32_t> last_token, last_token_of_node;
    if (shape_.ranks > kWordRanks) {
      last_token.assign(ranks, -1);
      last_token_of_node.assign(nodes, -1);
    }

    for (size_t s = 0; s < ranks; ++s) {
      const int32_t begin = range.begin[s], tokens = range.end[s] - begin;
      if (tokens == 0) continue;
      SourceTokens<Id> source;
      source.ids = ids + static_cast<size_t>(begin) * top_k;
      source.tokens = tokens;
      source.top_k = batch.top_k;
      source.slot_of_expert = table_.of(layer, Rank(static_cast<int32_t>(s))).data();
      if (valid_count != nullptr && std::any_of(valid_count + begin, valid_count + begin + tokens,
                                                [top_k](uint8_t valid) { return valid != top_k; })) {
        source.valid_count = valid_count + begin;
      }
      counts.tokens_to_rank = &routed->tokens_between[s * ranks];
      if (detail_.pairs_between) counts.pairs_to_rank = &routed->pairs_between[s * ranks];
      if (detail_.tokens_to_node) counts.tokens_to_node = &routed->tokens_to_node[s * nodes];
      if constexpr (sizeof(Id) == 1) {
        if (avx512 && source.valid_count == nullptr && tokens >= kAvx512Tokens) {
          const size_t row = (Index(layer) * ranks + s) * Avx512Tokens::kIds;
          CountByAvx512(source, row, counts, tokens_of_expert);
          for (const uint16_t expert : varying_experts_[Index(layer)]) move(expert, source.slot_of_expert);
          continue;
        }
      }
      if (shape_.ranks > kWordRanks) {
        CountByStamps(source, places, begin, last_token.data(), last_token_of_node.data(), counts);
      } else if (detail_.pairs_between) {
        batch.top_k == 8 ? CountByWords<8, true>(source, places, counts)
                         : CountByWords<0, true>(source, places, counts);
      } else {
        batch.top_k == 8 ? CountByWords<8, false>(source, places, counts)
                         : CountByWords<0, false>(source, places, counts);
      }
    }
    if (avx512) {
      const uint16_t* slot_of_expert = table_.of(layer, Rank(0)).data();
      for (size_t e = 0; e < static_cast<size_t>(shape_.experts); ++e) move(e, slot_of_expert);
    }
  }

  // Adds to `counts`, but for tokens_per_slot, and to tokens_of_expert [kMembers].  `row`: where the source's part of
  // the tables of experts begins.
  void CountByAvx512(const SourceTokens<uint8_t>& source, size_t row, const SourceCounts& counts,
                     int32_t* tokens_of_expert) const {
    const Avx512Tokens tokens{source.ids, source.tokens, source.top_k, nullptr, shape_.experts};
    const auto add = [&tokens](const uint8_t* member_of, int members, int32_t* tokens_of_members) {
      Avx512Tokens of_members = tokens;
      of_members.member_of = member_of;
      of_members.members = members;
      AddTokensOfMembers(of_members, tokens_of_members);
    };
    const uint8_t* rank_of_expert = &rank_of_expert_[row];
    if (counts.pairs_to_rank == nullptr) {
      AddTokensOfMembers(tokens, tokens_of_expert);
    } else {
      int32_t of_source[Avx512Tokens::kMembers] = {};
      AddTokensOfMembers(tokens, of_source);
      for (size_t e = 0; e < Avx512Tokens::kMembers; ++e) tokens_of_expert[e] += of_source[e];
      // Four experts at a time that lie far from each other: neighbours share a rank, and each would wait for the last.
      const size_t quarter = (static_cast<size_t>(shape_.experts) + 3) / 4;
      for (size_t i = 0; i < quarter; ++i) {
        for (size_t e = i; e < 4 * quarter; e += quarter) counts.pairs_to_rank[rank_of_expert[e]] += of_source[e];
      }
    }
    add(rank_of_expert, shape_.ranks, counts.tokens_to_rank);
    if (counts.tokens_to_node != nullptr) add(&node_of_expert_[row], shape_.nodes, counts.tokens_to_node);
  }

  const PlacementShape shape_;
  const RoutingDetail detail_;
  const ReplicaTable& table_;
  std::vector<uint16_t> rank_of_slot_, node_of_slot_;
  std::vector<uint64_t> rank_bit_of_slot_;  // 1 << rank % 64.
  // For AVX-512; empty where it is not used.
  std::vector<uint8_t> rank_of_expert_;                 // [layers, source ranks, Avx512Tokens::kIds]
  std::vector<uint8_t> node_of_expert_;                 // Likewise; empty unless tokens to nodes are counted.
  std::vector<std::vector<uint16_t>> varying_experts_;  // [layers]: whose slot is not the same for all sources.
};

}  // namespace

TokenRange WholeBatch(const StepBatch& batch) {
  return {{batch.rank_begin.begin(), batch.rank_begin.end() - 1},
          {batch.rank_begin.begin() + 1, batch.rank_begin.end()}};
}

std::unique_ptr<TableRouting> NewTokenRouting(const PlacementShape& shape, const ReplicaTable& table,
                                              const RoutingDetail& detail) {
  return NewTokenRouting(shape, table, detail, SupportedInstructionSets().back());
}

const char* InstructionSetName(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable:
      return "portable";
    case InstructionSet::kAvx512:
      return "avx512";
  }
  EPSIM_CHECK(false);
}

std::vector<InstructionSet> SupportedInstructionSets() {
  std::vector<InstructionSet> sets = {InstructionSet::kPortable};
  if (Avx512Supported()) sets.push_back(InstructionSet::kAvx512);
  return sets;
}

std::unique_ptr<TableRouting> NewTokenRouting(const PlacementShape& shape, const ReplicaTable& table,
                                              const RoutingDetail& detail, InstructionSet set) {
  const std::vector<InstructionSet> supported = SupportedInstructionSets();
  EPSIM_CHECK(std::find(supported.begin(), supported.end(), set) != supported.end());
  return std::make_unique<CountingRouting>(shape, table, detail, set);
}

}  // namespace epsim
