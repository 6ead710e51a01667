// `epsim trace`: import, look at, verify, cut and synthesise routing traces.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/whole_file.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/seed_flag.h"
#include "google/protobuf/descriptor.h"
#include "nlohmann/json.hpp"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"
#include "traces/import/import_trace.h"
#include "traces/slice/slice.h"
#include "traces/statistics/trace_report.h"
#include "traces/statistics/trace_statistics.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

using Json = nlohmann::ordered_json;

void PrintJson(const Json& json) {
  std::cout << json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) << "\n";
}

// A fact as text: strings without quotes.
std::string Text(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

void PrintFacts(const Json& facts, bool json) {
  if (json) return PrintJson(facts);
  std::vector<std::pair<std::string, std::string>> lines;
  for (const auto& [name, value] : facts.items()) {
    if (value.is_string() && value.get<std::string>().empty()) continue;
    lines.emplace_back(name, Text(value));
  }
  std::cout << AlignedText(lines);
}

// What was written, as the file itself says.
absl::Status PrintWritten(const std::string& path, const Json& before, bool json) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> trace, TraceReader::Open(path));
  Json facts = before;
  facts.update(TraceFacts(*trace));
  PrintFacts(facts, json);
  return absl::OkStatus();
}

absl::Status RefuseSameFile(const std::string& source, const std::string& out) {
  std::error_code ignored;
  if (!std::filesystem::equivalent(source, out, ignored)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--out ", out, ": is the input; choose another file"));
}

TraceWriterOptions WriterOptions(bool raw) {
  TraceWriterOptions options;
  options.zstd = !raw;
  return options;
}

// Flags that several commands have.
void AddOut(CLI::App& command, std::string& out) {
  command.add_option("--out", out, "The .eptrace to write")->required()->type_name("FILE");
}
void AddRaw(CLI::App& command, bool& raw) {
  command.add_flag("--raw", raw, "Do not compress (a replay then uses the file where it lies)");
}
template <typename Number>
CLI::Validator Positive() {
  return CLI::Range(Number{1}, std::numeric_limits<Number>::max());
}
void AddJson(CLI::App& command, bool& json) { command.add_flag("--json", json, "Print facts as JSON"); }

// ----- import

struct ImportFlags {
  std::string source, out, model, phase;
  int experts = 0;
  bool raw = false, json = false;
};

absl::Status Import(const ImportFlags& flags, const StopToken& stop) {
  ImportOptions options;
  options.model = flags.model;
  options.experts = flags.experts;
  options.phase = flags.phase == "prefill" ? PREFILL : flags.phase == "decode" ? DECODE : PHASE_UNKNOWN;
  options.writer = WriterOptions(flags.raw);
  ASSIGN_OR_RETURN(const ImportReport report, ImportTrace(flags.source, options, flags.out, stop));
  return PrintWritten(flags.out, {{"imported", flags.source}, {"format", report.format}}, flags.json);
}

void AddImport(CLI::App& trace, Invocation& invocation) {
  CLI::App* command = trace.add_subcommand("import", "Bring captured routing into an .eptrace");
  auto flags = std::make_shared<ImportFlags>();
  command
      ->add_option("SOURCE", flags->source,
                   "A folder: routed_experts.npy + requests.jsonl + meta.json, or one "
                   "vLLM routed_experts array a request")
      ->required();
  AddOut(*command, flags->out);
  command->add_option("--model", flags->model, "Name of the model, if the source does not say it");
  command->add_option("--experts", flags->experts, "Experts in a layer, if the source does not say it")
      ->check(CLI::Range(1, 65536));
  command->add_option("--phase", flags->phase, "Phase of the tokens, if the source does not say it")
      ->check(CLI::IsMember({"prefill", "decode"}));
  AddRaw(*command, flags->raw);
  AddJson(*command, flags->json);
  command->callback(
      [&invocation, flags] { invocation.action = [&invocation, flags] { return Import(*flags, invocation.stop); }; });
}

// ----- info

struct InfoFlags {
  std::string file;
  bool json = false;
};

absl::Status Info(const InfoFlags& flags, const StopToken& stop) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> trace, TraceReader::Open(flags.file));
  std::optional<TraceStatistics> statistics;
  {
    Progress progress("reading " + flags.file, trace->index().chunks_size());
    ASSIGN_OR_RETURN(statistics, MeasureTrace(*trace, stop, &progress));
  }
  if (flags.json) {
    PrintJson(TraceInfo(*trace, *statistics));
  } else {
    std::cout << TraceInfoText(*trace, *statistics);
  }
  return absl::OkStatus();
}

