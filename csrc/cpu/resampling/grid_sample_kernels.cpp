// Kernels of grid_sample and displace, compiled once per instruction set. Vectors run along the channels of a block, so
// that the taps of a pixel are loads in a row and its gradient is a sum into them: nothing is gathered or scattered.
#include "grid_sample.h"

#include <cmath>

namespace imgops {
namespace IMGOPS_ISA {
namespace {

constexpr int64_t kRow = kSamplesAtOnce;

// Coordinates along an axis of an image, made positions in pixels.
template <Padding padding, class A>
struct Axis {
  A length, last, slope, origin, step;
  // the number of the last pixel; as an A it may be rounded
  int32_t end;

  // where displaced, coordinate i is relative to pixel first + i * each
  Axis(int64_t size, bool displaced, A first, A each)
      : length(static_cast<A>(size)), last(length - 1), slope(displaced ? A(1) : length / 2),
        origin(displaced ? first : last / 2), step(displaced ? each : A(0)), end(static_cast<int32_t>(size - 1)) {}

  // The position of coordinate i within [-1, size), its derivative for u, and 1, or 0 where there is nothing to read.
  // The comparisons are such that NaN is outside, or else on the first pixel.
  inline __attribute__((always_inline)) void place(A u, int32_t i, A* to, A* derivative, A* inside) const {
    A position = u * slope + (origin + static_cast<A>(i) * step), turn = slope;
    *inside = 1;
    if constexpr (padding == Padding::zeros) {
      *inside = position >= -1 ? A(1) : A(0);
      *inside = position < length ? *inside : A(0);
      position = position >= -1 ? position : A(-1);
      position = position < length ? position : last;
    } else {
      if constexpr (padding == Padding::reflection) {
        const A shifted = position + A(0.5), distance = std::fabs(shifted);
        const A flips = std::floor(distance / length), rest = distance - flips * length;
        const A odd = flips - 2 * std::floor(flips / 2);
        position = (odd == 0 ? rest : length - rest) - A(0.5);
        turn = odd == 0 ? std::copysign(slope, shifted) : -std::copysign(slope, shifted);
      }
      // on the border as beyond it there is no gradient
      turn = position > 0 ? turn : A(0);
      turn = position < last ? turn : A(0);
      position = position > 0 ? position : A(0);
      position = position < last ? position : last;
    }
    *to = position;
    *derivative = turn;
  }
};

// The coordinates along x, or along y, of columns [j, j + n) of row i of sample s, and their axis, given to f.
template <class A, class F>
void with_axis(const GridSample& p, bool along_y, int64_t s, int64_t i, int64_t j, int64_t n, const F& f) {
  const A* u = static_cast<const A*>(p.positions) + s * p.sample_stride + i * p.row_stride + j * p.column_stride;
  if (along_y) u += p.axis_stride;
  A buffer[kRow];
  // the stride of a contiguous grid is one that the compiler knows
  if (p.column_stride == 2) {
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) buffer[k] = u[k * 2];
  } else if (p.column_stride != 1) {
    for (int64_t k = 0; k < n; ++k) buffer[k] = u[k * p.column_stride];
  }
  if (p.column_stride != 1) u = buffer;
  const int64_t size = along_y ? p.in_h : p.in_w;
  const A first = static_cast<A>(along_y ? i : j), each = along_y ? A(0) : A(1);
  switch (p.padding) {
    case Padding::zeros: return f(u, Axis<Padding::zeros, A>(size, p.displaced, first, each));
    case Padding::border: return f(u, Axis<Padding::border, A>(size, p.displaced, first, each));
    case Padding::reflection: return f(u, Axis<Padding::reflection, A>(size, p.displaced, first, each));
  }
}

// Where the samples of a row lie along one axis: the taps, and their weights differentiated `order` times and once more.
template <class A>
struct Places {
  int32_t tap[2][kRow];
  A inside[kRow], weight[2][kRow], derivative[2][kRow];

