// What the ops and the kernels of adaptive instance normalization share.
#pragma once

#include "cpu/common/storage.h"

namespace imgops {

// Planes of an image: [outer, channels, pixels], or [outer, pixels, channels] where channels-last.
struct Adain {
  int64_t outer = 1, channels = 1, pixels = 1;
  bool channels_last = false;
  double eps = 0;
  bool unbiased = false;
  const void *x = nullptr, *dy = nullptr;
  void* out = nullptr;
  // per plane, in the accumulation type: operands, and sums that are results
  const void *scale = nullptr, *bias = nullptr;
  void *dscale = nullptr, *dbias = nullptr, *mean = nullptr, *std = nullptr;

  // channels of one task: one plane, or of every pixel two cache lines of floats
  static constexpr int64_t kBlock = 32;
  int64_t blocks() const { return channels_last ? (channels + kBlock - 1) / kBlock : channels; }
  int64_t tasks() const { return outer * blocks(); }
};

using AdainKernel = void (*)(const Adain&, DType, int64_t begin, int64_t end);

IMGOPS_KERNEL(void mean_std(const Adain&, DType, int64_t, int64_t));
IMGOPS_KERNEL(void adaptive_instance_norm(const Adain&, DType, int64_t, int64_t));
IMGOPS_KERNEL(void adaptive_instance_norm_backward(const Adain&, DType, int64_t, int64_t));

}  // namespace imgops
