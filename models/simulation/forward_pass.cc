#include "models/simulation/forward_pass.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "models/schedule/schedule_config.h"

namespace epsim {
namespace {

// The one communication stream of a batch; a second batch or a migration would have its own.
constexpr StreamId kBatchStream{0};

// Gives each of `ranks` neighbours the mean of their times, rounded down.
void Level(std::vector<Cost>* costs, size_t ranks) {
  for (size_t first = 0; first < costs->size(); first += ranks) {
    Duration sum{};
    for (size_t i = first; i < first + ranks; ++i) sum += (*costs)[i].time;
    for (size_t i = first; i < first + ranks; ++i) (*costs)[i].time = sum / static_cast<int64_t>(ranks);
  }
}

SimTime Latest(absl::Span<const SimTime> times) { return *std::max_element(times.begin(), times.end()); }
// Of equally late ranks the first.
size_t Last(absl::Span<const SimTime> times) { return std::max_element(times.begin(), times.end()) - times.begin(); }

}  // namespace

ForwardPass::ForwardPass(ForwardContext context)
    : context_(std::move(context)),
      ranks_(context_.cluster->ranks()),
      head_(ranks_),
      release_(ranks_),
      gates_(context_.model->moe_layers()) {
  EPSIM_CHECK(context_.schedule.kind_case() != ScheduleConfig::KIND_NOT_SET);
  for (Flight* flight : {&last_, &next_}) {
    flight->ready.resize(ranks_);
    flight->least.resize(ranks_);
  }
}

void ForwardPass::Begin(const Program& program, const StepWork& work) {
  EPSIM_CHECK(done_);
  EPSIM_CHECK(work.split.attention[0].size() == ranks_);
  EPSIM_CHECK(work.routed.size() == static_cast<size_t>(context_.model->moe_layers()) * work.pieces());
  EPSIM_CHECK(work.expert_costs.size() == work.routed.size() * ranks_);
  program_ = &program;
  work_ = &work;
  sms_left_ = SmsLeft(context_.communication->footprint(), context_.cluster->platform().gpu());
  CostBatch();
  const size_t operations = program.operations.size();
  start_.resize(operations * ranks_);
  finish_.resize(operations * ranks_);
  source_.resize(operations);
  link_class_.resize(operations);
  begin_ = context_.queue->now();
  done_ = false;
  reported_ = 0;
  last_.operation = next_.operation = -1;
  shown_ = shown_hooks_ = 0;
  held_ = false;
  for (Gate& gate : gates_) {
    gate.opened = begin_;
    gate.wait = {};
  }
  Advance();
}

void ForwardPass::Close(Layer layer) {
  EPSIM_CHECK(done_);
  gates_[Index(layer)].closed = true;
}

void ForwardPass::Open(Layer layer) {
  Gate& gate = gates_[Index(layer)];
  gate.closed = false;
  gate.opened = context_.queue->now();
  if (held_) Advance();
}

bool ForwardPass::AnyClosed(absl::Span<const int> computing) const {
  return std::any_of(computing.begin(), computing.end(), [&](int place) {
    const Operation& operation = program_->operations[place];
    return operation.kind == StageKind::kRouter && gates_[operation.moe_layer].closed;
  });
}

void ForwardPass::CostBatch() {
  const CostModel& costs = *context_.costs;
  const size_t parts = work_->split.attention.size(), pieces = work_->pieces();
  attention_.resize(parts * ranks_);
  router_.resize(parts * ranks_);
  shared_.resize(parts * ranks_);
  dense_.resize(parts * ranks_);
  quantize_.resize(pieces * ranks_);
  for (size_t rank = 0; rank < ranks_; ++rank) {
    const double speed = context_.cluster->gpu_speed(Rank(static_cast<int32_t>(rank)));
    const auto at_speed = [speed](Cost cost) { return Cost{AtSpeed(cost.time, speed), cost.source}; };
    for (size_t part = 0; part < parts; ++part) {
      const AttentionLoad& load = work_->split.attention[part][rank];
      attention_[part * ranks_ + rank] = at_speed(costs.Attention(load));
      router_[part * ranks_ + rank] = at_speed(costs.Router(work_->RowsOfPart(part, rank)));
      router_[part * ranks_ + rank].time += context_.router_overhead * static_cast<int64_t>(part == 0 ? pieces : 1);
      shared_[part * ranks_ + rank] = at_speed(costs.SharedExperts(load.tokens));
      dense_[part * ranks_ + rank] = at_speed(costs.DenseMlp(load.tokens));
    }
    for (size_t piece = 0; piece < pieces; ++piece) {
      quantize_[piece * ranks_ + rank] = at_speed(costs.Quantize(work_->rows[piece * ranks_ + rank]));
    }
    head_[rank] = at_speed(costs.LmHead(work_->batch->attention[rank].output_tokens));
  }
  if (work_->level) {
    for (std::vector<Cost>* costs : {&attention_, &router_, &shared_, &dense_, &quantize_, &head_})
      Level(costs, ranks_);
  }
  if (work_->routing_overhead.empty()) return;
  const std::vector<Cost> alike = router_;
  router_.resize(work_->routing_overhead.size());
  for (size_t i = 0; i < router_.size(); ++i) {
    router_[i] = alike[i % alike.size()];
    router_[i].time += work_->routing_overhead[i];
  }
}

void ForwardPass::Advance() {
  held_ = AnyClosed(program_->computing[reported_]);
  if (held_) return;
  for (const int operation : program_->computing[reported_]) {
    Compute(operation);
    if (program_->operations[operation].kind == StageKind::kRouter) WaitForWeights(operation);
  }
  if (static_cast<size_t>(reported_) == program_->exchanges.size()) return Finish();
  StartExchange(program_->exchanges[reported_]);
}

void ForwardPass::ReadyFor(const Operation& operation, SimTime* ready) const {
  if (operation.after.empty()) {
    std::fill(ready, ready + ranks_, begin_);
    return;
  }
  const SimTime* const first = finish_of(operation.after.front());
  std::copy(first, first + ranks_, ready);
  for (size_t i = 1; i < operation.after.size(); ++i) {
    const SimTime* const other = finish_of(operation.after[i]);
    for (size_t rank = 0; rank < ranks_; ++rank) ready[rank] = std::max(ready[rank], other[rank]);
  }
  if (operation.lock_step) std::fill(ready, ready + ranks_, Latest({ready, ranks_}));
}

size_t ForwardPass::PieceOf(const Operation& operation) const {
  return static_cast<size_t>(operation.moe_layer) * work_->pieces() +
         work_->split.shape.piece(operation.part, operation.chunk);
}

const Cost* ForwardPass::CostsOf(const Operation& operation) const {
  const size_t of_part = operation.part * ranks_;
  switch (operation.kind) {
    case StageKind::kAttention:
      return &attention_[of_part];
    case StageKind::kDenseMlp:
      return &dense_[of_part];
    case StageKind::kRouter:
      if (work_->routing_overhead.empty()) return &router_[of_part];
      return &router_[operation.moe_layer * work_->split.attention.size() * ranks_ + of_part];
    case StageKind::kQuantize:
      if (!work_->quantize_costs.empty()) return &work_->quantize_costs[PieceOf(operation) * ranks_];
      return &quantize_[work_->split.shape.piece(operation.part, operation.chunk) * ranks_];
    case StageKind::kSharedExperts:
      return &shared_[of_part];
    case StageKind::kRoutedExperts:
    case StageKind::kFusedExperts:
      return &work_->expert_costs[PieceOf(operation) * ranks_];
    case StageKind::kLmHead:
      return head_.data();
    case StageKind::kStatistics:
    case StageKind::kDispatch:
    case StageKind::kCombine:
    case StageKind::kPlanning:
    case StageKind::kMigration:
    case StageKind::kDetection:
      break;
  }
  EPSIM_CHECK(!"a computing operation");
  __builtin_unreachable();
}

void ForwardPass::Compute(int operation) {
  const Operation& op = program_->operations[operation];
  const Cost* const costs = CostsOf(op);
  SimTime* const start = start_of(operation);
  SimTime* const finish = finish_of(operation);
  ReadyFor(op, start);
  // The stage is known as well as its last rank's time is.
  const auto note_source = [&] { source_[operation] = costs[Last({finish, ranks_})].source; };
  for (size_t rank = 0; rank < ranks_; ++rank) finish[rank] = start[rank] + costs[rank].time;
  if (op.step == AttentionStep::kAll && (!op.beside_exchange || sms_left_ == 1)) return note_source();

  const double first_share = context_.schedule.external().two_batch_overlap().first_attention_share();
  for (size_t rank = 0; rank < ranks_; ++rank) {
    Duration time = costs[rank].time;
    if (op.step != AttentionStep::kAll) {
      const Duration first = RoundUpWithinStep(first_share * static_cast<double>(time.count()));
      time = op.step == AttentionStep::kFirst ? first : time - first;
    }
    if (op.beside_exchange) time = AtSpeed(time, sms_left_);
    finish[rank] = start[rank] + time;
  }
  note_source();
}

void ForwardPass::WaitForWeights(int router) {
  const SimTime opened = gates_[program_->operations[router].moe_layer].opened;
  SimTime* const finish = finish_of(router);
  for (size_t rank = 0; rank < ranks_; ++rank) finish[rank] = std::max(finish[rank], opened);
}

void ForwardPass::NoteWait(int router) {
  const Operation& op = program_->operations[router];
  Gate& gate = gates_[op.moe_layer];
  for (size_t rank = 0; rank < ranks_; ++rank) {
    if (finish_of(router)[rank] != gate.opened) continue;
    gate.wait = std::max(gate.wait, gate.opened - (start_of(router)[rank] + CostsOf(op)[rank].time));
  }
}

void ForwardPass::StartExchange(int operation) {
  const Operation& op = program_->operations[operation];
  const bool under_way = next_.operation == operation;
  ReadyFor(op, next_.ready.data());
  if (!under_way) MakeExchange(op, &next_);
  for (size_t rank = 0; rank < ranks_; ++rank) release_[rank] = next_.ready[rank] + exchange_.launch;
  if (under_way) return context_.network->Revise(next_.phase, release_);
  next_.operation = operation;
  next_.phase =
      context_.network->Start(kBatchStream, exchange_.traffic, release_,
                              [this](PhaseId phase, absl::Span<const SimTime> finish) { OnReport(phase, finish); });
}

void ForwardPass::MakeExchange(const Operation& operation, Flight* flight) {
  const Communication& communication = *context_.communication;
  flight->source = CostSource::kNetwork;
  switch (operation.kind) {
    case StageKind::kStatistics:
      communication.Statistics(1, &exchange_);
      break;
    case StageKind::kDispatch:
      communication.Dispatch(work_->routed[PieceOf(operation)], &exchange_);
      break;
    case StageKind::kCombine:
      communication.Combine(work_->routed[PieceOf(operation)], &exchange_);
      break;
    default: {
      EPSIM_CHECK(operation.kind == StageKind::kFusedExperts);
      communication.Dispatch(work_->routed[PieceOf(operation)], &exchange_);
      communication.Combine(work_->routed[PieceOf(operation)], &combine_);
      std::vector<int64_t>& bytes = exchange_.traffic.bytes;
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] += combine_.traffic.bytes[i];
      exchange_.launch = std::max(exchange_.launch, combine_.launch);
      exchange_.floor = std::max(exchange_.floor, combine_.floor);
      for (size_t rank = 0; rank < ranks_; ++rank) exchange_.busy[rank] += combine_.busy[rank];
    }
  }
  for (size_t rank = 0; rank < ranks_; ++rank) {
    flight->least[rank] = std::max(exchange_.floor, exchange_.launch + exchange_.busy[rank]);
  }
  if (operation.kind != StageKind::kFusedExperts) return;
  const Cost* const costs = CostsOf(operation);
  // The source of the longest: which rank is the last is not known yet.
  size_t longest = 0;
  for (size_t rank = 1; rank < ranks_; ++rank) {
    if (costs[rank].time > costs[longest].time) longest = rank;
  }
  flight->source = costs[longest].source;
  for (size_t rank = 0; rank < ranks_; ++rank) flight->least[rank] = std::max(flight->least[rank], costs[rank].time);
}

