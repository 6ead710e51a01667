#include <cstdint>

#include "benchmark/benchmark.h"
#include "engine/event_queue.h"
#include "engine/random_stream.h"

namespace epsim {
namespace {

// The hold model: with `pending` events in the queue, run the earliest, which schedules the next at a random distance.
void EventQueuePending(benchmark::State& state) {
  EventQueue queue;
  RandomStream random(1, "event_queue_bench");
  uint64_t handled = 0;
  struct Hold {
    EventQueue* queue;
    RandomStream* random;
    uint64_t* handled;
    void operator()() {
      ++*handled;
      queue->Schedule(queue->now() + Duration(static_cast<int64_t>(random->Next() >> 44)), Phase::kComplete, *this);
    }
  };
  for (int i = 0; i < state.range(0); ++i) {
    queue.Schedule(SimTime(Duration(i)), Phase::kComplete, Hold{&queue, &random, &handled});
  }
  for (auto _ : state) queue.Step();
  state.SetItemsProcessed(static_cast<int64_t>(handled));
}
BENCHMARK(EventQueuePending)->Name("EventQueue")->ArgName("pending")->Arg(1000);

}  // namespace
}  // namespace epsim
