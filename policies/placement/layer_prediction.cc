#include "policies/placement/layer_prediction.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/check.h"
#include "policies/placement/nearest_shares.h"

namespace epsim {
namespace {

constexpr double kMostTokens = 1e9;  // Of one slot, so that a rank's sum stays within range.

// The 16-norm of values that are added one by one.
class Norm16 {
 public:
  void Add(double value) {
    value *= value;
    value *= value;
    value *= value;
    sum_ += value * value;
  }
  double value() const { return std::sqrt(std::sqrt(std::sqrt(std::sqrt(sum_)))); }

 private:
  double sum_ = 0;
};

}  // namespace

LayerPrediction::LayerPrediction(const PlacementShape& shape, const PlacementRequest& request)
    : shape_(shape),
      slots_per_rank_(shape.slots_per_rank()),
      ranks_per_node_(shape.ranks / shape.nodes),
      cost_(request.cost),
      sample_(request.co_activation),
      exchange_(request.cost != nullptr ? request.cost->exchange() : nullptr),
      window_load_(request.window.Total()) {
  EPSIM_CHECK(shape.ranks % shape.nodes == 0 && shape.ranks < kNowhere);
  if (cost_ != nullptr) {
    per_step_ = 1 / (static_cast<double>(std::max(1, request.window.rows)) *
                     static_cast<double>(std::max<int64_t>(1, request.window.steps_per_row)));
  }
  const auto ranks = static_cast<size_t>(shape.ranks), nodes = static_cast<size_t>(shape.nodes);
  if (exchange_ != nullptr) {
    EPSIM_CHECK(exchange_->sending.size() == ranks && exchange_->receiving.size() == ranks);
  }
  if (sample_ != nullptr) {
    EPSIM_CHECK(sample_->layers == shape.layers && sample_->top_k < 256);
    EPSIM_CHECK(sample_->experts.size() == static_cast<size_t>(sample_->layers) * sample_->tokens * sample_->top_k);
  }
  load_.resize(shape.experts);
  replicas_.resize(shape.experts);
  slot_load_.resize(shape.slots);
  share_.resize(shape.slots);
  expert_time_.resize(ranks);
  marked_.resize(ranks);
  tokens_per_slot_.resize(slots_per_rank_);
  choices_.resize(nodes);
  from_all_.resize(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) node_of_rank_.push_back(static_cast<uint16_t>(rank / ranks_per_node_));
}

void LayerPrediction::Begin(Layer layer, absl::Span<const LogicalExpert> experts) {
  layer_ = layer;
  const auto begin = window_load_.begin() + static_cast<std::ptrdiff_t>(Index(layer) * shape_.experts);
  std::copy(begin, begin + shape_.experts, load_.begin());
  double total = 0;
  for (double& load : load_) total += load *= per_step_;
  unit_ = 1;
  if (cost_ == nullptr && total > 0) {
    // Powers of loads must not leave the range.  A power of two: it changes no digit.
    unit_ = std::ldexp(1.0, std::ilogb(total));
    for (double& load : load_) load /= unit_;
  }

  weight_ = 0;
  if (exchange_ != nullptr && sample_ != nullptr) {
    const absl::Span<const uint16_t> sample = sample_->of(layer);
    pairs_begin_.assign(shape_.experts + 1, 0);
    for (uint16_t expert : sample) {
      if (expert == CoActivation::kNone) continue;
      EPSIM_CHECK(expert < shape_.experts);
      ++pairs_begin_[expert + 1];
    }
    for (int expert = 0; expert < shape_.experts; ++expert) pairs_begin_[expert + 1] += pairs_begin_[expert];
    const uint32_t pairs = pairs_begin_.back();
    pairs_.resize(pairs);
    token_of_pair_.resize(pairs);
    std::vector<uint32_t> next(pairs_begin_.begin(), pairs_begin_.end() - 1);
    for (uint32_t pair = 0; pair < sample.size(); ++pair) {
      if (sample[pair] == CoActivation::kNone) continue;
      const uint32_t place = next[sample[pair]]++;
      pairs_[place] = pair;
      token_of_pair_[place] = pair / sample_->top_k;
    }
    if (pairs > 0) weight_ = total / pairs;
    source_of_token_.resize(sample_->tokens);
    turn_of_token_.resize(sample_->tokens);
    for (int token = 0; token < sample_->tokens; ++token) {
      source_of_token_[token] = static_cast<uint16_t>(token % shape_.nodes);
      turn_of_token_[token] = static_cast<uint32_t>(token / shape_.nodes);
    }
  }
  Place(experts);
}

void LayerPrediction::Place(absl::Span<const LogicalExpert> experts) {
  EPSIM_CHECK(experts.size() == static_cast<size_t>(shape_.slots));
  expert_of_slot_.assign(experts.begin(), experts.end());
  for (std::vector<Slot>& replicas : replicas_) replicas.clear();
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    replicas_[Index(experts[slot])].push_back(Slot(static_cast<int32_t>(slot)));
  }
  if (counts_exchange()) {
    rank_of_pair_.assign(sample_->of(layer_).size(), kNowhere);
    experts_on_rank_.assign(static_cast<size_t>(sample_->tokens) * shape_.ranks, 0);
    experts_on_node_.assign(static_cast<size_t>(sample_->tokens) * shape_.nodes, 0);
    visits_.assign(static_cast<size_t>(shape_.nodes) * shape_.ranks, 0);
    node_visits_.assign(static_cast<size_t>(shape_.nodes) * shape_.nodes, 0);
  }
  for (int expert = 0; expert < shape_.experts; ++expert) Relocate(LogicalExpert(expert));
  UpdateExpertTimes();
}

