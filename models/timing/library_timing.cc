#include "models/timing/library_timing.h"

#include <cstdlib>
#include <optional>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/unit_text.h"
#include "google/protobuf/text_format.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

constexpr int kMostCount = 1024;  // Of channels, tokens in a channel and the like.
// A kernel that reaches less is not limited by what the efficiency is of.
constexpr double kLeastEfficiency = 0.001;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

const google::protobuf::FieldDescriptor& FieldOf(std::string_view library) {
  const google::protobuf::FieldDescriptor* field = LibraryTiming::descriptor()->FindFieldByName(std::string(library));
  EPSIM_CHECK(field != nullptr && field->message_type() != nullptr);
  return *field;
}

absl::StatusOr<TimingFile> FileOf(std::string_view library) {
  const CatalogueFile* file = FindInCatalogue(TimingCatalogue(), library);
  if (file == nullptr) {
    const auto append_name = [](std::string* out, const CatalogueFile& entry) { out->append(entry.name); };
    return absl::NotFoundError(absl::StrCat("no timing is called \"", View(library), "\"; there are ",
                                            absl::StrJoin(TimingCatalogue(), ", ", append_name)));
  }
  TimingFile timings;
  RETURN_IF_ERROR(ParseTextProto(file->text, file->path, &timings));
  return timings;
}

// What a timing is wanted for, or was measured on.
struct Hardware {
  uint32_t compute_capability = 0;
  std::optional<bool> over_pcie = {};  // None where links do not matter.
};

Hardware MeasuredOn(const LibraryTiming& timing, const Hardware& wanted) {
  Hardware on{.compute_capability = timing.compute_capability()};
  if (wanted.over_pcie.has_value()) on.over_pcie = timing.over_pcie();
  return on;
}

// [another kind of link, distance in compute capability, the higher of two]: the less, the nearer.
std::tuple<bool, int, bool> Distance(const LibraryTiming& timing, const Hardware& wanted) {
  const int from = static_cast<int>(timing.compute_capability()), to = static_cast<int>(wanted.compute_capability);
  return {MeasuredOn(timing, wanted).over_pcie != wanted.over_pcie, std::abs(from - to), from > to};
}

std::string Kind(const Hardware& hardware) {
  std::string kind = hardware.compute_capability == 0
                         ? "GPUs of unstated compute capability"
                         : absl::StrCat("compute capability ", hardware.compute_capability);
  if (hardware.over_pcie.has_value()) kind += *hardware.over_pcie ? " over PCIe" : " over NVLink";
  return kind;
}

// The problem with one parameter, empty without.
std::string Problem(const google::protobuf::Message& parameters, const google::protobuf::FieldDescriptor& field) {
  const google::protobuf::Reflection& values = *parameters.GetReflection();
  if (field.cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE) {
    if (field.has_optional_keyword() && !values.HasField(parameters, &field)) return "";
    const double value = values.GetDouble(parameters, &field);
    if (absl::EndsWith(field.name(), "_efficiency")) {
      return value >= kLeastEfficiency && value <= 1 ? ""
                                                     : absl::StrCat(value, " is not in [", kLeastEfficiency, ", 1]");
    }
    return value >= 0 && value <= kMostCount ? "" : absl::StrCat(value, " is not in [0, ", kMostCount, "]");
  }
  if (field.cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_UINT32) {
    const uint32_t value = values.GetUInt32(parameters, &field);
    return value > 0 && value <= kMostCount ? "" : absl::StrCat(value, " is not in 1..", kMostCount);
  }
  EPSIM_CHECK(field.cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING);
  const std::string value = values.GetString(parameters, &field);
  if (value.empty()) return field.has_optional_keyword() ? "" : "is missing";
  switch (field.options().GetExtension(unit)) {
    case TIME:
      return std::string(ParseHardwareLatency(value).status().message());
    case BANDWIDTH:
      return std::string(ParseHardwareBandwidth(value).status().message());
    default:
      return std::string(ParseBytes(value).status().message());
  }
}

// The catalogue's entry that was measured on the hardware nearest to `wanted`.
absl::StatusOr<LibraryTiming> Nearest(std::string_view library, const Hardware& wanted) {
  ASSIGN_OR_RETURN(const TimingFile timings, FileOf(library));
  const LibraryTiming* nearest = nullptr;
  for (const LibraryTiming& timing : timings.timing()) {
    if (nearest == nullptr || Distance(timing, wanted) < Distance(*nearest, wanted)) nearest = &timing;
  }
  EPSIM_CHECK(nearest != nullptr);
  return *nearest;
}

std::string FieldValue(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field) {
  std::string value;
  google::protobuf::TextFormat::PrintFieldValueToString(message, &field, -1, &value);
  return value;
}

