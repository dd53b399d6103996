// squared_norm on the CPU: the sums of squares that demodulation needs, in one read of the weights.
#include <algorithm>

#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"

namespace imgops {
namespace {

template <class A>
void squared_norms(const A* w, A* out, int64_t taps, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    A sum = 0;
    for (int64_t k = 0; k < taps; ++k) sum += w[i * taps + k] * w[i * taps + k];
    out[i] = sum;
  }
}

}  // namespace

Tensor squared_norm_cpu(const Tensor& weight) {
  STD_TORCH_CHECK(weight.dim() == 4, "imgops::squared_norm: weight must have 4 dimensions; got ", weight.dim());
  const bool is_double = weight.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(is_double || weight.scalar_type() == ScalarType::Float,
                  "imgops::squared_norm: weight must be float32 or float64");
  const Tensor w = torch::stable::contiguous(weight);
  const Tensor out = allocate(w, {w.size(0), w.size(1)});
  const int64_t taps = w.size(2) * w.size(3);
  parallel_for(
      0, out.numel(), std::max<int64_t>(1, 16384 / std::max<int64_t>(taps, 1)), [&](int64_t begin, int64_t end) {
        if (is_double) {
          squared_norms(static_cast<const double*>(w.data_ptr()), static_cast<double*>(out.data_ptr()), taps, begin,
                        end);
        } else {
          squared_norms(static_cast<const float*>(w.data_ptr()), static_cast<float*>(out.data_ptr()), taps, begin, end);
        }
      });
  return out;
}

}  // namespace imgops
