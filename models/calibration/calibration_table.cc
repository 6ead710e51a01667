#include "models/calibration/calibration_table.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/whole_file.h"
#include "google/protobuf/text_format.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// The line of the `index`-th measurement, counted from 1.
int LineOf(std::string_view text, int index) {
  google::protobuf::TextFormat::ParseInfoTree tree;
  google::protobuf::TextFormat::Parser parser;
  parser.WriteLocationsTo(&tree);
  CalibrationTable table;
  parser.ParseFromString(std::string(text), &table);
  return tree.GetLocation(CalibrationTable::descriptor()->FindFieldByName("measurement"), index).line + 1;
}

// Fields that may be 0: no tokens, no groups.
bool MayBeZero(const std::string& field) {
  return field == "tokens" || field == "m" || field == "tokens_per_slot" || field == "groups" ||
         field == "top_groups" || field == "size_bytes";
}

// What is wrong with the sizes and numbers of a work; empty where nothing is.  Sizes are bounded far above any GPU's,
// so that bytes and operations stay within 64 bits.
std::string ProblemOfSizes(const google::protobuf::Message& work) {
  using google::protobuf::FieldDescriptor;
  const auto* reflection = work.GetReflection();
  for (int i = 0; i < work.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = work.GetDescriptor()->field(i);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      const int value = reflection->GetEnumValue(work, field);
      if (value == 0 && field->name() == "scoring") continue;  // A model may not say.
      if (value == 0 || field->enum_type()->FindValueByNumber(value) == nullptr) {
        return absl::StrCat(field->name(), ": ", value == 0 ? "not given" : absl::StrCat("there is no ", value));
      }
      continue;
    }
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_UINT32) continue;
    const bool counts_tokens = field->name() == "tokens" || field->name() == "m" || field->name() == "tokens_per_slot";
    const uint32_t most = counts_tokens ? 1u << 30 : 1u << 20;
    const int count = field->is_repeated() ? reflection->FieldSize(work, field) : 1;
    for (int k = 0; k < count; ++k) {
      const uint32_t value =
          field->is_repeated() ? reflection->GetRepeatedUInt32(work, field, k) : reflection->GetUInt32(work, field);
      if (value > most) return absl::StrCat(field->name(), ": ", value, " is more than ", most);
      if (value == 0 && !MayBeZero(field->name())) return absl::StrCat(field->name(), ": 0, or not given");
    }
  }
  return "";
}

// What is wrong with one measurement by itself; empty where nothing is.
std::string Problem(const Measurement& measurement) {
  const KernelTime& time = measurement.time();
  if (KindOf(measurement.work()).empty()) return "no work";
  if (!(time.median_us() > 0 && time.median_us() < 1e9)) {
    return absl::StrCat("median_us: ", time.median_us(), " is no time; it must be more than 0, and less than 1e9");
  }
  if (!(time.lower_quartile_us() <= time.median_us() && time.median_us() <= time.upper_quartile_us())) {
    return absl::StrCat("median_us: ", time.median_us(), " is not between the quartiles ", time.lower_quartile_us(),
                        " and ", time.upper_quartile_us());
  }
  if (measurement.work().has_expert_mlp()) {
    const int slots = measurement.work().expert_mlp().tokens_per_slot_size();
    if (slots == 0 || slots > (1 << 16))
      return absl::StrCat("tokens_per_slot: of ", slots, " slots; 1 to 65536 would do");
  }
  const auto* work = KernelWork::descriptor()->FindFieldByName(KindOf(measurement.work()));
  return ProblemOfSizes(measurement.work().GetReflection()->GetMessage(measurement.work(), work));
}

absl::Status Append(CalibrationTable table, const std::string& path, Calibration* all) {
  if (all->files.empty()) {
    all->hardware = table.hardware();
  } else if (!SameHardware(all->hardware, table.hardware())) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": measured on ", HardwareText(table.hardware()), ", but ",
                                                   all->files.front(), " on ", HardwareText(all->hardware)));
  }
  all->date = std::max(all->date, table.date());
  all->files.push_back(path);
  for (Measurement& measurement : *table.mutable_measurement()) all->measurements.push_back(std::move(measurement));
  return absl::OkStatus();
}

// Works of two files that are the same: a file was copied.
absl::Status CheckDistinct(const Calibration& all) {
  std::vector<std::string> keys;
  for (const Measurement& measurement : all.measurements) keys.push_back(WorkKey(measurement.work()));
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice == keys.end()) return absl::OkStatus();
  KernelWork work;
  work.ParseFromString(*twice);
  return absl::InvalidArgumentError(
      absl::StrCat(all.place, ": two of ", absl::StrJoin(all.files, ", "), " measure the same: ", WorkText(work)));
}

// "h200-sxm" of "platforms/calibration/h200-sxm/gemm.txtpb".
std::string GpuOf(const CatalogueFile& file) { return fs::path(file.path).parent_path().filename().string(); }

}  // namespace

