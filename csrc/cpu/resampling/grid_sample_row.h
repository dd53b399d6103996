// The places of the samples of grid_sample and displace: from coordinates to taps and weights, a row at a time; compiled
// once per instruction set.
#pragma once

#include <cmath>
#include <type_traits>

#include "grid_sample.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

constexpr int64_t kRow = kSamplesAtOnce;

// Coordinates along an axis of an image, made positions in pixels.
template <Padding padding, class A>
struct Axis {
  A length, last, slope, origin, step;

  // Of the samples from column j of row i on; where displaced, a coordinate is relative to the pixel itself.
  Axis(const GridSample& p, bool along_y, int64_t i, int64_t j)
      : length(static_cast<A>(along_y ? p.in_h : p.in_w)), last(length - 1), slope(p.displaced ? A(1) : length / 2),
        origin(p.displaced ? static_cast<A>(along_y ? i : j) : last / 2), step(p.displaced && !along_y ? A(1) : A(0)) {}

  // the position of coordinate k, wherever it is
  A position(A u, int32_t k) const { return u * slope + (origin + static_cast<A>(k) * step); }

  // The position of coordinate k, its derivative for u, and 1, or 0 where there is nothing to read: within [-1, size).
  // The comparisons are such that NaN is outside, or else on the first pixel.
  inline __attribute__((always_inline)) void place(A u, int32_t k, A* to, A* derivative, A* inside) const {
    A at = position(u, k), turn = slope;
    *inside = 1;
    if constexpr (padding == Padding::zeros) {
      // by & and not &&, which would leave a branch for each
      const bool within = static_cast<int>(at >= -1) & static_cast<int>(at < length);
      *inside = within ? A(1) : A(0);
      at = within ? at : A(0);
    } else {
      if constexpr (padding == Padding::reflection) {
        const A shifted = at + A(0.5), distance = std::fabs(shifted);
        const A flips = std::floor(distance / length), rest = distance - flips * length;
        const A odd = flips - 2 * std::floor(flips / 2);
        at = (odd == 0 ? rest : length - rest) - A(0.5);
        turn = odd == 0 ? std::copysign(slope, shifted) : -std::copysign(slope, shifted);
      }
      // on the border as beyond it there is no gradient
      turn = at > 0 ? turn : A(0);
      turn = at < last ? turn : A(0);
      at = at > 0 ? at : A(0);
      at = at < last ? at : last;
    }
    *to = at;
    *derivative = turn;
  }
};

// f(padding), which is a constant.
template <class F>
void with_padding(Padding padding, const F& f) {
  switch (padding) {
    case Padding::zeros: return f(std::integral_constant<Padding, Padding::zeros>{});
    case Padding::border: return f(std::integral_constant<Padding, Padding::border>{});
    case Padding::reflection: return f(std::integral_constant<Padding, Padding::reflection>{});
  }
}

// The coordinates along x, or along y, of columns [j, j + n) of row i of sample s, side by side: in buffer, or where
// they are.
template <class A>
const A* coordinates(const GridSample& p, bool along_y, int64_t s, int64_t i, int64_t j, int64_t n, A (&buffer)[kRow]) {
  const A* u = static_cast<const A*>(p.positions) + s * p.sample_stride + i * p.row_stride + j * p.column_stride;
  if (along_y) u += p.axis_stride;
  if (p.column_stride == 1) return u;
  // the stride of a contiguous grid is one that the compiler knows
  if (p.column_stride == 2) {
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) buffer[k] = u[k * 2];
  } else {
    for (int64_t k = 0; k < n; ++k) buffer[k] = u[k * p.column_stride];
  }
  return buffer;
}

// A block of channels of rows of an image, the first of them number `first`. Either pixels of `lanes` values, of which two
// of zeros stand before each row and behind the last one, as do rows of zeros beyond the image; or the image itself.
template <class A>
struct Block {
  A* data;
  // values from one pixel to the next, and from one row to the next
  int64_t pixel, row, first;
  bool padded;
  // not padded: the channels of the block, and pixels at the end of the image that are followed by less than its lanes
  int64_t channels = 0, short_pixels = 0;
};

// The samples of a row: where their taps lie, and the weights of these.
template <class A>
struct Row {
  int64_t n;
  // of the top left tap; the column is kOutside where there is nothing to read
  int32_t column[kRow], line[kRow];
  // differentiated `order` times along each axis
  A left[kRow], right[kRow], top[kRow], bottom[kRow];
  // what the derivatives of right and bottom are, and of left and top but for the sign, for the coordinates
  A turn_x[kRow], turn_y[kRow];
  static constexpr int32_t kOutside = -2;

