#include "tests/models/kernels/cuda_on_cpu.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/random_stream.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#ifdef __x86_64__

// Leaves the running stack, whose place it writes to *left, for the one at `entered`.  What a function may not change
// (System V ABI) lies on top of a stack that was left.  swapcontext() does the same with two system calls.
extern "C" void epsim_switch_stacks(void** left, void* entered);
asm(R"(
.text
.type epsim_switch_stacks, @function
epsim_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size epsim_switch_stacks, . - epsim_switch_stacks
)");

#else
#include <ucontext.h>
#endif

namespace epsim::cuda_on_cpu {
namespace {

// Where a stack goes on.
#ifdef __x86_64__
class Context {
 public:
  void Begin(std::byte* stack, size_t bytes, void (*enter)()) {
    constexpr size_t kSaved = 6;
    void** top = reinterpret_cast<void**>(stack + bytes / 16 * 16) - 1;  // As if `enter` had been called.
    *--top = reinterpret_cast<void*>(enter);
    for (size_t i = 0; i < kSaved; ++i) *--top = nullptr;
    place_ = top;
  }
  static void Switch(Context* left, Context* entered) { epsim_switch_stacks(&left->place_, entered->place_); }

 private:
  void* place_ = nullptr;
};
#else
class Context {
 public:
  void Begin(std::byte* stack, size_t bytes, void (*enter)()) {
    EPSIM_CHECK(getcontext(&context_) == 0);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, enter, 0);
  }
  static void Switch(Context* left, Context* entered) {
    EPSIM_CHECK(swapcontext(&left->context_, &entered->context_) == 0);
  }

 private:
  ucontext_t context_;
};
#endif

// An odd number of cache lines: were it a power of two, the ends of all stacks would compete for one set of the cache.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = (256 << 10) + 17 * 64;
#else
constexpr size_t kStackBytes = (64 << 10) + 17 * 64;
#endif
constexpr size_t kCanaryBytes = 256;  // Behind the shared memory, and at the far end of each stack.
constexpr int kWarp = 32;

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct Fiber {
  Context context;
#ifdef __SANITIZE_THREAD__
  void* tsan = nullptr;
#endif
  State state = State::kReady;
  const char* function = "";  // That it waits in.
  unsigned mask = 0;
  int barrier_value = 0;  // What it brought to a barrier; then the sum.
  uint64_t seen[kWarp] = {};
};

// The lanes that wait in a warp function, and what they brought.
struct Warp {
  unsigned waiting = 0;
  uint64_t brought[kWarp] = {};
};

// One launch: the fibers are used again for each block.
class Launch {
 public:
  Launch(const Grid& grid, const std::function<void()>& kernel)
      : grid_(grid),
        kernel_(kernel),
        fibers_(static_cast<size_t>(grid.threads)),
        warps_((fibers_.size() + kWarp - 1) / kWarp),
        stacks_(Stacks(fibers_.size())),
        shared_((grid.shared_bytes + 15) / 16 + kCanaryBytes / 16) {}

  ~Launch() {
#ifdef __SANITIZE_THREAD__
    for (Fiber& fiber : fibers_) {
      if (fiber.tsan != nullptr) __tsan_destroy_fiber(fiber.tsan);
    }
#endif
  }

  absl::Status RunBlock(int64_t block) {
    block_ = block;
    std::memset(shared_.data(), kPattern, shared_.size() * sizeof(Chunk));
    for (size_t i = 0; i < fibers_.size(); ++i) Prepare(i);
    for (Warp& warp : warps_) warp.waiting = 0;
    at_barrier_ = 0, done_ = 0;
    // Rounds go up, then down, and begin at another warp each.
    const int threads = grid_.threads, warps = (threads + kWarp - 1) / kWarp;
    for (int round = 0; done_ < threads; ++round) {
      bool any = false;
      const int first = round % warps * kWarp;
      for (int i = 0; i < threads; ++i) {
        const int turn = (first + i) % threads;
        any |= RunIfReady(round % 2 == 0 ? turn : threads - 1 - turn);
        if (!error_.empty()) return absl::InternalError(absl::StrCat("block ", block_, ": ", error_));
      }
      if (!any) return absl::InternalError(absl::StrCat("block ", block_, ": ", Deadlock()));
    }
    const auto* const bytes = reinterpret_cast<const unsigned char*>(shared_.data());
    for (size_t i = grid_.shared_bytes; i < shared_.size() * sizeof(Chunk); ++i) {
      if (bytes[i] != kPattern) {
        return absl::InternalError(absl::StrCat("block ", block_, ": byte ", i, " of shared memory was written; ",
                                                grid_.shared_bytes, " were asked for"));
      }
    }
    for (size_t i = 0; i < fibers_.size(); ++i) EPSIM_CHECK(stacks_[i * kStackBytes] == kStackEnd);
    return absl::OkStatus();
  }

