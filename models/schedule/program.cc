#include "models/schedule/program.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "models/schedule/layer_order.h"
#include "models/schedule/program_builder.h"

namespace epsim {
namespace {

// Dense layers ahead of a MoE layer go with it.
std::vector<MoeLayer> MoeLayersOf(const ModelSpec& model) {
  std::vector<MoeLayer> layers(1);
  for (int layer = 0; layer < static_cast<int>(model.layers()); ++layer) {
    if (!IsMoeLayer(model, layer)) {
      layers.back().dense_layers.push_back(layer);
      continue;
    }
    layers.back().layer = layer;
    layers.back().moe_layer = static_cast<int>(layers.size()) - 1;
    layers.emplace_back();
  }
  EPSIM_CHECK(layers.back().dense_layers.empty());
  layers.pop_back();
  EPSIM_CHECK(layers.size() == model.moe_layers());
  return layers;
}

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

void AppendHooks(const Program& program, int operation, bool at_finish, std::string* text) {
  for (const ProgramHook& hook : program.hooks) {
    if (hook.operation == operation && hook.at_finish == at_finish) {
      absl::StrAppend(text, "  ", ToAbsl(Name(hook.hook)), "\n");
    }
  }
}

}  // namespace

bool IsMoeLayer(const ModelSpec& model, int layer) {
  const int dense = static_cast<int>(model.layers() - model.moe_layers());
  if (dense > 0 && dense == static_cast<int>(model.moe_layers())) return layer % 2 == 1;
  return layer >= dense;
}

Program MakeProgram(const ScheduleConfig& config, const ModelSpec& model, const ProgramFacts& facts,
                    const BatchShape& shape) {
  const ProgramPlan plan{config, model, facts, shape};
  ProgramBuilder builder;
  std::vector<MoeLayer> layers = MoeLayersOf(model);
  // Ahead of the first exchange there is nothing to overlap: dense layers run for the whole batch.
  std::vector<int> done;
  for (const int layer : std::exchange(layers.front().dense_layers, {})) {
    done = {AddDenseLayer(layer, 0, std::move(done), &builder)};
  }
  const auto add_head = [&](int repeat) {
    return builder.Add({.kind = StageKind::kLmHead, .layer = static_cast<int>(model.layers()), .repeat = repeat}, done);
  };
  done = AddLayers(plan, layers, 0, std::move(done), &builder);
  done = {add_head(0)};
  layers.back().dense_layers.clear();
  for (int run = 1; run <= static_cast<int>(config.mtp_runs()); ++run) {
    done = AddLayers(plan, absl::MakeConstSpan(layers).last(1), run, std::move(done), &builder);
    done = {add_head(run)};
  }
  return builder.Finish();
}

std::string ProgramText(const Program& program) {
  std::string text;
  for (size_t i = 0; i < program.operations.size(); ++i) {
    const Operation& operation = program.operations[i];
    AppendHooks(program, static_cast<int>(i), false, &text);
    absl::StrAppend(&text, i, " ", ToAbsl(Name(operation.kind)), "/", operation.layer);
    if (operation.part > 0) absl::StrAppend(&text, operation.part == 1 ? " A" : " B");
    if (operation.step != AttentionStep::kAll) {
      absl::StrAppend(&text, operation.step == AttentionStep::kFirst ? " first step" : " second step");
    }
    if (operation.chunk > 0) absl::StrAppend(&text, " chunk ", operation.chunk);
    if (operation.repeat > 0) absl::StrAppend(&text, " repeat ", operation.repeat);
    if (operation.beside_exchange) absl::StrAppend(&text, " beside");
    if (operation.lock_step) absl::StrAppend(&text, " in lock step");
    if (!operation.after.empty()) absl::StrAppend(&text, " after ", absl::StrJoin(operation.after, " "));
    absl::StrAppend(&text, "\n");
    AppendHooks(program, static_cast<int>(i), true, &text);
  }
  return text;
}

}  // namespace epsim
