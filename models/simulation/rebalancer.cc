#include "models/simulation/rebalancer.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"

namespace epsim {
namespace {

// Beside the batch's (forward_pass.cc).
constexpr StreamId kMigrationStream{1};

std::vector<Layer> AllLayers(int layers) {
  std::vector<Layer> all;
  for (int layer = 0; layer < layers; ++layer) all.push_back(Layer(layer));
  return all;
}

}  // namespace

Rebalancer::Rebalancer(RebalanceSetup setup, const ForwardContext& context, PlacedRouting* routing, ForwardPass* pass)
    : setup_(std::move(setup)),
      context_(context),
      routing_(routing),
      pass_(pass),
      shape_(routing->placement().shape()),
      launch_(ParseDuration(setup_.config.migration().launch()).value()),
      planning_per_layer_(ParseDuration(setup_.config.planning_time_per_layer()).value()),
      statistics_(setup_.config.statistics(), shape_),
      schedule_(setup_.config, shape_.layers),
      tokens_of_rank_(static_cast<size_t>(shape_.layers) * shape_.ranks),
      detection_(setup_.elastic.failures().empty() ? Duration{}
                                                   : ParseDuration(setup_.elastic.detection_time()).value()),
      away_(shape_.ranks) {
  for (const Failure& failure : setup_.elastic.failures()) {
    Change change{.at = ParseDuration(failure.at()).value(), .ranks = {}, .fails = true, .text = {}};
    const int of_node = shape_.ranks / shape_.nodes;
    const int first =
        failure.has_node() ? static_cast<int>(failure.node()) * of_node : static_cast<int>(failure.rank());
    for (int rank = first; rank < first + (failure.has_node() ? of_node : 1); ++rank)
      change.ranks.push_back(Rank(rank));
    const std::string what = failure.has_node() ? absl::StrCat("node ", failure.node()) : absl::StrCat("rank ", first);
    change.text = absl::StrCat(what, " failed");
    changes_.push_back(change);
    if (failure.returns_after().empty()) continue;
    change.at += ParseDuration(failure.returns_after()).value();
    change.fails = false;
    change.text = absl::StrCat(what, " returned");
    changes_.push_back(std::move(change));
  }
  std::stable_sort(changes_.begin(), changes_.end(), [](const Change& a, const Change& b) { return a.at > b.at; });
}

RebalanceRecord* Rebalancer::NewRecord(std::string reason) {
  RebalanceRecord& record = records_.emplace_back();
  record.step = step_;
  record.time = now();
  record.reason = std::move(reason);
  return &record;
}

void Rebalancer::NoteStall(StageKind kind, CostSource source, SimTime begin, RebalanceRecord* record) {
  if (now() == begin) return;
  record->stall += now() - begin;
  const std::vector<SimTime> start(shape_.ranks, begin), finish(shape_.ranks, now());
  const StageRecord stage{.kind = kind,
                          .layer = static_cast<int>(context_.model->layers()),
                          .source = source,
                          .link_class = context_.network->limiting_class(),
                          .start = start,
                          .finish = finish};
  for (Observer* observer : context_.observers) observer->OnStage(stage);
}

absl::Status Rebalancer::RunUntil(const bool& over) {
  while (!over) {
    RETURN_IF_ERROR(stop_.Check());
    context_.queue->Step();
  }
  return absl::OkStatus();
}

absl::Status Rebalancer::RunUntil(SimTime when) {
  bool over = false;
  context_.queue->Schedule(when, Phase::kDecide, [&over] { over = true; });
  return RunUntil(over);
}

absl::StatusOr<std::pair<Placement, Duration>> Rebalancer::Plan(absl::Span<const Layer> layers) {
  PlacementRequest request;
  request.window = statistics_.Window(layers, routing_->placement());
  std::vector<double> alike;
  if (request.window.rows == 0) {  // Ranks failed before any load was seen.
    alike.assign(static_cast<size_t>(shape_.layers) * shape_.experts, 1.0);
    request.window = {.rows = 1, .layers = shape_.layers, .experts = shape_.experts, .tokens = alike};
  }
  request.previous = &routing_->placement();
  request.layers = layers;
  request.failed = failed_;
  request.cost = setup_.cost_view;
  if (setup_.profiler != nullptr) request.profile = setup_.profiler->Profile();
  const CoActivation together = setup_.co_activation != nullptr ? setup_.co_activation->view() : CoActivation{};
  if (together.tokens > 0) request.co_activation = &together;
  request.random = setup_.random;
  const auto begin = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(Placement placement, setup_.policy->Place(request));
  Duration time = planning_per_layer_ * static_cast<int64_t>(layers.size());
  if (setup_.config.measure_planning_time()) {
    time = std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - begin);
  }
  for (Layer layer : layers) statistics_.Planned(layer);
  return std::pair(std::move(placement), time);
}