void AddInfo(CLI::App& trace, Invocation& invocation) {
  CLI::App* command = trace.add_subcommand("info", "What a trace holds: shape, skew, balancedness, overlap");
  auto flags = std::make_shared<InfoFlags>();
  command->add_option("FILE", flags->file, "An .eptrace")->required();
  AddJson(*command, flags->json);
  command->callback(
      [&invocation, flags] { invocation.action = [&invocation, flags] { return Info(*flags, invocation.stop); }; });
}

// ----- verify

struct VerifyFlags {
  std::string file, recover;
  bool json = false;
};

absl::Status Recover(const VerifyFlags& flags) {
  ASSIGN_OR_RETURN(const Recovery recovery, RecoverTrace(flags.file, flags.recover));
  PrintFacts({{"file", flags.file},
              {"recovered", flags.recover},
              {"chunks", recovery.chunks},
              {"tokens", recovery.tokens},
              {"lost_bytes", recovery.lost_bytes},
              {"reason", recovery.reason}},
             flags.json);
  return absl::OkStatus();
}

absl::Status Verify(const VerifyFlags& flags, const StopToken& stop) {
  if (!flags.recover.empty()) return Recover(flags);
  const absl::Status sound = VerifyTrace(flags.file, stop);
  if (!sound.ok()) {
    if (flags.json && !absl::IsCancelled(sound)) {
      PrintJson({{"file", flags.file}, {"sound", false}, {"problem", std::string(sound.message())}});
    }
    return sound;
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> trace, TraceReader::Open(flags.file));
  PrintFacts({{"file", flags.file},
              {"sound", true},
              {"chunks", trace->index().chunks_size()},
              {"tokens", trace->index().tokens()},
              {"steps", trace->index().steps()},
              {"missing_ids", trace->index().missing_ids()},
              {"hash", trace->hash()}},
             flags.json);
  return absl::OkStatus();
}

void AddVerify(CLI::App& trace, Invocation& invocation) {
  CLI::App* command =
      trace.add_subcommand("verify", "Read all of a trace and check it; save what is left of a broken one");
  auto flags = std::make_shared<VerifyFlags>();
  command->add_option("FILE", flags->file, "An .eptrace")->required();
  command->add_option("--recover", flags->recover, "Copy every complete chunk to this file")->type_name("OUT");
  AddJson(*command, flags->json);
  command->callback(
      [&invocation, flags] { invocation.action = [&invocation, flags] { return Verify(*flags, invocation.stop); }; });
}

// ----- slice

struct SliceFlags {
  std::string file, out, requests, steps, layers;
  bool raw = false, json = false;
};

absl::StatusOr<std::optional<SliceRange>> Range(const char* flag, const std::string& text, int64_t size) {
  if (text.empty()) return std::nullopt;
  absl::StatusOr<SliceRange> range = ParseSliceRange(text, size);
  if (range.ok()) return *range;
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", range.status().message()));
}

absl::Status Slice(const SliceFlags& flags, const StopToken& stop) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> trace, TraceReader::Open(flags.file));
  const bool by_request = trace->header().granularity() == REQUEST;
  if (by_request && !flags.steps.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--steps: ", flags.file, " holds requests 0:", trace->requests().size(), ", no steps; use --requests"));
  }
  if (!by_request && !flags.requests.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--requests: ", flags.file, " holds steps 0:", trace->index().steps(), "; use --steps"));
  }
  SliceSelection selection;
  const int64_t requests = static_cast<int64_t>(trace->requests().size());
  ASSIGN_OR_RETURN(selection.requests, Range("--requests", flags.requests, requests));
  ASSIGN_OR_RETURN(selection.steps, Range("--steps", flags.steps, trace->index().steps()));
  ASSIGN_OR_RETURN(selection.layers, Range("--layers", flags.layers, trace->header().layers()));
  const SliceRange all{0, by_request ? requests : trace->index().steps()};
  const SliceRange kept = by_request ? selection.requests.value_or(all) : selection.steps.value_or(all);
  {
    Progress progress("writing " + flags.out, kept.end - kept.begin);
    RETURN_IF_ERROR(SliceTrace(*trace, selection, flags.out, WriterOptions(flags.raw), stop, &progress));
  }
  return PrintWritten(flags.out, {{"sliced", flags.file}}, flags.json);
}

