// A GPU that is not there: the calls of the CUDA runtime and of cuBLAS that models/kernels makes, carried out by the
// CPU, so that the host's part of the GPU code (buffers, layouts, streams, captures, errors) runs in tests everywhere.
// It is linked instead of the CUDA runtime.
//
// What it is strict about:
// - products have cuBLAS's rules for alignment, for scales and for their layouts, and compute in float64;
// - a capture ends in an error unless every stream that took part has joined again;
// - a graph's nodes are executed in a random order that their dependencies allow;
// - memory is filled with a pattern when allocated, and copies must lie within allocations;
// - all that is created must be destroyed (Leaks()).
// Time is stated, not measured: a product takes its operations at 800 TFLOP/s or its bytes at 4 TB/s, whichever is
// more, and 2 us; a copy its bytes at that rate, or over PCIe at 50 GB/s, and 1 us; other kernels 2 us or what they
// say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct CUstream_st;

namespace epsim::gpu_on_cpu {

struct Settings {
  int compute_capability = 90;
  int driver = 13000;  // As cudaDriverGetVersion; 0: there is none.
  int devices = 1;
  size_t memory_bytes = size_t{64} << 30;
  size_t l2_bytes = size_t{50} << 20;
  // Whether the work is done; else it only takes its time, and memory is not filled.
  bool execute = true;
};
Settings& TheGpu();

// Puts `work`, which takes `microseconds`, into the stream.
void Enqueue(CUstream_st* stream, double microseconds, std::function<void()> work);

// A number that CUDA would have to invent: an error that the next call of that name returns.
void FailNext(const std::string& call);

// What is alive: allocations, streams, events, graphs, handles, descriptors.  Empty: nothing.
std::string Leaks();

// For the parts of this stand-in: counts `kind` up or down.
void CountAlive(const std::string& kind, int change);
bool ShallFail(const std::string& call);
double CopyMicroseconds(double bytes);

}  // namespace epsim::gpu_on_cpu
