// Kernels of grid_sample and displace, compiled once an instruction set. Vectors run along the channels of a block, so
// that the taps of a pixel are loads in a row and its gradient is a sum into them: nothing is gathered or scattered.
#include "grid_sample.h"

#include <cmath>

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// pixels whose places and weights are computed at once, and stay in L1
constexpr int64_t kRow = 128;

// Where the samples of a row lie along one axis: the taps, and their weights differentiated `order` times and once more.
template <class A>
struct Places {
  int32_t first[kRow], second[kRow], inside[kRow];
  A weight[2][kRow], derivative[2][kRow];
};

// place[i] of the coordinate at u[i * stride]; the pixel that it is relative to, where displaced, is origin + i * step
template <Padding padding, class A>
void locate(Places<A>& to, const A* u, int64_t stride, int64_t n, int64_t size, bool displaced, A origin, A step, int64_t order) {
  const A length = static_cast<A>(size), last = length - 1, scale = displaced ? A(1) : length / 2;
  const int32_t end = static_cast<int32_t>(size - 1);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A value = u[i * stride];
    A position = displaced ? value + (origin + static_cast<A>(i) * step) : ((value + 1) * length - 1) / 2;
    A slope = scale;
    bool inside = true;
    if constexpr (padding == Padding::zeros) {
      // false for NaN
      inside = position >= -1 && position < length;
      position = inside ? position : A(0);
    } else {
      if constexpr (padding == Padding::reflection) {
        const A shifted = position + A(0.5), distance = shifted < 0 ? -shifted : shifted;
        const A flips = std::floor(distance / length), rest = distance - flips * length;
        const bool odd = flips - 2 * std::floor(flips / 2) != 0;
        position = (odd ? length - rest : rest) - A(0.5);
        slope = odd != (shifted < 0) ? -scale : scale;
      }
      // on the border as beyond it, and for NaN, there is no gradient
      const bool above = position > 0, below = position < last;
      slope = above && below ? slope : A(0);
      position = above ? (below ? position : last) : A(0);
    }
    const A floor = std::floor(position), t = position - floor;
    const int32_t at = static_cast<int32_t>(floor);
    const bool has_first = inside && at >= 0, has_second = inside && at < end;
    const int32_t first = at < 0 ? 0 : at, second = at + 1;
    to.first[i] = first > end ? end : first;
    to.second[i] = second > end ? end : second;
    to.inside[i] = inside;
    const A w0 = has_first ? 1 - t : A(0), w1 = has_second ? t : A(0);
    const A d0 = has_first ? -slope : A(0), d1 = has_second ? slope : A(0);
    to.weight[0][i] = order ? d0 : w0;
    to.weight[1][i] = order ? d1 : w1;
    to.derivative[0][i] = order ? A(0) : d0;
    to.derivative[1][i] = order ? A(0) : d1;
  }
}

// The taps of a row of samples: pixel numbers from the first row of the source on, and products of weights.
template <class A>
struct Row {
  Places<A> x, y;
  int64_t n;

  // columns [j, j + n) of row i of sample s
  void locate(const GridSample& p, int64_t s, int64_t i, int64_t j, int64_t count) {
    n = count;
    switch (p.padding) {
      case Padding::zeros: return locate<Padding::zeros>(p, s, i, j);
      case Padding::border: return locate<Padding::border>(p, s, i, j);
      case Padding::reflection: return locate<Padding::reflection>(p, s, i, j);
    }
  }

  template <Padding padding>
  void locate(const GridSample& p, int64_t s, int64_t i, int64_t j) {
    const A* u = static_cast<const A*>(p.positions) + s * p.sample_stride + i * p.row_stride + j * p.column_stride;
    IMGOPS_ISA::locate<padding>(x, u, p.column_stride, n, p.in_w, p.displaced, A(j), A(1), p.order_x);
    IMGOPS_ISA::locate<padding>(y, u + p.axis_stride, p.column_stride, n, p.in_h, p.displaced, A(i), A(0), p.order_y);
  }

  bool inside(int64_t i) const { return x.inside[i] && y.inside[i]; }
};

// A block of channels of an image, as rows of lanes.
template <class A>
struct Block {
  A* data;
  int64_t pixel, row, first_row;

  A* at(int64_t y, int64_t x) const { return data + (y - first_row) * row + x * pixel; }
};

// A block of channels of an image in memory as the tensor has it.
template <class T>
struct Image {
  T* data;
  int64_t pixels, channel_stride, pixel_stride, channels;