std::string KindOf(const KernelWork& work) {
  const auto* oneof = KernelWork::descriptor()->FindOneofByName("work");
  const auto* field = work.GetReflection()->GetOneofFieldDescriptor(work, oneof);
  return field == nullptr ? "" : field->name();
}

std::string WorkText(const google::protobuf::Message& work) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  printer.SetUseShortRepeatedPrimitives(true);
  std::string text;
  printer.PrintToString(work, &text);
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string WorkKey(const KernelWork& work) { return work.SerializeAsString(); }  // Without maps: always the same.

bool SameHardware(const Hardware& a, const Hardware& b) {
  return a.gpu() == b.gpu() && a.compute_capability() == b.compute_capability() && a.sms() == b.sms() &&
         a.memory_bytes() == b.memory_bytes() && a.l2_bytes() == b.l2_bytes() && a.driver() == b.driver() &&
         a.cuda() == b.cuda() && a.cublas() == b.cublas();
}

std::string HardwareText(const Hardware& hardware) {
  const double gib = static_cast<double>(hardware.memory_bytes()) / (1 << 30);
  return absl::StrCat(hardware.gpu(), " (", hardware.sms(), " SMs, ", static_cast<int>(gib + 0.5), " GiB, driver ",
                      hardware.driver(), ", CUDA ", hardware.cuda(), ", cuBLAS ", hardware.cublas(), ")");
}

std::string PrintCalibrationTable(const CalibrationTable& table) {
  std::string text = absl::StrCat("# Written by `epsim calibrate`: one measurement a line.\nhardware { ",
                                  WorkText(table.hardware()), " }\n");
  CalibrationTable head;
  head.set_date(table.date());
  head.set_epsim_version(table.epsim_version());
  text += PrintTextProto(head);
  for (const Measurement& measurement : table.measurement()) {
    absl::StrAppend(&text, "measurement { ", WorkText(measurement), " }\n");
  }
  return text;
}

absl::StatusOr<CalibrationTable> ParseCalibrationTable(std::string_view text, std::string_view path) {
  const absl::string_view name(path.data(), path.size());
  CalibrationTable table;
  RETURN_IF_ERROR(ParseTextProto(text, path, &table));
  if (table.hardware().gpu().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": hardware.gpu: says not on what it was measured"));
  }
  std::map<std::string, int> first;  // Index of each work.
  for (int i = 0; i < table.measurement_size(); ++i) {
    const Measurement& measurement = table.measurement(i);
    if (const std::string problem = Problem(measurement); !problem.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ":", LineOf(text, i), ": ", problem));
    }
    const auto [other, fresh] = first.emplace(WorkKey(measurement.work()), i);
    if (fresh) continue;
    return absl::InvalidArgumentError(absl::StrCat(name, ":", LineOf(text, i), ": the same work as in line ",
                                                   LineOf(text, other->second), ": ", WorkText(measurement.work())));
  }
  return table;
}

absl::StatusOr<Calibration> ReadCalibrationFolder(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".txtpb") paths.push_back(entry.path().string());
  }
  if (error) return absl::NotFoundError(absl::StrCat(folder, ": cannot open: ", error.message()));
  if (paths.empty()) return absl::NotFoundError(absl::StrCat(folder, ": the folder holds no table (.txtpb)"));
  std::sort(paths.begin(), paths.end());
  Calibration all;
  all.place = folder;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    ASSIGN_OR_RETURN(CalibrationTable table, ParseCalibrationTable(text, path));
    RETURN_IF_ERROR(Append(std::move(table), path, &all));
  }
  RETURN_IF_ERROR(CheckDistinct(all));
  return all;
}

std::vector<std::string> CalibratedGpus() {
  std::vector<std::string> gpus;
  for (const CatalogueFile& file : CalibrationCatalogue()) {
    if (gpus.empty() || gpus.back() != GpuOf(file)) gpus.push_back(GpuOf(file));
  }
  return gpus;
}

absl::StatusOr<Calibration> FindCalibration(const std::string& name) {
  if (name.find('/') != std::string::npos) return ReadCalibrationFolder(name);
  Calibration all;
  all.place = absl::StrCat("the catalogue's ", name);
  for (const CatalogueFile& file : CalibrationCatalogue()) {
    if (GpuOf(file) != name) continue;
    ASSIGN_OR_RETURN(CalibrationTable table, ParseCalibrationTable(file.text, file.path));
    RETURN_IF_ERROR(Append(std::move(table), std::string(file.path), &all));
  }
  if (!all.files.empty()) return all;
  const std::vector<std::string> gpus = CalibratedGpus();
  return absl::NotFoundError(absl::StrCat(
      name.empty() ? "no calibration is named" : absl::StrCat("no calibration is called \"", name, "\""), "; there ",
      gpus.empty() ? "is none in the catalogue" : absl::StrCat("are ", absl::StrJoin(gpus, ", ")),
      ", and a folder that `epsim calibrate` wrote is named with a slash: \"./h200\""));
}

}  // namespace epsim
