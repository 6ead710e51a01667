#include "models/schedule/layer_order.h"

#include <optional>
#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int kHalves[] = {1, 2};

std::vector<int> Both(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<int> both = a;
  both.insert(both.end(), b.begin(), b.end());
  return both;
}

// One batch: the layers follow each other.
class OneBatch {
 public:
  OneBatch(const ProgramPlan& plan, ProgramBuilder* builder) : plan_(plan), builder_(builder) {}

  std::vector<int> AddLayer(const MoeLayer& layer, int repeat, std::vector<int> inputs) const {
    LayerRun run(plan_, layer, repeat, 0, std::move(inputs), builder_);
    run.AddDenseLayers();
    run.AddAttention();
    run.AddRouter();
    if (plan_.config.has_fused()) {
      AddFusedChunks(&run);
    } else {
      AddExternalChunks(&run);
    }
    return run.outputs();
  }

 private:
  void AddExternalChunks(LayerRun* run) const {
    const int chunks = plan_.shape.chunks, ahead = plan_.overlap_chunks() ? 1 : 0;
    int sent = 0;
    const auto send = [&] {
      run->AddEarlyQuantization(sent);
      if (sent == 0) run->AddSharedExperts();
      run->AddDispatch(sent++);
    };
    for (int chunk = 0; chunk < chunks; ++chunk) {
      while (sent < chunks && sent <= chunk + ahead) send();
      run->AddExperts(chunk);
      run->AddCombine(chunk);
    }
  }

  void AddFusedChunks(LayerRun* run) const {
    run->AddSharedExperts();
    for (int chunk = 0; chunk < plan_.shape.chunks; ++chunk) {
      run->AddEarlyQuantization(chunk);
      run->AddFusedExperts(chunk);
    }
  }

  const ProgramPlan& plan_;
  ProgramBuilder* const builder_;
};

// Two halves of a batch, which take turns.
class TwoHalves {
 public:
  TwoHalves(const ProgramPlan& plan, absl::Span<const MoeLayer> layers, int repeat, std::vector<int> inputs,
            ProgramBuilder* builder)
      : plan_(plan), layers_(layers), repeat_(repeat), inputs_(std::move(inputs)), builder_(builder) {
    EPSIM_CHECK(plan.shape.chunks == 1);
  }

  std::vector<int> AddInPrefillOrder() {
    const bool overlap = plan_.config.overlap_shared_experts();
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      for (const int half : kHalves) {
        if (overlap && layer > 0) run(half).AddSharedExperts();
        Begin(half, layer);
        run(half).AddAttention();
        run(half).AddRouter();
        run(half).AddEarlyQuantization(0);
        if (!overlap) run(half).AddSharedExperts();
        run(half).AddDispatch(0);
      }
      for (const int half : kHalves) AddExperts(half);
    }
    for (const int half : kHalves) {
      if (overlap) run(half).AddSharedExperts();
    }
    return Both(run(1).outputs(), run(2).outputs());
  }

  std::vector<int> AddInDecodeOrder() {
    const size_t stages = kDecodeStages * layers_.size();
    for (size_t turn = 0; turn < stages + kDecodeLag; ++turn) {
      if (turn < stages) AddDecodeStage(1, turn);
      if (turn >= kDecodeLag) AddDecodeStage(2, turn - kDecodeLag);
    }
    return Both(run(1).outputs(), run(2).outputs());
  }

 private:
  static constexpr size_t kDecodeStages = 5, kDecodeLag = 2;

  LayerRun& run(int half) { return *runs_[half - 1]; }

  void Begin(int half, size_t layer) {
    std::optional<LayerRun>& run = runs_[half - 1];
    std::vector<int> inputs = layer == 0 ? inputs_ : run->outputs();
    run.emplace(plan_, layers_[layer], repeat_, half, std::move(inputs), builder_);
    run->AddDenseLayers();
  }

  void AddExperts(int half) {
    run(half).AddExperts(0);
    run(half).AddCombine(0);
  }

  void AddDecodeStage(int half, size_t stage) {
    const bool overlap = plan_.config.overlap_shared_experts();
    switch (stage % kDecodeStages) {
      case 0:
        Begin(half, stage / kDecodeStages);
        return run(half).AddAttention(AttentionStep::kFirst);
      case 1:
        run(half).AddAttention(AttentionStep::kSecond);
        return run(half).AddRouter();
      case 2:
        run(half).AddEarlyQuantization(0);
        if (!overlap) run(half).AddSharedExperts();
        run(half).AddDispatch(0);
        if (overlap) run(half).AddSharedExperts();
        return;
      case 3:
        return AddExperts(half);
      default:  // The half's results are on their way.
        return;
    }
  }

  const ProgramPlan& plan_;
  const absl::Span<const MoeLayer> layers_;
  const int repeat_;
  const std::vector<int> inputs_;
  ProgramBuilder* const builder_;
  std::optional<LayerRun> runs_[2];
};

}  // namespace

std::vector<int> AddLayers(const ProgramPlan& plan, absl::Span<const MoeLayer> layers, int repeat,
                           std::vector<int> inputs, ProgramBuilder* builder) {
  switch (plan.shape.halves) {
    case BatchShape::Halves::kNone:
      for (const MoeLayer& layer : layers) {
        inputs = OneBatch(plan, builder).AddLayer(layer, repeat, std::move(inputs));
      }
      return inputs;
    case BatchShape::Halves::kPrefillOrder:
      return TwoHalves(plan, layers, repeat, std::move(inputs), builder).AddInPrefillOrder();
    case BatchShape::Halves::kDecodeOrder:
      return TwoHalves(plan, layers, repeat, std::move(inputs), builder).AddInDecodeOrder();
  }
  EPSIM_CHECK(false);
}

}  // namespace epsim
