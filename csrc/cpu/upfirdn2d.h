// What the op and the kernels of upfirdn2d share.
#pragma once

#include "bias_act.h"

namespace imgops {

// Polyphase plan of one axis. Output o = q * period + r reads inputs first[r] + q * step + j, weighted by the
// taps at offset[r] + j of a list in which each phase is contiguous; taps on inserted zeros are in no phase.
struct Axis {
  int64_t in = 1, out = 1, period = 1, step = 1;
  // per phase: first input, place of its taps, number of taps, number of outputs
  const int64_t *first = nullptr, *offset = nullptr, *count = nullptr, *outputs = nullptr;
  // inputs from -before to in + after - 1 are read; those outside are zeros
  int64_t before = 0, after = 0;
};

struct Upfirdn2d {
  // planes of [in, in] pixels; where interleaved, images of them with the channels innermost
  int64_t planes = 1, channels = 1;
  bool interleaved = false;
  Axis x, y;
  // taps in the accumulation type: separable [taps of y], [taps of x], or [taps of y][taps of x] in taps_x
  bool separable = true;
  const void *taps_y = nullptr, *taps_x = nullptr;
  int64_t taps_x_stride = 0;
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

#define IMGOPS_DECLARE(isa)                                              \
  namespace isa {                                                        \
  void upfirdn2d(const Upfirdn2d&, DType, void*, int64_t, int64_t);      \
  }
IMGOPS_DECLARE(baseline)
IMGOPS_DECLARE(avx2)
IMGOPS_DECLARE(avx512)
#undef IMGOPS_DECLARE

}  // namespace imgops
