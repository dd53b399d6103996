// fused_conv2d and concat_conv2d on the CPU: the plan and the tasks of the convolution by Winograd's algorithm.
#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"
#include "cpu/pointwise/epilogue.h"
#include "winograd.h"

namespace imgops {
namespace {

// the residual, contiguous; checked to be like the output of this size
OptionalTensor checked_residual(const char* op, const OptionalTensor& residual, const Tensor& x,
                                const std::vector<int64_t>& size) {
  if (!residual.has_value()) return std::nullopt;
  STD_TORCH_CHECK(shape_of(*residual) == size && residual->scalar_type() == x.scalar_type() &&
                      residual->get_device_index() == x.get_device_index(),
                  "imgops::", op, ": residual must have the output's shape and x's dtype and device");
  return torch::stable::contiguous(*residual);
}

// Run a plan that has all but the transformed weights; x: any tensor of its dtype.
void convolve(Winograd& p, DType dtype, const Tensor& x) {
  if (p.narrow()) {
    const WinogradKernel convolve = IMGOPS_SELECT(winograd_narrow);
    parallel_for(0, p.convolutions * p.pieces().chunks(), 1, [&](int64_t begin, int64_t end) {
      const auto scratch = aligned_scratch(p.narrow_scratch() * x.element_size());
      convolve(p, dtype, scratch.get(), begin, end);
    });
    return;
  }
  const int64_t inputs = std::max<int64_t>(p.inputs, 1);
  const bool ahead = p.transforms_ahead();
  const int64_t output_blocks = p.convolutions * p.output_blocks();
  const Tensor transformed = allocate(x, {ahead ? output_blocks * p.input_blocks() * p.weights_of_block() : 0});
  if (ahead) {
    p.transformed = transformed.data_ptr();
    const WinogradWeightsKernel transform = IMGOPS_SELECT(winograd_weights);
    parallel_for(0, output_blocks, std::max<int64_t>(1, 128 / inputs),
                 [&](int64_t begin, int64_t end) { transform(p, dtype, begin, end); });
  }
  const WinogradKernel convolve = IMGOPS_SELECT(winograd);
  parallel_for(0, p.tasks(), std::max<int64_t>(1, 64 / inputs), [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.scratch() * x.element_size());
    convolve(p, dtype, scratch.get(), begin, end);
  });
}

// planes without gaps, one after the other; samples may lie anywhere
bool has_dense_planes(const Tensor& t) {
  return (t.size(3) == 1 || t.stride(3) == 1) && (t.size(2) == 1 || t.stride(2) == t.size(3)) &&
         (t.size(1) == 1 || t.stride(1) == t.size(2) * t.size(3));
}

}  // namespace

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
  const OptionalTensor residual = checked_residual("fused_conv2d", residual_any, x, size);
  if (y.numel() == 0) return {in_format(y, last), keep ? in_format(kept, last) : kept};
  const Operands t = operands(x, size, b, scale, noise);
  p.epilogue.channels = weight.size(0);
  fill(p.epilogue, t, act, alpha, gain, clamp);
  const OptionalTensor styles = operand(styles_any, x, "styles", p.samples * x.size(1));
  for (int64_t d = 0; d < 4; ++d) p.weight_strides[d] = weight.stride(d);
  const int64_t values = x.size(1) * p.h * p.w;
  const Part part{x.data_ptr(), 0, x.size(1), values, p.samples * values};
  p.parts = &part;
  p.part_count = 1;
  p.weight = weight.data_ptr();
  p.styles = data_of(styles);
  p.residual = data_of(residual);
  p.residual_scale = residual_scale;
  p.y = y.data_ptr();
  p.kept = keep ? kept.data_ptr() : nullptr;
  convolve(p, dtype, x);
  return {in_format(y, last), keep ? in_format(kept, last) : kept};
}

