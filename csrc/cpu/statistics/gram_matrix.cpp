// gram_matrix, feature_statistics and mix_channels on the CPU: memory layout and tasks.
#include "gram_matrix.h"

#include <algorithm>
#include <array>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"

namespace imgops {
namespace {

// x [N, C, H, W], whose memory is dense
Features features(const Tensor& x) {
  Features f;
  f.samples = x.size(0);
  f.channels = x.size(1);
  f.pixels = x.size(2) * x.size(3);
  f.channels_last = is_channels_last(x);
  f.data = x.data_ptr();
  return f;
}

void check_features(const Tensor& x, const char* op) {
  STD_TORCH_CHECK(x.dim() == 4, "imgops::", op, ": x must have 4 dimensions; got ", x.dim());
}

// The product of the sizes that the sums are divided by.
int64_t normalizer(const Tensor& x, const std::string& normalization) {
  const int64_t pixels = x.size(2) * x.size(3), image = x.size(1) * pixels;
  if (normalization == "chw") return image;
  if (normalization == "hw") return pixels;
  if (normalization == "nchw") return x.size(0) * image;
  STD_TORCH_CHECK(normalization == "none", "imgops::gram_matrix: unknown normalization '", normalization, "'");
  return 1;
}

Tensor gram(const Tensor& x, const void* mean, double scale) {
  GramMatrix p;
  p.x = features(x);
  p.x.mean = mean;
  p.scale = scale;
  Tensor out = allocate_sums(x, {p.x.samples, p.x.channels, p.x.channels});
  if (out.numel() == 0 || p.x.pixels == 0) return torch::stable::zero_(out);
  const DType dtype = dtype_of(x);
  const int64_t item = out.element_size(), threads = torch::stable::get_num_threads(), parts = p.tasks();
  p.cuts = std::min(p.x.blocks(), (threads + parts - 1) / parts);
  const auto sums = aligned_scratch(p.sums_size() * item);
  p.sums = sums.get();
  p.out = out.data_ptr();
  const auto sum_products = IMGOPS_SELECT(gram_sums);
  parallel_for(0, p.tasks(), 1, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.scratch() * item);
    sum_products(p, dtype, scratch.get(), begin, end);
  });
  const auto finish = IMGOPS_SELECT(gram_finish);
  parallel_for(0, p.x.samples * p.x.blocks(), 4, [&](int64_t begin, int64_t end) { finish(p, dtype, begin, end); });
  return out;
}

template <class A>
void average(const Features& x, const double* sums, A* out) {
  for (int64_t n = 0; n < x.samples; ++n) {
    for (int64_t c = 0; c < x.channels; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < x.chunks(); ++k) sum += sums[(n * x.chunks() + k) * x.channels + c];
      out[n * x.channels + c] = static_cast<A>(sum / static_cast<double>(x.pixels));
    }
  }
}

Tensor channel_means(const Tensor& x) {
  const Features p = features(x);
  const Tensor out = allocate_sums(x, {p.samples, p.channels});
  if (out.numel() == 0) return out;
  const int64_t tasks = p.samples * p.chunks(), item = out.element_size();
  std::vector<double> sums(tasks * p.channels);
  const auto sum_channels = IMGOPS_SELECT(channel_sums);
  parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(kPanelDepth * item);
    sum_channels(p, dtype_of(x), sums.data(), scratch.get(), begin, end);
  });
  if (dtype_of(x) == DType::f64) {
    average(p, sums.data(), static_cast<double*>(out.data_ptr()));
  } else {
    average(p, sums.data(), static_cast<float*>(out.data_ptr()));
  }
  return out;
}

// The memory of x, planar as [N, C, H * W] and channels-last as [N, H * W, C].
Tensor as_matrices(const Tensor& x) {
  const int64_t samples = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
  if (!is_channels_last(x)) return torch::stable::view(x, {samples, channels, pixels});
  return torch::stable::view(torch::stable::transpose(torch::stable::transpose(x, 1, 2), 2, 3),
                             {samples, pixels, channels});
}

// out = a b for each sample, by torch.bmm, whose out form autocast leaves alone
void multiply(const Tensor& a, const Tensor& b, const Tensor& out) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(out)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace

Tensor gram_matrix_cpu(const Tensor& x, std::string normalization) {
  check_features(x, "gram_matrix");
  return gram(dense(x), nullptr, 1 / static_cast<double>(normalizer(x, normalization)));
}

std::tuple<Tensor, Tensor> feature_statistics_cpu(const Tensor& x_any) {
  check_features(x_any, "feature_statistics");
  const Tensor x = dense(x_any);
  const int64_t pixels = x.size(2) * x.size(3);
  STD_TORCH_CHECK(pixels > 0, "imgops::feature_statistics: x must have a pixel");
  const Tensor mean = channel_means(x);
  return {mean, gram(x, mean.data_ptr(), 1 / static_cast<double>(pixels))};
}

Tensor mix_channels_cpu(const Tensor& x_any, const Tensor& weight_any, const OptionalTensor& mean_any,
                        const OptionalTensor& bias_any) {
  check_features(x_any, "mix_channels");
  const Tensor x = dense(x_any);
  const int64_t samples = x.size(0), channels = x.size(1);
  STD_TORCH_CHECK(weight_any.dim() == 3 && weight_any.size(0) == samples && weight_any.size(1) == channels &&
                      weight_any.size(2) == channels && weight_any.scalar_type() == accumulation_type(x),
                  "imgops::mix_channels: weight must be [N, C, C] in the accumulation dtype of x");
  const Tensor y = allocate(x, shape_of(x), is_channels_last(x));
  if (y.numel() == 0) return y;
  if (x.scalar_type() == accumulation_type(x) && !mean_any.has_value() && !bias_any.has_value()) {
    // here no half of the product can be left out, and torch.bmm is a fifth to two fifths faster
    const Tensor from = as_matrices(x), to = as_matrices(y);
    if (is_channels_last(x)) {
      multiply(from, torch::stable::transpose(weight_any, 1, 2), to);
    } else {
      multiply(weight_any, from, to);
    }
    return y;
  }
  // one stride of a sample's weight must be 1, in either order
  const bool in_place = weight_any.stride(1) == 1 || weight_any.stride(2) == 1;
  const Tensor weight = in_place ? weight_any : torch::stable::contiguous(weight_any);
  const OptionalTensor mean = operand(mean_any, x, "mean", samples * channels);
  const OptionalTensor bias = operand(bias_any, x, "bias", samples * channels);
  ChannelMix p;
  p.x = features(x);
  p.x.mean = data_of(mean);
  p.weight = weight.data_ptr();
  for (int64_t d = 0; d < 3; ++d) p.weight_strides[d] = weight.stride(d);
  p.bias = data_of(bias);
  p.y = y.data_ptr();
  const DType dtype = dtype_of(x);
  const int64_t item = weight.element_size();
  const auto panels = aligned_scratch(p.panels_size() * item);
  p.panels = panels.get();
  const auto pack = IMGOPS_SELECT(mix_panels);
  parallel_for(0, samples * p.x.blocks(), 4, [&](int64_t begin, int64_t end) { pack(p, dtype, begin, end); });
  const auto mix = IMGOPS_SELECT(mix_channels);
  parallel_for(0, p.tasks(), 1, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.scratch() * item);
    mix(p, dtype, scratch.get(), begin, end);
  });
  return y;
}

}  // namespace imgops
