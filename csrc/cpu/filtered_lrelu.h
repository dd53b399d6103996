// What the op and the kernels of filtered_lrelu share.
#pragma once

#include "resample.h"
#include "storage.h"

namespace imgops {

// rows of the up-sampled image whose codes share a byte, two bits each
constexpr int64_t kPacked = 4;

// D(s(U(x + b))): U up-samples, D down-samples, and s is a leaky ReLU with gain and clamp, or a product with the slopes
// of an earlier one by its codes.
struct FilteredLrelu {
  // planes of [in, in] pixels; where interleaved, images of them with the channels innermost, `lanes` of which a task takes
  int64_t planes = 1, channels = 1, lanes = 1;
  bool interleaved = false;
  Resampling up, down;
  const void *in = nullptr, *b = nullptr;
  void* out = nullptr;
  // [planes, ceil(up.y.out / kPacked), up.x.out] or, interleaved, [..., channels]; written by the activation where not
  // null, read where it is not one
  uint8_t* codes = nullptr;
  bool activates = true;
  double gain = 1, slope = 1, clamp = -1;
  int64_t rows_per_task = 1, tasks_per_plane = 1;
  // most rows that one of an output, of D or of U, is made of
  int64_t rows_down = 1, rows_up = 1;

  int64_t lane_blocks() const { return (channels + lanes - 1) / lanes; }
  int64_t tasks() const { return planes * tasks_per_plane * (interleaved ? lane_blocks() : 1); }

  // Where the rows that a thread works on lie in its scratch memory, in floats (doubles) from its start; a row starts
  // at a cache line after its padding.
  struct Layout {
    int64_t input, input_row, v, act, act_row, ring, ring_row, target, codes, size;
  };
  Layout layout() const {
    constexpr int64_t line = 16;
    const auto padded = [](int64_t n) { return (n + line - 1) / line * line; };
    const int64_t before_v = padded(up.x.before * lanes), before_act = padded(down.x.before * lanes);
    // rows are computed in whole vectors
    const int64_t in = padded(up.x.in * lanes), act = padded(up.x.out * lanes), out = padded(down.x.out * lanes);
    Layout l;
    l.input = 0;
    l.input_row = in;
    l.v = rows_up * l.input_row + before_v;
    const int64_t end_v = l.v + in + padded(up.x.after * lanes);
    // a filter without factors needs the activated rows themselves, one without them as filtered along x
    l.act = end_v + before_act;
    l.act_row = before_act + act + padded(down.x.after * lanes);
    l.ring = end_v + l.act_row * (down.separable ? 1 : rows_down);
    l.ring_row = out;
    l.target = l.ring + (down.separable ? rows_down : 0) * out;
    l.codes = l.target + out;
    l.size = l.codes + padded(act);
    return l;
  }
};

using FilteredLreluKernel = void (*)(const FilteredLrelu&, DType, void* scratch, int64_t begin, int64_t end);

#define IMGOPS_DECLARE(isa)                                              \
  namespace isa {                                                        \
  void filtered_lrelu(const FilteredLrelu&, DType, void*, int64_t, int64_t); \
  }
IMGOPS_DECLARE(baseline)
IMGOPS_DECLARE(avx2)
IMGOPS_DECLARE(avx512)
#undef IMGOPS_DECLARE

}  // namespace imgops