  template <bool kBackward, Padding padding>
  void fill(const A* u, const Axis<padding, A> axis, int64_t n, int64_t order) {
    const int32_t end = axis.end, last = static_cast<int32_t>(n);
#pragma omp simd
    for (int32_t i = 0; i < last; ++i) {
      A position, slope;
      axis.place(u[i], i, &position, &slope, &inside[i]);
      const A floor = std::floor(position), t = position - floor;
      const int32_t at = static_cast<int32_t>(floor), first = at < 0 ? 0 : at, second = at + 1;
      tap[0][i] = first > end ? end : first;
      tap[1][i] = second > end ? end : second;
      // a tap beyond the image has no weight
      const A w0 = floor >= 0 ? 1 - t : A(0), w1 = floor < axis.last ? t : A(0);
      const A d0 = floor >= 0 ? -slope : A(0), d1 = floor < axis.last ? slope : A(0);
      weight[0][i] = order ? d0 : w0;
      weight[1][i] = order ? d1 : w1;
      if constexpr (kBackward) {
        derivative[0][i] = order ? A(0) : d0;
        derivative[1][i] = order ? A(0) : d1;
      }
    }
  }
};

// A block of channels of an image, as rows of lanes; `first` is the number of its first row.
template <class A>
struct Block {
  A* data;
  int64_t pixel, row, first;
};

// The samples of a row: by taps (top left, top right, bottom left, bottom right) products of weights, and where they lie.
template <class A>
struct Row {
  Places<A> x, y;
  int64_t n;
  int32_t inside[kRow];
  A weight[4][kRow];

  // columns from j on, as many as there is room for, of row i of sample s; the derivatives are for a backward
  template <bool kBackward>
  void locate(const GridSample& p, int64_t s, int64_t i, int64_t j) {
    n = p.out_w - j < kRow ? p.out_w - j : kRow;
    with_axis<A>(p, false, s, i, j, n,
                 [&](const A* u, const auto& axis) { x.template fill<kBackward>(u, axis, n, p.order_x); });
    with_axis<A>(p, true, s, i, j, n,
                 [&](const A* u, const auto& axis) { y.template fill<kBackward>(u, axis, n, p.order_y); });
    products(x.weight, y.weight, weight);
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) inside[k] = static_cast<int32_t>(x.inside[k] * y.inside[k]);
  }

  void products(const A (&along_x)[2][kRow], const A (&along_y)[2][kRow], A (&to)[4][kRow]) const {
    for (int tap = 0; tap < 4; ++tap) {
#pragma omp simd
      for (int64_t k = 0; k < n; ++k) to[tap][k] = along_x[tap & 1][k] * along_y[tap >> 1][k];
    }
  }

  void offsets(const Block<A>& block, int64_t (&to)[4][kRow]) const {
    const int64_t pixel = block.pixel, row = block.row, first = block.first;
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) {
      const int64_t top = (y.tap[0][k] - first) * row, bottom = (y.tap[1][k] - first) * row;
      const int64_t left = x.tap[0][k] * pixel, right = x.tap[1][k] * pixel;
      to[0][k] = top + left;
      to[1][k] = top + right;
      to[2][k] = bottom + left;
      to[3][k] = bottom + right;
    }
  }
};

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

  // whether pixels are rows of `lanes` accumulators as they lie
  template <class A>
  bool is_block(int64_t lanes) const {
    return sizeof(T) == sizeof(A) && channel_stride == 1 && channels == lanes;
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

// The rows of the source that rows [begin, end) of the output read: from *lowest to *highest.
template <class A>
void source_rows(const GridSample& p, int64_t s, int64_t begin, int64_t end, int64_t* lowest, int64_t* highest) {
  A low = static_cast<A>(p.in_h), high = -1;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < p.out_w; j += kRow) {
      const int64_t n = p.out_w - j < kRow ? p.out_w - j : kRow;
      with_axis<A>(p, true, s, i, j, n, [&](const A* u, const auto& axis_by_reference) {
        const auto axis = axis_by_reference;
        const int32_t last = static_cast<int32_t>(n);
        A least = low, most = high;
#pragma omp simd reduction(min : least) reduction(max : most)
        for (int32_t k = 0; k < last; ++k) {
          A position, slope, inside;
          axis.place(u[k], k, &position, &slope, &inside);
          least = position < least ? position : least;
          most = position > most ? position : most;
        }
        low = least;
        high = most;
      });
    }
  }
  const int64_t first = static_cast<int64_t>(std::floor(low)), second = static_cast<int64_t>(std::floor(high)) + 1;
  *lowest = first < 0 ? 0 : first > p.in_h - 1 ? p.in_h - 1 : first;
  *highest = second > p.in_h - 1 ? p.in_h - 1 : second;
}

