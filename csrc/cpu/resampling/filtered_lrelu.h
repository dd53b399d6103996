// What the op and the kernels of filtered_lrelu share.
#pragma once

#include <algorithm>

#include "cpu/common/storage.h"
#include "resample.h"

namespace imgops {

// rows of the up-sampled image whose signs share a byte, two bits each
constexpr int64_t kPacked = 4;
// planes that are filtered side by side, a pixel of each next to the others' in a row: no filter then shuffles a vector
constexpr int64_t kGroup = 16;
// rows that are made together, as they are sums of nearly the same ones
constexpr int64_t kTogether = 4;

// D(s(U(x + b))): U up-samples, D down-samples, and s is a leaky ReLU with gain and clamp, or a product with the slopes
// of an earlier one by its sign mask.
struct FilteredLrelu {
  int64_t samples = 1, channels = 1;
  // images have their channels innermost
  bool channels_last = false;
  Resampling up, down;
  // [samples, channels, up.y.in, up.x.in], [channels]
  const void *in = nullptr, *b = nullptr;
  void* out = nullptr;
  // [samples, channels, ceil(up.y.out / kPacked), up.x.out]; written by the activation where not null, else read
  uint8_t* sign_mask = nullptr;
  bool activates = true;
  double gain = 1, slope = 1, clamp = -1;
  // most input rows that a row of the up-sampled image is made of, and most of its rows that one of the output is
  int64_t taps_up = 1, taps_down = 1;
  int64_t bands = 1;

  // groups are of the planes of all samples, or of the channels of one sample where they are innermost
  int64_t planes() const { return channels_last ? channels : samples * channels; }
  int64_t groups() const { return (planes() + kGroup - 1) / kGroup * (channels_last ? samples : 1); }
  int64_t tasks() const { return groups() * bands; }
  int64_t packed_rows() const { return (up.y.out + kPacked - 1) / kPacked; }

  // rows of the input, and of the up-sampled image, that kTogether rows made of them need; of the latter no more than
  // there are outputs, whose step may be as large as any number
  int64_t input_rows() const { return taps_up + (kTogether - 1) * up.y.step; }
  int64_t up_rows() const { return taps_down + (std::min(kTogether, down.y.out) - 1) * down.y.step; }

  // Where the rows that a thread works on begin in its scratch memory, in values of the accumulation type.
  struct Layout {
    // [input_rows] of the input; [kTogether] of their sums, between padding; of the up-sampled ones, between padding, the
    // one at hand, or [up_rows] where D has no factors; [up_rows] of those filtered along x; [kTogether] of the output;
    // bytes of the mask, and of those of planes that a group lacks; a group's rows before or after their transposition
    // (apart, as bytes read as floats would be denormal, and slow)
    int64_t input, input_row, v, v_row, act, act_row, filtered, filtered_row, out, mask, spare_mask, plain, plain_row,
        size;
  };
  Layout layout() const {
    Layout l;
    int64_t at = 0;
    const auto take = [&](int64_t n) {
      const int64_t begin = at;
      at += (n + kGroup - 1) / kGroup * kGroup;
      return begin;
    };
    l.input_row = spread(up.x.in);
    l.input = take(input_rows() * l.input_row);
    l.v_row = (up.x.before + up.x.in + up.x.after) * kGroup;
    l.v = take(l.v_row * kTogether) + up.x.before * kGroup;
    // a filter without factors sums the rows themselves
    l.act_row = (down.x.before + up.x.out + down.x.after) * kGroup;
    l.act = take(l.act_row * (down.separable ? 1 : up_rows())) + down.x.before * kGroup;
    l.filtered_row = spread(down.x.out);
    l.filtered = take(down.separable ? up_rows() * l.filtered_row : 0);
    l.out = take(kTogether * down.x.out * kGroup);
    // a value holds four bytes at least
    l.mask = take(up.x.out * kGroup / 4);
    l.spare_mask = take((up.x.out + 3) / 4);
    l.plain_row = std::max(up.x.in, down.x.out);
    l.plain = take(kGroup * l.plain_row);
    l.size = at;
    return l;
  }

 private:
  // A row of n pixels with space after it: rows that are summed fall on different sets of a cache.
  static int64_t spread(int64_t n) { return ((n + 7) / 8 | 1) * 8 * kGroup; }
};

using FilteredLreluKernel = void (*)(const FilteredLrelu&, DType, void* scratch, int64_t begin, int64_t end);

IMGOPS_KERNEL(void filtered_lrelu(const FilteredLrelu&, DType, void*, int64_t, int64_t));

}  // namespace imgops
