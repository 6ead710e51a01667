#include "traces/synthesis/synthesis.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "google/protobuf/text_format.h"
#include "traces/synthesis/generator.h"
#include "traces/synthesis/request_deal.h"

namespace epsim {
namespace {

TraceHeader HeaderOf(const SynthesisConfig& config) {
  TraceHeader header;
  header.set_schema_version(1);
  header.set_model(config.model());
  header.set_layers(config.layers());
  header.set_experts(config.experts());
  header.set_top_k(config.top_k());
  header.set_id_bytes(config.experts() <= 256 ? 1 : 2);
  header.set_granularity(config.has_requests() ? REQUEST : STEP);
  if (config.has_steps()) header.set_source_ranks(config.steps().source_ranks());
  header.set_source("epsim trace synth");
  header.set_synthetic(
      absl::StrCat(config.description().empty() ? "from parameters" : config.description(), ", seed ", config.seed()));
  return header;
}

TokenPhase PhaseOf(const RequestLength& length, uint64_t token) {
  if (token < length.prefill_tokens()) return PREFILL;
  return token < uint64_t{length.prefill_tokens()} + length.decode_tokens() ? DECODE : PHASE_UNKNOWN;
}

absl::Status WriteRequests(const SynthesisConfig& config, TraceWriter& writer, const StopToken& stop) {
  // Layers share the cache with this many tokens' ids.
  constexpr uint64_t kBlock = 64;
  const int64_t requests = config.requests().requests();
  const size_t row = static_cast<size_t>(config.layers()) * config.top_k();
  Generator generator(config, 1);
  RequestDeal deal(config);
  Progress progress("generating", requests);
  std::vector<int32_t> ids;
  std::vector<uint32_t> position;
  std::vector<uint8_t> phase;
  std::vector<Generator::Token> tokens;
  for (int64_t r = 0; r < requests; ++r) {
    const RequestDeal::Request request = deal.Next();
    const uint64_t length = RecordedTokens(request.length);
    ids.resize(length * row);
    position.resize(length);
    phase.resize(length);
    tokens.assign(length, {.place = 0, .domain = static_cast<uint16_t>(request.domain), .first = false});
    tokens[0].first = true;
    for (uint64_t t = 0; t < length; ++t) {
      position[t] = request.length.context_tokens() + static_cast<uint32_t>(t);
      phase[t] = PhaseOf(request.length, t);
    }
    for (uint64_t t = 0; t < length; t += kBlock) {
      RETURN_IF_ERROR(stop.Check());
      generator.Draw(absl::MakeConstSpan(tokens).subspan(t, kBlock),
                     {.ids = ids.data() + t * row, .token_stride = row, .layer_stride = config.top_k()});
    }
    RequestInfo info;
    info.set_id(request.id);
    info.set_first_token(writer.tokens());
    info.set_tokens(static_cast<int64_t>(length));
    info.set_prompt_tokens(request.length.context_tokens());
    info.set_domain(config.domains(request.domain).name());
    TokenColumns columns;
    columns.position = position;
    columns.phase = phase;
    RETURN_IF_ERROR(writer.AppendRequest(info, ids, columns));
    progress.Set(r + 1);
  }
  return absl::OkStatus();
}

// One running request: a place in the batch of a rank.
struct Running {
  RequestDeal::Request request;
  uint32_t index = 0;
  uint64_t done = 0, length = 0;
};

absl::Status WriteSteps(const SynthesisConfig& config, TraceWriter& writer, const StopToken& stop) {
  const StepRecording& recording = config.steps();
  const int ranks = recording.source_ranks();
  const Burst& burst = recording.burst();
  bool consecutive = true;
  for (const Domain& domain : config.domains()) {
    for (const RequestLength& length : domain.lengths()) consecutive &= length.decode_tokens() == 0;
  }
  const auto tokens_of = [&](int rank) -> int64_t {
    return recording.tokens_per_rank(recording.tokens_per_rank_size() == 1 ? 0 : rank);
  };
  const int64_t most = recording.has_burst() ? burst.factor() : 1;
  std::vector<int64_t> first_place(ranks + 1, 0);
  for (int r = 0; r < ranks; ++r) {
    const int64_t tokens = tokens_of(r) * most;
    first_place[r + 1] = first_place[r] + (consecutive ? std::min<int64_t>(tokens, 1) : tokens);
  }

  Generator generator(config, first_place[ranks]);
  RequestDeal deal(config);
  RandomStream stagger(config.seed(), "synthesis/stagger");
  Progress progress("generating", recording.steps());
  std::vector<Running> places(first_place[ranks]);
  std::vector<int32_t> ids;
  std::vector<uint32_t> position, request_index;
  std::vector<uint8_t> phase;
  std::vector<uint16_t> source_rank;
  std::vector<Generator::Token> tokens;
  std::vector<RequestInfo> started;
  uint32_t requests = 0;
  for (int64_t step = 0; step < recording.steps(); ++step) {
    RETURN_IF_ERROR(stop.Check());
    const bool bursting = recording.has_burst() && step % burst.every_steps() >= burst.every_steps() - burst.steps();
    position.clear();
    request_index.clear();
    phase.clear();
    source_rank.clear();
    tokens.clear();
    started.clear();
    for (int r = 0; r < ranks; ++r) {
      const int64_t count = tokens_of(r) * (bursting ? most : 1);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t place = first_place[r] + (consecutive ? 0 : i);
        Running& running = places[place];
        bool first = running.done == running.length;
        if (first) {
          const bool vacant = running.length == 0;
          running.request = deal.Next();
          running.index = requests++;
          running.length = RecordedTokens(running.request.length);
          // The first requests of the places have been running for some time, or all would end together.
          running.done = vacant && !consecutive ? stagger.Below(running.length) : 0;
          RequestInfo& info = started.emplace_back();
          info.set_id(running.request.id);
          info.set_tokens(static_cast<int64_t>(running.length - running.done));
          info.set_prompt_tokens(static_cast<int64_t>(running.request.length.context_tokens() + running.done));
          info.set_domain(config.domains(running.request.domain).name());
        }
        position.push_back(static_cast<uint32_t>(running.request.length.context_tokens() + running.done));
        request_index.push_back(running.index);
        phase.push_back(PhaseOf(running.request.length, running.done));
        source_rank.push_back(static_cast<uint16_t>(r));
        tokens.push_back({static_cast<uint32_t>(place), static_cast<uint16_t>(running.request.domain), first});
        ++running.done;
      }
    }
    ids.resize(tokens.size() * config.layers() * config.top_k());
    generator.Draw(tokens,
                   {.ids = ids.data(), .token_stride = config.top_k(), .layer_stride = tokens.size() * config.top_k()});
    TokenColumns columns;
    columns.position = position;
    columns.request_index = request_index;
    columns.phase = phase;
    columns.source_rank = source_rank;
    RETURN_IF_ERROR(writer.AppendStep(started, ids, columns));
    progress.Set(step + 1);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Synthesize(const SynthesisConfig& config, const std::string& out_path, const TraceWriterOptions& options,
                        const StopToken& stop) {
  RETURN_IF_ERROR(ValidateSynthesis(config, "synthesis"));
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceWriter> writer, TraceWriter::Create(out_path, HeaderOf(config), options));
  absl::Status status =
      config.has_requests() ? WriteRequests(config, *writer, stop) : WriteSteps(config, *writer, stop);
  if (status.ok()) status = writer->Finish();
  if (!status.ok()) writer->Abandon();
  return status;
}

std::string PrintSynthesis(const SynthesisConfig& config) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseShortRepeatedPrimitives(true);
  std::string text;
  printer.PrintToString(config, &text);
  return text;
}

}  // namespace epsim