Tensor concat_conv2d_cpu(std::vector<Tensor> parts, const Tensor& weight, int64_t nearest, std::vector<int64_t> padding,
                         const OptionalTensor& residual_any, double residual_scale, const OptionalTensor& b,
                         const OptionalTensor& scale, const OptionalTensor& noise, std::string act, double alpha,
                         double gain, double clamp) {
  STD_TORCH_CHECK(!parts.empty() && weight.dim() == 4 && padding.size() == 4,
                  "imgops::concat_conv2d: there must be a part, weight must have 4 dimensions, padding 4 values");
  STD_TORCH_CHECK(weight.size(2) == 3 && weight.size(3) == 3 && (nearest == 1 || nearest == 2),
                  "imgops::concat_conv2d: the weight must be 3 x 3, nearest 1 or 2");
  const DType dtype = dtype_of(weight);
  STD_TORCH_CHECK(dtype == DType::f32 || dtype == DType::f64,
                  "imgops::concat_conv2d: parts and weight must be all float32 or all float64");
  const Tensor& like = parts[0];
  Winograd p;
  p.inputs = 0;
  std::vector<Part> planes;
  for (Tensor& part : parts) {
    STD_TORCH_CHECK(part.dim() == 4 && like.dim() == 4 && part.size(0) == like.size(0) &&
                        part.size(2) == like.size(2) && part.size(3) == like.size(3),
                    "imgops::concat_conv2d: parts must be [N, C, H, W], alike but for C");
    STD_TORCH_CHECK(part.scalar_type() == weight.scalar_type() && part.get_device_index() == weight.get_device_index(),
                    "imgops::concat_conv2d: parts and weight must have one dtype and device");
    if (!has_dense_planes(part)) part = torch::stable::contiguous(part);
    const int64_t values = part.size(1) * part.size(2) * part.size(3);
    const int64_t stride = part.size(0) > 1 ? part.stride(0) : values;
    planes.push_back({part.data_ptr(), p.inputs, p.inputs + part.size(1), stride,
                      values > 0 ? (part.size(0) - 1) * stride + values : 0});
    p.inputs += part.size(1);
  }
  STD_TORCH_CHECK(weight.size(1) == p.inputs, "imgops::concat_conv2d: weight must have the channels of all parts");
  p.parts = planes.data();
  p.part_count = static_cast<int64_t>(planes.size());
  p.samples = like.size(0);
  p.outputs = weight.size(0);
  p.h = like.size(2);
  p.w = like.size(3);
  p.pad_x = padding[0], p.pad_y = padding[2];
  p.out_w = convolved(nearest * p.w, padding[0], padding[1], 1);
  p.out_h = convolved(nearest * p.h, padding[2], padding[3], 1);
  if (nearest == 2) {
    p.kind = Convolution::repeated;
    // tiles begin where the taps begin with a new pixel
    p.skip_x = padding[0] & 1, p.skip_y = padding[2] & 1;
    p.pad_x = (padding[0] + p.skip_x) / 2, p.pad_y = (padding[2] + p.skip_y) / 2;
  }
  STD_TORCH_CHECK(p.out_w >= 1 && p.out_h >= 1, "imgops::concat_conv2d: padding leaves no pixel of the output");
  const std::vector<int64_t> size{p.samples, p.outputs, p.out_h, p.out_w};
  const Tensor y = allocate(like, size);
  const OptionalTensor residual = checked_residual("concat_conv2d", residual_any, like, size);
  if (y.numel() == 0) return y;
  const Operands t = operands(like, size, b, scale, noise);
  p.epilogue.channels = p.outputs;
  fill(p.epilogue, t, act, alpha, gain, clamp);
  for (int64_t d = 0; d < 4; ++d) p.weight_strides[d] = weight.stride(d);
  p.weight = weight.data_ptr();
  p.residual = data_of(residual);
  p.residual_scale = residual_scale;
  p.y = y.data_ptr();
  convolve(p, dtype, y);
  return y;
}

}  // namespace imgops
