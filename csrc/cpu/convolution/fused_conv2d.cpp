// fused_conv2d on the CPU: the plan and the tasks of the convolution by Winograd's algorithm.
#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"
#include "cpu/pointwise/epilogue.h"
#include "winograd.h"

namespace imgops {
std::tuple<Tensor, Tensor> fused_conv2d_cpu(const Tensor& x_any, const Tensor& weight, const OptionalTensor& styles_any,
                                            int64_t stride, std::vector<int64_t> padding, int64_t up, int64_t groups,
                                            const OptionalTensor& residual_any, double residual_scale,
                                            const OptionalTensor& b, const OptionalTensor& scale,
                                            const OptionalTensor& noise, std::string act, double alpha, double gain,
                                            double clamp, bool keep) {
  STD_TORCH_CHECK(x_any.dim() == 4 && weight.dim() == 4 && padding.size() == 4,
                  "imgops::fused_conv2d: x and weight must have 4 dimensions, padding 4 values");
  STD_TORCH_CHECK(weight.size(2) == 3 && weight.size(3) == 3,
                  "imgops::fused_conv2d: on the CPU the weight must be 3 x 3");
  STD_TORCH_CHECK(std::min(stride, up) == 1 && std::max(stride, up) <= 2,
                  "imgops::fused_conv2d: on the CPU stride and up must be 1 or 2, not both 2");
  STD_TORCH_CHECK(up == 1 || (padding[0] - padding[2]) % 2 == 0,
                  "imgops::fused_conv2d: on the CPU a transposed convolution crops both odd, or both even numbers of "
                  "rows and columns");
  const DType dtype = dtype_of(x_any);
  STD_TORCH_CHECK((dtype == DType::f32 || dtype == DType::f64) && weight.scalar_type() == x_any.scalar_type(),
                  "imgops::fused_conv2d: on the CPU x and weight must be both float32 or both float64");
  STD_TORCH_CHECK(groups >= 1 && weight.size(1) * groups == x_any.size(1) && weight.size(0) % groups == 0,
                  "imgops::fused_conv2d: weight must have x's channels, divided among the groups");
  // the kernel is for planar images; channels-last ones rarely come here, as oneDNN is fast with them
  const bool last = is_channels_last(x_any);
  const Tensor x = torch::stable::contiguous(x_any);
  Winograd p;
  p.samples = x.size(0);
  p.convolutions = groups;
  p.inputs = weight.size(1);
  p.outputs = weight.size(0) / groups;
  p.h = x.size(2);
  p.w = x.size(3);
  p.kind = stride == 2 ? Convolution::strided : Convolution::plain;
  p.pad_x = padding[0], p.pad_y = padding[2];
  p.out_w = convolved(p.w, padding[0], padding[1], stride);
  p.out_h = convolved(p.h, padding[2], padding[3], stride);
  if (up == 2) {
    const int64_t odd = padding[0] & 1;
    p.kind = odd ? Convolution::odd_transposed : Convolution::transposed;
    // padding crops the output; a tile that begins with an even output starts with the sample before its own
    p.pad_x = (2 - odd - padding[0]) / 2, p.pad_y = (2 - odd - padding[2]) / 2;
    p.out_w = 2 * p.w + 1 - padding[0] - padding[1];
    p.out_h = 2 * p.h + 1 - padding[2] - padding[3];
  }
  STD_TORCH_CHECK(p.out_w >= 1 && p.out_h >= 1, "imgops::fused_conv2d: padding leaves no pixel of the output");
  const std::vector<int64_t> size{p.samples, weight.size(0), p.out_h, p.out_w};
  const Tensor y = allocate(x, size), kept = keep ? allocate(x, size) : allocate(x, {0});
  OptionalTensor residual;
  if (residual_any.has_value()) {
    STD_TORCH_CHECK(shape_of(*residual_any) == size && residual_any->scalar_type() == x.scalar_type() &&
                        residual_any->get_device_index() == x.get_device_index(),
                    "imgops::fused_conv2d: residual must have the output's shape and x's dtype and device");
    residual = torch::stable::contiguous(*residual_any);
  }
  if (y.numel() == 0) return {in_format(y, last), keep ? in_format(kept, last) : kept};
  const Operands t = operands(x, size, b, scale, noise);
  p.epilogue.channels = weight.size(0);
  fill(p.epilogue, t, act, alpha, gain, clamp);
  const OptionalTensor styles = operand(styles_any, x, "styles", p.samples * x.size(1));
  for (int64_t d = 0; d < 4; ++d) p.weight_strides[d] = weight.stride(d);
  p.x = x.data_ptr();
  p.weight = weight.data_ptr();
  p.styles = data_of(styles);
  p.residual = data_of(residual);
  p.residual_scale = residual_scale;
  p.y = y.data_ptr();
  p.kept = keep ? kept.data_ptr() : nullptr;
  if (p.narrow()) {
    const WinogradKernel convolve = IMGOPS_SELECT(winograd_narrow);
    parallel_for(0, p.convolutions * p.pieces().chunks(), 1, [&](int64_t begin, int64_t end) {
      const auto scratch = aligned_scratch(p.narrow_scratch() * x.element_size());
      convolve(p, dtype, scratch.get(), begin, end);
    });
    return {in_format(y, last), keep ? in_format(kept, last) : kept};
  }
  const int64_t inputs = std::max<int64_t>(p.inputs, 1);
  const bool ahead = p.transforms_ahead();
  const int64_t output_blocks = p.convolutions * p.output_blocks();
  const Tensor transformed = allocate(x, {ahead ? output_blocks * p.input_blocks() * p.weights_of_block() : 0});
  if (ahead) {
    p.transformed = transformed.data_ptr();
    const WinogradWeightsKernel transform = IMGOPS_SELECT(winograd_weights);
    parallel_for(0, output_blocks, std::max<int64_t>(1, 512 / inputs),
                 [&](int64_t begin, int64_t end) { transform(p, dtype, begin, end); });
  }
  const WinogradKernel convolve = IMGOPS_SELECT(winograd);
  parallel_for(0, p.tasks(), std::max<int64_t>(1, 64 / inputs), [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.scratch() * x.element_size());
    convolve(p, dtype, scratch.get(), begin, end);
  });
  return {in_format(y, last), keep ? in_format(kept, last) : kept};
}

}  // namespace imgops
