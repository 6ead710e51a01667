// What a user may ask of a schedule, made complete and checked.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/communication/communication.h"
#include "models/model.pb.h"
#include "models/schedule/program.h"
#include "models/schedule/schedule.pb.h"
#include "platforms/platform.pb.h"

namespace epsim {

// `config` with every default filled in, as reports show it.  Fails on values out of range and on what excludes each
// other: the error names the field.
absl::StatusOr<ScheduleConfig> CompleteScheduleConfig(const ScheduleConfig& config);

// Whether `config`, complete, goes together with the communication strategy in use, the model and the GPU.  The error
// says what would.
absl::Status CheckSchedule(const ScheduleConfig& config, const Communication& communication, const ModelSpec& model,
                           const GpuSpec& gpu);

// How a program depends on the communication strategy in use.  `quantizes`: whether experts take anything but bf16.
ProgramFacts FactsOf(const ScheduleConfig& config, const Communication& communication, bool quantizes);

// Whether the strategy in use is a collective in which every rank sends its rows to all: it is these that pad.
bool GathersRows(const Communication& communication);

// The share of a GPU's streaming multiprocessors that computing has left while `communication` holds its own; 1 where
// the GPU's number is not known.
double SmsLeft(const CommunicationFootprint& communication, const GpuSpec& gpu);

}  // namespace epsim
