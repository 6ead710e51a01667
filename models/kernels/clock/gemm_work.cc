#include <utility>
#include <vector>

#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/random_data.h"
#include "models/kernels/device_buffer.h"
#include "models/kernels/expert_mlp.h"
#include "models/kernels/tensor_product.h"

namespace epsim {
namespace {

class DenseProduct : public GpuWork {
 public:
  DenseProduct(const GpuDevice& gpu, const TensorProduct::Shape& shape) : gpu_(gpu), shape_(shape) {}

  int64_t set_bytes() const override {
    const auto& [values, rows, n, k] = shape_;
    const int64_t width = values == FP8 ? 1 : 2;
    return (rows + n) * k * width + rows * n * 2 + 4 * (XScales() + WScales());
  }
  int64_t shared_bytes() const override { return TensorProduct::kWorkspaceBytes; }

  absl::Status Prepare(int sets, GraphTimer& timer) override {
    ASSIGN_OR_RETURN(workspace_, DeviceBuffer<uint8_t>::Allocate(TensorProduct::kWorkspaceBytes));
    ASSIGN_OR_RETURN(TensorProduct product, TensorProduct::Create(gpu_, shape_, workspace_.data()));
    product_.push_back(std::move(product));
    for (int i = 0; i < sets; ++i) {
      Set set;
      const auto seed = static_cast<uint64_t>(4 * i);
      RETURN_IF_ERROR(DrawMatrix(shape_.rows * shape_.k, 1, seed, timer.stream(), &set.x));
      RETURN_IF_ERROR(DrawMatrix(shape_.n * shape_.k, 1, seed + 1, timer.stream(), &set.w));
      ASSIGN_OR_RETURN(set.y, DeviceBuffer<uint16_t>::Allocate(shape_.rows * shape_.n));
      ASSIGN_OR_RETURN(set.x_scales, DeviceBuffer<float>::Allocate(XScales()));
      ASSIGN_OR_RETURN(set.w_scales, DeviceBuffer<float>::Allocate(WScales()));
      RETURN_IF_ERROR(DrawFloats(set.x_scales.data(), XScales(), 0.001f, 0.003f, seed + 2, timer.stream()));
      RETURN_IF_ERROR(DrawFloats(set.w_scales.data(), WScales(), 0.001f, 0.003f, seed + 3, timer.stream()));
      sets_.push_back(std::move(set));
    }
    return CudaStatus(cudaStreamSynchronize(timer.stream()), "random matrices");
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    return product_.front().Launch({.x = set.x.data(),
                                    .w = set.w.data(),
                                    .y = set.y.data(),
                                    .x_scales = set.x_scales.data(),
                                    .w_scales = set.w_scales.data()},
                                   stream);
  }

 private:
  struct Set {
    DeviceBuffer<uint8_t> x, w;
    DeviceBuffer<uint16_t> y;
    DeviceBuffer<float> x_scales, w_scales;
  };

  int64_t XScales() const { return shape_.values == FP8 ? shape_.rows * (shape_.k / kScaleBlock) : 0; }
  int64_t WScales() const { return shape_.values == FP8 ? WeightScales(shape_.n, shape_.k) : 0; }

  absl::Status DrawMatrix(int64_t count, float amplitude, uint64_t seed, cudaStream_t stream,
                          DeviceBuffer<uint8_t>* matrix) const {
    ASSIGN_OR_RETURN(*matrix, DeviceBuffer<uint8_t>::Allocate(count * (shape_.values == FP8 ? 1 : 2)));
    if (shape_.values == FP8) return DrawFp8(matrix->data(), count, seed, stream);
    return DrawBf16(reinterpret_cast<uint16_t*>(matrix->data()), count, -amplitude, amplitude, seed, stream);
  }

  const GpuDevice& gpu_;
  const TensorProduct::Shape shape_;
  DeviceBuffer<uint8_t> workspace_;
  std::vector<TensorProduct> product_;  // One.
  std::vector<Set> sets_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewGemmWork(const GpuDevice& gpu, const GemmWork& work) {
  const TensorProduct::Shape shape = {work.values() == NUMBER_TYPE_DEFAULT ? BF16 : work.values(), work.m(), work.n(),
                                      work.k()};
  RETURN_IF_ERROR(TensorProduct::Check(gpu, shape));
  return std::make_unique<DenseProduct>(gpu, shape);
}

}  // namespace epsim