// The block of x that rows [begin, end) of the output read; without data where they read little of it.
template <int64_t lanes, class T, class A>
Block<A> source(const GridSample& p, const Image<T>& x, int64_t s, int64_t begin, int64_t end, A* scratch) {
  if (x.template is_block<A>(lanes)) {
    return {reinterpret_cast<A*>(x.data), x.pixel_stride, p.in_w * x.pixel_stride, 0};
  }
  int64_t low, high;
  source_rows<A>(p, s, begin, end, &low, &high);
  const int64_t pixels = (high - low + 1) * p.in_w;
  if ((end - begin) * p.out_w < pixels / 4) return {nullptr, 0, 0, 0};
  pack<lanes>(x, low * p.in_w, pixels, scratch);
  return {scratch, lanes, p.in_w * lanes, low};
}

// What the offsets of the taps of a row count from.
template <int64_t lanes, class T, class A>
const A* taps(const GridSample& p, const Image<T>& x, const Block<A>& from, const Row<A>& row, A* scratch,
              int64_t (&offset)[4][kRow]) {
  if (from.data) {
    row.offsets(from, offset);
    return from.data;
  }
  for (int tap = 0; tap < 4; ++tap) {
    for (int64_t k = 0; k < row.n; ++k) {
      const int64_t pixel = row.y.tap[tap >> 1][k] * p.in_w + row.x.tap[tap & 1][k];
      offset[tap][k] = (tap * kRow + k) * lanes;
      for (int64_t l = 0; l < lanes; ++l) {
        A* const to = scratch + offset[tap][k] + l;
        *to = l < x.channels ? *load_row(x.data + pixel * x.pixel_stride + l * x.channel_stride, to, 1) : A(0);
      }
    }
  }
  return scratch;
}

template <int64_t lanes, class T>
void forward(const GridSample& p, int64_t begin, int64_t end, void* scratch) {
  using A = typename Accumulate<T>::type;
  Row<A> row;
  A buffer[kRow * lanes];
  int64_t offset[4][kRow];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task % p.chunks, block = task / p.chunks % p.blocks, s = task / p.chunks / p.blocks;
    const int64_t first = chunk * p.rows, last = first + p.rows < p.out_h ? first + p.rows : p.out_h;
    const Image<T> x(p, p.x, p.in_h * p.in_w, s, block), y(p, p.y, p.out_h * p.out_w, s, block);
    const Block<A> from = source<lanes>(p, x, s, first, last, static_cast<A*>(scratch));
    const bool direct = y.template is_block<A>(lanes);
    for (int64_t i = first; i < last; ++i) {
      for (int64_t j = 0; j < p.out_w; j += kRow) {
        row.template locate<false>(p, s, i, j);
        const A* const base = taps<lanes>(p, x, from, row, static_cast<A*>(scratch), offset);
        const int64_t at = i * p.out_w + j;
        A* const out = direct ? reinterpret_cast<A*>(y.data + at * y.pixel_stride) : buffer;
        const int64_t stride = direct ? y.pixel_stride : lanes;
        for (int64_t k = 0; k < row.n; ++k) {
          A* const o = out + k * stride;
          if (!row.inside[k]) {
            // not by a weight of 0: there, an infinity or NaN would become one here
            for (int64_t l = 0; l < lanes; ++l) o[l] = 0;
            continue;
          }
          const A *a = base + offset[0][k], *b = base + offset[1][k];
          const A *c = base + offset[2][k], *d = base + offset[3][k];
          const A wa = row.weight[0][k], wb = row.weight[1][k], wc = row.weight[2][k], wd = row.weight[3][k];
#pragma omp simd
          for (int64_t l = 0; l < lanes; ++l) o[l] = wa * a[l] + wb * b[l] + wc * c[l] + wd * d[l];
        }
        if (!direct) unpack<lanes>(y, at, row.n, buffer);
      }
    }
  }
}

// to += w * g
template <int64_t lanes, class A>
inline void add(A* to, A w, const A* g) {
#pragma omp simd
  for (int64_t l = 0; l < lanes; ++l) to[l] += w * g[l];
}