std::shared_ptr<Rebalancer::Transfer> Rebalancer::NewTransfer(absl::Span<const Layer> layers, const Placement& next,
                                                              RebalanceRecord* record) {
  auto transfer = std::make_shared<Transfer>();
  const MigrationConfig& config = setup_.config.migration();
  transfer->migration = NewMigration(shape_.ranks, config);
  transfer->record = record;
  std::vector<int32_t> sent(shape_.ranks);
  for (Layer layer : layers) {
    const std::vector<SlotMove> moves = FindSlotMoves(
        routing_->placement(), next, layer, config.source() == MigrationConfig::HOST, absl::MakeSpan(sent), away());
    AddMoves(moves, shape_, setup_.expert_bytes, config.buffered(), &transfer->migration);
    transfer->layers.push_back(layer);
    if (!moves.empty()) ++record->layers;
  }
  record->slots += transfer->migration.slots;
  for (int way = 0; way < kMoveWays; ++way) record->bytes[way] += transfer->migration.bytes[way];
  return transfer;
}

void Rebalancer::StartPhase(const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                            std::function<void()> done) {
  // The network may report again, with other finishes: only the newest counts.
  auto version = std::make_shared<int>(0);
  context_.network->Start(kMigrationStream, traffic, release,
                          [this, version, done = std::move(done)](PhaseId, absl::Span<const SimTime> finish) {
                            const int reported = ++*version;
                            const SimTime last = *std::max_element(finish.begin(), finish.end());
                            context_.queue->Schedule(std::max(last, now()), Phase::kComplete,
                                                     [version, reported, done] {
                                                       if (reported != *version) return;
                                                       ++*version;  // No report counts after this.
                                                       done();
                                                     });
                          });
}

void Rebalancer::Start(std::shared_ptr<Transfer> transfer, SimTime when, std::function<void()> arrived) {
  EPSIM_CHECK(when >= now());
  const auto done = [transfer, arrived = std::move(arrived)] {
    transfer->arrived = true;
    if (arrived) arrived();
  };
  if (!transfer->migration.travels()) {
    context_.queue->Schedule(when, Phase::kComplete, done);
    return;
  }
  context_.queue->Schedule(when, Phase::kArrive, [this, transfer, done] {
    StartPhase(transfer->migration.traffic, std::vector<SimTime>(shape_.ranks, now()), done);
  });
}

void Rebalancer::Install(const Transfer& transfer) {
  for (Layer layer : transfer.layers) routing_->SwitchLayer(layer, *next_);
}

absl::Status Rebalancer::GatherStatistics(RebalanceRecord* record) {
  if (context_.communication->footprint().statistics_ride_along) return absl::OkStatus();
  Exchange exchange;
  context_.communication->Statistics(shape_.layers, &exchange);
  const SimTime begin = now();
  bool gathered = false;
  StartPhase(exchange.traffic, std::vector<SimTime>(shape_.ranks, begin + exchange.launch),
             [&gathered] { gathered = true; });
  RETURN_IF_ERROR(RunUntil(gathered));
  const Duration busy = *std::max_element(exchange.busy.begin(), exchange.busy.end());
  RETURN_IF_ERROR(RunUntil(std::max(now(), begin + std::max(exchange.floor, exchange.launch + busy))));
  NoteStall(StageKind::kStatistics, CostSource::kNetwork, begin, record);
  return absl::OkStatus();
}

absl::Status Rebalancer::PlanAll(std::string reason) {
  current_ = NewRecord(std::move(reason));
  schedule_.Planned();
  RETURN_IF_ERROR(GatherStatistics(current_));
  const std::vector<Layer> all = AllLayers(shape_.layers);
  const SimTime begin = now();
  using Planned = std::pair<Placement, Duration>;
  ASSIGN_OR_RETURN(Planned planned, Plan(all));
  next_ = std::move(planned.first);
  current_->planning = planned.second;
  ready_ = begin + planned.second;
  if (!setup_.config.async_layer().background_planning()) {
    RETURN_IF_ERROR(RunUntil(ready_));
    NoteStall(StageKind::kPlanning, CostSource::kGiven, begin, current_);
  }
  std::vector<Layer> order = setup_.policy->change_order();
  for (Layer layer : all) {
    if (std::find(order.begin(), order.end(), layer) == order.end()) order.push_back(layer);
  }
  size_t chunk = all.size();
  if (setup_.config.has_chunked()) chunk = setup_.config.chunked().layers_per_chunk();
  if (setup_.config.has_async_layer()) chunk = 1;
  for (size_t first = 0; first < all.size(); first += chunk) {
    const absl::Span<const Layer> layers = absl::MakeConstSpan(order).subspan(first, chunk);
    waiting_.emplace_back(layers.begin(), layers.end());
  }
  if (setup_.config.has_async_layer()) {  // Layers that stay as they are take no turn.
    const auto stays = [&](const std::vector<Layer>& layers) {
      return routing_->placement().experts_of_slots(layers[0]) == next_->experts_of_slots(layers[0]);
    };
    for (const std::vector<Layer>& layers : waiting_) {
      if (stays(layers)) routing_->SwitchLayer(layers[0], *next_);  // Its replicas may stand in another order.
    }
    waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), stays), waiting_.end());
  }
  return absl::OkStatus();
}