void ForwardPass::OnReport(PhaseId phase, absl::Span<const SimTime> finish) {
  if (next_.operation >= 0 && next_.phase == phase) {
    // Every rank has been released, so that all that led there is final, the exchange before it included.
    ShowFinal(++reported_);
    std::swap(last_, next_);
    next_.operation = -1;
  } else if (last_.operation < 0 || last_.phase != phase || done_) {
    return;
  }
  TakeFinishes(last_, finish);
  Advance();
}

void ForwardPass::TakeFinishes(const Flight& flight, absl::Span<const SimTime> finish) {
  SimTime* const start_of_rank = start_of(flight.operation);
  SimTime* const finish_of_rank = finish_of(flight.operation);
  size_t last = 0;
  for (size_t rank = 0; rank < ranks_; ++rank) {
    start_of_rank[rank] = flight.ready[rank];
    finish_of_rank[rank] = std::max(finish[rank], flight.ready[rank] + flight.least[rank]);
    if (finish_of_rank[rank] > finish_of_rank[last]) last = rank;
  }
  source_[flight.operation] = finish_of_rank[last] == finish[last] ? CostSource::kNetwork : flight.source;
  link_class_[flight.operation] = context_.network->limiting_class();
}

void ForwardPass::Finish() {
  const uint64_t event = ++finish_event_;
  const int last = static_cast<int>(program_->operations.size()) - 1;
  context_.queue->Schedule(Latest({finish_of(last), ranks_}), Phase::kComplete, [this, event] {
    if (event != finish_event_) return;
    ShowFinal(static_cast<int>(program_->exchanges.size()) + 1);
    done_ = true;
  });
}

