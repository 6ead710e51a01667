#include "experiments/accuracy/fit.h"

#include <nlopt.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "models/timing/library_timing.h"

namespace epsim {
namespace {

constexpr double kLossExponent = 1.5;
constexpr double kTolerance = 1e-5;  // Of the logarithm of a parameter.
constexpr int kMostEvaluations = 2000;

// A fitted field: its starting value and the unit that its text carries.
struct Parameter {
  std::string field;
  double start;
  std::string unit;  // With the space before it; empty for a plain number.
  double range;

  std::string Text(double logarithm) const { return absl::StrFormat("%.4g%s", start * std::exp(logarithm), unit); }
};

struct Row {
  const Case* measured;
  std::string family;
  std::unique_ptr<CaseModel> model;
};

absl::StatusOr<Parameter> ParameterFrom(const FittedParameter& spec) {
  Parameter parameter{.field = spec.field(), .start = 0, .unit = {}, .range = spec.range() == 0 ? 10 : spec.range()};
  char* end = nullptr;
  parameter.start = std::strtod(spec.start().c_str(), &end);
  parameter.unit = end;
  if (!(parameter.start > 0 && std::isfinite(parameter.start))) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter ", spec.field(), ": start: \"", spec.start(), "\" is not positive"));
  }
  if (!(parameter.range > 1 && parameter.range <= 1e6)) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter ", spec.field(), ": range: ", spec.range(), " is not above 1"));
  }
  return parameter;
}

// Of one fit: what is being tried.
class Search {
 public:
  // `timings` by family.
  Search(std::map<std::string, LibraryTiming> timings, std::vector<Parameter> parameters, std::vector<Row> rows,
         const StopToken& stop)
      : timings_(std::move(timings)), parameters_(std::move(parameters)), rows_(std::move(rows)), stop_(stop) {}

  // The parameters' logarithms with the least loss over the rows of all groups but `left_out`, from `start` on.
  absl::StatusOr<std::vector<double>> Minimise(const std::string& left_out, std::vector<double> start) {
    left_out_ = &left_out;
    failure_ = absl::OkStatus();
    const auto n = static_cast<unsigned>(parameters_.size());
    const std::unique_ptr<nlopt_opt_s, decltype(&nlopt_destroy)> search(nlopt_create(NLOPT_LN_SBPLX, n), nlopt_destroy);
    search_ = search.get();
    std::vector<double> bound, first_step(n, 0.1);
    for (const Parameter& parameter : parameters_) bound.push_back(std::log(parameter.range));
    nlopt_set_upper_bounds(search_, bound.data());
    for (double& b : bound) b = -b;
    nlopt_set_lower_bounds(search_, bound.data());
    nlopt_set_initial_step(search_, first_step.data());
    nlopt_set_xtol_abs1(search_, kTolerance);
    nlopt_set_maxeval(search_, kMostEvaluations);
    nlopt_set_min_objective(search_, &Search::Objective, this);
    double loss = 0;
    const nlopt_result result = nlopt_optimize(search_, start.data(), &loss);
    RETURN_IF_ERROR(failure_);
    if (result < 0 && result != NLOPT_ROUNDOFF_LIMITED) {
      return absl::InternalError(absl::StrCat("fit: NLopt ends with ", nlopt_result_to_string(result)));
    }
    return start;
  }

  // Sets the parameters in all timings.
  void Try(absl::Span<const double> logarithms) {
    for (auto& [family, timing] : timings_) {
      for (size_t i = 0; i < parameters_.size(); ++i) {
        const absl::Status status =
            SetField(absl::StrCat(parameters_[i].field, "=", parameters_[i].Text(logarithms[i])), &timing);
        EPSIM_CHECK(status.ok());
      }
    }
  }

  absl::StatusOr<PredictedCase> Predict(Row& row) {
    PredictedCase predicted{.measured = row.measured};
    ASSIGN_OR_RETURN(predicted.predicted, row.model->Predict(&timings_.at(row.family)));
    predicted.balancedness = row.model->balancedness();
    return predicted;
  }

  std::vector<Row>& rows() { return rows_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::map<std::string, LibraryTiming>& timings() const { return timings_; }

 private:
  static double Objective(unsigned n, const double* logarithms, double*, void* self) {
    return static_cast<Search*>(self)->Loss({logarithms, n});
  }

  double Loss(absl::Span<const double> logarithms) {
    if (failure_.ok()) failure_ = stop_.Check();
    Try(logarithms);
    double loss = 0;
    for (Row& row : rows_) {
      if (!failure_.ok()) break;
      if (row.model->group() == *left_out_) continue;
      const absl::StatusOr<PredictedCase> predicted = Predict(row);
      failure_ = predicted.status();
      if (predicted.ok()) loss += std::pow(std::abs(std::log1p(predicted->error())), kLossExponent);
    }
    if (!failure_.ok()) nlopt_force_stop(search_);
    return loss;
  }

  std::map<std::string, LibraryTiming> timings_;
  const std::vector<Parameter> parameters_;
  std::vector<Row> rows_;
  const StopToken stop_;
  nlopt_opt search_ = nullptr;
  const std::string* left_out_ = nullptr;
  absl::Status failure_;
};

// The entry of `timings`, from the catalogue where it is not there yet.
absl::StatusOr<LibraryTiming*> Entry(const std::string& library, const std::string& family, Timings* timings) {
  const auto known = timings->find({library, family});
  if (known != timings->end()) return &known->second;
  ASSIGN_OR_RETURN(LibraryTiming timing, FindTiming(library, family));
  return &timings->emplace(std::pair(library, family), std::move(timing)).first->second;
}

// The value at `path` of `message`, as SetField takes it.
absl::StatusOr<std::string> FieldText(const std::string& path, const google::protobuf::Message& message) {
  const google::protobuf::Message* holder = &message;
  const google::protobuf::FieldDescriptor* field = nullptr;
  for (const absl::string_view name : absl::StrSplit(path, '.')) {
    if (field != nullptr) {
      if (field->message_type() == nullptr) break;
      holder = &holder->GetReflection()->GetMessage(*holder, field);
    }
    field = holder->GetDescriptor()->FindFieldByName(std::string(name));
    if (field == nullptr) break;
  }
  if (field != nullptr && !field->is_repeated()) {
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
      return holder->GetReflection()->GetString(*holder, field);
    }
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE) {
      return absl::StrFormat("%.17g", holder->GetReflection()->GetDouble(*holder, field));
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("no quantity \"", path, "\" in a timing"));
}

