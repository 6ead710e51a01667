#include "models/kernels/expert_mlp_gpu.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

int64_t Width(NumberType type) { return type == FP8 ? 1 : 2; }  // Bytes of a value.

const void* Skip(const void* values, int64_t count, NumberType type) {
  return static_cast<const uint8_t*>(values) + count * Width(type);
}

// Slots are dealt by this: their weights, as many rows' worth as it takes to read them, and their rows.
int64_t Share(int64_t rows) { return rows == 0 ? 0 : 128 + rows; }

}  // namespace

absl::Status ExpertMlpGpu::Check(const GpuDevice& gpu, const ExpertMlpShape& shape) {
  RETURN_IF_ERROR(CheckExpertMlp(shape));
  const ExpertMlpLayout layout(shape);
  const int64_t rows = std::max<int64_t>(layout.rows(), 1);
  RETURN_IF_ERROR(TensorProduct::Check(gpu, {shape.values, rows, 2 * shape.inter, shape.hidden}));
  return TensorProduct::Check(gpu, {shape.values, rows, shape.hidden, shape.inter});
}

int64_t ExpertMlpGpu::Bytes(const ExpertMlpShape& shape) {
  const ExpertMlpLayout layout(shape);
  const int64_t fp8 = shape.values == FP8 ? 4 * layout.row_scales(shape.inter) +
                                                layout.rows() * static_cast<int64_t>(sizeof(ScalePlace))
                                          : 0;
  return layout.rows() * shape.inter * (4 + Width(shape.values)) + fp8 + kMostStreams * TensorProduct::kWorkspaceBytes;
}

absl::StatusOr<std::unique_ptr<ExpertMlpGpu>> ExpertMlpGpu::Create(const GpuDevice& gpu, const ExpertMlpShape& shape,
                                                                   Calls calls, int streams) {
  RETURN_IF_ERROR(Check(gpu, shape));
  EPSIM_CHECK(streams >= 1 && streams <= kMostStreams);
  std::unique_ptr<ExpertMlpGpu> mlp(new ExpertMlpGpu(gpu, shape));
  mlp->calls_ = calls;
  RETURN_IF_ERROR(mlp->Allocate());
  RETURN_IF_ERROR(mlp->MakeLanes(calls == Calls::kGrouped ? 1 : streams));
  if (calls == Calls::kGrouped) RETURN_IF_ERROR(mlp->MakeGroupedCalls());
  return mlp;
}

absl::Status ExpertMlpGpu::Allocate() {
  const int64_t rows = layout_.rows(), inter = shape_.inter;
  ASSIGN_OR_RETURN(h_, DeviceBuffer<uint16_t>::Allocate(rows * 2 * inter));
  ASSIGN_OR_RETURN(a_, DeviceBuffer<uint8_t>::Allocate(rows * inter * Width(shape_.values)));
  ASSIGN_OR_RETURN(begun_, NewEvent(cudaEventDisableTiming));
  if (shape_.values != FP8) return absl::OkStatus();
  ASSIGN_OR_RETURN(a_scales_, DeviceBuffer<float>::Allocate(layout_.row_scales(inter)));
  std::vector<ScalePlace> places;
  for (int64_t slot = 0; slot < layout_.slots(); ++slot) {
    for (int64_t row = 0; row < layout_.padded_rows(slot); ++row) {
      places.push_back({.first = layout_.RowScale(slot, row, 0, inter), .stride = layout_.padded_rows(slot)});
    }
  }
  ASSIGN_OR_RETURN(places_, DeviceBuffer<ScalePlace>::Allocate(rows));
  return CopyToDevice(places.data(), places_);
}

absl::Status ExpertMlpGpu::MakeLanes(int streams) {
  int64_t all = 0, dealt = 0;
  for (int64_t slot = 0; slot < layout_.slots(); ++slot) all += Share(layout_.padded_rows(slot));
  int64_t slot = 0;
  for (int i = 0; i < streams; ++i) {
    Lane lane;
    lane.begin = slot;
    while (slot < layout_.slots() && (i + 1 == streams || dealt * streams < all * (i + 1))) {
      dealt += Share(layout_.padded_rows(slot++));
    }
    lane.end = slot;
    if (layout_.row_begin(lane.begin) == layout_.row_begin(lane.end)) continue;  // Nothing was left for it.
    if (!lanes_.empty()) {
      ASSIGN_OR_RETURN(lane.stream, NewStream());
      ASSIGN_OR_RETURN(lane.done, NewEvent(cudaEventDisableTiming));
    }
    ASSIGN_OR_RETURN(lane.workspace, DeviceBuffer<uint8_t>::Allocate(TensorProduct::kWorkspaceBytes));
    for (int64_t mine = lane.begin; mine < lane.end && calls_ == Calls::kPerSlot; ++mine) {
      const int64_t rows = layout_.padded_rows(mine);
      if (rows == 0 || lane.products.contains(rows)) continue;
      void* const workspace = lane.workspace.data();
      ASSIGN_OR_RETURN(TensorProduct gate_up,
                       TensorProduct::Create(gpu_, {shape_.values, rows, 2 * shape_.inter, shape_.hidden}, workspace));
      ASSIGN_OR_RETURN(TensorProduct down,
                       TensorProduct::Create(gpu_, {shape_.values, rows, shape_.hidden, shape_.inter}, workspace));
      lane.products.emplace(rows, std::pair(std::move(gate_up), std::move(down)));
    }
    lanes_.push_back(std::move(lane));
  }
  return absl::OkStatus();
}

