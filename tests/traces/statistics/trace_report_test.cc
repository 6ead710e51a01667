// The facts of a small trace, whole, as people and programs get them.
#include "traces/statistics/trace_report.h"

#include <string>

#include "gtest/gtest.h"
#include "tests/traces/workload/memory_trace.h"

namespace epsim {
namespace {

// One layer, 8 experts, top-1; two requests of 5 and 3 tokens, prefill and decode.
MemoryTrace Requests() {
  TraceHeader header = HeaderOf(REQUEST, 1, 1, 8, 1);
  header.set_source("a test");
  MemoryTrace trace(header);
  trace.AddRequest(0, 5);
  trace.AddRequest(5, 3);
  trace.AddChunk({.tokens = 5,
                  .ids = {0, 0, 4, 0, 3},
                  .valid_count = {1, 1, 1, 1, 0},
                  .phase = {PREFILL, PREFILL, PREFILL, PREFILL, PREFILL}});
  trace.AddChunk({.tokens = 3, .ids = {4, 4, 0}, .position = {7, 8, 9}, .phase = {DECODE, DECODE, DECODE}});
  return trace;
}

TEST(TraceReport, AsText) {
  // Tokens per expert: 4 at 0, 3 at 4: mean 7/8, skew 4 / (7/8) = 4.57.  On 4 ranks 4 0 3 0: (7/4) / 4 = 0.4375; on 8
  // (7/8) / 4 = 0.21875.  Pairs: 4 + 2; (0,0) and (4,4) agree: 2 / 6.
  const MemoryTrace trace = Requests();
  const auto statistics = MeasureTrace(trace, StopToken(), nullptr);
  ASSERT_TRUE(statistics.ok());
  EXPECT_EQ(TraceInfoText(trace, *statistics),
            "file              memory.eptrace, 0 bytes in 2 chunks, hash 0123456789abcdef\n"
            "model             test: 1 MoE layers x 8 experts, top-1\n"
            "granularity       request\n"
            "source            a test\n"
            "tokens            8\n"
            "phases            5 prefill, 3 decode, 0 unknown\n"
            "missing ids       1, of 1 tokens (12.50 %)\n"
            "requests          2, the longest 5 tokens\n"
            "columns           ids, position\n"
            "skew              4.57 max/mean over experts, mean of layers; worst 4.57, layer 0\n"
            "balancedness      0.438 on 4, 0.219 on 8 ranks (tokens, mean/max, contiguous)\n"
            "adjacent overlap  0.333 of a token's experts are the next token's too (random 0.125)\n");
}

TEST(TraceReport, AsJson) {
  const MemoryTrace trace = Requests();
  const auto statistics = MeasureTrace(trace, StopToken(), nullptr);
  ASSERT_TRUE(statistics.ok());
  const nlohmann::ordered_json info = TraceInfo(trace, *statistics);
  EXPECT_EQ(info["model"], "test");
  EXPECT_EQ(info["granularity"], "request");
  EXPECT_EQ(info["layers"], 1);
  EXPECT_EQ(info["tokens"], 8);
  EXPECT_EQ(info["phases"]["prefill"], 5);
  EXPECT_EQ(info["balancedness"]["4"], 0.4375);
  EXPECT_EQ(info["balancedness"]["8"], 0.21875);
  EXPECT_EQ(info["adjacent_overlap"]["pairs"], 6);
  EXPECT_EQ(info["skew"]["worst_layer"], 0);
  EXPECT_EQ(info["columns"].dump(), "[\"position\"]");
}

TEST(TraceReport, WhatTheTraceDoesNotAllowIsNull) {
  MemoryTrace trace(HeaderOf(COUNTS, 1, 1, 4, 1));
  trace.AddChunk({.tokens = 1, .counts = {0, 0, 0, 0}});
  const auto statistics = MeasureTrace(trace, StopToken(), nullptr);
  ASSERT_TRUE(statistics.ok());
  const nlohmann::ordered_json info = TraceInfo(trace, *statistics);
  EXPECT_TRUE(info["skew"].is_null());
  EXPECT_TRUE(info["adjacent_overlap"].is_null());
  EXPECT_TRUE(info["balancedness"].empty());
}

}  // namespace
}  // namespace epsim