  void* shared() { return shared_.data(); }
  int lane() const { return running_ % kWarp; }

  int Barrier(const char* function, int value) {
    Fiber& self = fibers_[static_cast<size_t>(running_)];
    self.state = State::kAtBarrier, self.function = function, self.barrier_value = value;
    if (++at_barrier_ < grid_.threads) {
      Leave();
    } else {
      int sum = 0;
      for (const Fiber& fiber : fibers_) {
        if (fiber.function != function && std::string_view(fiber.function) != function) {
          Fail(absl::StrCat("one barrier is ", function, " for some threads, ", fiber.function, " for others"));
        }
        sum += fiber.barrier_value;
      }
      for (Fiber& fiber : fibers_) fiber.state = State::kReady, fiber.barrier_value = sum;
      at_barrier_ = 0;
    }
    return self.barrier_value;
  }

  const uint64_t* Exchange(const char* function, unsigned mask, uint64_t value) {
    Fiber& self = fibers_[static_cast<size_t>(running_)];
    if ((mask >> lane() & 1) == 0) Fail(absl::StrCat(function, ": the lane is not in its own mask ", absl::Hex(mask)));
    self.state = State::kInWarp, self.function = function, self.mask = mask;
    Warp& warp = warps_[static_cast<size_t>(running_ / kWarp)];
    Fiber* const lanes = &fibers_[static_cast<size_t>(running_ / kWarp * kWarp)];
    const int count = std::min(kWarp, grid_.threads - running_ / kWarp * kWarp);
    if (count < kWarp && mask >> count != 0) {
      Fail(absl::StrCat(function, ": mask ", absl::Hex(mask), " in a warp of ", count, " threads"));
    }
    warp.brought[lane()] = value;
    warp.waiting |= 1u << lane();
    if ((warp.waiting & mask) != mask) {
      Leave();
      return self.seen;
    }
    // The last of them is here.
    for (unsigned left = mask; left != 0; left &= left - 1) {
      const int i = std::countr_zero(left);
      if (lanes[i].mask == mask && (lanes[i].function == function || std::string_view(lanes[i].function) == function)) {
        continue;
      }
      Fail(absl::StrCat("lane ", lane(), " is in ", function, " with mask ", absl::Hex(mask), ", lane ", i, " in ",
                        lanes[i].function, " with mask ", absl::Hex(lanes[i].mask)));
    }
    for (unsigned left = mask; left != 0; left &= left - 1) {
      const int i = std::countr_zero(left);
      std::memcpy(lanes[i].seen, warp.brought, sizeof(warp.brought));
      lanes[i].state = State::kReady;
    }
    warp.waiting &= ~mask;
    return self.seen;
  }

  [[noreturn]] void Fail(const std::string& message) {
    error_ = absl::StrCat("thread ", running_, ": ", message);
    throw Failed();
  }

 private:
  struct Failed {};  // Thrown to the beginning of a fiber, so that what lies on its stack is destroyed.
  struct alignas(16) Chunk {
    unsigned char bytes[16];
  };
  static constexpr unsigned char kPattern = 0xcb;
  static constexpr std::byte kStackEnd{0x5e};

  // Of that many fibers; they are kept for the next launch.
  static std::byte* Stacks(size_t count) {
    static std::unique_ptr<std::byte[]> stacks;
    static size_t room = 0;
    if (room < count) {
      stacks.reset(new std::byte[count * kStackBytes]);
      room = count;
    }
    return stacks.get();
  }

  void Prepare(size_t i) {
    Fiber& fiber = fibers_[i];
    fiber.state = State::kReady;
#ifdef __SANITIZE_ADDRESS__
    // A fiber that was left for good has not cleaned up.
    __asan_unpoison_memory_region(&stacks_[i * kStackBytes], kStackBytes);
#endif
    stacks_[i * kStackBytes] = kStackEnd;
    fiber.context.Begin(&stacks_[i * kStackBytes], kStackBytes, &Launch::Enter);
#ifdef __SANITIZE_THREAD__
    if (fiber.tsan != nullptr) __tsan_destroy_fiber(fiber.tsan);
    fiber.tsan = __tsan_create_fiber(0);
#endif
  }