void LayerPrediction::Swap(Slot a, Slot b) {
  LogicalExpert& x = expert_of_slot_[Index(a)];
  LogicalExpert& y = expert_of_slot_[Index(b)];
  if (x == y) return;
  MarkRanks(x);
  MarkRanks(y);
  ReplaceReplica(x, a, b);
  ReplaceReplica(y, b, a);
  std::swap(x, y);
  Relocate(x);
  Relocate(y);
  UpdateExpertTimes();
}

void LayerPrediction::Assign(Slot slot, LogicalExpert expert) {
  LogicalExpert& held = expert_of_slot_[Index(slot)];
  if (held == expert) return;
  MarkRanks(held);
  std::vector<Slot>& left = replicas_[Index(held)];
  left.erase(std::find(left.begin(), left.end(), slot));
  EPSIM_CHECK(!left.empty());
  std::vector<Slot>& joined = replicas_[Index(expert)];
  joined.insert(std::lower_bound(joined.begin(), joined.end(), slot), slot);
  Relocate(held);
  Relocate(expert);
  held = expert;
  UpdateExpertTimes();
}

void LayerPrediction::ReplaceReplica(LogicalExpert expert, Slot from, Slot to) {
  std::vector<Slot>& replicas = replicas_[Index(expert)];
  *std::find(replicas.begin(), replicas.end(), from) = to;
  if (replicas.size() > 1) std::sort(replicas.begin(), replicas.end());
}

void LayerPrediction::MarkRanks(LogicalExpert expert) {
  for (Slot slot : replicas_[Index(expert)]) {
    const size_t rank = Index(slot) / slots_per_rank_;
    if (marked_[rank]) continue;
    marked_[rank] = true;
    marked_ranks_.push_back(static_cast<uint16_t>(rank));
  }
}

