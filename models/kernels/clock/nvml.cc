#include "models/kernels/clock/nvml.h"

#include <dlfcn.h>

namespace epsim {
namespace {

// The few declarations of NVML's stable binary interface that are called (NVML API reference, "Device queries").
using Result = int;  // 0: success.
using Device = void*;
constexpr int kSmClock = 1, kMemoryClock = 2;

template <typename Function>
Function Find(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

DriverFacts AskDriver(const std::string& pci_bus_id) {
  DriverFacts facts;
  void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return facts;
  const auto initialize = Find<Result (*)()>(library, "nvmlInit_v2");
  const auto shut_down = Find<Result (*)()>(library, "nvmlShutdown");
  const auto version = Find<Result (*)(char*, unsigned)>(library, "nvmlSystemGetDriverVersion");
  const auto find = Find<Result (*)(const char*, Device*)>(library, "nvmlDeviceGetHandleByPciBusId_v2");
  const auto clock = Find<Result (*)(Device, int, unsigned*)>(library, "nvmlDeviceGetClockInfo");
  if (initialize != nullptr && shut_down != nullptr && initialize() == 0) {
    char text[96] = {};
    if (version != nullptr && version(text, sizeof(text) - 1) == 0) facts.driver = text;
    Device device = nullptr;
    if (find != nullptr && clock != nullptr && find(pci_bus_id.c_str(), &device) == 0) {
      unsigned mhz = 0;
      if (clock(device, kSmClock, &mhz) == 0) facts.sm_clock_mhz = mhz;
      if (clock(device, kMemoryClock, &mhz) == 0) facts.memory_clock_mhz = mhz;
    }
    shut_down();
  }
  dlclose(library);
  return facts;
}

}  // namespace epsim
