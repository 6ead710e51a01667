// What the driver tells of a GPU besides CUDA: its version and the clocks at this moment.  The library belongs to the
// driver and is loaded when asked for; where it is missing, nothing is known.
#pragma once

#include <cstdint>
#include <string>

namespace epsim {

struct DriverFacts {
  std::string driver;  // "580.159.03", or empty.
  uint32_t sm_clock_mhz = 0, memory_clock_mhz = 0;
};

// Of the GPU at that PCI address, as cudaDeviceGetPCIBusId writes it.
DriverFacts AskDriver(const std::string& pci_bus_id);

}  // namespace epsim
