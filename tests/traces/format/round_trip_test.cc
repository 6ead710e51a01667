// What is written is read back: every granularity, width, optional column and codec, in one chunk and in many.
#include <sys/resource.h>

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/format/trace_samples.h"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"

namespace epsim {
namespace {

using ::testing::IsEmpty;

std::vector<SampleShape> Shapes() {
  std::vector<SampleShape> shapes;
  for (const Granularity granularity : {REQUEST, STEP, COUNTS}) {
    for (const int id_bytes : {1, 2}) {
      for (const bool zstd : {false, true}) {
        for (const int64_t chunk_bytes : {int64_t{1}, int64_t{2000}, int64_t{8} << 20}) {
          for (const bool rich : {false, true}) {
            SampleShape shape;
            shape.granularity = granularity;
            shape.id_bytes = id_bytes;
            shape.experts = id_bytes == 1 ? 256 : 300;
            shape.units = 12;
            shape.most_tokens = 20;
            shape.missing = rich;
            shape.columns = rich;
            if (rich && granularity != COUNTS) {
              shape.gate_weights = id_bytes == 1 ? BFLOAT16 : FLOAT32;
              shape.scores = id_bytes == 1 ? FLOAT32 : FLOAT16;
            }
            shape.writer.zstd = zstd;
            shape.writer.chunk_bytes = chunk_bytes;
            shapes.push_back(shape);
          }
        }
      }
    }
  }
  return shapes;
}

TEST(RoundTripTest, GivesBackWhatWasWritten) {
  for (const SampleShape& shape : Shapes()) {
    SCOPED_TRACE(testing::Message() << Granularity_Name(shape.granularity) << " id_bytes " << shape.id_bytes << " zstd "
                                    << shape.writer.zstd << " chunk_bytes " << shape.writer.chunk_bytes << " columns "
                                    << shape.columns);
    const ScratchFolder folder;
    const Sample sample = WriteSample(shape, folder / "t.eptrace");
    for (const bool raw : {false, true}) {
      const auto trace = raw ? TraceReader::OpenRaw(folder / "t.eptrace", folder.path(), StopToken())
                             : TraceReader::Open(folder / "t.eptrace");
      ASSERT_TRUE(trace.ok()) << trace.status();
      const auto contents = ReadContents(**trace);
      ASSERT_TRUE(contents.ok()) << contents.status();
      EXPECT_TRUE(*contents == sample.contents);
      EXPECT_EQ((*trace)->header().model(), "sample");
      EXPECT_EQ((*trace)->index().missing_ids(), sample.missing_ids);
      const int64_t rows = static_cast<int64_t>(sample.contents.step.size());
      EXPECT_EQ((*trace)->index().tokens(), shape.granularity == COUNTS ? 0 : rows);
      EXPECT_EQ((*trace)->index().steps(), shape.granularity == REQUEST ? 0 : shape.units);
      EXPECT_EQ((*trace)->index().requests(), static_cast<int64_t>(sample.contents.requests.size()));
      // chunk_bytes 1 leaves one row a chunk; 8 MiB takes them all (a STEP chunk holds one step).
      const int64_t chunks = (*trace)->index().chunks_size();
      if (shape.writer.chunk_bytes == 1) {
        EXPECT_EQ(chunks, rows);
      }
      if (shape.writer.chunk_bytes == 8 << 20) {
        EXPECT_EQ(chunks, shape.granularity == STEP ? shape.units : 1);
      }
      for (int64_t row = 0; row < rows; ++row) {
        const TraceIndex::Chunk& chunk = (*trace)->index().chunks(static_cast<int>((*trace)->ChunkOfToken(row)));
        EXPECT_TRUE(chunk.first_token() <= row && row < chunk.first_token() + chunk.tokens());
      }
    }
    const absl::Status sound = VerifyTrace(folder / "t.eptrace", StopToken());
    EXPECT_TRUE(sound.ok()) << sound;
    const auto recovery = RecoverTrace(folder / "t.eptrace", folder / "r.eptrace");
    ASSERT_TRUE(recovery.ok()) << recovery.status();
    EXPECT_THAT(recovery->reason, IsEmpty());
    EXPECT_EQ(recovery->lost_bytes, 0);
    EXPECT_EQ(ReadFile(folder / "r.eptrace"), ReadFile(folder / "t.eptrace"));
    EXPECT_EQ(folder.Entries().size(), 2u) << "scratch files are unnamed";
  }
}

TEST(RoundTripTest, ColumnsLieAtMultiplesOf64Bytes) {
  const ScratchFolder folder;
  SampleShape shape;
  shape.columns = shape.missing = true;
  shape.gate_weights = shape.scores = FLOAT32;
  for (const bool zstd : {false, true}) {
    shape.writer.zstd = zstd;
    WriteSample(shape, folder / "t.eptrace");
    const auto trace = TraceReader::Open(folder / "t.eptrace");
    ASSERT_TRUE(trace.ok()) << trace.status();
    const auto chunk = (*trace)->ReadChunk(0);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    for (const void* column :
         {static_cast<const void*>(chunk->ids), static_cast<const void*>(chunk->valid_count),
          static_cast<const void*>(chunk->position), static_cast<const void*>(chunk->request_index),
          static_cast<const void*>(chunk->phase), static_cast<const void*>(chunk->source_rank),
          static_cast<const void*>(chunk->gate_weights), static_cast<const void*>(chunk->scores)}) {
      ASSERT_NE(column, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(column) % 64, 0u);
    }
  }
}

TEST(RoundTripTest, TheHashIsThatOfTheContentAsStored) {
  const ScratchFolder folder;
  SampleShape shape;
  WriteSample(shape, folder / "a");
  WriteSample(shape, folder / "b");
  shape.seed = 2;
  WriteSample(shape, folder / "c");
  const auto hash = [&](const std::string& name) { return (*TraceReader::Open(folder / name))->hash(); };
  EXPECT_EQ(hash("a").size(), 16u);
  EXPECT_EQ(hash("a").find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(hash("a"), hash("b"));
  EXPECT_NE(hash("a"), hash("c"));
  EXPECT_EQ(hash("a"), (*TraceReader::OpenRaw(folder / "a", folder.path(), StopToken()))->hash());
}

TEST(RoundTripTest, ARequestWithOtherColumnsBeginsAChunk) {
  const ScratchFolder folder;
  TraceHeader header = HeaderOf(SampleShape());
  auto writer = TraceWriter::Create(folder / "t", header);
  ASSERT_TRUE(writer.ok());
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};  // One token: 3 layers x 4.
  const uint32_t position = 77;
  TokenColumns columns;
  EXPECT_TRUE((*writer)->AppendRequest({}, ids, columns).ok());
  columns.position = absl::MakeConstSpan(&position, 1);
  EXPECT_TRUE((*writer)->AppendRequest({}, ids, columns).ok());
  EXPECT_TRUE((*writer)->Finish().ok());
  const auto trace = TraceReader::Open(folder / "t");
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ((*trace)->index().chunks_size(), 2);
  EXPECT_EQ((*trace)->ReadChunk(0)->position, nullptr);
  EXPECT_EQ((*trace)->ReadChunk(1)->position[0], 77u);
}

// 1,000 requests x 100 tokens x 40 layers x 8 = 32 MB of ids, which a 256 KiB chunk must not need in memory at once.
TEST(RoundTripTest, WritingTakesTheMemoryOfAChunk) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer has its own memory";
#else
  const ScratchFolder folder;
  SampleShape shape;
  shape.layers = 40;
  shape.experts = 64;
  shape.top_k = 8;
  TraceWriterOptions options;
  options.chunk_bytes = 256 << 10;
  auto writer = TraceWriter::Create(folder / "t", HeaderOf(shape), options);
  ASSERT_TRUE(writer.ok());
  std::vector<int32_t> ids(100 * 40 * 8);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 7 + i / 8) % 64);
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  for (int request = 0; request < 1000; ++request) ASSERT_TRUE((*writer)->AppendRequest({}, ids, {}).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 12 << 10) << "KiB";
  EXPECT_EQ((*TraceReader::Open(folder / "t"))->index().tokens(), 100'000);
#endif
}

}  // namespace
}  // namespace epsim