void ForwardPass::ShowFinal(int exchanges) {
  const std::vector<ProgramHook>& hooks = program_->hooks;
  const auto show_hooks = [&](const Operation& operation, bool at_finish) {
    for (; shown_hooks_ < hooks.size(); ++shown_hooks_) {
      const ProgramHook& hook = hooks[shown_hooks_];
      if (static_cast<size_t>(hook.operation) != shown_ || hook.at_finish != at_finish) return;
      const SimTime* const time = at_finish ? finish_of(hook.operation) : start_of(hook.operation);
      const HookRecord record{
          .hook = hook.hook, .moe_layer = operation.moe_layer, .repeat = operation.repeat, .time = {time, ranks_}};
      for (Observer* observer : context_.observers) observer->OnHook(record);
    }
  };
  for (; shown_ < program_->operations.size(); ++shown_) {
    const Operation& operation = program_->operations[shown_];
    if (operation.exchanges >= exchanges) return;
    const int place = static_cast<int>(shown_);
    if (operation.kind == StageKind::kRouter) NoteWait(place);
    show_hooks(operation, false);
    const StageRecord record{.kind = operation.kind,
                             .layer = operation.layer,
                             .part = operation.part,
                             .chunk = operation.chunk,
                             .repeat = operation.repeat,
                             .source = source_[place],
                             .link_class = link_class_[place],
                             .start = {start_of(place), ranks_},
                             .finish = {finish_of(place), ranks_}};
    for (Observer* observer : context_.observers) observer->OnStage(record);
    show_hooks(operation, true);
  }
}

}  // namespace epsim
