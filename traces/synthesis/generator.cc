#include "traces/synthesis/generator.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "traces/synthesis/popularity.h"

namespace epsim {

Generator::Generator(const SynthesisConfig& config, int64_t places)
    : layers_(config.layers()),
      top_k_(config.top_k()),
      places_(places),
      drift_(config.drift()),
      next_drift_(config.has_drift() ? drift_.interval_tokens() : std::numeric_limits<uint64_t>::max()),
      previous_(static_cast<size_t>(places) * layers_ * top_k_) {
  const int experts = config.experts();
  for (int l = 0; l < layers_; ++l) {
    RandomStream random(config.seed(), absl::StrCat("synthesis/layer/", l));
    const auto popularity = [&](const Domain& domain) -> const LayerPopularity& {
      return domain.layers(domain.layers_size() == 1 ? 0 : l);
    };
    if (popularity(config.domains(0)).has_dealt()) {
      draws_.push_back(LayerDraws::Dealt(experts, top_k_, random));
      continue;
    }
    const double keep = config.keep_previous_size() == 0   ? 0.0
                        : config.keep_previous_size() == 1 ? config.keep_previous(0)
                                                           : config.keep_previous(l);
    std::vector<std::vector<uint32_t>> weights;
    std::vector<double> overall(experts, 0.0);
    for (int d = 0; d < config.domains_size(); ++d) {
      const Domain& domain = config.domains(d);
      RandomStream order(config.seed(), absl::StrCat("synthesis/order/", l, "/", d));
      const std::vector<double> inclusion = InclusionProbabilities(popularity(domain), experts, top_k_, order);
      for (int e = 0; e < experts; ++e) overall[e] += domain.share() * inclusion[e];
      weights.push_back(DrawingWeights(inclusion, keep));
    }
    draws_.emplace_back(top_k_, keep, std::move(weights), random);

    if (!drift_.has_exchange()) continue;
    std::vector<int> by_heat(experts);
    std::iota(by_heat.begin(), by_heat.end(), 0);
    std::stable_sort(by_heat.begin(), by_heat.end(), [&](int a, int b) { return overall[a] > overall[b]; });
    const uint32_t wanted = drift_.exchange().hot_experts();
    const int hot = wanted > 0 ? static_cast<int>(wanted) : std::max(1, experts / 8);
    hot_.push_back({std::vector<int>(by_heat.begin(), by_heat.begin() + hot),
                    std::vector<int>(by_heat.begin() + hot, by_heat.end()),
                    RandomStream(config.seed(), absl::StrCat("synthesis/drift/", l))});
  }
}

void Generator::DriftOnce() {
  for (int l = 0; l < layers_; ++l) {
    if (drift_.has_rotate()) {
      draws_[l].Rotate(static_cast<int>(drift_.rotate().by()));
      continue;
    }
    auto& [hot, cold, random] = hot_[l];
    const double wanted = drift_.exchange().fraction() * static_cast<double>(hot.size());
    size_t count = static_cast<size_t>(wanted);
    count += random.Unit() < wanted - static_cast<double>(count);
    count = std::min(count, cold.size());
    for (size_t i = 0; i < count; ++i) {
      std::swap(hot[i], hot[i + random.Below(hot.size() - i)]);
      std::swap(cold[i], cold[i + random.Below(cold.size() - i)]);
      draws_[l].Exchange(hot[i], cold[i]);
    }
  }
}

void Generator::Draw(absl::Span<const Token> tokens, const Layout& layout) {
  while (drawn_ >= next_drift_) {
    DriftOnce();
    next_drift_ += drift_.interval_tokens();
  }
  for (int l = 0; l < layers_; ++l) {
    LayerDraws& draws = draws_[l];
    uint16_t* const previous = previous_.data() + static_cast<size_t>(l) * places_ * top_k_;
    int32_t* ids = layout.ids + l * layout.layer_stride;
    for (const Token& token : tokens) {
      uint16_t* const chosen = previous + static_cast<size_t>(token.place) * top_k_;
      draws.Draw(token.domain, token.first ? nullptr : chosen, chosen);
      for (int i = 0; i < top_k_; ++i) ids[i] = chosen[i];
      ids += layout.token_stride;
    }
  }
  drawn_ += tokens.size();
}

}  // namespace epsim
