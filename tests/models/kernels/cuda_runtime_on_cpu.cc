#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/random_stream.h"
#include "tests/models/kernels/gpu_on_cpu.h"

namespace {

struct Node {
  double microseconds = 0;
  std::function<void()> work;
  std::set<size_t> after;
};

double now_us = 0;

}  // namespace

// What CUDA's opaque types are here.
struct CUgraph_st {
  std::vector<Node> nodes;
  std::set<CUstream_st*> streams;  // That take part in the capture.
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
};
struct CUstream_st {
  CUgraph_st* capture = nullptr;
  bool origin = false;
  std::set<size_t> last;  // Of the capture, what the next node comes after.
};
struct CUevent_st {
  CUgraph_st* capture = nullptr;
  std::set<size_t> last;
  double us = -1;
};

namespace epsim::gpu_on_cpu {
namespace {

std::map<std::string, int>& Alive() {
  static std::map<std::string, int> alive;
  return alive;
}
std::map<uintptr_t, size_t>& Allocations() {
  static std::map<uintptr_t, size_t> allocations;
  return allocations;
}
std::string fail_next;  // NOLINT: the name of a call.

size_t Allocated() {
  size_t bytes = 0;
  for (const auto& [address, size] : Allocations()) bytes += size;
  return bytes;
}

// Whether [data, data + bytes) lies in one allocation of the device.
bool Within(const void* data, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  auto next = Allocations().upper_bound(address);
  if (next == Allocations().begin()) return false;
  --next;
  return address + bytes <= next->first + next->second;
}

void Execute(const std::vector<Node>& nodes) {
  static RandomStream random(1, "order of graphs");
  std::vector<size_t> waiting(nodes.size());
  std::vector<std::vector<size_t>> unblocks(nodes.size());
  std::vector<size_t> ready;
  for (size_t i = 0; i < nodes.size(); ++i) {
    waiting[i] = nodes[i].after.size();
    for (const size_t before : nodes[i].after) unblocks[before].push_back(i);
    if (waiting[i] == 0) ready.push_back(i);
  }
  size_t done = 0;
  for (; !ready.empty(); ++done) {
    std::swap(ready[random.Below(ready.size())], ready.back());
    const size_t node = ready.back();
    ready.pop_back();
    if (TheGpu().execute && nodes[node].work) nodes[node].work();
    now_us += nodes[node].microseconds;
    for (const size_t next : unblocks[node]) {
      if (--waiting[next] == 0) ready.push_back(next);
    }
  }
  EPSIM_CHECK(done == nodes.size());
}

cudaError_t Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !Within(to, bytes)) || (from_device && !Within(from, bytes))) return cudaErrorInvalidValue;
  return cudaSuccess;
}

}  // namespace

Settings& TheGpu() {
  static Settings settings;
  return settings;
}

void Enqueue(CUstream_st* stream, double microseconds, std::function<void()> work) {
  if (stream != nullptr && stream->capture != nullptr) {
    stream->capture->nodes.push_back({microseconds, std::move(work), stream->last});
    stream->last = {stream->capture->nodes.size() - 1};
    return;
  }
  if (TheGpu().execute && work) work();
  now_us += microseconds;
}

void FailNext(const std::string& call) { fail_next = call; }
bool ShallFail(const std::string& call) {
  if (fail_next != call) return false;
  fail_next.clear();
  return true;
}

void CountAlive(const std::string& kind, int change) { Alive()[kind] += change; }

std::string Leaks() {
  std::string leaks;
  for (const auto& [kind, count] : Alive()) {
    if (count != 0) absl::StrAppend(&leaks, count, " ", kind, "; ");
  }
  return leaks;
}

double CopyMicroseconds(double bytes) { return bytes / 4e6; }

}  // namespace epsim::gpu_on_cpu

using epsim::gpu_on_cpu::CountAlive;
using epsim::gpu_on_cpu::Enqueue;
using epsim::gpu_on_cpu::ShallFail;
using epsim::gpu_on_cpu::TheGpu;

