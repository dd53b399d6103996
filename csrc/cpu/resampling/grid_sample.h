// What the op and the kernels of grid_sample and displace share.
#pragma once

#include <cstdint>

#include "cpu/common/storage.h"

namespace imgops {

// What an image is outside its edges: zero, its nearest pixel, or its reflection about the edge.
enum class Padding : int { zeros, border, reflection };

constexpr const char* kPaddingNames[] = {"zeros", "border", "reflection"};

// samples whose places and weights are computed at once, and stay in L1
constexpr int64_t kSamplesAtOnce = 128;

// pixels of a block whose numbers fit into 32 bits
constexpr int64_t kMostPixels = (int64_t(1) << 31) - 1;

// Bilinear samples of x at positions, or a derivative of them, and the gradients of these. Channels are handled in
// blocks of lanes, side by side, to which images are packed.
struct GridSample {
  int64_t samples = 0, channels = 0, in_h = 0, in_w = 0, out_h = 0, out_w = 0;
  // the memory of x and dx, and of y and dy, is [N, H, W, C] rather than [N, C, H, W]
  bool channels_last = false;
  // positions in the accumulation type, by strides; in pixels from each pixel's own place where displaced
  const void* positions = nullptr;
  int64_t sample_stride = 0, row_stride = 0, column_stride = 0, axis_stride = 0;
  bool displaced = false;
  Padding padding = Padding::zeros;
  // how often the weights along x and y are differentiated: 0 or 1
  int64_t order_x = 0, order_y = 0;
  // lanes of a block, blocks of channels; chunks of rows of the output
  int64_t lanes = 16, blocks = 1, rows = 1, chunks = 1;
  const void *x = nullptr, *dy = nullptr;
  void *y = nullptr, *dx = nullptr;
  // [blocks] times the gradient for the positions, contiguous in their own layout, in the accumulation type
  void* dpositions = nullptr;

  int64_t planes() const { return samples * blocks; }
  // pixels of x in a block, with a row of zeros above and below, and two pixels of zeros beside each row
  int64_t most_pixels() const { return (in_h + 2) * (in_w + 2) + 2; }
  // most pixels of x that are packed for a chunk; a chunk that reads fewer than a quarter of them reads x in place
  int64_t most_packed() const {
    const int64_t most = 4 * rows * out_w < kMostPixels ? 4 * rows * out_w : kMostPixels;
    return most_pixels() < most ? most_pixels() : most;
  }
};

// y for a range of tasks, each a chunk of rows of a block of channels of a sample; scratch holds a block of x, or
// the four taps of kSamplesAtOnce samples
using GridSampleKernel = void (*)(const GridSample&, DType, int64_t begin, int64_t end, void* scratch);
// dx and dpositions, where wanted, for a range of blocks of channels of a sample; scratch holds a block of x, or
// taps, and a block of dx
using GridSampleBackwardKernel = GridSampleKernel;

IMGOPS_KERNEL(void grid_sample(const GridSample&, DType, int64_t, int64_t, void*));
IMGOPS_KERNEL(void grid_sample_backward(const GridSample&, DType, int64_t, int64_t, void*));

}  // namespace imgops
