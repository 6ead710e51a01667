#include "experiments/accuracy/drawn_layer.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

// `count` of the `ids` first in place: the beginning of a Fisher-Yates shuffle.
void Draw(int count, std::vector<uint16_t>* ids, RandomStream* random) {
  for (int i = 0; i < count; ++i) {
    const size_t j = i + random->Below(ids->size() - i);
    std::swap((*ids)[i], (*ids)[j]);
  }
}

std::vector<uint16_t> Range(int begin, int end) {
  std::vector<uint16_t> ids;
  for (int id = begin; id < end; ++id) ids.push_back(static_cast<uint16_t>(id));
  return ids;
}

// A token's experts: `top_k` of the experts of `groups` of the `all_groups` groups.
class GroupLimited {
 public:
  GroupLimited(const LayerSetup& setup, int groups, int all_groups)
      : top_k_(setup.top_k),
        groups_(groups),
        group_size_(setup.experts / all_groups),
        group_ids_(Range(0, all_groups)) {}

  void Token(RandomStream* random, uint16_t* experts) {
    Draw(groups_, &group_ids_, random);
    experts_.clear();
    for (int g = 0; g < groups_; ++g) {
      for (int i = 0; i < group_size_; ++i) experts_.push_back(static_cast<uint16_t>(group_ids_[g] * group_size_ + i));
    }
    Draw(top_k_, &experts_, random);
    std::copy_n(experts_.begin(), top_k_, experts);
  }

 private:
  const int top_k_, groups_, group_size_;
  std::vector<uint16_t> group_ids_, experts_;
};

// Token t's i-th expert is on rank (t + i * stride) mod ranks, each rank's experts in turn.
void BalancedToken(const LayerSetup& setup, int64_t token, uint16_t* experts) {
  const int per_rank = setup.experts / setup.ranks;
  const int copies = std::min(setup.ranks, setup.top_k), stride = setup.ranks / copies;
  for (int i = 0; i < setup.top_k; ++i) {
    const int64_t rank = (token + int64_t{i % copies} * stride) % setup.ranks;
    const int64_t expert = (token / setup.ranks + i / copies) % per_rank;
    experts[i] = static_cast<uint16_t>(rank * per_rank + expert);
  }
}

}  // namespace

absl::StatusOr<RoutedLayer> DrawLayer(const LayerSetup& setup, const RoutingDetail& detail, uint64_t seed) {
  const auto problem = [](const auto&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  if (setup.experts % setup.ranks != 0) {
    return problem("experts: ", setup.experts, " do not divide into ", setup.ranks, " ranks");
  }
  if (setup.top_k > setup.experts) return problem("top_k: ", setup.top_k, " of ", setup.experts, " experts");
  int groups = 1, all_groups = 1;
  const bool balanced = setup.routing == "balanced";
  if (!balanced && setup.routing != "uniform") {
    int read = 0;
    if (std::sscanf(setup.routing.c_str(), "group_limited_%4d_of_%4d%n", &groups, &all_groups, &read) != 2 ||
        static_cast<size_t>(read) != setup.routing.size()) {
      return absl::UnimplementedError(absl::StrCat("routing: \"", setup.routing,
                                                   "\" is not drawn; uniform, balanced and group_limited_G_of_N are"));
    }
    if (setup.nodes > 1) {
      groups = std::min(groups, setup.nodes);
      all_groups = setup.nodes;
    }
    if (groups < 1 || all_groups < groups || setup.experts % all_groups != 0 ||
        setup.experts / all_groups * groups < setup.top_k) {
      return problem("routing: \"", setup.routing, "\" does not go with top ", setup.top_k, " of ", setup.experts);
    }
  }
  if (balanced && setup.experts / setup.ranks * std::min(setup.ranks, setup.top_k) < setup.top_k) {
    return problem("routing: balanced, but ", setup.ranks, " ranks have too few experts for top ", setup.top_k);
  }

  const int64_t tokens = int64_t{setup.ranks} * setup.tokens_per_rank;
  std::vector<uint16_t> ids(tokens * setup.top_k);
  RandomStream random(seed, "drawn_layer");
  GroupLimited drawn(setup, groups, all_groups);
  for (int64_t token = 0; token < tokens; ++token) {
    uint16_t* experts = ids.data() + token * setup.top_k;
    if (balanced) {
      BalancedToken(setup, token, experts);
    } else {
      drawn.Token(&random, experts);
    }
  }

  StepBatch batch;
  batch.tokens = static_cast<int>(tokens);
  for (int rank = 0; rank <= setup.ranks; ++rank) batch.rank_begin.push_back(rank * setup.tokens_per_rank);
  batch.layers = 1;
  batch.top_k = setup.top_k;
  batch.id_bytes = sizeof(uint16_t);
  batch.ids = reinterpret_cast<const std::byte*>(ids.data());
  batch.layer_stride = ids.size() * sizeof(uint16_t);
  const PlacementShape shape{
      .layers = 1, .experts = setup.experts, .slots = setup.experts, .ranks = setup.ranks, .nodes = setup.nodes};
  ReplicaTable table{.layers = 1, .ranks = setup.ranks, .experts = setup.experts, .slot = {}};
  for (int rank = 0; rank < setup.ranks; ++rank) {
    for (int expert = 0; expert < setup.experts; ++expert) table.slot.push_back(static_cast<uint16_t>(expert));
  }
  RoutedLayer routed;
  NewTokenRouting(shape, table, detail)->Count(batch, WholeBatch(batch), Layer(0), &routed);
  return routed;
}

}  // namespace epsim