  bool RunIfReady(int thread) {
    Fiber& fiber = fibers_[static_cast<size_t>(thread)];
    if (fiber.state != State::kReady) return false;
    running_ = thread;
    threadIdx = {static_cast<unsigned>(thread), 0, 0};
    blockIdx = {static_cast<unsigned>(block_), 0, 0};
    blockDim = {static_cast<unsigned>(grid_.threads), 1, 1};
    gridDim = {static_cast<unsigned>(grid_.blocks), 1, 1};
#ifdef __SANITIZE_THREAD__
    home_tsan_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber.tsan, 0);
#endif
#ifdef __SANITIZE_ADDRESS__
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, &stacks_[static_cast<size_t>(thread) * kStackBytes], kStackBytes);
#endif
    Context::Switch(&home_, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    return true;
  }

  // A fiber begins, or goes on after Leave().
  void Arrive([[maybe_unused]] void* fake) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, &home_stack_, &home_bytes_);
#endif
  }

  // Back to RunIfReady.
  void Leave() {
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(home_tsan_, 0);
#endif
    void* fake = nullptr;
#ifdef __SANITIZE_ADDRESS__
    const bool for_good = fibers_[static_cast<size_t>(running_)].state == State::kDone;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, home_stack_, home_bytes_);
#endif
    Context::Switch(&fibers_[static_cast<size_t>(running_)].context, &home_);
    Arrive(fake);
  }

  static void Enter();

  std::string Deadlock() const {
    std::string text = "threads wait for what never comes:";
    int told = 0;
    for (size_t i = 0; i < fibers_.size() && told < 8; ++i) {
      const Fiber& fiber = fibers_[i];
      if (fiber.state == State::kDone) continue;
      absl::StrAppend(&text, " thread ", i, " in ", fiber.function);
      if (fiber.state == State::kInWarp) absl::StrAppend(&text, " with mask ", absl::Hex(fiber.mask));
      absl::StrAppend(&text, ";");
      ++told;
    }
    return absl::StrCat(text, " ", done_, " of ", fibers_.size(), " threads have ended");
  }

  const Grid grid_;
  const std::function<void()>& kernel_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::byte* const stacks_;
  std::vector<Chunk> shared_;
  Context home_;
#ifdef __SANITIZE_ADDRESS__
  const void* home_stack_ = nullptr;
  size_t home_bytes_ = 0;
#endif
#ifdef __SANITIZE_THREAD__
  void* home_tsan_ = nullptr;
#endif
  int64_t block_ = 0;
  int running_ = 0, at_barrier_ = 0, done_ = 0;
  std::string error_;
};

Launch* current = nullptr;

void Launch::Enter() {
  current->Arrive(nullptr);
  try {
    current->kernel_();
  } catch (const Failed&) {
  }
  current->fibers_[static_cast<size_t>(current->running_)].state = State::kDone;
  ++current->done_;
  current->Leave();
}

}  // namespace

absl::Status Run(const Grid& grid, const std::function<void()>& kernel) {
  constexpr int kMostThreads = 1024;
  constexpr size_t kMostShared = 99 << 10;  // Of a block on the smallest of the GPUs from sm_80 up.
  if (grid.threads < 1 || grid.threads > kMostThreads || grid.shared_bytes > kMostShared || grid.blocks < 0) {
    return absl::InternalError(absl::StrCat("no GPU launches ", grid.blocks, " blocks of ", grid.threads,
                                            " threads with ", grid.shared_bytes, " bytes of shared memory"));
  }
  EPSIM_CHECK(current == nullptr);
  static RandomStream random(1, "cuda_on_cpu");
  std::vector<int64_t> order(static_cast<size_t>(grid.blocks));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  Launch launch(grid, kernel);
  current = &launch;
  absl::Status status;
  for (size_t i = 0; i < order.size() && status.ok(); ++i) status = launch.RunBlock(order[i]);
  current = nullptr;
  return status;
}

void* SharedMemoryOfBlock() { return current->shared(); }
int Barrier(const char* function, int value) { return current->Barrier(function, value); }
const uint64_t* Exchange(const char* function, unsigned mask, uint64_t value) {
  return current->Exchange(function, mask, value);
}
void Fail(const std::string& message) { current->Fail(message); }
int Lane() { return current->lane(); }

}  // namespace epsim::cuda_on_cpu
