// What the ops on depthwise convolutions and their kernels share: a channel's pixels meet the taps of that channel alone.
#pragma once

#include "cpu/pointwise/bias_act.h"

namespace imgops {

// most taps along an axis, and lanes of the widest instruction set
constexpr int64_t kDepthwiseTaps = 7, kDepthwiseLanes = 16;
// pixels of a plane that lie side by side with those of others at a time, so that they stay in the second-level cache,
// and outputs that are finished together, in the first-level one
constexpr int64_t kDepthwisePixels = 1536, kDepthwiseRun = 128;
// tasks that the gradient of a weight has at least, where it has so much work
constexpr int64_t kDepthwiseTasks = 32;

// Planar images of h * w, `up - 1` zeros between their pixels, padded, and outputs of out_h * out_w, at every stride-th
// place. One of up and stride is 1, the other 1 or 2.
struct Depthwise {
  int64_t planes = 1, channels = 1, h = 1, w = 1, taps = 3, stride = 1, up = 1;
  // zeros before the image and those between its pixels (negative: cropped)
  int64_t pad_x = 0, pad_y = 0, out_h = 1, out_w = 1;
  // chunks of a plane, and rows of outputs of a chunk
  int64_t chunks = 1, rows = 1;
  const void* x = nullptr;
  // [channels, taps, taps]
  const void* weight = nullptr;
  void* y = nullptr;
  // the convolution before the epilogue; null = not wanted
  void* kept = nullptr;
  BiasAct epilogue;
  // of the gradient for the weight: sums [parts, channels, taps, taps], each of some of all the chunks
  const void* dy = nullptr;
  void* dweight = nullptr;
  int64_t parts = 1;

  // pixels of the image along an axis, with the zeros around it, that n outputs read
  int64_t reads(int64_t n) const { return up == 2 ? (n + taps) / 2 + 1 : stride * (n - 1) + taps; }
  // cut planes into chunks of as few rows of outputs as fit, all alike but for the last
  void cut() {
    int64_t most = 1;
    while (most < out_h && reads(most + 1) * reads(out_w) <= kDepthwisePixels) ++most;
    chunks = (out_h + most - 1) / most;
    rows = (out_h + chunks - 1) / chunks;
  }
  int64_t all_chunks() const { return planes / channels * chunks; }
  // values of aligned scratch memory that a thread needs for a vector of planes: pixels and a place for those that are
  // cropped, taps and sums, and a run of outputs or a chunk of dy
  int64_t scratch() const {
    const int64_t run = dy ? rows * out_w : kDepthwiseRun + kDepthwiseLanes + out_w;
    return kDepthwiseLanes * (reads(rows) * reads(out_w) + 1 + 2 * kDepthwiseTaps * kDepthwiseTaps + run);
  }
};

// a task is a chunk of a vector of planes, or a part of the gradient for a vector of channels
using DepthwiseKernel = void (*)(const Depthwise&, DType, void* scratch, int64_t begin, int64_t end);

IMGOPS_KERNEL(int64_t depthwise_lanes(DType));
IMGOPS_KERNEL(void depthwise(const Depthwise&, DType, void*, int64_t, int64_t));
IMGOPS_KERNEL(void depthwise_gradient(const Depthwise&, DType, void*, int64_t, int64_t));

}  // namespace imgops
