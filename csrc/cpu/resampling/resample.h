// A resampling of images along both axes, as kernels see it; free of frameworks.
#pragma once

#include <cstdint>

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

struct Resampling {
  Axis x, y;
  // taps in the accumulation type: separable [taps of y], [taps of x], or [taps of y][taps of x] in taps_x
  bool separable = true;
  const void *taps_y = nullptr, *taps_x = nullptr;
  int64_t taps_x_stride = 0;
};

}  // namespace imgops
