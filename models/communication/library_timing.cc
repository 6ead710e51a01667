#include "models/communication/library_timing.h"

#include <cstdlib>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/unit_text.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

constexpr int kMostCount = 1024;  // Of channels, tokens in a channel and the like.

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

// [another kind of link, distance in compute capability, the higher of two]: the less, the nearer.
std::tuple<bool, int, bool> Distance(const LibraryTiming& timing, const PlatformSpec& platform) {
  const int from = static_cast<int>(timing.compute_capability());
  const int to = static_cast<int>(platform.gpu().compute_capability());
  return {timing.over_pcie() == platform.has_nvlink(), std::abs(from - to), from > to};
}

std::string Kind(uint32_t compute_capability, bool over_pcie) {
  return absl::StrCat(compute_capability == 0 ? std::string("GPUs of unstated compute capability")
                                              : absl::StrCat("compute capability ", compute_capability),
                      over_pcie ? " over PCIe" : " over NVLink");
}

// The problem with one parameter, empty without.
std::string Problem(const google::protobuf::Message& parameters, const google::protobuf::FieldDescriptor& field) {
  const google::protobuf::Reflection& values = *parameters.GetReflection();
  if (field.cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE) {
    if (field.has_optional_keyword() && !values.HasField(parameters, &field)) return "";
    const double value = values.GetDouble(parameters, &field);
    if (absl::EndsWith(field.name(), "_efficiency")) {
      return value > 0 && value <= 1 ? "" : absl::StrCat(value, " is not in (0, 1]");
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

}  // namespace

absl::Status CheckTiming(std::string_view library, const LibraryTiming& timing) {
  const google::protobuf::Message& parameters = timing.GetReflection()->GetMessage(timing, &FieldOf(library));
  const google::protobuf::Descriptor& fields = *parameters.GetDescriptor();
  for (int i = 0; i < fields.field_count(); ++i) {
    const std::string problem = Problem(parameters, *fields.field(i));
    if (problem.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("communication.timing.", View(library), ".", fields.field(i)->name(), ": ", problem));
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
  ASSIGN_OR_RETURN(const TimingFile timings, FileOf(library));
  const LibraryTiming* nearest = nullptr;
  for (const LibraryTiming& timing : timings.timing()) {
    if (nearest == nullptr || Distance(timing, platform) < Distance(*nearest, platform)) nearest = &timing;
  }
  EPSIM_CHECK(nearest != nullptr);
  LibraryTiming result = *nearest;
  const google::protobuf::FieldDescriptor& field = FieldOf(library);
  const google::protobuf::Reflection& reflection = *LibraryTiming::GetReflection();
  std::vector<std::string> taken;  // From the catalogue.
  const google::protobuf::Message& parameters = reflection.GetMessage(*nearest, &field);
  const google::protobuf::Message& own_parameters = reflection.GetMessage(own, &field);
  std::vector<const google::protobuf::FieldDescriptor*> set;
  parameters.GetReflection()->ListFields(parameters, &set);
  for (const google::protobuf::FieldDescriptor* parameter : set) {
    const bool replaced = own_parameters.GetReflection()->HasField(own_parameters, parameter);
    if (!replaced) taken.emplace_back(parameter->name());
  }
  if (reflection.HasField(own, &field)) reflection.MutableMessage(&result, &field)->MergeFrom(own_parameters);
  if (!taken.empty() && (nearest->compute_capability() != platform.gpu().compute_capability() ||
                         nearest->over_pcie() == platform.has_nvlink())) {
    notes->push_back(absl::StrCat(View(library), ": no measurement on ",
                                  Kind(platform.gpu().compute_capability(), !platform.has_nvlink()), "; ",
                                  taken.size() == set.size() ? "times and efficiencies" : absl::StrJoin(taken, ", "),
                                  " of ", Kind(nearest->compute_capability(), nearest->over_pcie()), " are assumed"));
  }
  if (nodes > 1 && !nearest->measured_between_nodes() && !taken.empty()) {
    notes->push_back(absl::StrCat(View(library), ": nothing is measured between nodes of ",
                                  Kind(nearest->compute_capability(), nearest->over_pcie()),
                                  "; the share of the NICs that it reaches is assumed"));
  }
  RETURN_IF_ERROR(CheckTiming(library, result));
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