absl::Status Rebalancer::StartNext() {
  transfer_ = NewTransfer(waiting_.front(), *next_, current_);
  waiting_.pop_front();
  const SimTime begin = now();
  Start(transfer_, begin + (transfer_->migration.slots > 0 ? launch_ : Duration{}), {});
  if (!serving_waits()) return absl::OkStatus();
  RETURN_IF_ERROR(RunUntil(transfer_->arrived));
  NoteStall(StageKind::kMigration, CostSource::kNetwork, begin, current_);
  return absl::OkStatus();
}

absl::Status Rebalancer::ChangeMembers() {
  std::vector<std::string> texts;
  bool failure = false;
  while (!changes_.empty() && now() - *begin_ >= changes_.back().at) {
    for (Rank rank : changes_.back().ranks) away_[Index(rank)] += changes_.back().fails ? 1 : -1;
    failure = failure || changes_.back().fails;
    texts.push_back(changes_.back().text);
    changes_.pop_back();
  }
  if (texts.empty()) return absl::OkStatus();
  failed_.clear();
  for (int rank = 0; rank < shape_.ranks; ++rank) {
    if (away_[rank] != 0) failed_.push_back(Rank(rank));
  }
  // What was being changed is given up.
  if (current_ != nullptr) current_->skipped = absl::StrCat("given up: ", absl::StrJoin(texts, ", "));
  current_ = nullptr;
  transfer_ = nullptr;
  waiting_.clear();
  updates_.clear();

  RebalanceRecord* const record = NewRecord(absl::StrJoin(texts, ", "));
  record->membership = true;
  Speed before;
  for (const Speed& speed : speeds_) {
    before.tokens += speed.tokens;
    before.time += speed.time;
  }
  if (before.time > Duration{}) record->tokens_per_s_before = before.tokens / Seconds(before.time);
  if (failure) {
    const SimTime begin = now();
    RETURN_IF_ERROR(RunUntil(begin + detection_));
    NoteStall(StageKind::kDetection, CostSource::kGiven, begin, record);
  }
  RETURN_IF_ERROR(PlaceOnMembers(record));
  speeds_.clear();
  recovering_ = record;
  recovered_steps_ = 0;
  return absl::OkStatus();
}

absl::Status Rebalancer::PlaceOnMembers(RebalanceRecord* record) {
  const std::vector<Layer> all = AllLayers(shape_.layers);
  SimTime begin = now();
  using Planned = std::pair<Placement, Duration>;
  ASSIGN_OR_RETURN(Planned planned, Plan(all));
  next_ = std::move(planned.first);
  record->planning = planned.second;
  RETURN_IF_ERROR(RunUntil(begin + planned.second));
  NoteStall(StageKind::kPlanning, CostSource::kGiven, begin, record);
  begin = now();
  const std::shared_ptr<Transfer> transfer = NewTransfer(all, *next_, record);
  Start(transfer, begin + launch_, {});
  RETURN_IF_ERROR(RunUntil(transfer->arrived));
  RETURN_IF_ERROR(RunUntil(now() + CopyTime(transfer->migration, setup_.copy_rate)));
  NoteStall(StageKind::kMigration, CostSource::kNetwork, begin, record);
  Install(*transfer);
  record->settled = now();
  schedule_.Planned();
  return absl::OkStatus();
}

