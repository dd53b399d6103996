// What the op and the kernels of upfirdn2d share.
#pragma once

#include "cpu/pointwise/bias_act.h"
#include "resample.h"

namespace imgops {

struct Upfirdn2d : Resampling {
  // planes of [in, in] pixels; where channels-last, images of them with the channels innermost
  int64_t planes = 1, channels = 1;
  bool channels_last = false;
  const void* in = nullptr;
  void* out = nullptr;
  // the filtered image before the epilogue; null = not wanted
  void* filtered = nullptr;
  bool has_epilogue = false;
  // b, scale, noise (with planes = outer * channels), act and its numbers
  BiasAct epilogue;
  int64_t rows_per_task = 1, tasks_per_plane = 1;
  // floats (doubles) of scratch memory that a thread needs
  int64_t scratch = 0;

  int64_t tasks() const { return planes * tasks_per_plane; }
};

using Upfirdn2dKernel = void (*)(const Upfirdn2d&, DType, void* scratch, int64_t begin, int64_t end);

IMGOPS_KERNEL(void upfirdn2d(const Upfirdn2d&, DType, void*, int64_t, int64_t));

}  // namespace imgops
