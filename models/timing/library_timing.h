// How fast the kernels of each library are on each family of GPUs: fitted to published measurements, or to a user's
// own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/catalogue.h"
#include "engine/units.h"
#include "models/timing/timing.pb.h"
#include "platforms/platform.pb.h"

namespace epsim {

// The timings that ship: one TimingFile for each library, under the name of its field in LibraryTiming.
absl::Span<const CatalogueFile> TimingCatalogue();

// The entry of `library` ("deepep_normal") for `family` ("hopper") in the catalogue; the error lists what there is.
absl::StatusOr<LibraryTiming> FindTiming(std::string_view library, std::string_view family);

// The timing of `library` on `nodes` nodes of `platform`.  The catalogue's entry that was measured on the same kind of
// link (NVLink, or PCIe alone) if there is one, and of these the one whose compute capability is nearest to the
// platform's, the lower of two as near; what `own` sets of the library takes the place of the entry's fields.
// Efficiencies are shares of the platform's own bandwidths.  What had to be assumed is added to `notes`.  Fails on a
// parameter that is out of its range.
absl::StatusOr<LibraryTiming> TimingFor(std::string_view library, const PlatformSpec& platform, int nodes,
                                        const LibraryTiming& own, std::vector<std::string>* notes);

// The same of kernels that compute on one `gpu`, whatever its links.  `where` is the message that holds what `own`
// sets, for errors: "roofline.gemm".
absl::StatusOr<LibraryTiming> KernelTimingFor(std::string_view library, std::string_view where, const GpuSpec& gpu,
                                              const LibraryTiming& own, std::vector<std::string>* notes);

// Whether the parameters of `library` are all there, but for `optional` ones, and in their ranges: efficiencies in
// [0.001, 1], times of at most 1 s, bandwidths as of hardware.
absl::Status CheckTiming(std::string_view library, std::string_view where, const LibraryTiming& timing);

// Of a timing that is checked.  What is not set takes no time.
double PicosecondsOf(const std::string& time);
double PicosecondsPerByte(const std::string& bandwidth);

}  // namespace epsim
