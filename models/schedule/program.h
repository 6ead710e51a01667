// A program is what a forward pass does, in the order in which a serving engine launches it: kernels on the compute
// stream of every GPU, exchanges on its communication stream, and what each waits for.  It says nothing of time.  All
// ranks run the same program.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/model.pb.h"
#include "models/schedule/schedule.pb.h"
#include "models/schedule/stage.h"

namespace epsim {

// Which steps of attention an operation is.
enum class AttentionStep : uint8_t { kAll, kFirst, kSecond };

struct Operation {
  StageKind kind;
  int layer = 0;       // Of the model, dense ones included; layers in all for the LM head.
  int moe_layer = -1;  // Of the MoE layers; -1 for what belongs to none.
  int repeat = 0;      // Which run of the layer in this pass.
  int part = 0;        // 0: the whole batch; 1 and 2: its halves.
  int chunk = 0;
  AttentionStep step = AttentionStep::kAll;
  // Runs while an exchange may be under way: without the streaming multiprocessors that communication holds.
  bool beside_exchange = false;
  // Starts on every rank when what it waits for has finished on all of them.
  bool lock_step = false;
  // What it waits for on its rank: operations before it in the program, the last of each of its streams included; those
  // that others of them wait for are left out.
  std::vector<int> after = {};
  // How many exchanges it waits for, directly or not; an exchange counts itself.  Exchanges follow each other.
  int exchanges = 0;

  bool is_exchange() const { return StreamOf(kind) == GpuStream::kCommunication || kind == StageKind::kFusedExperts; }
};

// A mark at the start or the finish of an operation.
struct ProgramHook {
  EplbHook hook;
  int operation;
  bool at_finish;
};

struct Program {
  std::vector<Operation> operations;  // The last one waits for all others.
  std::vector<ProgramHook> hooks;     // In the order of their operations, those at a start first.
  std::vector<int> exchanges;         // Operations that are exchanges, in order.
  // Operations that are not, by the number of exchanges that they wait for, in order.  [exchanges + 1]
  std::vector<std::vector<int>> computing;
};

// Whether, and where, activations are turned into what the expert GEMMs take.
enum class Quantization : uint8_t { kNone, kBeforeDispatch, kAfterDispatch };

// What a program depends on besides the schedule and the model.
struct ProgramFacts {
  bool has_dispatch = true;
  bool statistics = false;  // Load statistics are gathered, and do not ride along.
  Quantization quantization = Quantization::kNone;
  friend bool operator==(const ProgramFacts&, const ProgramFacts&) = default;
};

// What a batch is cut into.
struct BatchShape {
  enum class Halves : uint8_t { kNone, kPrefillOrder, kDecodeOrder };
  Halves halves = Halves::kNone;
  int chunks = 1;

  int parts() const { return halves == Halves::kNone ? 1 : 2; }
  int pieces() const { return parts() * chunks; }
  // Which piece of a layer's tokens an operation of this part and chunk works on.
  int piece(int part, int chunk) const { return (part == 2 ? chunks : 0) + chunk; }
  friend bool operator==(const BatchShape&, const BatchShape&) = default;
};

// REQUIRES: `config` is complete and checked (schedule_config.h); halves have one chunk.
Program MakeProgram(const ScheduleConfig& config, const ModelSpec& model, const ProgramFacts& facts,
                    const BatchShape& shape);

// One line an operation, as "5 dispatch/1 part 2 after 3 4", with hooks where they are.
std::string ProgramText(const Program& program);

// Whether layer `layer` of the model (counted with the dense ones) has routed experts.  Dense layers come first; where
// there are as many of them as of MoE layers the two alternate, dense first (Llama 4).
bool IsMoeLayer(const ModelSpec& model, int layer);

}  // namespace epsim