absl::Status Rebalancer::BeforeStep(int64_t step, const StopToken& stop) {
  step_ = step;
  stop_ = stop;
  if (!status_.ok()) return status_;  // RETURN_IF_ERROR has a status_ of its own.
  if (!begin_.has_value()) begin_ = now();
  RETURN_IF_ERROR(ChangeMembers());
  TakeUpdates();
  bool planned = false;
  const bool busy = transfer_ != nullptr || !waiting_.empty();
  if (!busy && schedule_.due()) {
    const std::string reason = absl::StrCat("due after ", schedule_.steps(), " steps");
    if (const std::optional<double> utilization = schedule_.TooWellBalanced(); utilization.has_value()) {
      NewRecord(reason)->skipped = absl::StrFormat("utilisation %.3f is above the threshold", *utilization);
      schedule_.Planned();
    } else {
      RETURN_IF_ERROR(PlanAll(reason));
      planned = true;
    }
  }
  // SGLang lets a step pass between the plan and the first of several chunks.
  if (planned && setup_.config.has_chunked() && waiting_.size() > 1) return absl::OkStatus();
  if (transfer_ == nullptr && !waiting_.empty() && now() >= ready_) RETURN_IF_ERROR(StartNext());
  if (transfer_ != nullptr && transfer_->arrived) {
    const SimTime begin = now();
    RETURN_IF_ERROR(RunUntil(begin + CopyTime(transfer_->migration, setup_.copy_rate)));
    NoteStall(StageKind::kMigration, CostSource::kRoofline, begin, current_);
    Install(*transfer_);
    transfer_ = nullptr;
    // The next layer starts at once, into the buffer that is free again.
    if (!serving_waits() && !waiting_.empty()) RETURN_IF_ERROR(StartNext());
  }
  if (current_ != nullptr && transfer_ == nullptr && waiting_.empty()) {
    current_->settled = now();
    current_ = nullptr;
    schedule_.Settled();
  }
  return absl::OkStatus();
}

void Rebalancer::StepStarts(const StepBatch& batch, absl::Span<const RoutedLayer> layers) {
  if (setup_.co_activation != nullptr) setup_.co_activation->Add(batch);
  std::fill(tokens_of_rank_.begin(), tokens_of_rank_.end(), 0);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const std::vector<int32_t>& tokens = layers[layer].tokens_per_slot;
    statistics_.Add(Layer(layer), tokens, routing_->placement());
    for (int slot = 0; slot < shape_.slots; ++slot) {
      tokens_of_rank_[static_cast<size_t>(layer) * shape_.ranks + Index(shape_.rank_of(Slot(slot)))] += tokens[slot];
    }
  }
  turn_ = schedule_.Turn();
  turn_record_ = turn_.empty() ? nullptr : NewRecord("each step some layers");
}

void Rebalancer::StepEnded(int tokens, Duration length) {
  speeds_.push_back({static_cast<double>(tokens), length});
  if (speeds_.size() > RebalanceRecord::kSpeedSteps) speeds_.pop_front();
  if (recovering_ != nullptr && ++recovered_steps_ > 1) {
    // The first step holds the stall.
    Speed after;
    for (size_t i = speeds_.size() - std::min<size_t>(speeds_.size(), recovered_steps_ - 1); i < speeds_.size(); ++i) {
      after.tokens += speeds_[i].tokens;
      after.time += speeds_[i].time;
    }
    recovering_->tokens_per_s_after = after.tokens / Seconds(after.time);
    if (recovered_steps_ > RebalanceRecord::kSpeedSteps) recovering_ = nullptr;
  }
  schedule_.StepEnded(Utilization(tokens_of_rank_, shape_.ranks));
  for (Layer layer : gated_) gated_record_->stall += pass_->wait_for_weights(layer);
  gated_.clear();
}

void Rebalancer::OnHook(const HookRecord& hook) {
  if (hook.hook != EplbHook::kDoneSetCpu || !status_.ok()) return;
  const Layer layer{hook.moe_layer};
  if (std::find(turn_.begin(), turn_.end(), layer) == turn_.end()) return;
  UpdateOnline(layer, *std::max_element(hook.time.begin(), hook.time.end()));
}

void Rebalancer::UpdateOnline(Layer layer, SimTime when) {
  absl::StatusOr<std::pair<Placement, Duration>> planned = Plan({&layer, 1});
  if (!planned.ok()) {
    status_ = planned.status();
    return;
  }
  planner_free_ = std::max(planner_free_, when) + planned->second;
  turn_record_->planning += planned->second;
  std::shared_ptr<Transfer> transfer = NewTransfer({&layer, 1}, planned->first, turn_record_);
  updates_.push_back({layer, std::move(planned->first), transfer});
  const Duration launch = transfer->migration.slots > 0 ? launch_ : Duration{};
  const Duration copy = CopyTime(transfer->migration, setup_.copy_rate);
  // Copies within a GPU's memory follow what arrives.  The combine's end is known for good a little after it.
  Start(transfer, std::max(now(), planner_free_ + launch + copy), [this, transfer, layer] {
    transfer->record->settled = now();
    // Closed since the step under way began, if at all.
    if (std::find(gated_.begin(), gated_.end(), layer) != gated_.end()) pass_->Open(layer);
  });
}

void Rebalancer::TakeUpdates() {
  gated_record_ = turn_record_;
  for (const Update& update : updates_) {
    routing_->SwitchLayer(update.layer, update.placement);
    if (update.transfer->arrived) continue;
    pass_->Close(update.layer);
    gated_.push_back(update.layer);
  }
  updates_.clear();
}

}  // namespace epsim
