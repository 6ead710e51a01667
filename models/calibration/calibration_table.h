// Calibration tables as files: what `epsim calibrate` writes and the cost model `measured` reads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/catalogue.h"
#include "models/calibration/calibration.pb.h"

namespace epsim {

// "expert_mlp": what the file of such works is called.  Empty where nothing is asked for.
std::string KindOf(const KernelWork& work);

// `work` in one line, for files and messages.
std::string WorkText(const google::protobuf::Message& work);

// The bytes that works are told apart by.
std::string WorkKey(const KernelWork& work);

// Whether the same GPU with the same software measured both: all but clocks, which vary while a GPU is busy.
bool SameHardware(const Hardware& a, const Hardware& b);
// "NVIDIA H200, driver 570.1, CUDA 13.0, cuBLAS 13.1.0".
std::string HardwareText(const Hardware& hardware);

// The file: one measurement a line.  The same table has the same text.
std::string PrintCalibrationTable(const CalibrationTable& table);

// Parses the text of one file.  Fails on works that stand twice or whose sizes no GPU has, times that are not more than
// 0, quartiles that the median does not lie between, and hardware without a name; errors name file and line.
absl::StatusOr<CalibrationTable> ParseCalibrationTable(std::string_view text, std::string_view path);

// All tables of one GPU.
struct Calibration {
  std::string place;  // "the catalogue's h200-sxm", or the folder.
  Hardware hardware;
  std::string date;  // The latest.
  std::vector<std::string> files;
  std::vector<Measurement> measurements;
};

// The tables in `folder`, *.txtpb in the order of their names.  Fails where there is none, and where two were not
// measured on the same hardware: the error names both.
absl::StatusOr<Calibration> ReadCalibrationFolder(const std::string& folder);

// Tables that ship: platforms/calibration/<gpu>/<kernel>.txtpb.  None, until one is measured.
absl::Span<const CatalogueFile> CalibrationCatalogue();
// The GPUs in the catalogue, in order.
std::vector<std::string> CalibratedGpus();
// `name` in the catalogue or, with a slash in it, a folder.
absl::StatusOr<Calibration> FindCalibration(const std::string& name);

}  // namespace epsim
