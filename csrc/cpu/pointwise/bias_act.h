// What the op and the kernels of bias_act share.
#pragma once

#include "cpu/common/storage.h"
#include "imgops/activations.h"

namespace imgops {

// bias_act on memory laid out as [outer, channels, inner], or [outer, inner, channels] where channels-last
// (channels-last).
struct BiasAct {
  int64_t outer = 1, channels = 1, inner = 1;
  bool channels_last = false;
  // chunks that each plane (or, channels-last, each run of pixels) is cut into, and elements (pixels) of a chunk
  int64_t chunk = 1, chunks = 1;
  Act act = Act::linear;
  double alpha = 0, gain = 1, clamp = -1;
  // b [channels], scale [outer, channels], noise [outer or 1, inner], in the accumulation type; null = absent
  const void *b = nullptr, *scale = nullptr, *noise = nullptr;
  int64_t noise_stride = 0;
  const void *x = nullptr, *y = nullptr, *dy = nullptr;
  void* out = nullptr;
  // partial sums [outer, chunks, channels] of dz and dz * x, and dnoise [outer, inner]; null = not wanted
  void *sum_dz = nullptr, *sum_dz_x = nullptr, *dnoise = nullptr;

  // forward: planes are independent; backward with dnoise: a chunk of all channels is one task
  int64_t tasks(bool all_channels) const { return outer * chunks * (channels_last || all_channels ? 1 : channels); }
};

// out = clamp(gain * act(x * scale + noise + b)) for a range of tasks
using BiasActKernel = void (*)(const BiasAct&, DType, int64_t begin, int64_t end);

IMGOPS_KERNEL(void bias_act(const BiasAct&, DType, int64_t, int64_t));
IMGOPS_KERNEL(void bias_act_backward(const BiasAct&, DType, int64_t, int64_t));

}  // namespace imgops