  Image(const GridSample& p, const void* memory, int64_t pixels, int64_t sample, int64_t block)
      : pixels(pixels), channel_stride(p.interleaved ? 1 : pixels), pixel_stride(p.interleaved ? p.channels : 1) {
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
  A buffer[kRow];
  if (image.channel_stride == 1) {
    for (int64_t i = 0; i < n; ++i) {
      const A* row = load_row(image.data + (from + i) * image.pixel_stride, buffer, image.channels);
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
    for (int64_t i = 0; i < n; ++i) {
      T* dst = image.data + (to + i) * image.pixel_stride;
      A* row = row_target(dst, buffer);
      for (int64_t l = 0; l < image.channels; ++l) row[l] = from[i * lanes + l];
      store_row(dst, row, image.channels);
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

// The rows of the source that rows [begin, end) of the output read: [lowest, highest].
template <class A>
void source_rows(const GridSample& p, Row<A>& row, int64_t s, int64_t begin, int64_t end, int64_t* lowest, int64_t* highest) {
  int32_t low = INT32_MAX, high = 0;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < p.out_w; j += kRow) {
      row.locate(p, s, i, j, p.out_w - j < kRow ? p.out_w - j : kRow);
#pragma omp simd reduction(min : low) reduction(max : high)
      for (int64_t k = 0; k < row.n; ++k) {
        low = row.y.first[k] < low ? row.y.first[k] : low;
        high = row.y.second[k] > high ? row.y.second[k] : high;
      }
    }
  }
  *lowest = low;
  *highest = high;
}

// The block of x that rows [begin, end) of the output read.
template <int64_t lanes, class T, class A>
Block<A> source(const GridSample& p, Row<A>& row, const Image<T>& x, int64_t s, int64_t begin, int64_t end, A* scratch) {
  if (x.template is_block<A>(lanes)) {
    return {reinterpret_cast<A*>(x.data), x.pixel_stride, p.in_w * x.pixel_stride, 0};
  }
  int64_t low, high;
  source_rows(p, row, s, begin, end, &low, &high);
  pack<lanes>(x, low * p.in_w, (high - low + 1) * p.in_w, scratch);
  return {scratch, lanes, p.in_w * lanes, low};
}

template <int64_t lanes, class T>
void forward(const GridSample& p, int64_t begin, int64_t end, void* scratch) {
  using A = typename Accumulate<T>::type;
  Row<A> row;
  A buffer[kRow * lanes];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task % p.chunks, block = task / p.chunks % p.blocks, s = task / p.chunks / p.blocks;
    const int64_t first = chunk * p.rows, last = first + p.rows < p.out_h ? first + p.rows : p.out_h;
    const Image<T> x(p, p.x, p.in_h * p.in_w, s, block), y(p, p.y, p.out_h * p.out_w, s, block);
    const Block<A> from = source<lanes>(p, row, x, s, first, last, static_cast<A*>(scratch));
    const bool direct = y.template is_block<A>(lanes);
    for (int64_t i = first; i < last; ++i) {
      for (int64_t j = 0; j < p.out_w; j += kRow) {
        row.locate(p, s, i, j, p.out_w - j < kRow ? p.out_w - j : kRow);
        const int64_t at = i * p.out_w + j;
        A* const out = direct ? reinterpret_cast<A*>(y.data + at * y.pixel_stride) : buffer;
        const int64_t stride = direct ? y.pixel_stride : lanes;
        for (int64_t k = 0; k < row.n; ++k) {
          A* const o = out + k * stride;
          if (!row.inside(k)) {
            // not by a weight of 0: there, an infinity or NaN would become one here
            for (int64_t l = 0; l < lanes; ++l) o[l] = 0;
            continue;
          }
          const A *a = from.at(row.y.first[k], row.x.first[k]), *b = from.at(row.y.first[k], row.x.second[k]);
          const A *c = from.at(row.y.second[k], row.x.first[k]), *d = from.at(row.y.second[k], row.x.second[k]);
          const A wa = row.y.weight[0][k] * row.x.weight[0][k], wb = row.y.weight[0][k] * row.x.weight[1][k];
          const A wc = row.y.weight[1][k] * row.x.weight[0][k], wd = row.y.weight[1][k] * row.x.weight[1][k];
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
  A buffer[kRow * lanes];
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
      if (p.dpositions) from = source<lanes>(p, row, x, s, first, last, packed_x);
      for (int64_t i = first; i < last; ++i) {
        for (int64_t j = 0; j < p.out_w; j += kRow) {
          row.locate(p, s, i, j, p.out_w - j < kRow ? p.out_w - j : kRow);
          const int64_t at = i * p.out_w + j;
          if (!dy_direct) pack<lanes>(dy, at, row.n, buffer);
          const A* const gradient = dy_direct ? reinterpret_cast<const A*>(dy.data + at * dy.pixel_stride) : buffer;
          const int64_t stride = dy_direct ? dy.pixel_stride : lanes;
          if (p.dx) {
            for (int64_t k = 0; k < row.n; ++k) {
              if (!row.inside(k)) continue;
              const A* const g = gradient + k * stride;
              const A w0 = row.y.weight[0][k], w1 = row.y.weight[1][k];
              const A v0 = row.x.weight[0][k], v1 = row.x.weight[1][k];
              add<lanes>(to.at(row.y.first[k], row.x.first[k]), w0 * v0, g);
              add<lanes>(to.at(row.y.first[k], row.x.second[k]), w0 * v1, g);
              add<lanes>(to.at(row.y.second[k], row.x.first[k]), w1 * v0, g);
              add<lanes>(to.at(row.y.second[k], row.x.second[k]), w1 * v1, g);
            }
          }
          for (int64_t k = 0; p.dpositions && k < row.n; ++k) {
            A along_x = 0, along_y = 0;
            if (row.inside(k)) {
              const A* const g = gradient + k * stride;
              const A *a = from.at(row.y.first[k], row.x.first[k]), *b = from.at(row.y.first[k], row.x.second[k]);
              const A *c = from.at(row.y.second[k], row.x.first[k]), *d = from.at(row.y.second[k], row.x.second[k]);
              const A w0 = row.y.weight[0][k], w1 = row.y.weight[1][k];
              const A v0 = row.x.weight[0][k], v1 = row.x.weight[1][k];
              const A dw0 = row.y.derivative[0][k], dw1 = row.y.derivative[1][k];
              const A dv0 = row.x.derivative[0][k], dv1 = row.x.derivative[1][k];
#pragma omp simd reduction(+ : along_x, along_y)
              for (int64_t l = 0; l < lanes; ++l) {
                along_x += g[l] * (w0 * (dv0 * a[l] + dv1 * b[l]) + w1 * (dv0 * c[l] + dv1 * d[l]));
                along_y += g[l] * (dw0 * (v0 * a[l] + v1 * b[l]) + dw1 * (v0 * c[l] + v1 * d[l]));
              }
            }
            dpositions[(at + k) * next] = along_x;
            dpositions[(at + k) * next + axis] = along_y;
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
