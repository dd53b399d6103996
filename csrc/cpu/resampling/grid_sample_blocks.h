// Images as blocks of channels for grid_sample and displace: how they are copied to such, and what of them a row of
// samples reads; compiled once per instruction set.
#pragma once

#include <cstring>
#include <limits>

#include "grid_sample_row.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// A block of channels of an image in memory as the tensor has it.
template <class T>
struct Image {
  T* data;
  int64_t pixels, channel_stride, pixel_stride, channels;

  Image(const GridSample& p, const void* memory, int64_t plane, int64_t sample, int64_t block)
      : pixels(plane), channel_stride(p.channels_last ? 1 : plane), pixel_stride(p.channels_last ? p.channels : 1) {
    const int64_t c = block * p.lanes;
    channels = p.channels - c < p.lanes ? p.channels - c : p.lanes;
    data = const_cast<T*>(static_cast<const T*>(memory)) + sample * p.channels * pixels + c * channel_stride;
  }

  // whether the channels of a pixel are side by side as accumulators, and the numbers of pixels fit into 32 bits
  template <class A>
  bool is_readable() const {
    return sizeof(T) == sizeof(A) && channel_stride == 1 && pixels <= kMostPixels;
  }
  // whether they are a row of `lanes` accumulators as well
  template <class A>
  bool is_block(int64_t lanes) const {
    return is_readable<A>() && channels == lanes;
  }
};

// n pixels from number `from` on as rows of lanes, those without a channel 0
template <int64_t lanes, class T, class A>
void pack(const Image<T>& image, int64_t from, int64_t n, A* to) {
  if (image.channel_stride == 1) {
    A buffer[lanes];
    // whole rows: beyond the channels is, but for the last pixel, the next one
    const int64_t whole = from + n < image.pixels ? n : n - 1;
    const T* const src = image.data + from * image.pixel_stride;
    for (int64_t i = 0; i < whole; ++i) {
      const A* row = load_row(src + i * image.pixel_stride, buffer, lanes);
#pragma omp simd
      for (int64_t l = 0; l < lanes; ++l) {
        const A value = row[l];
        to[i * lanes + l] = l < image.channels ? value : A(0);
      }
    }
    for (int64_t i = whole; i < n; ++i) {
      const A* row = load_row(src + i * image.pixel_stride, buffer, image.channels);
      for (int64_t l = 0; l < lanes; ++l) to[i * lanes + l] = l < image.channels ? row[l] : A(0);
    }
    return;
  }
  A planes[lanes][kRow];
  for (int64_t l = image.channels; l < lanes; ++l) {
    for (int64_t i = 0; i < kRow; ++i) planes[l][i] = 0;
  }
  for (int64_t i = 0; i < n; i += kRow) {
    const int64_t count = n - i < kRow ? n - i : kRow;
    const A* row[lanes];
    for (int64_t l = 0; l < lanes; ++l) {
      row[l] = planes[l];
      if (l < image.channels) row[l] = load_row(image.data + l * image.channel_stride + from + i, planes[l], count);
    }
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t l = 0; l < lanes; ++l) to[(i + j) * lanes + l] = row[l][j];
    }
  }
}

// n pixels from number `to` on from rows of lanes
template <int64_t lanes, class T, class A>
void unpack(const Image<T>& image, int64_t to, int64_t n, const A* from) {
  A buffer[kRow];
  if (image.channel_stride == 1) {
    // whole rows, where the next one overwrites what is too much
    const int64_t whole = image.pixel_stride == image.channels ? n - 1 : 0;
    T* const dst = image.data + to * image.pixel_stride;
    for (int64_t i = 0; i < whole; ++i) {
      A* const row = row_target(dst + i * image.pixel_stride, buffer);
#pragma omp simd
      for (int64_t l = 0; l < lanes; ++l) row[l] = from[i * lanes + l];
      store_row(dst + i * image.pixel_stride, row, lanes);
    }
    for (int64_t i = whole; i < n; ++i) {
      A* const row = row_target(dst + i * image.pixel_stride, buffer);
      for (int64_t l = 0; l < image.channels; ++l) row[l] = from[i * lanes + l];
      store_row(dst + i * image.pixel_stride, row, image.channels);
    }
    return;
  }
  for (int64_t i = 0; i < n; i += kRow) {
    const int64_t count = n - i < kRow ? n - i : kRow;
    for (int64_t l = 0; l < image.channels; ++l) {
      T* dst = image.data + l * image.channel_stride + to + i;
      A* row = row_target(dst, buffer);
      for (int64_t j = 0; j < count; ++j) row[j] = from[(i + j) * lanes + l];
      store_row(dst, row, count);
    }
  }
}

