// The time that a layer would take under a placement, foreseen from past loads, from a sample of past tokens and from
// what a CostView tells; kept up to date while slots change, for searches.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// For a step of average load:
//   time = max over ranks of expert time + max over ranks and directions of PortTime::Busy + latency
// without a cost view, the load of the busiest rank instead.  Kernel time of the exchange, the same whatever the
// placement, is left out.
//
// A slot computes the share of nearest_shares.h of its expert's load, rounded to whole tokens for the cost view.
// Copies of tokens are those of the sample, each in the place of as many as makes the pairs of a step.  Tokens come
// from all ranks alike: sampled token t is of node t mod N, one L-th of it of each of the node's L ranks, and uses the
// replicas that NearestShares deals to the node, in turn.  A rank that holds one of several replicas on its node is not
// seen to prefer its own.  Without a sample, or where the view has no exchange, experts alone count.
class LayerPrediction {
 public:
  // The request's views must outlive the prediction.  REQUIRES: nodes divide ranks; at most 65,534 ranks, top_k below
  // 256.
  LayerPrediction(const PlacementShape& shape, const PlacementRequest& request);

  // Turns to a layer, under any placement of it: `experts` [slots].
  void Begin(Layer layer, absl::Span<const LogicalExpert> experts);
  // Another placement of the layer at hand.
  void Place(absl::Span<const LogicalExpert> experts);

  // Two slots exchange their experts.  Doing it twice is doing nothing.
  void Swap(Slot a, Slot b);
  // The slot takes another expert.  REQUIRES: its own expert has another replica.
  void Assign(Slot slot, LogicalExpert expert);

  // In picoseconds; without a cost view, in the window's tokens.
  double time() const;
  // What a search follows: time() with the 16-norm in the place of each maximum, so that the busiest rank counts most
  // and the next ones a little.
  double smooth_time() const;
  // The expert part of it, of one rank, in an arbitrary unit.
  double expert_time(Rank rank) const { return expert_time_[Index(rank)]; }

  absl::Span<const LogicalExpert> experts_of_slots() const { return expert_of_slot_; }
  absl::Span<const Slot> replicas(LogicalExpert expert) const { return replicas_[Index(expert)]; }
  double load(LogicalExpert expert) const { return load_[Index(expert)]; }  // Of a step; without a view scaled.
  double load(Slot slot) const { return slot_load_[Index(slot)]; }          // The slot's share of it.

  bool counts_exchange() const { return weight_ > 0; }
  // Sampled tokens that chose the expert.
  int64_t pairs(LogicalExpert expert) const {
    return counts_exchange() ? pairs_begin_[Index(expert) + 1] - pairs_begin_[Index(expert)] : 0;
  }
  // Sampled pairs that have been placed or looked at so far: what a search takes.
  int64_t work() const { return work_; }
  // Of the sampled tokens that `slot` computes, how many visit each rank for other experts (kOncePerNode: the node of
  // each rank).  The more, the fewer copies if the slot's expert were there.  [ranks]
  void CountCompany(Slot slot, absl::Span<int32_t> company) const;

 private:
  static constexpr uint16_t kNowhere = 0xffff;

  // Brings up to date what follows from replicas_[expert].
  void Relocate(LogicalExpert expert);
  // The expert of sampled pair `pair` is computed on `rank`.
  void Move(uint32_t pair, uint16_t rank);
  void MarkRanks(LogicalExpert expert);
  void UpdateExpertTimes();  // Of marked ranks.
  void ReplaceReplica(LogicalExpert expert, Slot from, Slot to);
  // Calls body(busy time) for both directions of every rank.
  template <typename Body>
  void ForEachPort(const Body& body) const;

  const PlacementShape shape_;
  const size_t slots_per_rank_, ranks_per_node_;
  const CostView* const cost_;
  const CoActivation* const sample_;
  const ExchangeCost* const exchange_;
  std::vector<double> window_load_;  // [layers, experts], of the whole window.
  double per_step_ = 1;              // A step's part of it.

  Layer layer_{};
  double unit_ = 1;                            // Of expert_time_.
  double weight_ = 0;                          // Copies in a step for each of the sample; 0: exchange not counted.
  std::vector<double> load_;                   // [experts]
  std::vector<LogicalExpert> expert_of_slot_;  // [slots]
  std::vector<std::vector<Slot>> replicas_;    // [experts], each ascending.
  std::vector<double> slot_load_, share_;      // [slots]; [replicas of one expert]
  std::vector<double> expert_time_;            // [ranks]
  std::vector<bool> marked_;                   // [ranks]
  std::vector<uint16_t> marked_ranks_;
  std::vector<int32_t> tokens_per_slot_;  // [slots of a rank]

  // Of the sample.  A pair is place k of token t: t * top_k + k.
  std::vector<uint32_t> pairs_, pairs_begin_;  // Pairs of each expert; [experts + 1]
  std::vector<uint32_t> token_of_pair_;        // As pairs_.
  std::vector<uint16_t> rank_of_pair_;         // [tokens, top_k], or kNowhere
  std::vector<uint16_t> source_of_token_;      // [tokens]: the node it is of.
  std::vector<uint32_t> turn_of_token_;        // [tokens]: which of the node's tokens it is.
  std::vector<uint8_t> experts_on_rank_;       // [tokens, ranks]: of the token's experts, how many the rank computes.
  std::vector<uint8_t> experts_on_node_;       // [tokens, nodes]
  int64_t work_ = 0;
  std::vector<int32_t> visits_;         // [source nodes, ranks]: copies that ranks get, their own included.
  std::vector<int32_t> node_visits_;    // [source nodes, nodes], likewise; for kOncePerNode.
  std::vector<uint16_t> node_of_rank_;  // [ranks]
  struct Choice {
    uint32_t first, number;
  };
  std::vector<Choice> choices_;            // [source nodes]: replicas of the expert at hand.
  mutable std::vector<int32_t> from_all_;  // [ranks]: visits_ of all sources.
};

}  // namespace epsim