absl::Status ExpertMlpGpu::MakeGroupedCalls() {
  if (shape_.values != BF16) {
    return absl::UnimplementedError(
        absl::StrCat("cuBLAS has no grouped product in ", NumberType_Name(shape_.values), " with block scales"));
  }
  const CublasLibrary& cublas = gpu_.cublas();
  cublasHandle_t handle = nullptr;
  RETURN_IF_ERROR(cublas.Status(cublas.create(&handle), "cublasCreate"));
  handle_ = {handle, cublas.destroy};
  const auto add = [](GroupedCall& call, int64_t rows, int64_t n, int64_t k) {
    call.transpose_w.push_back(CUBLAS_OP_T);
    call.transpose_x.push_back(CUBLAS_OP_N);
    call.m.push_back(static_cast<int>(n));
    call.n.push_back(static_cast<int>(rows));
    call.k.push_back(static_cast<int>(k));
    call.w_stride.push_back(static_cast<int>(k));
    call.x_stride.push_back(static_cast<int>(k));
    call.y_stride.push_back(static_cast<int>(n));
    call.size.push_back(1);
    call.one.push_back(1);
    call.zero.push_back(0);
  };
  for (int64_t slot = 0; slot < layout_.slots(); ++slot) {
    const int64_t rows = layout_.padded_rows(slot);
    if (rows == 0) continue;
    add(gate_up_, rows, 2 * shape_.inter, shape_.hidden);
    add(down_, rows, shape_.hidden, shape_.inter);
  }
  return absl::OkStatus();
}

absl::StatusOr<int> ExpertMlpGpu::Bind(const ExpertMlpInputs& inputs, uint16_t* y) {
  Binding binding = {.inputs = inputs, .y = y, .pointers = {}};
  if (calls_ == Calls::kGrouped) {
    const size_t groups = gate_up_.m.size();
    std::vector<void*> pointers(6 * groups);
    size_t group = 0;
    for (int64_t slot = 0; slot < layout_.slots(); ++slot) {
      if (layout_.padded_rows(slot) == 0) continue;
      const int64_t row = layout_.row_begin(slot), weights = slot * shape_.hidden * shape_.inter;
      const auto put = [&](size_t array, const void* place) {
        pointers[array * groups + group] = const_cast<void*>(place);
      };
      put(0, Skip(inputs.gate_up, 2 * weights, BF16));
      put(1, Skip(inputs.x, row * shape_.hidden, BF16));
      put(2, h_.data() + row * 2 * shape_.inter);
      put(3, Skip(inputs.down, weights, BF16));
      put(4, Skip(a_.data(), row * shape_.inter, BF16));
      put(5, y + row * shape_.hidden);
      ++group;
    }
    ASSIGN_OR_RETURN(binding.pointers, DeviceBuffer<void*>::Allocate(static_cast<int64_t>(pointers.size())));
    RETURN_IF_ERROR(CopyToDevice(pointers.data(), binding.pointers));
  }
  bindings_.push_back(std::move(binding));
  return static_cast<int>(bindings_.size()) - 1;
}

absl::Status ExpertMlpGpu::Launch(int binding_number, cudaStream_t stream) {
  const Binding& binding = bindings_[static_cast<size_t>(binding_number)];
  if (calls_ == Calls::kGrouped) {
    const auto groups = static_cast<int64_t>(gate_up_.m.size());
    RETURN_IF_ERROR(LaunchGrouped(gate_up_, binding.pointers.data(), stream));
    RETURN_IF_ERROR(LaunchSwiglu(0, layout_.rows(), stream));
    return LaunchGrouped(down_, binding.pointers.data() + 3 * groups, stream);
  }
  RETURN_IF_ERROR(CudaStatus(cudaEventRecord(begun_.get(), stream), "cudaEventRecord"));
  for (Lane& lane : lanes_) {
    if (lane.stream == nullptr) continue;
    RETURN_IF_ERROR(CudaStatus(cudaStreamWaitEvent(lane.stream.get(), begun_.get(), 0), "cudaStreamWaitEvent"));
    RETURN_IF_ERROR(LaunchLane(lane, binding, lane.stream.get()));
    RETURN_IF_ERROR(CudaStatus(cudaEventRecord(lane.done.get(), lane.stream.get()), "cudaEventRecord"));
  }
  RETURN_IF_ERROR(LaunchLane(lanes_.front(), binding, stream));
  for (const Lane& lane : lanes_) {
    if (lane.stream == nullptr) continue;
    RETURN_IF_ERROR(CudaStatus(cudaStreamWaitEvent(stream, lane.done.get(), 0), "cudaStreamWaitEvent"));
  }
  return absl::OkStatus();
}

