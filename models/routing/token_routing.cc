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

// Sources with fewer tokens are not worth setting up the registers for.
constexpr int kAvx512Tokens = 16;

class CountingRouting : public TableRouting {
 public:
  CountingRouting(const PlacementShape& shape, const ReplicaTable& table, const RoutingDetail& detail,
                  InstructionSet set)
      : shape_(shape), detail_(detail), table_(table), slots_(shape) {
    EPSIM_CHECK(table.layers == shape.layers && table.ranks == shape.ranks && table.experts == shape.experts);
    EPSIM_CHECK(shape.ranks > 0 && shape.ranks <= 1 << 16 && shape.slots % shape.ranks == 0);
    EPSIM_CHECK(shape.nodes > 0 && shape.ranks % shape.nodes == 0);
    if (set == InstructionSet::kAvx512 && shape.experts <= Avx512Tokens::kIds &&
        shape.ranks <= Avx512Tokens::kMembers) {
      const size_t entries = static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.ranks) * Avx512Tokens::kIds;
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
        rank_of_expert_[row + e] = static_cast<uint8_t>(slots_.rank_of_slot[slots[e]]);
        if (detail_.tokens_to_node) node_of_expert_[row + e] = static_cast<uint8_t>(slots_.node_of_slot[slots[e]]);
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
    CheckRange(batch, range, shape_.ranks);
    if (batch.ids == nullptr) return CountExpected(batch, range, layer, shape_, table_, detail_, routed);
    EPSIM_CHECK(batch.layers == shape_.layers && Index(layer) < static_cast<size_t>(shape_.layers));
    routed->Begin(shape_, range, detail_);
    if (batch.id_bytes == 1) {
      CountLayer<uint8_t>(batch, range, layer, routed);
    } else {
      CountLayer<uint16_t>(batch, range, layer, routed);
    }
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
    PortableCounter portable(slots_.places());
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
      portable.Count(source, begin, counts);
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
  const SlotTables slots_;
  // For AVX-512; empty where it is not used.
  std::vector<uint8_t> rank_of_expert_;                 // [layers, source ranks, Avx512Tokens::kIds]
  std::vector<uint8_t> node_of_expert_;                 // Likewise; empty unless tokens to nodes are counted.
  std::vector<std::vector<uint16_t>> varying_experts_;  // [layers]: whose slot is not the same for all sources.
};

}  // namespace

void RoutedLayer::Begin(const PlacementShape& shape, const TokenRange& range, const RoutingDetail& detail) {
  const size_t ranks = static_cast<size_t>(shape.ranks);
  tokens_per_slot.assign(static_cast<size_t>(shape.slots), 0);
  tokens_between.assign(ranks * ranks, 0);
  pairs_between.assign(detail.pairs_between ? ranks * ranks : 0, 0);
  tokens_to_node.assign(detail.tokens_to_node ? ranks * static_cast<size_t>(shape.nodes) : 0, 0);
  tokens.resize(ranks);
  for (size_t s = 0; s < ranks; ++s) tokens[s] = range.end[s] - range.begin[s];
  pairs = 0;
}

void CheckRange(const StepBatch& batch, const TokenRange& range, int ranks) {
  const size_t size = static_cast<size_t>(ranks);
  EPSIM_CHECK(batch.rank_begin.size() == size + 1 && range.begin.size() == size && range.end.size() == size);
  for (size_t s = 0; s < size; ++s) {
    EPSIM_CHECK(batch.rank_begin[s] <= range.begin[s] && range.begin[s] <= range.end[s] &&
                range.end[s] <= batch.rank_begin[s + 1]);
  }
}

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
