// What the op fused_conv2d and its kernels share: a 3 x 3 convolution of stride 1 by Winograd's F(2 x 2, 3 x 3)
// (Lavin and Gray 2016). A tile of 2 x 2 outputs takes 16 products a channel in place of 36, and its rounding error is
// that of the direct sum. Modulation on load, demodulation, noise, bias and activation on the way out.
#pragma once

#include "bias_act.h"

namespace imgops {

// tiles that are transformed together: three vectors of the widest instruction set
constexpr int64_t kWinogradTiles = 48;
// frequencies of a tile; output channels that a block of transformed weights holds
constexpr int64_t kFrequencies = 16, kWinogradOutputs = 8;
// input channels whose transformed tiles stay in the second-level cache
constexpr int64_t kWinogradInputs = 128;

struct Winograd {
  int64_t samples = 1, inputs = 1, outputs = 1;
  // planar images of h * w, zeros before them (negative: cropped), and outputs of out_h * out_w
  int64_t h = 1, w = 1, pad_x = 0, pad_y = 0, out_h = 1, out_w = 1;
  // strides of weight [outputs, inputs, 3, 3], so that a transposed one is read where it lies
  int64_t weight_strides[4] = {0, 0, 3, 1};
  const void *x = nullptr, *weight = nullptr;
  // [samples, inputs] or null
  const void* styles = nullptr;
  // [output blocks][frequencies][inputs][kWinogradOutputs], zeros past the last output
  void* transformed = nullptr;
  void* y = nullptr;
  // the convolution before the epilogue; null = not wanted
  void* kept = nullptr;
  BiasAct epilogue;

  int64_t tiles_x() const { return (out_w + 1) / 2; }
  int64_t tiles_y() const { return (out_h + 1) / 2; }
  int64_t tiles() const { return samples * tiles_y() * tiles_x(); }
  int64_t output_blocks() const { return (outputs + kWinogradOutputs - 1) / kWinogradOutputs; }
  int64_t input_blocks() const { return (inputs + kWinogradInputs - 1) / kWinogradInputs; }
  // output blocks whose sums a thread keeps until all inputs are in
  int64_t kept_blocks() const { return input_blocks() > 1 ? output_blocks() : 1; }
  // a task is an output block of a group of tiles, the blocks of one group in a row
  int64_t tasks() const { return (tiles() + kWinogradTiles - 1) / kWinogradTiles * output_blocks(); }
  // values of aligned scratch memory that a thread needs
  int64_t scratch() const {
    const int64_t tiles = kWinogradInputs, sums = kWinogradOutputs * kept_blocks(), corners = 1;
    return kWinogradTiles * kFrequencies * (tiles + sums + corners) + 2 * kWinogradTiles + 2;
  }
};

// transform the weights of a range of output blocks; convolve for a range of tasks
using WinogradWeightsKernel = void (*)(const Winograd&, DType, int64_t begin, int64_t end);
using WinogradKernel = void (*)(const Winograd&, DType, void* scratch, int64_t begin, int64_t end);

#define IMGOPS_DECLARE(isa)                                               \
  namespace isa {                                                         \
  void winograd_weights(const Winograd&, DType, int64_t, int64_t);        \
  void winograd(const Winograd&, DType, void*, int64_t, int64_t);         \
  }
IMGOPS_DECLARE(baseline)
IMGOPS_DECLARE(avx2)
IMGOPS_DECLARE(avx512)
#undef IMGOPS_DECLARE

}  // namespace imgops
