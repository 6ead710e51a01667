#include "traces/synthesis/request_deal.h"

#include <numeric>
#include <utility>

namespace epsim {

RequestDeal::RequestDeal(const SynthesisConfig& config)
    : config_(config), random_(config.seed(), "synthesis/requests") {
  double sum = 0;
  for (const Domain& domain : config.domains()) sum += domain.share();
  for (const Domain& domain : config.domains()) {
    Deck& deck = decks_.emplace_back();
    deck.share = domain.share() / sum;
    deck.order.resize(domain.lengths_size());
    std::iota(deck.order.begin(), deck.order.end(), 0u);
  }
}

RequestDeal::Request RequestDeal::Next() {
  // The domain that is furthest behind its share.
  int chosen = 0;
  double furthest = 0;
  for (size_t d = 0; d < decks_.size(); ++d) {
    const double behind = decks_[d].share * static_cast<double>(next_id_ + 1) - static_cast<double>(decks_[d].dealt);
    if (d == 0 || behind > furthest) {
      furthest = behind;
      chosen = static_cast<int>(d);
    }
  }
  Deck& deck = decks_[chosen];
  const size_t place = deck.dealt++ % deck.order.size();
  if (place == 0) {
    for (size_t i = deck.order.size() - 1; i > 0; --i) std::swap(deck.order[i], deck.order[random_.Below(i + 1)]);
  }
  return {next_id_++, chosen, config_.domains(chosen).lengths(static_cast<int>(deck.order[place]))};
}

}  // namespace epsim
