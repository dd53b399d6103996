// bias_act and its backward on the CPU: memory layout, tasks, and the sums over them.
#include "bias_act.h"

#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/parallel.h"
#include "epilogue.h"

namespace imgops {
namespace {

constexpr int64_t kChunk = 8192;
// elements below which a second thread costs more than it saves
constexpr int64_t kGrain = 16384;

// The layout of x for a bias along dim: what b (per_channel), scale and noise (per_sample), or their gradients, index.
BiasAct layout(const Tensor& x, int64_t dim, bool per_channel, bool per_sample) {
  BiasAct p;
  const int64_t ndim = x.dim();
  if (!per_channel && !per_sample) {
    p.inner = x.numel();
  } else {
    STD_TORCH_CHECK(dim >= 0 && dim < ndim, "imgops::bias_act: dim must be in [0, ", ndim, "); got ", dim);
    STD_TORCH_CHECK(dim == 1 || !per_sample, "imgops::bias_act: scale and noise need dim = 1");
    p.channels = x.size(dim);
    for (int64_t i = 0; i < dim; ++i) p.outer *= x.size(i);
    for (int64_t i = dim + 1; i < ndim; ++i) p.inner *= x.size(i);
    p.channels_last = is_channels_last(x) || p.inner == 1;
    if (p.inner == 1 && !per_sample) std::swap(p.inner, p.outer);
  }
  p.chunk =
      std::max<int64_t>(1, std::min(p.inner, p.channels_last ? kChunk / std::max<int64_t>(p.channels, 1) : kChunk));
  p.chunks = (p.inner + p.chunk - 1) / p.chunk;
  return p;
}

// x in a memory format where dim is planes or innermost; in any dense one where no operand is indexed along dim.
Tensor prepared(const Tensor& x, int64_t dim, bool per_channel) {
  const Tensor t = dense(x);
  return is_channels_last(t) && per_channel && dim != 1 ? torch::stable::contiguous(t) : t;
}

void run(BiasActKernel kernel, const BiasAct& p, DType dtype, bool all_channels) {
  const int64_t tasks = p.tasks(all_channels);
  const int64_t per_task = std::max<int64_t>(1, p.outer * p.inner * p.channels / std::max<int64_t>(tasks, 1));
  parallel_for(0, tasks, std::max<int64_t>(1, kGrain / per_task),
               [&](int64_t begin, int64_t end) { kernel(p, dtype, begin, end); });
}

// [outer, chunks, channels] -> the sum over chunks, and over outer too unless each_outer.
template <class A>
void sum_partials(const BiasAct& p, const Tensor& partials, const Tensor& out, bool each_outer) {
  const A* in = static_cast<const A*>(partials.data_ptr());
  A* dst = static_cast<A*>(out.data_ptr());
  std::vector<double> total(p.channels);
  for (int64_t o = 0; o < p.outer; ++o) {
    if (o == 0 || each_outer) std::fill(total.begin(), total.end(), 0.0);
    for (int64_t k = 0; k < p.chunks; ++k) {
      for (int64_t c = 0; c < p.channels; ++c) total[c] += in[(o * p.chunks + k) * p.channels + c];
    }
    if (each_outer) std::copy(total.begin(), total.end(), dst + o * p.channels);
  }
  if (!each_outer) std::copy(total.begin(), total.end(), dst);
}

void sum_partials(const BiasAct& p, const Tensor& partials, const Tensor& out, bool each_outer) {
  if (out.scalar_type() == ScalarType::Double) {
    sum_partials<double>(p, partials, out, each_outer);
  } else {
    sum_partials<float>(p, partials, out, each_outer);
  }
}

}  // namespace

Tensor bias_act_cpu(const Tensor& x_any, int64_t dim, const OptionalTensor& b, const OptionalTensor& scale,
                    const OptionalTensor& noise, std::string act, double alpha, double gain, double clamp) {
  const Tensor x = prepared(x_any, dim, b.has_value());
  const std::vector<int64_t> size = shape_of(x);
  const Tensor y = allocate(x, size, is_channels_last(x));
  if (x.numel() == 0) return in_format(y, is_channels_last(x_any));
  const Operands t = operands(x, size, b, scale, noise, dim);
  BiasAct p = layout(x, dim, b.has_value(), scale.has_value() || noise.has_value());
  fill(p, t, act, alpha, gain, clamp);
  p.x = x.data_ptr();
  p.out = y.data_ptr();
  run(IMGOPS_SELECT(bias_act), p, dtype_of(x), false);
  return in_format(y, is_channels_last(x_any));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bias_act_backward_cpu(const Tensor& dy_any, const OptionalTensor& x_any,
                                                                 const OptionalTensor& y_any, int64_t dim,
                                                                 const OptionalTensor& b, const OptionalTensor& scale,
                                                                 const OptionalTensor& noise, std::string act,
                                                                 double alpha, double gain, double clamp, bool needs_b,
                                                                 bool needs_scale, bool needs_noise) {
  // the gradient takes the memory format of the saved tensor, which is dense
  const OptionalTensor& saved = x_any.has_value() ? x_any : y_any;
  const bool last = is_channels_last(saved.has_value() ? *saved : dy_any);
  const bool per_channel = b.has_value() || needs_b;
  const bool per_sample = scale.has_value() || noise.has_value() || needs_scale || needs_noise;
  const Tensor like = prepared(saved.has_value() ? *saved : dy_any, dim, per_channel);
  const Tensor dy = in_format(dy_any, is_channels_last(like));
  STD_TORCH_CHECK(dy.numel() == like.numel() && dy.scalar_type() == like.scalar_type(),
                  "imgops::bias_act_backward: dy must have the shape and dtype of the tensor saved");
  STD_TORCH_CHECK(!needs_scale || x_any.has_value(), "imgops::bias_act_backward: the gradient of scale needs x");
  STD_TORCH_CHECK(!needs_b || (dim >= 0 && dim < dy.dim()), "imgops::bias_act_backward: dim out of range");
  STD_TORCH_CHECK((!needs_scale && !needs_noise) || dy.dim() >= 2,
                  "imgops::bias_act_backward: the gradients of scale and noise need 2 or more dimensions");

  std::vector<int64_t> noise_size = shape_of(dy);
  if (needs_noise) noise_size[1] = 1;
  const Tensor dx = allocate(like, shape_of(like), is_channels_last(like));
  const Tensor db = allocate_sums(dy, {needs_b ? dy.size(dim) : 0});
  const Tensor dscale = needs_scale ? allocate_sums(dy, {dy.size(0), dy.size(1)}) : allocate_sums(dy, {0});
  const Tensor dnoise = needs_noise ? allocate_sums(dy, noise_size) : allocate_sums(dy, {0});
  if (dy.numel() == 0) {
    for (Tensor t : {db, dscale, dnoise}) torch::stable::zero_(t);
    return {in_format(dx, last), db, dscale, dnoise};
  }

  const Operands t = operands(dy, shape_of(dy), b, scale, noise, dim);
  BiasAct p = layout(dy, dim, per_channel, per_sample);
  fill(p, t, act, alpha, gain, clamp);
  const Tensor sum_dz = allocate_sums(dy, {needs_b ? p.outer * p.chunks * p.channels : 0});
  const Tensor sum_dz_x = allocate_sums(dy, {needs_scale ? p.outer * p.chunks * p.channels : 0});
  p.dy = dy.data_ptr();
  p.x = x_any.has_value() ? like.data_ptr() : nullptr;
  p.y = !x_any.has_value() && y_any.has_value() ? like.data_ptr() : nullptr;
  p.out = dx.data_ptr();
  p.sum_dz = needs_b ? sum_dz.data_ptr() : nullptr;
  p.sum_dz_x = needs_scale ? sum_dz_x.data_ptr() : nullptr;
  p.dnoise = needs_noise ? dnoise.data_ptr() : nullptr;
  run(IMGOPS_SELECT(bias_act_backward), p, dtype_of(dy), needs_noise);
  if (needs_b) sum_partials(p, sum_dz, db, false);
  if (needs_scale) sum_partials(p, sum_dz_x, dscale, true);
  return {in_format(dx, last), db, dscale, dnoise};
}

}  // namespace imgops