void LayerPrediction::Relocate(LogicalExpert expert) {
  const std::vector<Slot>& replicas = replicas_[Index(expert)];
  const absl::Span<double> share = absl::MakeSpan(share_).first(replicas.size());
  NearestShares(shape_, replicas, share);
  for (size_t i = 0; i < replicas.size(); ++i) slot_load_[Index(replicas[i])] = share[i] * load_[Index(expert)];
  MarkRanks(expert);
  if (!counts_exchange()) return;

  work_ += pairs(expert);
  const uint32_t begin = pairs_begin_[Index(expert)], end = pairs_begin_[Index(expert) + 1];
  const auto rank_of = [this](Slot slot) { return static_cast<uint16_t>(Index(slot) / slots_per_rank_); };
  if (replicas.size() == 1) {
    const uint16_t rank = rank_of(replicas[0]);
    for (uint32_t i = begin; i < end; ++i) Move(i, rank);
    return;
  }
  choices_.assign(shape_.nodes, {0, static_cast<uint32_t>(replicas.size())});
  for (uint32_t i = 0, first = 0; i < replicas.size(); ++i) {
    const uint16_t node = node_of_rank_[rank_of(replicas[i])];
    if (i == 0 || node_of_rank_[rank_of(replicas[i - 1])] != node) first = i;
    choices_[node] = {first, i + 1 - first};
  }
  const auto shift = static_cast<uint32_t>(Index(expert));
  for (uint32_t i = begin; i < end; ++i) {
    const uint32_t token = token_of_pair_[i];
    const Choice& choice = choices_[source_of_token_[token]];
    Move(i, rank_of(replicas[choice.first + (turn_of_token_[token] + shift) % choice.number]));
  }
}

void LayerPrediction::Move(uint32_t pair, uint16_t rank) {
  uint16_t& place = rank_of_pair_[pairs_[pair]];
  const uint16_t from = std::exchange(place, rank);
  if (from == rank) return;
  const size_t token = token_of_pair_[pair], source = source_of_token_[token];
  // A copy goes where the first of a token's experts comes, and none any more where the last leaves.
  const bool always = exchange_->copies == ExchangeCost::Copies::kOncePerExpert;
  uint8_t* const on_rank = &experts_on_rank_[token * shape_.ranks];
  int32_t* const visits = &visits_[source * shape_.ranks];
  visits[rank] += always || on_rank[rank] == 0;
  ++on_rank[rank];
  if (from != kNowhere) {
    --on_rank[from];
    visits[from] -= always || on_rank[from] == 0;
  }
  if (exchange_->copies != ExchangeCost::Copies::kOncePerNode) return;
  uint8_t* const on_node = &experts_on_node_[token * shape_.nodes];
  int32_t* const node_visits = &node_visits_[source * shape_.nodes];
  node_visits[node_of_rank_[rank]] += on_node[node_of_rank_[rank]]++ == 0;
  if (from != kNowhere) node_visits[node_of_rank_[from]] -= --on_node[node_of_rank_[from]] == 0;
}

void LayerPrediction::UpdateExpertTimes() {
  for (uint16_t rank : marked_ranks_) {
    const size_t first = rank * slots_per_rank_;
    if (cost_ == nullptr) {
      double load = 0;
      for (size_t i = 0; i < slots_per_rank_; ++i) load += slot_load_[first + i];
      expert_time_[rank] = load;
    } else {
      for (size_t i = 0; i < slots_per_rank_; ++i) {
        tokens_per_slot_[i] = static_cast<int32_t>(std::min(slot_load_[first + i], kMostTokens) + 0.5);
      }
      const absl::Span<const LogicalExpert> experts =
          absl::MakeConstSpan(expert_of_slot_).subspan(first, slots_per_rank_);
      expert_time_[rank] = static_cast<double>(cost_->ExpertTime(layer_, experts, tokens_per_slot_).count());
    }
    marked_[rank] = false;
  }
  marked_ranks_.clear();
}

