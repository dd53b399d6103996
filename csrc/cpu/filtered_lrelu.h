// What the op and the kernels of filtered_lrelu share.
#pragma once

#include <algorithm>

#include "resample.h"
#include "storage.h"

namespace imgops {

// rows of the up-sampled image whose codes share a byte, two bits each
constexpr int64_t kPacked = 4;
// planes that are filtered side by side, a pixel of each next to the others' in a row: no filter then shuffles a vector
constexpr int64_t kGroup = 16;

// D(s(U(x + b))): U up-samples, D down-samples, and s is a leaky ReLU with gain and clamp, or a product with the slopes
// of an earlier one by its codes.
struct FilteredLrelu {
  int64_t samples = 1, channels = 1;
  // images have their channels innermost
  bool interleaved = false;
  Resampling up, down;
  // [samples, channels, up.y.in, up.x.in], [channels]
  const void *in = nullptr, *b = nullptr;
  void* out = nullptr;
  // [samples, channels, ceil(up.y.out / kPacked), up.x.out]; written by the activation where not null, else read
  uint8_t* codes = nullptr;
  bool activates = true;
  double gain = 1, slope = 1, clamp = -1;
  // most input rows that a row of the up-sampled image is made of, and most of its rows that one of the output is
  int64_t taps_up = 1, taps_down = 1;
  int64_t bands = 1;

  // groups are of the planes of all samples, or of the channels of one sample where they are innermost
  int64_t planes() const { return interleaved ? channels : samples * channels; }
  int64_t groups() const { return (planes() + kGroup - 1) / kGroup * (interleaved ? samples : 1); }
  int64_t tasks() const { return groups() * bands; }
  int64_t packed_rows() const { return (up.y.out + kPacked - 1) / kPacked; }

  // Where the rows that a thread works on begin in its scratch memory, in values of the accumulation type.
  struct Layout {
    // [taps_up] of the input, their sum between its padding, the up-sampled ones between theirs, [taps_down] of
    // those filtered along x, the output, codes as int32_t, and a group's rows and codes before or after their
    // transposition (apart, as codes read as floats would be denormal, and slow)
    int64_t input, v, act, act_row, ring, out, codes, plain, plain_codes, plain_row, size;
  };
  Layout layout() const {
    Layout l;
    int64_t at = 0;
    const auto take = [&](int64_t n) { return at += n, at - n; };
    l.input = take(taps_up * up.x.in * kGroup);
    l.v = take((up.x.before + up.x.in + up.x.after) * kGroup) + up.x.before * kGroup;
    l.act_row = (down.x.before + up.x.out + down.x.after) * kGroup;
    // a filter without factors sums the rows themselves
    l.act = take(l.act_row * (down.separable ? 1 : taps_down)) + down.x.before * kGroup;
    l.ring = take(down.separable ? taps_down * down.x.out * kGroup : 0);
    l.out = take(down.x.out * kGroup);
    l.codes = take(up.x.out * kGroup);
    l.plain_row = (std::max({up.x.in, up.x.out, down.x.out}) + kGroup - 1) / kGroup * kGroup;
    l.plain = take(kGroup * l.plain_row);
    l.plain_codes = take(kGroup * l.plain_row);
    l.size = at;
    return l;
  }
};

using FilteredLreluKernel = void (*)(const FilteredLrelu&, DType, void* scratch, int64_t begin, int64_t end);

#define IMGOPS_DECLARE(isa)                                                  \
  namespace isa {                                                            \
  void filtered_lrelu(const FilteredLrelu&, DType, void*, int64_t, int64_t); \
  }
IMGOPS_DECLARE(baseline)
IMGOPS_DECLARE(avx2)
IMGOPS_DECLARE(avx512)
#undef IMGOPS_DECLARE

}  // namespace imgops
