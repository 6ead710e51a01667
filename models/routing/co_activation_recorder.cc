#include "models/routing/co_activation_recorder.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {

CoActivationRecorder::CoActivationRecorder(uint64_t seed, int most_tokens)
    : most_tokens_(most_tokens), random_(seed, "co_activation") {
  EPSIM_CHECK(most_tokens > 0);
}

void CoActivationRecorder::Add(const StepBatch& batch) {
  if (batch.ids == nullptr) return;
  if (layers_ == 0) {
    layers_ = batch.layers;
    top_k_ = batch.top_k;
  }
  EPSIM_CHECK(batch.layers == layers_ && batch.top_k == top_k_);
  const size_t token_size = static_cast<size_t>(layers_) * top_k_;
  for (int token = 0; token < batch.tokens; ++token) {
    ++seen_;
    if (seen_ <= most_tokens_) {
      sample_.resize(seen_ * token_size);
      Take(batch, token, seen_ - 1);
    } else if (const uint64_t place = random_.Below(seen_); place < most_tokens_) {
      Take(batch, token, place);
    }
  }
}

void CoActivationRecorder::Take(const StepBatch& batch, int token, size_t place) {
  uint16_t* out = &sample_[place * layers_ * top_k_];
  for (int layer = 0; layer < layers_; ++layer, out += top_k_) {
    const size_t first = static_cast<size_t>(token) * top_k_;
    const std::byte* const ids = batch.layer_ids(layer);
    const int valid =
        batch.valid_count == nullptr ? top_k_ : batch.valid_count[static_cast<size_t>(layer) * batch.tokens + token];
    for (int k = 0; k < valid; ++k) {
      out[k] = batch.id_bytes == 1 ? reinterpret_cast<const uint8_t*>(ids)[first + k]
                                   : reinterpret_cast<const uint16_t*>(ids)[first + k];
    }
    std::fill(out + valid, out + top_k_, CoActivation::kNone);
  }
}

CoActivation CoActivationRecorder::view() {
  const size_t tokens = std::min<uint64_t>(seen_, most_tokens_), size = top_k_;
  by_layer_.resize(sample_.size());
  for (size_t layer = 0; layer < static_cast<size_t>(layers_); ++layer) {
    for (size_t token = 0; token < tokens; ++token) {
      const auto from = sample_.begin() + static_cast<std::ptrdiff_t>((token * layers_ + layer) * size);
      std::copy(from, from + top_k_, by_layer_.begin() + static_cast<std::ptrdiff_t>((layer * tokens + token) * size));
    }
  }
  return {.layers = layers_, .tokens = static_cast<int>(tokens), .top_k = top_k_, .experts = by_layer_};
}

void CoActivationRecorder::Clear() {
  seen_ = 0;
  sample_.clear();
}

}  // namespace epsim