// The lowest and the highest position along y that the samples of rows [begin, end) of the output may have.
template <class A>
void source_positions(const GridSample& p, int64_t s, int64_t begin, int64_t end, A* lowest, A* highest) {
  A least = static_cast<A>(p.in_h), most = -1;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < p.out_w; j += kRow) {
      const int32_t n = static_cast<int32_t>(p.out_w - j < kRow ? p.out_w - j : kRow);
      A buffer[kRow];
      const A* const v = coordinates(p, true, s, i, j, n, buffer);
      with_padding(p.padding, [&](auto padding) {
        const Axis<padding, A> axis(p, true, i, j);
        constexpr bool kReflected = padding == Padding::reflection;
        // but for reflections positions rise with the coordinates
        A low = std::numeric_limits<A>::infinity(), high = -low;
#pragma omp simd reduction(min : low) reduction(max : high)
        for (int32_t k = 0; k < n; ++k) {
          A at = v[k], slope, inside;
          if constexpr (kReflected) axis.place(v[k], k, &at, &slope, &inside);
          low = at < low ? at : low;
          high = at > high ? at : high;
        }
        for (A at : {low, high}) {
          if constexpr (!kReflected) at = axis.position(at, 0);
          at = at > -1 ? at : A(-1);
          at = at < axis.last ? at : axis.last;
          least = at < least ? at : least;
          most = at > most ? at : most;
        }
      });
    }
  }
  *lowest = least;
  *highest = most;
}

// The rows that rows [begin, end) of the output read, those of zeros beyond the image included: from *low to *high.
template <class A>
void source_rows(const GridSample& p, int64_t s, int64_t begin, int64_t end, int64_t* low, int64_t* high) {
  A lowest, highest;
  source_positions<A>(p, s, begin, end, &lowest, &highest);
  // the same positions may be rounded otherwise where they are those of samples
  const A rounding = 4 * std::numeric_limits<A>::epsilon() * static_cast<A>(p.in_h + 1);
  *low = static_cast<int64_t>(std::floor(lowest - rounding));
  *high = static_cast<int64_t>(std::floor(highest + rounding)) + 1;
  *low = *low < -1 ? -1 : *low;
  *high = *high > p.in_h ? p.in_h : *high;
}

// The image itself as a block, if Image says that it is one, or can be read as one.
template <int64_t lanes, class A, class T>
Block<A> block_of(const GridSample& p, const Image<T>& image) {
  const int64_t pixel = image.pixel_stride, missing = lanes - image.channels;
  return {reinterpret_cast<A*>(image.data), pixel, p.in_w * pixel, 0, false, image.channels,
          (missing + pixel - 1) / pixel};
}

// The block of x that rows [begin, end) of the output read; without data where they read little of it. Lanes past the
// channels are zeros, or, if they may be, what follows.
template <int64_t lanes, class T, class A>
Block<A> source(const GridSample& p, const Image<T>& x, int64_t s, int64_t begin, int64_t end, bool followed,
                A* memory) {
  if (followed ? x.template is_readable<A>() : x.template is_block<A>(lanes)) return block_of<lanes, A>(p, x);
  int64_t low, high;
  source_rows<A>(p, s, begin, end, &low, &high);
  const int64_t row = (p.in_w + 2) * lanes, pixels = (high - low + 1) * (p.in_w + 2) + 2;
  if (pixels > p.most_packed()) return {nullptr, lanes, 2 * lanes, 0, true};
  for (int64_t i = low; i <= high; ++i) {
    A* const to = memory + (i - low) * row;
    const bool beyond = i < 0 || i >= p.in_h;
    std::memset(to, 0, (beyond ? row : 2 * lanes) * sizeof(A));
    if (!beyond) pack<lanes>(x, i * p.in_w, p.in_w, to + 2 * lanes);
  }
  std::memset(memory + (high - low + 1) * row, 0, 2 * lanes * sizeof(A));
  return {memory, lanes, row, low, true};
}

// The taps of the samples of a row, four pixels of lanes for each, where they are read from the image one by one.
template <int64_t lanes, class T, class A>
void gather(const GridSample& p, const Image<T>& x, const Row<A>& row, A* memory, int32_t (&offset)[kRow]) {
  std::memset(memory, 0, row.n * 4 * lanes * sizeof(A));
  for (int64_t k = 0; k < row.n; ++k) {
    offset[k] = static_cast<int32_t>(4 * k);
    row.each_tap(p, k, [&](int tap, int64_t i, int64_t j, A, A) {
      const T* const from = x.data + (i * p.in_w + j) * x.pixel_stride;
      A* const to = memory + (4 * k + tap) * lanes;
      for (int64_t l = 0; l < x.channels; ++l) to[l] = *load_row(from + l * x.channel_stride, to + l, 1);
    });
  }
}

// The block that the taps of the samples of a row are in, and where they are in it.
template <int64_t lanes, class T, class A>
Block<A> taps(const GridSample& p, const Image<T>& x, const Block<A>& from, const Row<A>& row, A* memory,
              int32_t (&offset)[kRow]) {
  Block<A> block = from;
  if (from.data) {
    row.offsets(p, from, offset);
  } else {
    gather<lanes>(p, x, row, memory, offset);
    block.data = memory;
  }
  return block;
}

}  // namespace
}  // namespace IMGOPS_ISA
}  // namespace imgops
