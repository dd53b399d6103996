// Kernels of grid_sample and displace, compiled once per instruction set. Vectors run along the channels of a block, so
// that the taps of a pixel are loads in a row and its gradient is a sum into them: nothing is gathered or scattered.
// Images that have not the form of such a block are copied to one with zeros around it, where no tap has to be looked at.
// Samples of few planes are made in another way.
#include <optional>

#include "grid_sample_blocks.h"
#include "grid_sample_planes.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// to += w * g
template <int64_t lanes, class A>
inline void add(A* to, A w, const A* g) {
#pragma omp simd
  for (int64_t l = 0; l < lanes; ++l) to[l] += w * g[l];
}

// Samples [begin, end) of a row, rows of lanes that are `stride` apart; their taps are at these offsets of a block.
template <int64_t lanes, bool padded, class A>
void samples(const GridSample& p, const Row<A>& row, const Block<A>& from, const int32_t (&offset)[kRow], int64_t begin,
             int64_t end, A* to, int64_t stride) {
  const int64_t pixel = padded ? lanes : from.pixel;
  for (int64_t k = begin; k < end; ++k, to += stride) {
    if (!padded && offset[k] < 0) {
      for (int64_t l = 0; l < lanes; ++l) to[l] = 0;
      row.each_tap(p, k, [&](int, int64_t i, int64_t j, A along_x, A along_y) {
        const A* const tap = from.data + i * from.row + j * from.pixel;
        for (int64_t l = 0; l < from.channels; ++l) to[l] += along_x * along_y * tap[l];
      });
      continue;
    }
    const A *const above = from.data + offset[k] * pixel, *const below = above + from.row;
    const A left = row.left[k], right = row.right[k], top = row.top[k], bottom = row.bottom[k];
#pragma omp simd
    for (int64_t l = 0; l < lanes; ++l) {
      to[l] =
          left * (top * above[l] + bottom * below[l]) + right * (top * above[l + pixel] + bottom * below[l + pixel]);
    }
  }
}

template <int64_t lanes, class T>
void forward(const GridSample& p, int64_t begin, int64_t end, void* scratch) {
  using A = typename Accumulate<T>::type;
  Row<A> row;
  A buffer[kRow * lanes], *const memory = static_cast<A*>(scratch);
  int32_t offset[kRow];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t chunk = task % p.chunks, block = task / p.chunks % p.blocks, s = task / p.chunks / p.blocks;
    const int64_t first = chunk * p.rows, last = first + p.rows < p.out_h ? first + p.rows : p.out_h;
    const Image<T> x(p, p.x, p.in_h * p.in_w, s, block), y(p, p.y, p.out_h * p.out_w, s, block);
    const Block<A> source_block = source<lanes>(p, x, s, first, last, true, memory);
    // where all channels lie side by side, what is too much of a pixel is overwritten by the next one, all but the last
    const bool whole = y.template is_block<A>(lanes),
               but_last = y.template is_readable<A>() && y.channels == p.channels;
    for (int64_t i = first; i < last; ++i) {
      for (int64_t j = 0; j < p.out_w; j += kRow) {
        row.template locate<false>(p, s, i, j);
        const Block<A> from = taps<lanes>(p, x, source_block, row, memory, offset);
        const auto make = from.padded ? samples<lanes, true, A> : samples<lanes, false, A>;
        const int64_t at = i * p.out_w + j, written = whole ? row.n : but_last ? row.n - 1 : 0;
        A* const out = reinterpret_cast<A*>(y.data + at * y.pixel_stride);
        make(p, row, from, offset, 0, written, out, y.pixel_stride);
        if (written == row.n) continue;
        make(p, row, from, offset, written, row.n, buffer, lanes);
        unpack<lanes>(y, at + written, row.n - written, buffer);
      }
    }
  }
}

// samples of a row whose gradients are added in turns: neighbors share taps, and would wait for each other's sums
constexpr int64_t kTurns = 4;

