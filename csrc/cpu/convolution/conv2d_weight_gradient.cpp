// conv2d_weight_gradient on the CPU: the plan and the tasks of the gradient by Winograd's algorithm.
#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"
#include "winograd.h"

namespace imgops {

Tensor conv2d_weight_gradient_cpu(const Tensor& dy_any, const Tensor& x_any, int64_t stride,
                                  std::vector<int64_t> padding, int64_t groups, bool swapped) {
  STD_TORCH_CHECK(x_any.dim() == 4 && dy_any.dim() == 4 && padding.size() == 4,
                  "imgops::conv2d_weight_gradient: x and dy must have 4 dimensions, padding 4 values");
  STD_TORCH_CHECK(stride == 1 || stride == 2, "imgops::conv2d_weight_gradient: stride must be 1 or 2");
  STD_TORCH_CHECK(groups >= 1 && x_any.size(1) % groups == 0 && dy_any.size(1) % groups == 0,
                  "imgops::conv2d_weight_gradient: the groups must divide the channels of x and dy");
  const DType dtype = dtype_of(x_any);
  STD_TORCH_CHECK((dtype == DType::f32 || dtype == DType::f64) && dy_any.scalar_type() == x_any.scalar_type(),
                  "imgops::conv2d_weight_gradient: x and dy must be both float32 or both float64");
  const Tensor x = torch::stable::contiguous(x_any), dy = torch::stable::contiguous(dy_any);
  WinogradGradient p;
  p.kind = stride == 2 ? Convolution::strided : Convolution::plain;
  p.samples = x.size(0);
  p.convolutions = groups;
  p.inputs = x.size(1) / groups;
  p.outputs = dy.size(1) / groups;
  p.h = x.size(2);
  p.w = x.size(3);
  p.pad_x = padding[0];
  p.pad_y = padding[2];
  p.out_h = dy.size(2);
  p.out_w = dy.size(3);
  STD_TORCH_CHECK(dy.size(0) == p.samples && p.out_w == convolved(p.w, padding[0], padding[1], stride) &&
                      p.out_h == convolved(p.h, padding[2], padding[3], stride),
                  "imgops::conv2d_weight_gradient: dy must have the shape of the convolution's output");
  const int64_t outer = swapped ? x.size(1) : dy.size(1), inner = swapped ? p.outputs : p.inputs;
  const Tensor dweight = allocate(x, {outer, inner, 3, 3});
  p.dweight_strides[0] = 9 * (swapped ? 1 : p.inputs);
  p.dweight_strides[1] = 9 * (swapped ? p.outputs : 1);
  p.x = x.data_ptr();
  p.dy = dy.data_ptr();
  p.dweight = dweight.data_ptr();
  if (p.narrow() && dy.numel() > 0) {
    const WinogradGradientKernel kernel = IMGOPS_SELECT(winograd_narrow_gradient);
    parallel_for(0, p.convolutions, 1, [&](int64_t begin, int64_t end) {
      const auto scratch = aligned_scratch(p.narrow_scratch() * x.element_size());
      kernel(p, dtype, scratch.get(), begin, end);
    });
    return dweight;
  }
  // few channels need no larger block; smaller ones repeat more transforms, but give every thread a block. No sum
  // depends on their size.
  while (p.block > kGradientGroup && p.block / 2 >= std::max(p.inputs, p.outputs)) p.block /= 2;
  const int64_t threads = torch::stable::get_num_threads();
  while (p.block > kGradientGroup && p.tasks() < threads) p.block /= 2;
  const WinogradGradientKernel kernel = IMGOPS_SELECT(winograd_gradient);
  parallel_for(0, p.tasks(), 1, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.scratch() * x.element_size());
    kernel(p, dtype, scratch.get(), begin, end);
  });
  return dweight;
}

}  // namespace imgops