bool Among(const std::string& name, const google::protobuf::RepeatedPtrField<std::string>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The family of the plan that is fitted on `measured`, null without.
const FitGroup::Family* FamilyOf(const FitGroup& plan, const Case& measured) {
  if (!measured.tight) return nullptr;
  if (plan.case_libraries().empty() ? measured.library != plan.library()
                                    : !Among(measured.library, plan.case_libraries())) {
    return nullptr;
  }
  for (const FitGroup::Family& family : plan.family()) {
    if (Among(measured.platform, family.platforms())) return &family;
  }
  return nullptr;
}

}  // namespace

FitPlan ShippedFitPlan() {
  FitPlan all;
  for (const CatalogueFile& file : FitPlans()) {
    FitPlan plan;
    EPSIM_CHECK(ParseTextProto(file.text, file.path, &plan).ok());
    all.MergeFrom(plan);
  }
  return all;
}

bool HasRows(const FitGroup& plan, const std::vector<Case>& cases) {
  return std::any_of(cases.begin(), cases.end(),
                     [&](const Case& measured) { return FamilyOf(plan, measured) != nullptr; });
}

absl::StatusOr<Fit> FitTimings(const FitGroup& plan, const std::vector<Case>& cases, Timings* timings,
                               const StopToken& stop, Progress* progress) {
  const auto problem = [&](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("fit of ", plan.library(), ": ", parts...));
  };
  std::map<std::string, LibraryTiming> start;
  for (const FitGroup::Family& family : plan.family()) {
    ASSIGN_OR_RETURN(const LibraryTiming* entry, Entry(plan.library(), family.name(), timings));
    LibraryTiming& timing = start[family.name()] = *entry;
    for (const FitGroup::Taken& taken : plan.taken()) {
      ASSIGN_OR_RETURN(
          const LibraryTiming* other,
          Entry(taken.from_library(), taken.from_family().empty() ? family.name() : taken.from_family(), timings));
      ASSIGN_OR_RETURN(const std::string value, FieldText(taken.from_field(), *other));
      if (const absl::Status status = SetField(absl::StrCat(taken.field(), "=", value), &timing); !status.ok()) {
        return problem("taken ", taken.field(), ": ", status.message());
      }
    }
  }
  std::vector<Parameter> parameters;
  for (const FittedParameter& spec : plan.parameter()) {
    absl::StatusOr<Parameter> parameter = ParameterFrom(spec);
    if (!parameter.ok()) return problem(parameter.status().message());
    LibraryTiming tried;
    if (const absl::Status status = SetField(absl::StrCat(spec.field(), "=", spec.start()), &tried); !status.ok()) {
      return problem("parameter ", spec.field(), ": ", status.message());
    }
    parameters.push_back(*std::move(parameter));
  }

  std::vector<Row> rows;
  std::set<std::string> groups;
  for (const Case& measured : cases) {
    const FitGroup::Family* family = FamilyOf(plan, measured);
    if (family == nullptr) continue;
    ASSIGN_OR_RETURN(std::unique_ptr<CaseModel> model, NewCaseModel(measured));
    groups.insert(model->group());
    rows.push_back({&measured, family->name(), std::move(model)});
  }
  Fit fit{.groups = static_cast<int>(groups.size())};
  const int most = std::min(fit.groups / 3, kMostFittedParameters);
  if (parameters.empty()) return problem("no parameters");
  if (static_cast<int>(parameters.size()) > most) {
    return problem(parameters.size(), " parameters for ", rows.size(), " tight rows of ", fit.groups,
                   " setups; at most ", most, " (one for three setups, never more than ", kMostFittedParameters, ")");
  }

  Search search(std::move(start), std::move(parameters), std::move(rows), stop);
  const auto report = [&](int done) {
    if (progress != nullptr) progress->Set(int64_t{1000} * done / (fit.groups + 1));
  };
  report(0);
  ASSIGN_OR_RETURN(const std::vector<double> best,
                   search.Minimise("", std::vector<double>(search.parameters().size(), 0.0)));
  int done = 1;
  for (const std::string& group : groups) {
    report(done++);
    ASSIGN_OR_RETURN(const std::vector<double> without, search.Minimise(group, best));
    search.Try(without);
    for (Row& row : search.rows()) {
      if (row.model->group() != group) continue;
      ASSIGN_OR_RETURN(PredictedCase left_out, search.Predict(row));
      fit.left_out.push_back(std::move(left_out));
    }
  }
  search.Try(best);
  for (Row& row : search.rows()) {
    ASSIGN_OR_RETURN(PredictedCase fitted, search.Predict(row));
    fit.fitted.push_back(std::move(fitted));
  }
  for (size_t i = 0; i < best.size(); ++i) fit.values.push_back(search.parameters()[i].Text(best[i]));
  for (const auto& [family, timing] : search.timings()) (*timings)[{plan.library(), family}] = timing;
  return fit;
}

}  // namespace epsim