// Add the gradients of the samples of a row to their taps.
template <int64_t lanes, bool padded, class A>
void scatter(const GridSample& p, const Row<A>& row, const Block<A>& to, const A* gradient, int64_t stride) {
  int32_t offset[kRow];
  row.offsets(p, to, offset);
  const int64_t pixel = padded ? lanes : to.pixel;
  const int64_t part = (row.n + kTurns - 1) / kTurns;
  for (int64_t start = 0; start < part; ++start) {
    for (int64_t k = start; k < row.n; k += part) {
      const A* const g = gradient + k * stride;
      if (!padded && offset[k] < 0) {
        row.each_tap(p, k, [&](int, int64_t i, int64_t j, A along_x, A along_y) {
          add<lanes>(to.data + i * to.row + j * to.pixel, along_x * along_y, g);
        });
        continue;
      }
      A *const above = to.data + offset[k] * pixel, *const below = above + to.row;
      const A left = row.left[k], right = row.right[k], top = row.top[k], bottom = row.bottom[k];
#pragma omp simd
      for (int64_t l = 0; l < lanes; ++l) {
        const A first = left * g[l], second = right * g[l];
        above[l] += top * first;
        above[l + pixel] += top * second;
        below[l] += bottom * first;
        below[l + pixel] += bottom * second;
      }
    }
  }
}

// channels whose sum is left for later: all of them, or every fourth
constexpr int64_t kSums = 4;

// The gradients for the positions of the samples of a row, whose taps are at these offsets of a block.
template <int64_t lanes, bool padded, class A>
void gradient_of_positions(const GridSample& p, const Row<A>& row, const Block<A>& from, const int32_t (&offset)[kRow],
                           const A* gradient, int64_t stride, A* to) {
  // of each sample a few sums over channels, which are summed for all samples at once
  A sums_x[kRow * kSums], sums_y[kRow * kSums];
  for (int64_t k = 0; k < row.n; ++k) {
    const A* const g = gradient + k * stride;
    A x[lanes] = {}, y[lanes] = {};
    if (!padded && offset[k] < 0) {
      row.each_tap(p, k, [&](int tap, int64_t i, int64_t j, A along_x, A along_y) {
        const A* const a = from.data + i * from.row + j * from.pixel;
        const A weight_x = tap & 1 ? along_y : -along_y, weight_y = tap >> 1 ? along_x : -along_x;
        for (int64_t l = 0; l < lanes; ++l) {
          x[l] += weight_x * (g[l] * a[l]);
          y[l] += weight_y * (g[l] * a[l]);
        }
      });
    } else {
      const int64_t pixel = padded ? lanes : from.pixel;
      const A *a = from.data + offset[k] * pixel, *b = a + pixel, *c = a + from.row, *d = c + pixel;
      const A left = row.left[k], right = row.right[k], top = row.top[k], bottom = row.bottom[k];
#pragma omp simd
      for (int64_t l = 0; l < lanes; ++l) {
        x[l] = g[l] * (top * (b[l] - a[l]) + bottom * (d[l] - c[l]));
        y[l] = g[l] * (left * (c[l] - a[l]) + right * (d[l] - b[l]));
      }
    }
#pragma omp simd
    for (int64_t l = 0; l < kSums; ++l) {
      A sum_x = x[l], sum_y = y[l];
      for (int64_t m = kSums; m < lanes; m += kSums) sum_x += x[l + m], sum_y += y[l + m];
      sums_x[k * kSums + l] = sum_x;
      sums_y[k * kSums + l] = sum_y;
    }
  }
  // of the gradient for positions: [2, H', W'] where displaced, else [H', W', 2]
  const int64_t next = p.displaced ? 1 : 2, axis = p.displaced ? p.out_h * p.out_w : 1;
  // outside not by a weight of 0: an infinity or NaN in the gradient would become one here
#pragma omp simd
  for (int64_t k = 0; k < row.n; ++k) {
    A sum_x = 0, sum_y = 0;
    for (int64_t l = 0; l < kSums; ++l) sum_x += sums_x[k * kSums + l], sum_y += sums_y[k * kSums + l];
    const bool inside = row.column[k] > Row<A>::kOutside;
    to[k * next] = inside ? row.turn_x[k] * sum_x : A(0);
    to[k * next + axis] = inside ? row.turn_y[k] * sum_y : A(0);
  }
}