void AddSlice(CLI::App& trace, Invocation& invocation) {
  CLI::App* command = trace.add_subcommand("slice", "Part of a trace, as a trace; ranges are half open, from 0");
  auto flags = std::make_shared<SliceFlags>();
  command->add_option("FILE", flags->file, "An .eptrace")->required();
  AddOut(*command, flags->out);
  command->add_option("--requests", flags->requests, "Keep these requests")->type_name("a:b");
  command->add_option("--steps", flags->steps, "Keep these steps")->type_name("a:b");
  command->add_option("--layers", flags->layers, "Keep these layers")->type_name("a:b");
  AddRaw(*command, flags->raw);
  AddJson(*command, flags->json);
  command->callback(
      [&invocation, flags] { invocation.action = [&invocation, flags] { return Slice(*flags, invocation.stop); }; });
}

// ----- synth

struct SynthFlags {
  std::string like, preset, config, out, config_out;
  std::optional<uint32_t> requests, steps;
  std::optional<int64_t> tokens;
  std::optional<uint64_t> seed;
  FitOptions fit;
  PresetOptions shape;
  bool raw = false, json = false;
};

// Tokens of a step, on average over the trace.
double TokensPerStep(const StepRecording& steps) {
  double tokens = 0;
  for (const uint32_t rank_tokens : steps.tokens_per_rank()) tokens += rank_tokens;
  if (steps.tokens_per_rank_size() == 1) tokens *= steps.source_ranks();
  if (steps.has_burst() && steps.burst().every_steps() > 0) {
    tokens *= 1 + (steps.burst().factor() - 1.0) * steps.burst().steps() / steps.burst().every_steps();
  }
  return tokens;
}

// Tokens of a request, on average over domains by share.
double TokensPerRequest(const SynthesisConfig& config) {
  double weighted = 0, shares = 0;
  for (const Domain& domain : config.domains()) {
    double tokens = 0;
    for (const RequestLength& length : domain.lengths()) {
      tokens += static_cast<double>(length.prefill_tokens()) + length.decode_tokens() + length.unknown_tokens();
    }
    if (domain.lengths_size() > 0) tokens /= domain.lengths_size();
    weighted += domain.share() * tokens;
    shares += domain.share();
  }
  return shares > 0 ? weighted / shares : 0;
}

// How much is generated, where the flags say it.
absl::Status SetAmount(const SynthFlags& flags, SynthesisConfig* config) {
  const bool by_step = config->has_steps();
  if (flags.requests.has_value()) {
    if (by_step) return absl::InvalidArgumentError("--requests: the trace is made of steps; use --steps or --tokens");
    config->mutable_requests()->set_requests(*flags.requests);
  }
  if (flags.steps.has_value()) {
    if (!by_step)
      return absl::InvalidArgumentError("--steps: the trace is made of requests; use --requests or --tokens");
    config->mutable_steps()->set_steps(*flags.steps);
  }
  if (!flags.tokens.has_value()) return absl::OkStatus();
  const double each = by_step ? TokensPerStep(config->steps()) : TokensPerRequest(*config);
  const double count = each > 0 ? std::max(1.0, std::round(static_cast<double>(*flags.tokens) / each)) : 0;
  if (!(count >= 1) || count > 4e9) {
    return absl::InvalidArgumentError(absl::StrCat("--tokens ", *flags.tokens, ": is ", count, " ",
                                                   by_step ? "steps" : "requests", " of ", each, " tokens"));
  }
  if (by_step) {
    config->mutable_steps()->set_steps(static_cast<uint32_t>(count));
  } else {
    config->mutable_requests()->set_requests(static_cast<uint32_t>(count));
  }
  return absl::OkStatus();
}

absl::StatusOr<SynthesisConfig> SynthesisOf(const SynthFlags& flags, const StopToken& stop) {
  SynthesisConfig config;
  if (!flags.like.empty()) {
    RETURN_IF_ERROR(RefuseSameFile(flags.like, flags.out));
    ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> trace, TraceReader::Open(flags.like));
    FitOptions fit = flags.fit;
    fit.seed = flags.seed.value_or(1);
    ASSIGN_OR_RETURN(config, FitSynthesis(*trace, fit, stop));
  } else if (!flags.preset.empty()) {
    PresetOptions shape = flags.shape;
    shape.seed = flags.seed.value_or(1);
    ASSIGN_OR_RETURN(config, PresetSynthesis(flags.preset, shape));
  } else {
    RETURN_IF_ERROR(LoadTextProto(flags.config, &config));
    if (flags.seed.has_value()) config.set_seed(*flags.seed);
  }
  RETURN_IF_ERROR(SetAmount(flags, &config));
  const std::string& name = !flags.like.empty() ? flags.like : !flags.preset.empty() ? flags.preset : flags.config;
  RETURN_IF_ERROR(ValidateSynthesis(config, name));
  return config;
}

