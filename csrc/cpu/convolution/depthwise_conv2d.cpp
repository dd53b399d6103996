// depthwise_conv2d and its gradient for the weight on the CPU: checks and tasks.
#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"
#include "cpu/pointwise/epilogue.h"
#include "depthwise.h"

namespace imgops {
namespace {

// outputs below which a second thread costs more than it saves
constexpr int64_t kGrain = 16384;

// The convolution of x, planar, with kernel * kernel taps a channel; `op` is who asks for it.
Depthwise plan(const char* op, const Tensor& x, int64_t kernel, int64_t stride, int64_t up,
               const std::vector<int64_t>& padding) {
  const DType dtype = dtype_of(x);
  STD_TORCH_CHECK(dtype == DType::f32 || dtype == DType::f64, "imgops::", op, ": x must be float32 or float64");
  STD_TORCH_CHECK(kernel == 3 || kernel == 5 || kernel == 7, "imgops::", op,
                  ": the weight must be 3 x 3, 5 x 5 or 7 x 7");
  STD_TORCH_CHECK(std::min(stride, up) == 1 && std::max(stride, up) <= 2, "imgops::", op,
                  ": stride and up must be 1 or 2, not both 2");
  Depthwise p;
  p.planes = x.size(0) * x.size(1);
  p.channels = x.size(1);
  p.h = x.size(2);
  p.w = x.size(3);
  p.taps = kernel;
  p.stride = stride;
  p.up = up;
  p.pad_x = padding[0];
  p.pad_y = padding[2];
  const int64_t width = (p.w - 1) * up + 1 + padding[0] + padding[1];
  const int64_t height = (p.h - 1) * up + 1 + padding[2] + padding[3];
  STD_TORCH_CHECK(p.h >= 1 && p.w >= 1 && width >= kernel && height >= kernel, "imgops::", op,
                  ": the padded image is smaller than the weight");
  p.out_w = (width - kernel) / stride + 1;
  p.out_h = (height - kernel) / stride + 1;
  p.cut();
  p.x = x.data_ptr();
  return p;
}

// dweight = the sum of all parts
template <class A>
void add_parts(const Depthwise& p, const Tensor& dweight) {
  const int64_t size = dweight.numel();
  const A* from = static_cast<const A*>(p.dweight);
  A* to = static_cast<A*>(dweight.data_ptr());
  std::copy(from, from + size, to);
  for (int64_t part = 1; part < p.parts; ++part) {
    for (int64_t i = 0; i < size; ++i) to[i] += from[part * size + i];
  }
}

}  // namespace

std::tuple<Tensor, Tensor> depthwise_conv2d_cpu(const Tensor& x_any, const Tensor& weight_any, int64_t stride,
                                                std::vector<int64_t> padding, int64_t up, const OptionalTensor& b,
                                                const OptionalTensor& scale, const OptionalTensor& noise,
                                                std::string act, double alpha, double gain, double clamp, bool keep) {
  STD_TORCH_CHECK(x_any.dim() == 4 && weight_any.dim() == 4 && padding.size() == 4,
                  "imgops::depthwise_conv2d: x and weight must have 4 dimensions, padding 4 values");
  const int64_t kernel = weight_any.size(2);
  STD_TORCH_CHECK(weight_any.size(0) == x_any.size(1) && weight_any.size(1) == 1 && weight_any.size(3) == kernel &&
                      weight_any.scalar_type() == x_any.scalar_type(),
                  "imgops::depthwise_conv2d: weight must have shape [channels of x, 1, k, k] and x's dtype");
  // the kernel is for planar images; channels-last ones rarely come here, as oneDNN is fast with them
  const bool last = is_channels_last(x_any);
  const Tensor x = torch::stable::contiguous(x_any), weight = torch::stable::contiguous(weight_any);
  Depthwise p = plan("depthwise_conv2d", x, kernel, stride, up, padding);
  const std::vector<int64_t> size{x.size(0), x.size(1), p.out_h, p.out_w};
  const Tensor y = allocate(x, size), kept = keep ? allocate(x, size) : allocate(x, {0});
  if (y.numel() > 0) {
    const Operands t = operands(x, size, b, scale, noise);
    p.epilogue.channels = p.channels;
    fill(p.epilogue, t, act, alpha, gain, clamp);
    p.weight = weight.data_ptr();
    p.y = y.data_ptr();
    p.kept = keep ? kept.data_ptr() : nullptr;
    const DepthwiseKernel convolve = IMGOPS_SELECT(depthwise);
    const int64_t lanes = IMGOPS_SELECT(depthwise_lanes)(dtype_of(x)), vectors = (p.planes + lanes - 1) / lanes;
    const int64_t grain = std::max<int64_t>(1, kGrain / (lanes * p.rows * p.out_w));
    parallel_for(0, vectors * p.chunks, grain, [&](int64_t begin, int64_t end) {
      const auto scratch = aligned_scratch(p.scratch() * x.element_size());
      convolve(p, dtype_of(x), scratch.get(), begin, end);
    });
  }
  return {in_format(y, last), keep ? in_format(kept, last) : kept};
}

Tensor depthwise_weight_gradient_cpu(const Tensor& dy_any, const Tensor& x_any, int64_t stride,
                                     std::vector<int64_t> padding, int64_t kernel) {
  STD_TORCH_CHECK(x_any.dim() == 4 && dy_any.dim() == 4 && padding.size() == 4,
                  "imgops::depthwise_weight_gradient: x and dy must have 4 dimensions, padding 4 values");
  const Tensor x = torch::stable::contiguous(x_any), dy = torch::stable::contiguous(dy_any);
  Depthwise p = plan("depthwise_weight_gradient", x, kernel, stride, 1, padding);
  STD_TORCH_CHECK(dy.scalar_type() == x.scalar_type() && dy.size(0) == x.size(0) && dy.size(1) == p.channels &&
                      dy.size(2) == p.out_h && dy.size(3) == p.out_w,
                  "imgops::depthwise_weight_gradient: dy must have the shape and dtype of the convolution's output");
  const int64_t lanes = IMGOPS_SELECT(depthwise_lanes)(dtype_of(x)), vectors = (p.channels + lanes - 1) / lanes;
  Tensor dweight = allocate(x, {p.channels, 1, kernel, kernel});
  if (x.numel() == 0) {
    torch::stable::zero_(dweight);
    return dweight;
  }
  // few channels are summed in parts, as many on every machine
  p.parts = std::min(p.all_chunks(), (kDepthwiseTasks + vectors - 1) / vectors);
  const Tensor sums = p.parts > 1 ? allocate(x, {p.parts, dweight.numel()}) : dweight;
  p.dy = dy.data_ptr();
  p.dweight = sums.data_ptr();
  const DepthwiseKernel sum = IMGOPS_SELECT(depthwise_gradient);
  const int64_t grain = std::max<int64_t>(1, kGrain / (lanes * p.rows * p.out_w * (p.all_chunks() / p.parts)));
  parallel_for(0, vectors * p.parts, grain, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.scratch() * x.element_size());
    sum(p, dtype_of(x), scratch.get(), begin, end);
  });
  if (p.parts > 1) dtype_of(x) == DType::f64 ? add_parts<double>(p, dweight) : add_parts<float>(p, dweight);
  return dweight;
}

}  // namespace imgops