absl::Status ExpertMlpGpu::LaunchLane(Lane& lane, const Binding& binding, cudaStream_t stream) {
  const ExpertMlpInputs& inputs = binding.inputs;
  const int64_t hidden = shape_.hidden, inter = shape_.inter;
  const bool fp8 = shape_.values == FP8;
  for (int64_t slot = lane.begin; slot < lane.end; ++slot) {
    const int64_t rows = layout_.padded_rows(slot), row = layout_.row_begin(slot);
    if (rows == 0) continue;
    const TensorProduct::Operands operands = {
        .x = Skip(inputs.x, row * hidden, shape_.values),
        .w = Skip(inputs.gate_up, slot * 2 * inter * hidden, shape_.values),
        .y = h_.data() + row * 2 * inter,
        .x_scales = fp8 ? inputs.x_scales + layout_.RowScale(slot, 0, 0, hidden) : nullptr,
        .w_scales = fp8 ? inputs.gate_up_scales + slot * WeightScales(2 * inter, hidden) : nullptr};
    RETURN_IF_ERROR(lane.products.at(rows).first.Launch(operands, stream));
  }
  RETURN_IF_ERROR(LaunchSwiglu(layout_.row_begin(lane.begin), layout_.row_begin(lane.end), stream));
  for (int64_t slot = lane.begin; slot < lane.end; ++slot) {
    const int64_t rows = layout_.padded_rows(slot), row = layout_.row_begin(slot);
    if (rows == 0) continue;
    const TensorProduct::Operands operands = {
        .x = Skip(a_.data(), row * inter, shape_.values),
        .w = Skip(inputs.down, slot * hidden * inter, shape_.values),
        .y = binding.y + row * hidden,
        .x_scales = fp8 ? a_scales_.data() + layout_.RowScale(slot, 0, 0, inter) : nullptr,
        .w_scales = fp8 ? inputs.down_scales + slot * WeightScales(hidden, inter) : nullptr};
    RETURN_IF_ERROR(lane.products.at(rows).second.Launch(operands, stream));
  }
  return absl::OkStatus();
}

absl::Status ExpertMlpGpu::LaunchSwiglu(int64_t row_begin, int64_t row_end, cudaStream_t stream) {
  const int64_t inter = shape_.inter;
  return SwigluOnGpu({.gate_up = h_.data() + row_begin * 2 * inter,
                      .rows = row_end - row_begin,
                      .inter = inter,
                      .places = shape_.values == FP8 ? places_.data() + row_begin : nullptr,
                      .out = a_.data() + row_begin * inter * Width(shape_.values),
                      .scales = a_scales_.data()},
                     stream);
}

absl::Status ExpertMlpGpu::LaunchGrouped(const GroupedCall& call, void* const* pointers, cudaStream_t stream) {
  const CublasLibrary& cublas = gpu_.cublas();
  const size_t groups = call.m.size();
  const DeviceBuffer<uint8_t>& workspace = lanes_.front().workspace;
  RETURN_IF_ERROR(cublas.Status(cublas.set_stream(handle_.get(), stream), "cublasSetStream"));
  RETURN_IF_ERROR(
      cublas.Status(cublas.set_workspace(handle_.get(), workspace.data(), workspace.bytes()), "cublasSetWorkspace"));
  return cublas.Status(
      cublas.gemm_grouped_batched_ex(handle_.get(), call.transpose_w.data(), call.transpose_x.data(), call.m.data(),
                                     call.n.data(), call.k.data(), call.one.data(), pointers, CUDA_R_16BF,
                                     call.w_stride.data(), pointers + groups, CUDA_R_16BF, call.x_stride.data(),
                                     call.zero.data(), pointers + 2 * groups, CUDA_R_16BF, call.y_stride.data(),
                                     static_cast<int>(groups), call.size.data(), CUBLAS_COMPUTE_32F),
      "cublasGemmGroupedBatchedEx");
}

}  // namespace epsim