// Puts what `own` sets of `library` in place of what `timing` has.  Returns the names of the fields that `timing`
// keeps: those that are not set, or to the same.
std::vector<std::string> Replace(std::string_view library, const LibraryTiming& own, LibraryTiming* timing) {
  const google::protobuf::FieldDescriptor& field = FieldOf(library);
  const google::protobuf::Reflection& reflection = *LibraryTiming::GetReflection();
  google::protobuf::Message& parameters = *reflection.MutableMessage(timing, &field);
  const google::protobuf::Message& own_parameters = reflection.GetMessage(own, &field);
  std::vector<const google::protobuf::FieldDescriptor*> set;
  parameters.GetReflection()->ListFields(parameters, &set);
  std::vector<std::string> kept;
  for (const google::protobuf::FieldDescriptor* parameter : set) {
    const bool replaced = own_parameters.GetReflection()->HasField(own_parameters, parameter) &&
                          FieldValue(own_parameters, *parameter) != FieldValue(parameters, *parameter);
    if (!replaced) kept.emplace_back(parameter->name());
  }
  if (kept.size() == set.size()) kept = {"times and efficiencies"};
  parameters.MergeFrom(own_parameters);
  return kept;
}

void NoteAssumed(std::string_view library, const Hardware& wanted, const LibraryTiming& nearest,
                 const std::vector<std::string>& kept, std::vector<std::string>* notes) {
  const Hardware on = MeasuredOn(nearest, wanted);
  if (kept.empty() || Distance(nearest, wanted) == std::tuple(false, 0, false)) return;
  notes->push_back(absl::StrCat(View(library), ": no measurement on ", Kind(wanted), "; ", absl::StrJoin(kept, ", "),
                                " of ", Kind(on), " are assumed"));
}

}  // namespace

absl::Status CheckTiming(std::string_view library, std::string_view where, const LibraryTiming& timing) {
  const google::protobuf::Message& parameters = timing.GetReflection()->GetMessage(timing, &FieldOf(library));
  const google::protobuf::Descriptor& fields = *parameters.GetDescriptor();
  for (int i = 0; i < fields.field_count(); ++i) {
    const std::string problem = Problem(parameters, *fields.field(i));
    if (problem.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(View(where), ".", fields.field(i)->name(), ": ", problem));
  }
  return absl::OkStatus();
}

absl::StatusOr<LibraryTiming> FindTiming(std::string_view library, std::string_view family) {
  ASSIGN_OR_RETURN(const TimingFile timings, FileOf(library));
  for (const LibraryTiming& timing : timings.timing()) {
    if (timing.family() == family) return timing;
  }
  const auto append_family = [](std::string* out, const LibraryTiming& timing) { out->append(timing.family()); };
  return absl::NotFoundError(absl::StrCat("no timing of ", View(library), " is for \"", View(family), "\"; there are ",
                                          absl::StrJoin(timings.timing(), ", ", append_family)));
}

absl::StatusOr<LibraryTiming> TimingFor(std::string_view library, const PlatformSpec& platform, int nodes,
                                        const LibraryTiming& own, std::vector<std::string>* notes) {
  const Hardware wanted{.compute_capability = platform.gpu().compute_capability(), .over_pcie = !platform.has_nvlink()};
  ASSIGN_OR_RETURN(const LibraryTiming nearest, Nearest(library, wanted));
  LibraryTiming result = nearest;
  const std::vector<std::string> kept = Replace(library, own, &result);
  NoteAssumed(library, wanted, nearest, kept, notes);
  if (nodes > 1 && !nearest.measured_between_nodes() && !kept.empty()) {
    notes->push_back(absl::StrCat(View(library), ": nothing is measured between nodes of ",
                                  Kind(MeasuredOn(nearest, wanted)),
                                  "; the share of the NICs that it reaches is assumed"));
  }
  RETURN_IF_ERROR(CheckTiming(library, absl::StrCat("communication.timing.", View(library)), result));
  return result;
}

absl::StatusOr<LibraryTiming> KernelTimingFor(std::string_view library, std::string_view where, const GpuSpec& gpu,
                                              const LibraryTiming& own, std::vector<std::string>* notes) {
  const Hardware wanted{.compute_capability = gpu.compute_capability()};
  ASSIGN_OR_RETURN(const LibraryTiming nearest, Nearest(library, wanted));
  LibraryTiming result = nearest;
  const std::vector<std::string> kept = Replace(library, own, &result);
  NoteAssumed(library, wanted, nearest, kept, notes);
  RETURN_IF_ERROR(CheckTiming(library, where, result));
  return result;
}

double PicosecondsOf(const std::string& time) {
  if (time.empty()) return 0;
  const absl::StatusOr<Duration> parsed = ParseDuration(time);
  EPSIM_CHECK(parsed.ok());
  return static_cast<double>(parsed->count());
}

double PicosecondsPerByte(const std::string& bandwidth) {
  if (bandwidth.empty()) return 0;
  const absl::StatusOr<BytesPerSecond> parsed = ParseBandwidth(bandwidth);
  EPSIM_CHECK(parsed.ok());
  return 1e12 / static_cast<double>(parsed->count());
}

}  // namespace epsim
