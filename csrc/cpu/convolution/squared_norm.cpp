// squared_norm on the CPU: the sums of squares that demodulation needs, in one read of the weights.
#include <algorithm>

#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"

namespace imgops {
namespace {

// kTaps is `taps` where that is known when compiled, so that the sum is unrolled; else 0.
template <int kTaps, class A>
void sum_squares(const A* w, A* out, int64_t taps, int64_t begin, int64_t end) {
  const int64_t count = kTaps > 0 ? kTaps : taps;
  for (int64_t i = begin; i < end; ++i) {
    A sum = 0;
    for (int64_t k = 0; k < count; ++k) sum += w[i * count + k] * w[i * count + k];
    out[i] = sum;
  }
}

template <class A>
void squared_norms(const Tensor& w, const Tensor& out, int64_t taps, int64_t begin, int64_t end) {
  const auto run = taps == 9 ? sum_squares<9, A> : sum_squares<0, A>;
  run(static_cast<const A*>(w.data_ptr()), static_cast<A*>(out.data_ptr()), taps, begin, end);
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
  const auto run = is_double ? squared_norms<double> : squared_norms<float>;
  parallel_for(0, out.numel(), std::max<int64_t>(1, 16384 / std::max<int64_t>(taps, 1)),
               [&](int64_t begin, int64_t end) { run(w, out, taps, begin, end); });
  return out;
}

}  // namespace imgops