template <typename Body>
void LayerPrediction::ForEachPort(const Body& body) const {
  const size_t ranks = shape_.ranks, nodes = shape_.nodes;
  const double of_rank = weight_ / static_cast<double>(ranks_per_node_);  // A rank's part of its node's tokens.
  const double not_own = static_cast<double>(ranks_per_node_ - 1) * of_rank;
  const bool once_per_node = exchange_->copies == ExchangeCost::Copies::kOncePerNode;
  const auto of_node = [nodes](const std::vector<int32_t>& visits, size_t source, size_t node) -> int64_t {
    return visits[source * nodes + node];
  };

  from_all_.assign(ranks, 0);
  for (size_t source = 0; source < nodes; ++source) {
    const int32_t* const visits = &visits_[source * ranks];
    for (size_t rank = 0; rank < ranks; ++rank) from_all_[rank] += visits[rank];
  }
  for (size_t node = 0; node < nodes; ++node) {
    const int32_t* const visits = &visits_[node * ranks];
    const size_t first = node * ranks_per_node_, end = first + ranks_per_node_;
    // Copies that start on the node: its own tokens', and where they cross the network once, all that it hands on.
    const auto near_to = [&](size_t rank) -> int64_t { return once_per_node ? from_all_[rank] : visits[rank]; };
    int64_t near = 0, sent_far = 0, received_far = 0;
    for (size_t rank = first; rank < end; ++rank) near += near_to(rank);
    if (once_per_node) {
      for (size_t other = 0; other < nodes; ++other) {
        if (other == node) continue;
        sent_far += of_node(node_visits_, node, other);
        received_far += of_node(node_visits_, other, node);
      }
    } else {
      for (size_t rank = 0; rank < ranks; ++rank) sent_far += visits[rank];
      sent_far -= near;
    }
    for (size_t rank = first; rank < end; ++rank) {
      // All ranks of a node send the same, but for what is for themselves.
      body(exchange_->sending[rank].Busy(static_cast<double>(near - near_to(rank)) * of_rank,
                                         static_cast<double>(sent_far) * of_rank));
      const double far = once_per_node ? static_cast<double>(received_far) * of_rank
                                       : static_cast<double>(from_all_[rank] - visits[rank]) * weight_;
      body(exchange_->receiving[rank].Busy(static_cast<double>(near_to(rank)) * not_own, far));
    }
  }
}

double LayerPrediction::time() const {
  const double experts = *std::max_element(expert_time_.begin(), expert_time_.end());
  if (!counts_exchange()) return experts * unit_;
  double busiest = 0;
  ForEachPort([&busiest](double busy) { busiest = std::max(busiest, busy); });
  bool crosses = false;
  for (int source = 0; source < shape_.nodes; ++source) {
    for (int rank = 0; rank < shape_.ranks; ++rank) {
      crosses |= node_of_rank_[rank] != source && visits_[static_cast<size_t>(source) * shape_.ranks + rank] > 0;
    }
  }
  const Duration latency = crosses ? exchange_->network_latency : busiest > 0 ? exchange_->node_latency : Duration{};
  return experts + busiest + static_cast<double>(latency.count());
}

double LayerPrediction::smooth_time() const {
  Norm16 experts, ports;
  for (double time : expert_time_) experts.Add(time);
  if (!counts_exchange()) return experts.value() * unit_;
  ForEachPort([&ports](double busy) { ports.Add(busy); });
  return experts.value() + ports.value();
}

void LayerPrediction::CountCompany(Slot slot, absl::Span<int32_t> company) const {
  std::fill(company.begin(), company.end(), 0);
  if (!counts_exchange()) return;
  const bool by_node = exchange_->copies == ExchangeCost::Copies::kOncePerNode;
  const size_t expert = Index(expert_of_slot_[Index(slot)]);
  const auto rank = static_cast<uint16_t>(Index(slot) / slots_per_rank_);
  const auto top_k = static_cast<uint32_t>(sample_->top_k);
  std::vector<uint32_t> last(shape_.ranks, ~uint32_t{0});  // The last token that was seen to visit it.
  for (uint32_t i = pairs_begin_[expert]; i < pairs_begin_[expert + 1]; ++i) {
    if (rank_of_pair_[pairs_[i]] != rank) continue;
    const uint32_t token = token_of_pair_[i];
    for (uint32_t pair = token * top_k; pair < (token + 1) * top_k; ++pair) {
      if (pair == pairs_[i] || rank_of_pair_[pair] == kNowhere) continue;
      const uint16_t visited = by_node ? node_of_rank_[rank_of_pair_[pair]] : rank_of_pair_[pair];
      company[visited] += last[visited] != token;
      last[visited] = token;
    }
  }
  if (!by_node) return;
  // From nodes, which are no more than ranks, to their ranks.
  for (size_t r = shape_.ranks; r-- > 0;) company[r] = company[node_of_rank_[r]];
}

}  // namespace epsim