  // columns from j on, as many as there is room for, of row i of sample s; the derivatives are for a backward
  template <bool kBackward>
  void locate(const GridSample& p, int64_t s, int64_t i, int64_t j) {
    n = p.out_w - j < kRow ? p.out_w - j : kRow;
    A buffer_x[kRow], buffer_y[kRow];
    const A* const u = coordinates(p, false, s, i, j, n, buffer_x);
    const A* const v = coordinates(p, true, s, i, j, n, buffer_y);
    with_padding(p.padding, [&](auto padding) {
      fill<kBackward>(u, v, Axis<padding, A>(p, false, i, j), Axis<padding, A>(p, true, i, j), p.order_x, p.order_y);
    });
  }

  template <bool kBackward, Padding padding>
  void fill(const A* u, const A* v, const Axis<padding, A> x, const Axis<padding, A> y, int64_t order_x,
            int64_t order_y) {
    const int32_t last = static_cast<int32_t>(n);
    // factors of the weights and of their derivatives: with a choice in its place the loop would not be vectorized
    const A turned_x = static_cast<A>(order_x), plain_x = 1 - turned_x;
    const A turned_y = static_cast<A>(order_y), plain_y = 1 - turned_y;
#pragma omp simd
    for (int32_t k = 0; k < last; ++k) {
      A at_x, at_y, slope_x, slope_y, inside_x, inside_y;
      x.place(u[k], k, &at_x, &slope_x, &inside_x);
      y.place(v[k], k, &at_y, &slope_y, &inside_y);
      const A floor_x = std::floor(at_x), floor_y = std::floor(at_y), t = at_x - floor_x, r = at_y - floor_y;
      column[k] = inside_x * inside_y > 0 ? static_cast<int32_t>(floor_x) : kOutside;
      line[k] = static_cast<int32_t>(floor_y);
      left[k] = plain_x * (1 - t) - turned_x * slope_x;
      right[k] = plain_x * t + turned_x * slope_x;
      top[k] = plain_y * (1 - r) - turned_y * slope_y;
      bottom[k] = plain_y * r + turned_y * slope_y;
      if constexpr (kBackward) {
        // the second derivative of a weight is 0
        turn_x[k] = plain_x * slope_x;
        turn_y[k] = plain_y * slope_y;
      }
    }
  }

  // Where in a block the top left taps are, in pixels. Of what is outside a padded block, at its start, where zeros are;
  // -1 where not all taps are in the image itself.
  void offsets(const GridSample& p, const Block<A>& block, int32_t (&to)[kRow]) const {
    const int32_t first = static_cast<int32_t>(block.first), w = static_cast<int32_t>(p.in_w);
    const int32_t last_column = w - 2, last_line = static_cast<int32_t>(p.in_h - 2);
    const int32_t end = static_cast<int32_t>(p.in_h * p.in_w - block.short_pixels - w - 1);
    if (block.padded) {
#pragma omp simd
      for (int64_t k = 0; k < n; ++k) to[k] = column[k] > kOutside ? (line[k] - first) * (w + 2) + column[k] + 2 : 0;
    } else {
#pragma omp simd
      for (int64_t k = 0; k < n; ++k) {
        const int32_t at = line[k] * w + column[k];
        const bool whole = column[k] >= 0 && column[k] <= last_column && line[k] >= 0 && line[k] <= last_line;
        to[k] = whole && at < end ? at : -1;
      }
    }
  }

  // the last row of an image that a tap is in
  int64_t last_line() const {
    int32_t last = -1;
#pragma omp simd reduction(max : last)
    for (int64_t k = 0; k < n; ++k) last = line[k] > last ? line[k] : last;
    return last + 1;
  }

  // f(tap, row, column, weight along x, weight along y) for the taps of sample k that are in the image: top left, top
  // right, bottom left, bottom right
  template <class F>
  void each_tap(const GridSample& p, int64_t k, const F& f) const {
    if (column[k] == kOutside) return;
    for (int tap = 0; tap < 4; ++tap) {
      const int64_t i = line[k] + (tap >> 1), j = column[k] + (tap & 1);
      if (i < 0 || i >= p.in_h || j < 0 || j >= p.in_w) continue;
      f(tap, i, j, tap & 1 ? right[k] : left[k], tap >> 1 ? bottom[k] : top[k]);
    }
  }
};

}  // namespace
}  // namespace IMGOPS_ISA
}  // namespace imgops