absl::Status Synth(const SynthFlags& flags, const StopToken& stop) {
  ASSIGN_OR_RETURN(const SynthesisConfig config, SynthesisOf(flags, stop));
  RETURN_IF_ERROR(Synthesize(config, flags.out, WriterOptions(flags.raw), stop));
  if (!flags.config_out.empty()) {
    ASSIGN_OR_RETURN(const std::unique_ptr<WholeFile> file, WholeFile::Create(flags.config_out));
    file->Write(PrintSynthesis(config));
    RETURN_IF_ERROR(file->Commit());
  }
  return PrintWritten(flags.out, Json::object(), flags.json);
}

std::string PresetNames() {
  std::string names;
  const google::protobuf::OneofDescriptor* presets = SynthesisPreset::descriptor()->FindOneofByName("preset");
  for (int i = 0; i < presets->field_count(); ++i) {
    absl::StrAppend(&names, i == 0 ? "" : ", ", presets->field(i)->name());
  }
  return names;
}

void AddSynth(CLI::App& trace, Invocation& invocation) {
  CLI::App* command =
      trace.add_subcommand("synth", "A synthetic trace: like another, a stress workload, or from parameters");
  auto flags = std::make_shared<SynthFlags>();
  CLI::Option_group* from = command->add_option_group("from", "What the trace is made from: one of");
  from->add_option("--like", flags->like, "An .eptrace to imitate: skew, drift, overlap, domains, lengths")
      ->type_name("FILE");
  from->add_option("--preset", flags->preset, "A stress workload: " + PresetNames())->type_name("NAME");
  from->add_option("--config", flags->config, "Parameters, a SynthesisConfig as textproto")->type_name("FILE");
  from->require_option(1);
  AddOut(*command, flags->out);
  command->add_option("--config-out", flags->config_out, "Also write the parameters, for --config")->type_name("FILE");
  CLI::Option* requests =
      command->add_option("--requests", flags->requests, "How many requests")->check(Positive<uint32_t>());
  CLI::Option* steps = command->add_option("--steps", flags->steps, "How many steps")->check(Positive<uint32_t>());
  command->add_option("--tokens", flags->tokens, "About how many tokens, in whole requests or steps")
      ->check(Positive<int64_t>())
      ->excludes(requests)
      ->excludes(steps);
  AddSeedFlag(command, &flags->seed, "Of all random draws; 1 if not given");
  command->add_option("--domains", flags->fit.domains, "--like: at most this many kinds of requests")
      ->check(Positive<int>())
      ->capture_default_str();
  command->add_option("--model", flags->shape.model, "--preset: name of the model")->capture_default_str();
  const auto shape = [command](const char* name, int& value, const char* doc) {
    command->add_option(name, value, doc)->check(Positive<int>())->capture_default_str();
  };
  shape("--layers", flags->shape.layers, "--preset: MoE layers");
  shape("--experts", flags->shape.experts, "--preset: experts in a layer, a multiple of --ranks");
  shape("--top-k", flags->shape.top_k, "--preset: experts of a token");
  shape("--ranks", flags->shape.ranks, "--preset: source ranks");
  shape("--tokens-per-rank", flags->shape.tokens_per_rank, "--preset: tokens of a rank in a step");
  AddRaw(*command, flags->raw);
  AddJson(*command, flags->json);
  command->callback([&invocation, flags] {
    invocation.action = [&invocation, flags] {
      if (!flags->preset.empty() && flags->steps.has_value()) flags->shape.steps = static_cast<int>(*flags->steps);
      return Synth(*flags, invocation.stop);
    };
  });
}

}  // namespace

void AddTraceCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* trace = app.add_subcommand("trace", "Import, look at, verify, cut and synthesise routing traces");
  trace->require_subcommand(1);
  AddImport(*trace, invocation);
  AddInfo(*trace, invocation);
  AddVerify(*trace, invocation);
  AddSlice(*trace, invocation);
  AddSynth(*trace, invocation);
}

}  // namespace epsim