template <int64_t lanes, class T>
void backward(const GridSample& p, int64_t begin, int64_t end, void* scratch) {
  using A = typename Accumulate<T>::type;
  Row<A> row;
  A buffer[kRow * lanes], along_x[4][kRow], along_y[4][kRow];
  int64_t offset[4][kRow];
  const int64_t in_pixels = p.in_h * p.in_w, out_pixels = p.out_h * p.out_w;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t block = task % p.blocks, s = task / p.blocks;
    const Image<T> x(p, p.x, in_pixels, s, block), dx(p, p.dx, in_pixels, s, block), dy(p, p.dy, out_pixels, s, block);
    const bool dx_direct = dx.template is_block<A>(lanes), dy_direct = dy.template is_block<A>(lanes);
    A* const packed_dx = static_cast<A*>(scratch);
    A* const packed_x = packed_dx + (p.dx ? in_pixels * lanes : 0);
    Block<A> to{packed_dx, lanes, p.in_w * lanes, 0};
    if (p.dx) {
      if (dx_direct) to = {reinterpret_cast<A*>(dx.data), dx.pixel_stride, p.in_w * dx.pixel_stride, 0};
      for (int64_t i = 0; i < in_pixels; ++i) {
        for (int64_t l = 0; l < lanes; ++l) to.data[i * to.pixel + l] = 0;
      }
    }
    A* const dpositions = static_cast<A*>(p.dpositions) + (block * p.samples + s) * out_pixels * 2;
    // of the gradient for positions: [2, H', W'] where displaced, else [H', W', 2]
    const int64_t next = p.displaced ? 1 : 2, axis = p.displaced ? out_pixels : 1;
    for (int64_t first = 0; first < p.out_h; first += p.rows) {
      const int64_t last = first + p.rows < p.out_h ? first + p.rows : p.out_h;
      Block<A> from{};
      if (p.dpositions) from = source<lanes>(p, x, s, first, last, packed_x);
      for (int64_t i = first; i < last; ++i) {
        for (int64_t j = 0; j < p.out_w; j += kRow) {
          row.template locate<true>(p, s, i, j);
          const int64_t at = i * p.out_w + j;
          if (!dy_direct) pack<lanes>(dy, at, row.n, buffer);
          const A* const gradient = dy_direct ? reinterpret_cast<const A*>(dy.data + at * dy.pixel_stride) : buffer;
          const int64_t stride = dy_direct ? dy.pixel_stride : lanes;
          if (p.dx) {
            row.offsets(to, offset);
            for (int64_t k = 0; k < row.n; ++k) {
              if (!row.inside[k]) continue;
              // one after another: at the border two taps are one
              for (int tap = 0; tap < 4; ++tap) {
                add<lanes>(to.data + offset[tap][k], row.weight[tap][k], gradient + k * stride);
              }
            }
          }
          if (!p.dpositions) continue;
          const A* const base = taps<lanes>(p, x, from, row, packed_x, offset);
          row.products(row.x.derivative, row.y.weight, along_x);
          row.products(row.x.weight, row.y.derivative, along_y);
          for (int64_t k = 0; k < row.n; ++k) {
            A sum_x = 0, sum_y = 0;
            if (row.inside[k]) {
              const A* const g = gradient + k * stride;
              const A *a = base + offset[0][k], *b = base + offset[1][k];
              const A *c = base + offset[2][k], *d = base + offset[3][k];
              const A xa = along_x[0][k], xb = along_x[1][k], xc = along_x[2][k], xd = along_x[3][k];
              const A ya = along_y[0][k], yb = along_y[1][k], yc = along_y[2][k], yd = along_y[3][k];
#pragma omp simd reduction(+ : sum_x, sum_y)
              for (int64_t l = 0; l < lanes; ++l) {
                sum_x += g[l] * (xa * a[l] + xb * b[l] + xc * c[l] + xd * d[l]);
                sum_y += g[l] * (ya * a[l] + yb * b[l] + yc * c[l] + yd * d[l]);
              }
            }
            dpositions[(at + k) * next] = sum_x;
            dpositions[(at + k) * next + axis] = sum_y;
          }
        }
      }
    }
    if (p.dx && !dx_direct) unpack<lanes>(dx, 0, in_pixels, packed_dx);
  }
}

template <int64_t lanes>
void dispatch(const GridSample& p, DType dtype, bool is_backward, int64_t begin, int64_t end, void* scratch) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    is_backward ? backward<lanes, T>(p, begin, end, scratch) : forward<lanes, T>(p, begin, end, scratch);
  });
}

void dispatch(const GridSample& p, DType dtype, bool is_backward, int64_t begin, int64_t end, void* scratch) {
  switch (p.lanes) {
    case 4: return dispatch<4>(p, dtype, is_backward, begin, end, scratch);
    case 8: return dispatch<8>(p, dtype, is_backward, begin, end, scratch);
    default: return dispatch<16>(p, dtype, is_backward, begin, end, scratch);
  }
}

}  // namespace

void grid_sample(const GridSample& p, DType dtype, int64_t begin, int64_t end, void* scratch) {
  dispatch(p, dtype, false, begin, end, scratch);
}

void grid_sample_backward(const GridSample& p, DType dtype, int64_t begin, int64_t end, void* scratch) {
  dispatch(p, dtype, true, begin, end, scratch);
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
