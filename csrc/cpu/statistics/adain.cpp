// Adaptive instance normalization on the CPU: memory layout and tasks.
#include "adain.h"

#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"

namespace imgops {
namespace {

// elements below which a second thread costs more than it saves
constexpr int64_t kGrain = 16384;

Adain layout(const Tensor& x, const char* op, double eps, bool unbiased) {
  STD_TORCH_CHECK(x.dim() == 4, "imgops::", op, ": x must have 4 dimensions; got ", x.dim());
  Adain p;
  p.outer = x.size(0);
  p.channels = x.size(1);
  p.pixels = x.size(2) * x.size(3);
  STD_TORCH_CHECK(p.pixels > unbiased, "imgops::", op, ": an image of ", p.pixels, " pixels has no such variance");
  p.channels_last = is_channels_last(x);
  p.eps = eps;
  p.unbiased = unbiased;
  p.x = x.data_ptr();
  return p;
}

void run(AdainKernel kernel, const Adain& p, const Tensor& x) {
  const int64_t per_task = p.pixels * (p.channels_last ? std::min(p.channels, Adain::kBlock) : 1);
  const DType dtype = dtype_of(x);
  parallel_for(0, p.tasks(), std::max<int64_t>(1, kGrain / per_task),
               [&](int64_t begin, int64_t end) { kernel(p, dtype, begin, end); });
}

}  // namespace

std::tuple<Tensor, Tensor> mean_std_cpu(const Tensor& x_any, double eps, bool unbiased) {
  const Tensor x = dense(x_any);
  Adain p = layout(x, "mean_std", eps, unbiased);
  const Tensor mean = allocate_sums(x, {p.outer, p.channels}), std = allocate_sums(x, {p.outer, p.channels});
  p.mean = mean.data_ptr();
  p.std = std.data_ptr();
  run(IMGOPS_SELECT(mean_std), p, x);
  return {mean, std};
}

Tensor adaptive_instance_norm_cpu(const Tensor& x_any, const Tensor& scale, const Tensor& bias, double eps,
                                  bool unbiased) {
  const Tensor x = dense(x_any);
  Adain p = layout(x, "adaptive_instance_norm", eps, unbiased);
  const OptionalTensor s = operand(scale, x, "scale", p.outer * p.channels),
                       b = operand(bias, x, "bias", p.outer * p.channels);
  const Tensor y = allocate(x, shape_of(x), p.channels_last);
  p.scale = data_of(s);
  p.bias = data_of(b);
  p.out = y.data_ptr();
  run(IMGOPS_SELECT(adaptive_instance_norm), p, x);
  return y;
}

std::tuple<Tensor, Tensor, Tensor> adaptive_instance_norm_backward_cpu(const Tensor& dy_any, const Tensor& x_any,
                                                                       const Tensor& scale, double eps, bool unbiased) {
  const Tensor x = dense(x_any);
  Adain p = layout(x, "adaptive_instance_norm_backward", eps, unbiased);
  const Tensor dy = in_format(dy_any, p.channels_last);
  STD_TORCH_CHECK(dy.numel() == x.numel() && dy.scalar_type() == x.scalar_type(),
                  "imgops::adaptive_instance_norm_backward: dy must have the shape and dtype of x");
  const OptionalTensor s = operand(scale, x, "scale", p.outer * p.channels);
  const Tensor dx = allocate(x, shape_of(x), p.channels_last);
  const Tensor dscale = allocate_sums(x, {p.outer, p.channels}), dbias = allocate_sums(x, {p.outer, p.channels});
  p.dy = dy.data_ptr();
  p.scale = data_of(s);
  p.out = dx.data_ptr();
  p.dscale = dscale.data_ptr();
  p.dbias = dbias.data_ptr();
  run(IMGOPS_SELECT(adaptive_instance_norm_backward), p, x);
  return {dx, dscale, dbias};
}

}  // namespace imgops