// dx itself, or a block for it in memory. Its rows are made zeros just before they are needed: until then others would
// push them out of the cache.
template <int64_t lanes, class T, class A>
class Sums {
 public:
  const Block<A> block;

  Sums(const GridSample& p, const Image<T>& dx, A* memory)
      : block(dx.template is_block<A>(lanes) ? block_of<lanes, A>(p, dx)
                                             : Block<A>{memory, lanes, (p.in_w + 2) * lanes, -1, true}),
        width_(block.padded ? p.in_w + 2 : p.in_w), end_(block.padded ? p.in_h + 1 : p.in_h), made_(block.first) {
    // where sums are that are of no use, and what is behind the last row
    if (block.padded) std::memset(memory + (p.in_h + 2) * block.row, 0, 2 * lanes * sizeof(A));
    make(block.padded ? 1 : 0);
  }

  // make rows up to `end`, at most all
  void make(int64_t end) {
    for (end = end < end_ ? end : end_; made_ < end; ++made_) {
      A* const row = block.data + (made_ - block.first) * block.row;
      for (int64_t j = 0; j < width_; ++j) std::memset(row + j * block.pixel, 0, lanes * sizeof(A));
    }
  }
  void make_all() { make(end_); }

 private:
  int64_t width_, end_, made_;
};

template <int64_t lanes, class T>
void backward(const GridSample& p, int64_t begin, int64_t end, void* scratch) {
  using A = typename Accumulate<T>::type;
  Row<A> row;
  A buffer[kRow * lanes];
  int32_t offset[kRow];
  const int64_t in_pixels = p.in_h * p.in_w, out_pixels = p.out_h * p.out_w;
  A *const packed_dx = static_cast<A*>(scratch), *const packed_x = packed_dx + (p.dx ? p.most_pixels() * lanes : 0);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t block = task % p.blocks, s = task / p.blocks;
    const Image<T> x(p, p.x, in_pixels, s, block), dx(p, p.dx, in_pixels, s, block), dy(p, p.dy, out_pixels, s, block);
    const bool direct = dy.template is_block<A>(lanes);
    std::optional<Sums<lanes, T, A>> sums;
    if (p.dx) sums.emplace(p, dx, packed_dx);
    A* const dpositions = static_cast<A*>(p.dpositions) + (block * p.samples + s) * out_pixels * 2;
    for (int64_t first = 0; first < p.out_h; first += p.rows) {
      const int64_t last = first + p.rows < p.out_h ? first + p.rows : p.out_h;
      const Block<A> from = p.dpositions ? source<lanes>(p, x, s, first, last, false, packed_x) : Block<A>{};
      for (int64_t i = first; i < last; ++i) {
        for (int64_t j = 0; j < p.out_w; j += kRow) {
          row.template locate<true>(p, s, i, j);
          const int64_t at = i * p.out_w + j, stride = direct ? dy.pixel_stride : lanes;
          if (!direct) pack<lanes>(dy, at, row.n, buffer);
          const A* const gradient = direct ? reinterpret_cast<const A*>(dy.data + at * dy.pixel_stride) : buffer;
          if (sums) {
            sums->make(row.last_line() + 1);
            const auto add_up = sums->block.padded ? scatter<lanes, true, A> : scatter<lanes, false, A>;
            add_up(p, row, sums->block, gradient, stride);
          }
          if (!p.dpositions) continue;
          const Block<A> read = taps<lanes>(p, x, from, row, packed_x, offset);
          const auto differentiate =
              read.padded ? gradient_of_positions<lanes, true, A> : gradient_of_positions<lanes, false, A>;
          differentiate(p, row, read, offset, gradient, stride, dpositions + at * (p.displaced ? 1 : 2));
        }
      }
    }
    if (!sums) continue;
    sums->make_all();
    for (int64_t i = 0; sums->block.padded && i < p.in_h; ++i) {
      unpack<lanes>(dx, i * p.in_w, p.in_w, packed_dx + (i + 1) * sums->block.row + 2 * lanes);
    }
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
#if defined(__AVX2__)
  if (!is_backward && dtype == DType::f32 && gathers(p)) return forward_by_pixels(p, begin, end);
#endif
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