extern "C" {

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
    default:
      return "cudaErrorOfTheStandIn";
  }
}
const char* cudaGetErrorString(cudaError_t /*error*/) { return "an error of the stand-in for a GPU"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = TheGpu().driver, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = TheGpu().devices;
  return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device < TheGpu().devices ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int /*device*/) {
  *properties = {};
  std::strncpy(properties->name, "GPU on the CPU", sizeof(properties->name) - 1);
  properties->major = TheGpu().compute_capability / 10;
  properties->minor = TheGpu().compute_capability % 10;
  properties->multiProcessorCount = 132;
  properties->totalGlobalMem = TheGpu().memory_bytes;
  properties->l2CacheSize = static_cast<int>(TheGpu().l2_bytes);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int /*device*/) {
  std::strncpy(id, "0000:00:1f.7", static_cast<size_t>(length));
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = TheGpu().memory_bytes;
  *free = *total - epsim::gpu_on_cpu::Allocated();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (ShallFail("cudaMalloc")) return cudaErrorMemoryAllocation;
  if (bytes > TheGpu().memory_bytes - epsim::gpu_on_cpu::Allocated()) return cudaErrorMemoryAllocation;
  *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*data == nullptr) return cudaErrorMemoryAllocation;
  if (TheGpu().execute) std::memset(*data, 0xa5, bytes);
  epsim::gpu_on_cpu::Allocations()[reinterpret_cast<uintptr_t>(*data)] = bytes;
  CountAlive("allocations", 1);
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  if (data == nullptr) return cudaSuccess;
  if (epsim::gpu_on_cpu::Allocations().erase(reinterpret_cast<uintptr_t>(data)) == 0) return cudaErrorInvalidValue;
  std::free(data);
  CountAlive("allocations", -1);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  CountAlive("pinned allocations", 1);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  CountAlive("pinned allocations", -1);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (ShallFail("cudaMemcpy")) return cudaErrorIllegalAddress;
  if (const cudaError_t error = epsim::gpu_on_cpu::Copy(to, from, bytes, kind); error != cudaSuccess) return error;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t error = epsim::gpu_on_cpu::Copy(to, from, bytes, kind); error != cudaSuccess) return error;
  const auto size = static_cast<double>(bytes);
  const double us =
      1 + (kind == cudaMemcpyDeviceToDevice ? epsim::gpu_on_cpu::CopyMicroseconds(2 * size) : size / 50e3);
  Enqueue(stream, us, [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (flags != cudaStreamNonBlocking) return cudaErrorInvalidValue;
  *stream = new CUstream_st;
  CountAlive("streams", 1);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  CountAlive("streams", -1);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (ShallFail("cudaStreamSynchronize")) return cudaErrorIllegalAddress;
  const bool captured = stream != nullptr && stream->capture != nullptr;  // Null: the default stream.
  return captured ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  if (event->capture == nullptr) return stream->capture == nullptr ? cudaSuccess : cudaErrorStreamCaptureIsolation;
  if (stream->capture != nullptr && stream->capture != event->capture) return cudaErrorStreamCaptureMerge;
  stream->capture = event->capture;
  stream->capture->streams.insert(stream);
  stream->last.insert(event->last.begin(), event->last.end());
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  *event = new CUevent_st;
  CountAlive("events", 1);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  CountAlive("events", -1);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->capture = stream->capture;
  event->last = stream->last;
  event->us = now_us;
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  if (begin->us < 0 || end->us < 0 || begin->capture != nullptr || end->capture != nullptr) {
    return cudaErrorInvalidResourceHandle;
  }
  *milliseconds = static_cast<float>((end->us - begin->us) / 1e3);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode /*mode*/) {
  if (stream->capture != nullptr) return cudaErrorIllegalState;
  stream->capture = new CUgraph_st;
  stream->capture->streams.insert(stream);
  stream->origin = true;
  stream->last.clear();
  CountAlive("graphs", 1);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (stream->capture == nullptr || !stream->origin) return cudaErrorStreamCaptureUnmatched;
  *graph = stream->capture;
  stream->origin = false;
  std::set<size_t> joined;
  std::vector<size_t> left(stream->last.begin(), stream->last.end());
  for (CUstream_st* const participant : (*graph)->streams) {
    participant->capture = nullptr;
    participant->last.clear();
  }
  while (!left.empty()) {
    const size_t node = left.back();
    left.pop_back();
    if (!joined.insert(node).second) continue;
    const std::set<size_t>& after = (*graph)->nodes[node].after;
    left.insert(left.end(), after.begin(), after.end());
  }
  if (joined.size() == (*graph)->nodes.size()) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  CountAlive("graphs", -1);
  return cudaErrorStreamCaptureUnjoined;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long /*flags*/) {
  *executable = new CUgraphExec_st{graph->nodes};
  CountAlive("executable graphs", 1);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  CountAlive("graphs", -1);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  CountAlive("executable graphs", -1);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (stream->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
  epsim::gpu_on_cpu::Execute(executable->nodes);
  return cudaSuccess;
}

}  // extern "C"
