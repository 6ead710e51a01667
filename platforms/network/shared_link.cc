#include "platforms/network/shared_link.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/check.h"
#include "platforms/network/lane_time.h"

namespace epsim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

bool SharedLink::Has(PhaseId phase) const {
  return std::any_of(jobs_.begin(), jobs_.end(), [phase](const Job& job) { return job.phase == phase; });
}

void SharedLink::Begin(SimTime begin) {
  EPSIM_CHECK(jobs_.empty());
  served_until_ = begin;
}

void SharedLink::Add(PhaseId phase, StreamId stream, SimTime not_before, std::vector<OfferedFlow> flows) {
  EPSIM_CHECK(!flows.empty() && !Has(phase));
  EPSIM_CHECK(flows.front().time >= served_until_);
  jobs_.push_back(
      {.phase = phase, .stream = stream, .not_before = not_before, .flows = std::move(flows), .waiting = {}});
}

void SharedLink::ReplaceFlowsToCome(PhaseId phase, std::vector<OfferedFlow> flows) {
  const auto job = std::find_if(jobs_.begin(), jobs_.end(), [phase](const Job& j) { return j.phase == phase; });
  EPSIM_CHECK(job != jobs_.end());
  EPSIM_CHECK(flows.empty() || flows.front().time >= served_until_);
  job->flows = std::move(flows);
}

double SharedLink::Serve(const SimTime* until, absl::FunctionRef<void(size_t, int32_t, double)> ended) {
  const auto after = [this](SimTime time) { return static_cast<double>((time - served_until_).count()); };
  const double end = until == nullptr ? kNever : after(*until);
  progress_.assign(jobs_.size(), {});
  served_.clear();
  double now = 0, each = 0;  // `each`: served of every flow that has been there all the time.
  while (true) {
    // What begins now, and when something next does.
    double next = end;
    bool waits = false, stopped = false;
    const size_t before = served_.size();
    for (size_t i = 0; i < jobs_.size(); ++i) {
      const Job& job = jobs_[i];
      Progress& p = progress_[i];
      if (p.done) continue;
      const auto serve = [&](double picoseconds, int32_t name) {
        served_.push_back({each + picoseconds, static_cast<uint32_t>(i), name});
        ++p.served;
      };
      if (!p.turn && now < end) {
        p.turn = true;
        for (size_t j = 0; j < i; ++j) p.turn &= progress_[j].done || jobs_[j].stream != job.stream;
        if (p.turn && after(job.not_before) > now) {
          p.turn = false;
          next = std::min(next, after(job.not_before));
          waits = true;
        }
        if (p.turn) {
          for (const Waiting& flow : job.waiting) serve(flow.picoseconds, flow.name);
        }
      }
      // A flow that comes before its job's turn is served from then on.
      if (p.turn) {
        for (; p.next_flow < job.flows.size() && after(job.flows[p.next_flow].time) <= now && now < end;
             ++p.next_flow) {
          serve(job.flows[p.next_flow].picoseconds, job.flows[p.next_flow].name);
        }
        if (p.next_flow < job.flows.size()) {
          next = std::min(next, after(job.flows[p.next_flow].time));
          waits = true;
        } else if (p.served == 0) {
          p.done = stopped = true;  // The next of its stream, if any, has its turn now.
          ended(i, -1, now);
        }
      }
    }
    if (served_.size() > before + 8) {
      std::make_heap(served_.begin(), served_.end());
    } else {
      for (size_t i = before + 1; i <= served_.size(); ++i) {
        std::push_heap(served_.begin(), served_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    if (stopped) continue;
    if (now >= end || (served_.empty() && !waits)) return each;
    // Until then flows end one by one.  If nothing is to come any more, all do, in the order of their ends.
    const bool last = next == kNever;
    if (last) std::sort(served_.begin(), served_.end());
    bool job_ended = false;
    while (!served_.empty() && !job_ended) {
      const Served flow = last ? served_.back() : served_.front();
      const auto flows = static_cast<double>(served_.size());
      const double finish = now + (flow.end - each) * flows;
      if (finish > next) {
        each += (next - now) / flows;
        break;
      }
      now = std::max(now, finish);
      each = std::max(each, flow.end);
      if (!last) std::pop_heap(served_.begin(), served_.end());
      served_.pop_back();
      ended(flow.job, flow.name, now);
      job_ended = --progress_[flow.job].served == 0;
    }
    // Sorted the other way it is a heap again.
    if (last) std::reverse(served_.begin(), served_.end());
    if (!job_ended) now = next;
  }
}

void SharedLink::ServeUntil(SimTime now) {
  if (jobs_.empty()) return;
  EPSIM_CHECK(now >= served_until_);
  const double each = Serve(&now, [](size_t, int32_t, double) {});
  for (size_t i = 0; i < jobs_.size(); ++i) {
    Job& job = jobs_[i];
    if (progress_[i].turn) job.waiting.clear();
    // Those that came before their turn wait.
    size_t& come = progress_[i].next_flow;
    for (; come < job.flows.size() && job.flows[come].time < now; ++come) {
      job.waiting.push_back({job.flows[come].picoseconds, job.flows[come].name});
    }
    job.flows.erase(job.flows.begin(), job.flows.begin() + static_cast<std::ptrdiff_t>(come));
  }
  for (const Served& flow : served_) jobs_[flow.job].waiting.push_back({std::max(0.0, flow.end - each), flow.name});
  served_until_ = now;
  // The finish that was told decides, not the last fraction of a picosecond.
  std::erase_if(jobs_, [now](const Job& job) { return job.finish <= now; });
}

void SharedLink::Solve(absl::FunctionRef<void(PhaseId, SimTime finish, absl::Span<const FlowFinish>)> told) {
  if (ended_.size() < jobs_.size()) ended_.resize(jobs_.size());
  for (std::vector<FlowFinish>& flows : ended_) flows.clear();
  Serve(nullptr, [&](size_t job, int32_t name, double picoseconds) {
    const SimTime finish = RoundUpFrom(served_until_, picoseconds);
    if (name >= 0) {
      ended_[job].push_back({finish, name});
      return;
    }
    jobs_[job].finish = finish;
    told(jobs_[job].phase, finish, ended_[job]);
  });
}

}  // namespace epsim
