// Any bytes as an .eptrace: opening, reading, verifying and recovering give an error or a sound trace, never a crash,
// never an id that is out of range.
//
// Checksums would turn every mutation away at the door, so they are made right again for three quarters of the inputs:
// with the first byte's lowest bits 0 the file is taken as it is, otherwise its frames are walked and sealed anew.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/traces/format/trace_samples.h"
#include "traces/format/frame.h"
#include "traces/format/trace_reader.h"

namespace epsim {
namespace {

template <typename T>
T Get(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <typename T>
void Put(T value, size_t offset, std::string& bytes) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

// Makes the checksums of preamble, frames, payloads and trailer those of their bytes.
void Seal(std::string& file) {
  if (file.size() < kPreambleBytes) return;
  const google::protobuf::LogSilencer silence;
  Put(Xxh3(std::string_view(file).substr(0, 16)), 16, file);
  for (size_t offset = kPreambleBytes; offset + 32 <= file.size();) {
    const size_t message_bytes = Get<uint32_t>(file, offset + 20);
    const uint64_t payload_bytes = Get<uint64_t>(file, offset + 24);
    const size_t head = Aligned(32 + message_bytes);
    if (message_bytes > file.size() || head > file.size() - offset) break;
    if (Get<uint32_t>(file, offset + 16) == 2 && payload_bytes <= file.size() - offset - head) {
      ChunkHeader chunk;
      if (chunk.ParseFromArray(file.data() + offset + 32, static_cast<int>(message_bytes))) {
        chunk.set_payload_xxh3(Xxh3(std::string_view(file).substr(offset + head, payload_bytes)));
        const std::string message = chunk.SerializeAsString();
        if (message.size() == message_bytes) file.replace(offset + 32, message_bytes, message);
      }
    }
    Put(Xxh3(std::string_view(file).substr(offset + 16, head - 16), offset), offset + 8, file);
    if (payload_bytes > file.size() - offset - head) break;
    offset += head + Aligned(payload_bytes);
  }
  const size_t trailer = file.size() - kTrailerBytes;
  Put(Xxh3(std::string_view(file).substr(trailer, 24)), trailer + 24, file);
}

// A file in memory with a path.
std::string PathOf(int descriptor) { return absl::StrCat("/proc/self/fd/", descriptor); }

void CheckOneLine(const absl::Status& status, const std::string& path) {
  if (status.ok()) return;
  EPSIM_CHECK(status.message().find(path) != absl::string_view::npos);
  EPSIM_CHECK(status.message().find('\n') == absl::string_view::npos);
}

// Reads every chunk; true if all of them are sound.
bool ReadAll(const TraceReader& trace) {
  bool sound = true;
  const TraceHeader& header = trace.header();
  for (int64_t i = 0; i < trace.index().chunks_size(); ++i) {
    const absl::StatusOr<TraceChunk> chunk = trace.ReadChunk(i);
    CheckOneLine(chunk.status(), trace.path());
    sound = sound && chunk.ok();
    if (!chunk.ok()) continue;
    EPSIM_CHECK(trace.ChunkOfToken(chunk->first_token) == i);
    if (chunk->ids == nullptr) continue;
    const int64_t ids = chunk->tokens * header.layers() * header.top_k();
    for (int64_t k = 0; k < ids; ++k) {
      uint16_t id = static_cast<uint8_t>(chunk->ids[k]);
      if (header.id_bytes() == 2) std::memcpy(&id, chunk->ids + 2 * k, 2);
      EPSIM_CHECK(id < header.experts());
    }
  }
  return sound;
}

}  // namespace
}  // namespace epsim

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace epsim;
  if (size == 0) return 0;
  std::string file(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 4 != 0) Seal(file);
  static const ScratchFolder folder;
  static const int descriptor = memfd_create("trace", 0);
  EPSIM_CHECK(ftruncate(descriptor, 0) == 0);
  EPSIM_CHECK(pwrite(descriptor, file.data(), file.size(), 0) == static_cast<ssize_t>(file.size()));
  const std::string path = PathOf(descriptor);

  const auto trace = TraceReader::Open(path);
  CheckOneLine(trace.status(), path);
  const bool sound = trace.ok() && ReadAll(**trace);
  const absl::Status verified = VerifyTrace(path, StopToken());
  CheckOneLine(verified, path);
  EPSIM_CHECK(sound || !verified.ok());
  if (trace.ok()) {
    // A file may say that its chunks become gigabytes: what is reserved for them is bounded here, not in the reader.
    uint64_t raw_bytes = 0;
    for (const TraceIndex::Chunk& chunk : (*trace)->index().chunks()) {
      const absl::StatusOr<Frame> frame = ParseFrame(file, chunk.offset());
      ChunkHeader header;
      EPSIM_CHECK(frame.ok());
      EPSIM_CHECK(header.ParseFromArray(frame->message.data(), static_cast<int>(frame->message.size())));
      raw_bytes += header.raw_bytes();
    }
    if (raw_bytes < uint64_t{16} << 20) {
      const auto raw = TraceReader::OpenRaw(path, folder.path(), StopToken());
      CheckOneLine(raw.status(), path);
      EPSIM_CHECK(!sound || raw.ok());
      if (raw.ok()) ReadAll(**raw);
    }
  }
  static const std::string saved = folder / "saved";
  const auto recovery = RecoverTrace(path, saved);
  CheckOneLine(recovery.status(), path);
  if (recovery.ok()) {
    const absl::Status status = VerifyTrace(saved, StopToken());
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    EPSIM_CHECK(status.ok());
  }
  return 0;
}

// Small traces of every kind, taken as they are (first byte 0) and sealed (1).
std::vector<std::string> FuzzSeeds() {
  using namespace epsim;
  std::vector<std::string> seeds;
  const ScratchFolder folder;
  for (const Granularity granularity : {REQUEST, STEP, COUNTS}) {
    for (const bool zstd : {false, true}) {
      SampleShape shape;
      shape.granularity = granularity;
      shape.id_bytes = zstd ? 2 : 1;
      shape.units = 3;
      shape.missing = shape.columns = granularity == STEP;
      shape.writer.zstd = zstd;
      shape.writer.chunk_bytes = 500;
      if (zstd && granularity != COUNTS) shape.gate_weights = BFLOAT16;
      WriteSample(shape, folder / "seed");
      const std::string bytes = ReadFile(folder / "seed");
      seeds.push_back(std::string(1, '\0') + bytes);
      for (const char kind : {'\1', '\2', '\3'}) seeds.push_back(std::string(1, kind) + bytes);
    }
  }
  return seeds;
}
