#include "models/routing/dealt_routing.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "absl/types/span.h"
#include "engine/check.h"
#include "models/routing/expected_routing.h"
#include "models/routing/token_routing_portable.h"

namespace epsim {
namespace {

class DealtRouting : public TokenRouting {
 public:
  DealtRouting(const Placement& placement, const PerCallReplicaChoice& choice, uint64_t random,
               const RoutingDetail& detail)
      : placement_(placement), choice_(choice), random_(random), detail_(detail), slots_(placement.shape()) {
    const PlacementShape& shape = placement.shape();
    EPSIM_CHECK(shape.ranks > 0 && shape.slots <= 1 << 16 && shape.slots % shape.ranks == 0);
    EPSIM_CHECK(shape.nodes > 0 && shape.ranks % shape.nodes == 0);
    itself_.resize(static_cast<size_t>(shape.slots));
    std::iota(itself_.begin(), itself_.end(), uint16_t{0});
  }

  void Count(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const override {
    const PlacementShape& shape = placement_.shape();
    EPSIM_CHECK(Index(layer) < static_cast<size_t>(shape.layers));
    CheckRange(batch, range, shape.ranks);
    if (batch.ids == nullptr) {
      EPSIM_CHECK(batch.counts != nullptr);
      const size_t experts = static_cast<size_t>(shape.experts);
      std::vector<uint32_t> weight(static_cast<size_t>(shape.slots));
      choice_.Share(placement_, layer, {batch.counts + Index(layer) * experts, experts}, absl::MakeSpan(weight));
      return CountExpected(batch, range, layer, placement_, weight, detail_, routed);
    }
    EPSIM_CHECK(batch.layers == shape.layers);
    RouterCall call;
    call.step = batch.index;
    call.layer = layer;
    call.random = random_;
    call.begin = range.begin;
    call.end = range.end;
    call.top_k = batch.top_k;
    call.id_bytes = batch.id_bytes;
    call.ids = batch.layer_ids(static_cast<int>(layer));
    if (batch.valid_count != nullptr) call.valid_count = batch.valid_count + Index(layer) * batch.tokens;
    const size_t size = call.tokens() * static_cast<size_t>(batch.top_k);
    // Not cleared: it is of the size of the batch, and every valid pair is written.
    const std::unique_ptr<uint16_t[]> slots(new uint16_t[size]);
    choice_.Deal(placement_, call, absl::MakeSpan(slots.get(), size));
    CountSlots(call, range, slots.get(), routed);
  }

 private:
  void CountSlots(const RouterCall& call, const TokenRange& range, const uint16_t* slots, RoutedLayer* routed) const {
    const PlacementShape& shape = placement_.shape();
    const size_t ranks = static_cast<size_t>(shape.ranks), nodes = static_cast<size_t>(shape.nodes);
    routed->Begin(shape, range, detail_);
    PortableCounter counter(slots_.places());
    for (size_t s = 0; s < ranks; ++s) {
      const int32_t begin = call.begin[s], end = call.end[s];
      if (begin == end) continue;
      SourceTokens<uint16_t> source;
      source.ids = slots;
      source.tokens = end - begin;
      source.top_k = call.top_k;
      source.slot_of_expert = itself_.data();
      if (call.valid_count != nullptr) source.valid_count = call.valid_count + begin;
      SourceCounts counts;
      counts.tokens_per_slot = routed->tokens_per_slot.data();
      counts.tokens_to_rank = &routed->tokens_between[s * ranks];
      if (detail_.pairs_between) counts.pairs_to_rank = &routed->pairs_between[s * ranks];
      if (detail_.tokens_to_node) counts.tokens_to_node = &routed->tokens_to_node[s * nodes];
      counter.Count(source, begin, counts);
      slots += static_cast<size_t>(source.tokens) * static_cast<size_t>(call.top_k);
    }
    for (const int32_t tokens : routed->tokens_per_slot) routed->pairs += tokens;
  }

  const Placement& placement_;
  const PerCallReplicaChoice& choice_;
  const uint64_t random_;
  const RoutingDetail detail_;
  const SlotTables slots_;
  std::vector<uint16_t> itself_;  // [slots]: what is counted are slots already.
};

}  // namespace

std::unique_ptr<TokenRouting> NewDealtRouting(const Placement& placement, const PerCallReplicaChoice& choice,
                                              uint64_t random, const RoutingDetail& detail) {
  return std::make_unique<DealtRouting>(placement, choice, random, detail);
}

}  // namespace epsim
