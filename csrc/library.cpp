// Every schema of the library, and the registration of its CPU kernels; csrc/cuda registers the CUDA ones.
#include "cpu/ops.h"

STABLE_TORCH_LIBRARY(imgops, m) {
  // clamp(gain * act(x * scale + noise + b)); b [x.shape[dim]], scale [N, C], noise [N or 1, 1, ...]; clamp < 0: none
  m.def(
      "bias_act(Tensor x, Tensor? b, Tensor? scale, Tensor? noise, int dim, str act, float alpha, float gain, "
      "float clamp) -> Tensor");
  // (dx, db, dscale, dnoise); the slope from x, or from the output y, or constant; sums not needed are empty
  m.def(
      "bias_act_backward(Tensor dy, Tensor? x, Tensor? y, Tensor? b, Tensor? scale, Tensor? noise, int dim, str act, "
      "float alpha, float gain, float clamp, bool needs_b, bool needs_scale, bool needs_noise) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // up and down are (x, y), padding is (x0, x1, y0, y1) on the up-sampled image
  m.def(
      "upfirdn2d(Tensor x, Tensor? f, int[] up, int[] down, int[] padding, bool flip_filter, float gain) -> Tensor");
  // (bias_act of the filtered image, the filtered image if keep)
  m.def(
      "upfirdn2d_bias_act(Tensor x, Tensor? f, int[] up, int[] down, int[] padding, bool flip_filter, float gain, "
      "Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, float act_gain, float clamp, bool keep) "
      "-> (Tensor, Tensor)");
  // (bias_act of the convolution of x * styles, the convolution if keep); on the CPU 3 x 3, stride and up
  // 1 or 2, one of them 1
  m.def(
      "fused_conv2d(Tensor x, Tensor weight, Tensor? styles, Tensor? demod, Tensor? noise, Tensor? b, str act, "
      "float alpha, float gain, float clamp, int stride, int[] padding, int up, bool keep) -> (Tensor, Tensor)");
  // gradient of a 3 x 3 convolution of stride 1 or 2 for its weight: dy [N, O, H', W'], x [N, I, H, W] -> [O, I, 3, 3]
  m.def("conv2d_weight_gradient(Tensor dy, Tensor x, int stride, int[] padding) -> Tensor");
  // sum of squares over the last two of four dimensions
  m.def("weight_energy(Tensor weight) -> Tensor");
  // bilinear samples of x at positions: [N, H', W', 2] with the image's edges at -1 and 1, or, displaced, [N, 2, H', W']
  // in pixels from each pixel; differentiated for the position order = (0 or 1 times along x, 0 or 1 along y)
  m.def("grid_sample(Tensor x, Tensor positions, bool displaced, str padding_mode, int[] order) -> Tensor");
  // (dx, dpositions), [0] where not needed; x, of the given size, is for dpositions alone
  m.def(
      "grid_sample_backward(Tensor dy, Tensor? x, Tensor positions, int[] size, bool displaced, str padding_mode, "
      "int[] order, bool needs_x, bool needs_positions) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(imgops, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&imgops::bias_act_cpu));
  m.impl("bias_act_backward", TORCH_BOX(&imgops::bias_act_backward_cpu));
  m.impl("upfirdn2d", TORCH_BOX(&imgops::upfirdn2d_cpu));
  m.impl("fused_conv2d", TORCH_BOX(&imgops::fused_conv2d_cpu));
  m.impl("conv2d_weight_gradient", TORCH_BOX(&imgops::conv2d_weight_gradient_cpu));
  m.impl("weight_energy", TORCH_BOX(&imgops::weight_energy_cpu));
  m.impl("grid_sample", TORCH_BOX(&imgops::grid_sample_cpu));
  m.impl("grid_sample_backward", TORCH_BOX(&imgops::grid_sample_backward_cpu));
  m.impl("upfirdn2d_bias_act", TORCH_BOX(&imgops::upfirdn2d_bias_act_cpu));
}
