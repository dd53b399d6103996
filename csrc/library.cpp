// Every schema of the library, and the registration of its CPU kernels; csrc/cuda registers the CUDA ones. Arguments
// that a gradient computes from sizes are SymInt, never float: compilers can leave a SymInt open, but bake a float in.
#include "cpu/common/ops.h"

STABLE_TORCH_LIBRARY(imgops, m) {
  // clamp(gain * act(x * scale + noise + b)); b [x.shape[dim]], scale [N, C], noise [N or 1, 1, ...]; clamp < 0: none
  m.def(
      "bias_act(Tensor x, int dim, Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, float gain, "
      "float clamp) -> Tensor");
  // (dx, db, dscale, dnoise); the slope from x, or from the output y, or constant; sums not needed are empty
  m.def(
      "bias_act_backward(Tensor dy, Tensor? x, Tensor? y, int dim, Tensor? b, Tensor? scale, Tensor? noise, str act, "
      "float alpha, float gain, float clamp, bool needs_b, bool needs_scale, bool needs_noise) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // up and down are (x, y), padding is (x0, x1, y0, y1) on the up-sampled image
  m.def(
      "upfirdn2d(Tensor x, Tensor? f, int[] up, int[] down, SymInt[] padding, bool flip_filter, float gain) -> Tensor");
  // (bias_act of the filtered image, the filtered image if keep)
  m.def(
      "upfirdn2d_bias_act(Tensor x, Tensor? f, int[] up, int[] down, SymInt[] padding, bool flip_filter, float gain, "
      "Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, float act_gain, float clamp, bool keep) "
      "-> (Tensor, Tensor)");
  // (bias_act of u, u if keep), u = the convolution of x * styles, plus residual_scale * residual; with up > 1 of the
  // transposed one, whose output padding crops; on the CPU 3 x 3, stride and up 1 or 2, one of them 1
  m.def(
      "fused_conv2d(Tensor x, Tensor weight, Tensor? styles, int stride, SymInt[] padding, int up, int groups, "
      "Tensor? residual, float residual_scale, Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, "
      "float gain, float clamp, bool keep) -> (Tensor, Tensor)");
  // the same, without a gradient, of x = the channels of all parts, each pixel taken for nearest x nearest ones, nearest 1
  // or 2; 3 x 3, stride and groups 1
  m.def(
      "concat_conv2d(Tensor[] parts, Tensor weight, int nearest, SymInt[] padding, Tensor? residual, "
      "float residual_scale, Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, float gain, float clamp) "
      "-> Tensor");
  // gradient of a 3 x 3 convolution of stride 1 or 2 for its weight: dy [N, O, H', W'], x [N, I, H, W] ->
  // [O, I / groups, 3, 3]; swapped: [I, O / groups, 3, 3]
  m.def(
      "conv2d_weight_gradient(Tensor dy, Tensor x, int stride, SymInt[] padding, int groups, bool swapped) -> Tensor");
  // (bias_act of the convolution of each channel of x with its own taps, weight [C, 1, k, k] with k = 3, 5 or 7, the
  // convolution if keep); stride and up 1 or 2, one of them 1; padding (x0, x1, y0, y1) is on x with up - 1 zeros between
  // its pixels
  m.def(
      "depthwise_conv2d(Tensor x, Tensor weight, int stride, SymInt[] padding, int up, Tensor? b, Tensor? scale, "
      "Tensor? noise, str act, float alpha, float gain, float clamp, bool keep) -> (Tensor, Tensor)");
  // its gradient for the weight, with up 1: dy [N, C, H', W'], x [N, C, H, W] -> [C, 1, kernel, kernel]
  m.def("depthwise_weight_gradient(Tensor dy, Tensor x, int stride, SymInt[] padding, int kernel) -> Tensor");
  // (D(clamp(gain * lrelu(U(x + b)))), sign_mask if keep): U up-samples with fu, times up^2, D down-samples with fd;
  // padding (x0, x1, y0, y1) is on the up-sampled image of [Ha, Wa] pixels; sign_mask, uint8 [N, C, ceil(Ha / 4), Wa],
  // has bit 2 * (y % 4) of byte y / 4 set where the pixel of row y was not positive, the bit above it where it was
  // clamped; clamp < 0: no clamp
  m.def(
      "filtered_lrelu(Tensor x, Tensor? fu, Tensor? fd, Tensor? b, int up, int down, SymInt[] padding, float gain, "
      "float slope, float clamp, bool flip_filter, bool keep) -> (Tensor, Tensor)");
  // D(s * U(x)), s = gain, gain * slope or 0 by the sign mask; padding_up on the up-sampled image, padding_down on what
  // was multiplied; gain_up and gain_down are part of the filters
  m.def(
      "filtered_lrelu_slopes(Tensor x, Tensor sign_mask, Tensor? fu, Tensor? fd, int up, int down, SymInt[] "
      "padding_up, "
      "SymInt[] padding_down, bool flip_filter, float gain_up, float gain_down, float gain, float slope) -> Tensor");
  // sum of squares over the last two of four dimensions
  m.def("squared_norm(Tensor weight) -> Tensor");
  // (mean, sqrt(variance + eps)) of each plane, [N, C] in the accumulation dtype
  m.def("mean_std(Tensor x, float eps, bool unbiased) -> (Tensor, Tensor)");
  // scale * (x - mean) / sqrt(variance + eps) + bias; scale and bias [N, C]
  m.def("adaptive_instance_norm(Tensor x, Tensor scale, Tensor bias, float eps, bool unbiased) -> Tensor");
  // (dx, dscale, dbias)
  m.def(
      "adaptive_instance_norm_backward(Tensor dy, Tensor x, Tensor scale, float eps, bool unbiased) "
      "-> (Tensor, Tensor, Tensor)");
  // (alpha * m + (1 - alpha) * x, with the pixels of m by rank the quantiles of y's; if keep, the pixels of x [N, C, H W]
  // and of y from small to large, int32)
  m.def("efdm(Tensor x, Tensor y, float alpha, bool keep) -> (Tensor, Tensor, Tensor)");
  // the last dimension from small to large, NaNs last, and where each number came from, int32
  m.def("sort_rows(Tensor x) -> (Tensor, Tensor)");
  // x x^T over the pixels of x [N, C, H, W], divided by the sizes named: "chw", "hw", "nchw" or "none" -> [N, C, C], in
  // the accumulation dtype
  m.def("gram_matrix(Tensor x, str normalization) -> Tensor");
  // (mean [N, C], biased covariance [N, C, C]) over the pixels of x [N, C, H, W], in the accumulation dtype
  m.def("feature_statistics(Tensor x) -> (Tensor, Tensor)");
  // weight [N, C, C] times x - mean, plus bias, for each pixel of x [N, C, H, W]; mean and bias [N, C]
  m.def("mix_channels(Tensor x, Tensor weight, Tensor? mean, Tensor? bias) -> Tensor");
  // (cosine similarity [N, Q] of the vectors of x [N, C, Q] to the nearest of y [N or 1, C, K], index [N, Q] of that)
  m.def("nearest_neighbor(Tensor x, Tensor y) -> (Tensor, Tensor)");
  // bilinear samples of x at positions: [N, H', W', 2] with the image's edges at -1 and 1, or, displaced, [N, 2, H', W']
  // in pixels from each pixel; differentiated for the position order = (0 or 1 times along x, 0 or 1 along y)
  m.def("grid_sample(Tensor x, Tensor positions, bool displaced, str padding_mode, int[] order) -> Tensor");
  // (dx, dpositions), [0] where not needed; x, of the given size, is for dpositions alone
  m.def(
      "grid_sample_backward(Tensor dy, Tensor? x, Tensor positions, SymInt[] size, bool displaced, str padding_mode, "
      "int[] order, bool needs_x, bool needs_positions) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(imgops, CPU, m) {
  m.impl("bias_act", IMGOPS_BOX(&imgops::bias_act_cpu));
  m.impl("bias_act_backward", IMGOPS_BOX(&imgops::bias_act_backward_cpu));
  m.impl("upfirdn2d", IMGOPS_BOX(&imgops::upfirdn2d_cpu));
  m.impl("filtered_lrelu", IMGOPS_BOX(&imgops::filtered_lrelu_cpu));
  m.impl("filtered_lrelu_slopes", IMGOPS_BOX(&imgops::filtered_lrelu_slopes_cpu));
  m.impl("fused_conv2d", IMGOPS_BOX(&imgops::fused_conv2d_cpu));
  m.impl("concat_conv2d", IMGOPS_BOX(&imgops::concat_conv2d_cpu));
  m.impl("conv2d_weight_gradient", IMGOPS_BOX(&imgops::conv2d_weight_gradient_cpu));
  m.impl("depthwise_conv2d", IMGOPS_BOX(&imgops::depthwise_conv2d_cpu));
  m.impl("depthwise_weight_gradient", IMGOPS_BOX(&imgops::depthwise_weight_gradient_cpu));
  m.impl("squared_norm", IMGOPS_BOX(&imgops::squared_norm_cpu));
  m.impl("mean_std", IMGOPS_BOX(&imgops::mean_std_cpu));
  m.impl("adaptive_instance_norm", IMGOPS_BOX(&imgops::adaptive_instance_norm_cpu));
  m.impl("adaptive_instance_norm_backward", IMGOPS_BOX(&imgops::adaptive_instance_norm_backward_cpu));
  m.impl("efdm", IMGOPS_BOX(&imgops::efdm_cpu));
  m.impl("sort_rows", IMGOPS_BOX(&imgops::sort_rows_cpu));
  m.impl("gram_matrix", IMGOPS_BOX(&imgops::gram_matrix_cpu));
  m.impl("feature_statistics", IMGOPS_BOX(&imgops::feature_statistics_cpu));
  m.impl("mix_channels", IMGOPS_BOX(&imgops::mix_channels_cpu));
  m.impl("nearest_neighbor", IMGOPS_BOX(&imgops::nearest_neighbor_cpu));
  m.impl("grid_sample", IMGOPS_BOX(&imgops::grid_sample_cpu));
  m.impl("grid_sample_backward", IMGOPS_BOX(&imgops::grid_sample_backward_cpu));
  m.impl("upfirdn2d_bias_act", IMGOPS_BOX(&imgops::upfirdn2d_bias_act_cpu));
}
