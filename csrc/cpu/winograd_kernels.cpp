// Kernels of fused_conv2d, compiled once an instruction set. For a group of tiles: transform the inputs, multiply by
// the transformed weights, transform the sums back, finish. Nothing but the output goes to memory.
#include "winograd.h"

#include "bias_act_rows.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 8;
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 4;
#else
constexpr int kBytes = 16, kRows = 4;
#endif
constexpr int kVectors = 3;

// a vector of n values of A, loaded and stored where it is aligned
template <class A, int64_t n>
struct Vector {
  typedef A type __attribute__((vector_size(n * sizeof(A)), may_alias));
};
template <class A>
constexpr int64_t kLanes = kBytes / sizeof(A);

// One axis of F(2, 3), y[j] = sum_k d[j + k] w[k]: each product is of the transformed input and weight of its number.
struct Plain {
  static constexpr int64_t kProducts = 4, kPixels = 2;
  static constexpr int64_t kTile[] = {0, 1, 2, 3}, kWeight[] = {0, 1, 2, 3};
  template <class A>
  static void input(const A (&d)[4], A (&t)[4]) {
    t[0] = d[0] - d[2], t[1] = d[1] + d[2], t[2] = d[2] - d[1], t[3] = d[1] - d[3];
  }
  template <class A>
  static void weight(const A (&w)[3], A (&u)[4]) {
    u[0] = w[0], u[1] = (w[0] + w[2] + w[1]) / 2, u[2] = (w[0] + w[2] - w[1]) / 2, u[3] = w[2];
  }
  template <class A>
  static void output(const A (&m)[4], A (&y)[2]) {
    y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
  }
};

// One axis of the transposed convolution from inputs a - 1, a, a + 1: the even outputs y[0] = d[0] w[2] + d[1] w[0] and
// y[2] = d[1] w[2] + d[2] w[0] by F(2, 2), the odd ones y[1] = d[1] w[1] and y[3] = d[2] w[1] as they are.
struct Transposed {
  static constexpr int64_t kProducts = 5, kPixels = 4;
  static constexpr int64_t kTile[] = {0, 1, 2, 1, 3}, kWeight[] = {0, 1, 2, 3, 3};
  template <class A>
  static void input(const A (&d)[4], A (&t)[4]) {
    t[0] = d[0] - d[1], t[1] = d[1], t[2] = d[2] - d[1], t[3] = d[2];
  }
  template <class A>
  static void weight(const A (&w)[3], A (&u)[4]) {
    u[0] = w[2], u[1] = w[0] + w[2], u[2] = w[0], u[3] = w[1];
  }
  template <class A>
  static void output(const A (&m)[5], A (&y)[4]) {
    y[0] = m[0] + m[1], y[1] = m[3], y[2] = m[1] + m[2], y[3] = m[4];
  }
};

// sums[r * row + t] (+)= sum_i weights[i][r] * tiles[i][t] for kRows rows r and the tiles t of kVectors vectors, all
// sums in registers; `next`, as many weights that will be asked for next, is fetched from memory meanwhile
template <int64_t row, class A>
inline void multiply(const A* weights, const A* tiles, A* sums, int64_t inputs, bool add, const A* next) {
  constexpr int64_t lanes = kLanes<A>;
  using V = typename Vector<A, lanes>::type;
  V acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = add ? *reinterpret_cast<const V*>(sums + r * row + v * lanes) : V{};
    }
  }
  for (int64_t i = 0; i < inputs; ++i) {
    __builtin_prefetch(next + i * kWinogradOutputs, 0, 2);
    V x[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) x[v] = *reinterpret_cast<const V*>(tiles + i * kWinogradTiles + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const A w = weights[i * kWinogradOutputs + r];
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) acc[r][v] += x[v] * w;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) *reinterpret_cast<V*>(sums + r * row + v * lanes) = acc[r][v];
  }
}

template <class Axis, class A>
class GroupMaker {
  static constexpr int64_t T = kWinogradTiles, kProducts = Axis::kProducts, kPixels = Axis::kPixels;
  using V = typename Vector<A, kLanes<A>>::type;
  static_assert(kPixels * kPixels <= kUntransformed && kPixels <= kWinogradRow, "scratch is too small for a tile's outputs");
  static_assert(2 * T + 2 <= kWinogradRow * T, "scratch is too small for a row of inputs");
  // of an output block
  static constexpr int64_t kSums = kWinogradOutputs * kProducts * kProducts * T;

 public:
  GroupMaker(const Winograd& p, DType dtype, A* scratch)
      : p_(p), limits_(p.epilogue, dtype), block_inputs_(p.block_inputs()), tiles_(scratch),
        sums_(tiles_ + kTransformed * block_inputs_ * T),
        pixels_(sums_ + kSums * p.kept_blocks()), row_(pixels_ + kUntransformed * T) {
    // lanes past the last tile are computed too and thrown away: numbers, so that none is slow
    for (int64_t i = 0; i < kUntransformed * T; ++i) pixels_[i] = 0;
  }

  // output blocks begin to end of group number `group`
  void make(int64_t group, int64_t begin, int64_t end) {
    first_ = group * T;
    count_ = p_.tiles() - first_ < T ? p_.tiles() - first_ : T;
    const int64_t blocks = p_.input_blocks();
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * block_inputs_;
      const int64_t inputs = p_.inputs - first < block_inputs_ ? p_.inputs - first : block_inputs_;
      for (int64_t i = 0; i < inputs; ++i) transform_input(first + i, tiles_ + i * T);
      for (int64_t o = begin; o < end; ++o) {
        A* sums = sums_ + (blocks > 1 ? o - begin : 0) * kSums;
        multiply_block(o, first, inputs, sums, block > 0);
        if (block == blocks - 1) finish_block(o, sums);
      }
    }
  }

 private:
  static V load(const A* p) { return *reinterpret_cast<const V*>(p); }
  static void store(A* p, V v) { *reinterpret_cast<V*>(p) = v; }

  // Call f(t, n, sample, ty, tx) for each run of n tiles side by side, the first of them number t of the group.
  template <class F>
  void for_runs(const F& f) const {
    const int64_t width = p_.tiles_x(), height = p_.tiles_y();
    int64_t tx = first_ % width, ty = first_ / width % height, sample = first_ / width / height;
    for (int64_t t = 0; t < count_;) {
      const int64_t n = width - tx < count_ - t ? width - tx : count_ - t;
      f(t, n, sample, ty, tx);
      t += n;
      tx = 0;
      if (++ty == height) ty = 0, ++sample;
    }
  }

  // dst[kTransformed][block_inputs_][t], the tiles of 4 x 4 inputs of channel i transformed along both axes
  void transform_input(int64_t i, A* dst) {
    for_runs([&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
      const A* plane = static_cast<const A*>(p_.x) + (sample * p_.inputs + i) * p_.h * p_.w;
      const A style = at<A>(p_.styles, sample * p_.inputs + i, 1);
      for (int64_t r = 0; r < 4; ++r) {
        gather(plane, 2 * ty - p_.pad_y + r, 2 * tx - p_.pad_x, n, style, pixels_ + 4 * r * T + t);
      }
    });
    for (int64_t t = 0; t < T; t += kLanes<A>) {
      V m[4][4];
      for (int64_t c = 0; c < 4; ++c) {
        V column[4], transformed[4];
        for (int64_t r = 0; r < 4; ++r) column[r] = load(pixels_ + (4 * r + c) * T + t);
        Axis::input(column, transformed);
        for (int64_t r = 0; r < 4; ++r) m[r][c] = transformed[r];
      }
      for (int64_t r = 0; r < 4; ++r) {
        V transformed[4];
        Axis::input(m[r], transformed);
        for (int64_t c = 0; c < 4; ++c) store(dst + (4 * r + c) * block_inputs_ * T + t, transformed[c]);
      }
    }
  }

  // dst[c * T + j] = pixel x + 2 j + c of row y, times the style; 0 outside the image
  void gather(const A* plane, int64_t y, int64_t x, int64_t n, A style, A* dst) {
    if (y < 0 || y >= p_.h) {
      for (int64_t c = 0; c < 4; ++c) {
        for (int64_t j = 0; j < n; ++j) dst[c * T + j] = 0;
      }
      return;
    }
    const int64_t length = 2 * n + 2;
    const int64_t before = x >= 0 ? 0 : (-x < length ? -x : length);
    const int64_t inside = p_.w - x < length ? (p_.w - x > before ? p_.w - x : before) : length;
    const A* src = plane + y * p_.w + x;
    A* row = row_;
    for (int64_t k = 0; k < before; ++k) row[k] = 0;
#pragma omp simd
    for (int64_t k = before; k < inside; ++k) row[k] = src[k] * style;
    for (int64_t k = inside; k < length; ++k) row[k] = 0;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      dst[j] = row[2 * j];
      dst[T + j] = row[2 * j + 1];
      dst[2 * T + j] = row[2 * j + 2];
      dst[3 * T + j] = row[2 * j + 3];
    }
  }

  // sums[kWinogradOutputs][kProducts * kProducts][T] of an output block
  void multiply_block(int64_t o, int64_t first, int64_t inputs, A* sums, bool add) const {
    constexpr int64_t step = kVectors * kLanes<A>, row = kProducts * kProducts * T;
    const A* transformed = static_cast<const A*>(p_.transformed) + (o * kTransformed * p_.inputs + first) * kWinogradOutputs;
    const auto weights_of = [&](int64_t k) {
      const int64_t number = 4 * Axis::kWeight[k / kProducts] + Axis::kWeight[k % kProducts];
      return transformed + number * p_.inputs * kWinogradOutputs;
    };
    for (int64_t k = 0; k < kProducts * kProducts; ++k) {
      const A* tiles = tiles_ + (4 * Axis::kTile[k / kProducts] + Axis::kTile[k % kProducts]) * block_inputs_ * T;
      const A *weights = weights_of(k), *next = weights_of(k + 1 < kProducts * kProducts ? k + 1 : k);
      for (int64_t r = 0; r < kWinogradOutputs; r += kRows) {
        for (int64_t t = 0; t < T; t += step) {
          multiply<row>(weights + r, tiles + t, sums + r * row + k * T + t, inputs, add, next);
        }
      }
    }
  }

  // y = the epilogue of the sums of an output block, transformed back
  void finish_block(int64_t o, const A* sums) {
    for (int64_t r = 0; r < kWinogradOutputs && o * kWinogradOutputs + r < p_.outputs; ++r) {
      const A* m = sums + r * kProducts * kProducts * T;
      for (int64_t t = 0; t < T; t += kLanes<A>) {
        V rows[kPixels][kProducts];
        for (int64_t c = 0; c < kProducts; ++c) {
          V column[kProducts], back[kPixels];
          for (int64_t k = 0; k < kProducts; ++k) column[k] = load(m + (kProducts * k + c) * T + t);
          Axis::output(column, back);
          for (int64_t y = 0; y < kPixels; ++y) rows[y][c] = back[y];
        }
        for (int64_t y = 0; y < kPixels; ++y) {
          V back[kPixels];
          Axis::output(rows[y], back);
          for (int64_t x = 0; x < kPixels; ++x) store(pixels_ + (kPixels * y + x) * T + t, back[x]);
        }
      }
      for_runs([&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
        for (int64_t y = 0; y < kPixels && kPixels * ty + y < p_.out_h; ++y) {
          finish_row_of(o * kWinogradOutputs + r, pixels_ + kPixels * y * T + t, n, sample, kPixels * ty + y, kPixels * tx);
        }
      });
    }
  }

  // kPixels * n pixels of a row of one output channel, given as columns [kPixels][T] of their tiles
  void finish_row_of(int64_t channel, const A* columns, int64_t n, int64_t sample, int64_t y, int64_t x) {
    A* row = row_;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t k = 0; k < kPixels; ++k) row[kPixels * j + k] = columns[k * T + j];
    }
    const int64_t width = p_.out_w - x < kPixels * n ? p_.out_w - x : kPixels * n;
    const int64_t plane = sample * p_.outputs + channel, place = (plane * p_.out_h + y) * p_.out_w + x;
    if (p_.kept) std::memcpy(static_cast<A*>(p_.kept) + place, row, width * sizeof(A));
    const BiasAct& e = p_.epilogue;
    const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample * e.noise_stride + y * p_.out_w + x : nullptr;
    pre_activation_planar(row, row, width, at<A>(e.scale, plane, 1), at<A>(e.b, channel, 0), noise);
    finish_row(e.act, row, static_cast<A*>(p_.y) + place, width, limits_);
  }

  const Winograd& p_;
  Limits<A> limits_;
  int64_t block_inputs_;
  A *tiles_, *sums_, *pixels_, *row_;
  int64_t first_ = 0, count_ = 0;
};

// Each 3 x 3 weight transformed along both axes, for the outputs of a block side by side.
template <class Axis, class A>
void transform_weights(const Winograd& p, int64_t begin, int64_t end) {
  constexpr int64_t R = kWinogradOutputs;
  using V = typename Vector<A, R>::type;
  const int64_t* s = p.weight_strides;
  for (int64_t block = begin; block < end; ++block) {
    A* dst = static_cast<A*>(p.transformed) + block * kTransformed * p.inputs * R;
    const A* weight = static_cast<const A*>(p.weight) + block * R * s[0];
    const int64_t outputs = p.outputs - block * R < R ? p.outputs - block * R : R;
    for (int64_t i = 0; i < p.inputs; ++i) {
      alignas(64) A w[3][3][R] = {};
      for (int64_t r = 0; r < outputs; ++r) {
        const A* one = weight + r * s[0] + i * s[1];
        for (int64_t k = 0; k < 9; ++k) w[k / 3][k % 3][r] = one[k / 3 * s[2] + k % 3 * s[3]];
      }
      V g[4][3];
      for (int64_t c = 0; c < 3; ++c) {
        V column[3], transformed[4];
        for (int64_t k = 0; k < 3; ++k) column[k] = *reinterpret_cast<const V*>(w[k][c]);
        Axis::weight(column, transformed);
        for (int64_t k = 0; k < 4; ++k) g[k][c] = transformed[k];
      }
      for (int64_t k = 0; k < 4; ++k) {
        V transformed[4];
        Axis::weight(g[k], transformed);
        for (int64_t c = 0; c < 4; ++c) *reinterpret_cast<V*>(dst + ((4 * k + c) * p.inputs + i) * R) = transformed[c];
      }
    }
  }
}

template <class Axis, class A>
void convolve(const Winograd& p, DType dtype, A* scratch, int64_t begin, int64_t end) {
  GroupMaker<Axis, A> maker(p, dtype, scratch);
  const int64_t blocks = p.output_blocks();
  for (int64_t task = begin; task < end;) {
    const int64_t group = task / blocks, first = task % blocks;
    const int64_t last = end - task < blocks - first ? first + end - task : blocks;
    maker.make(group, first, last);
    task += last - first;
  }
}

// Call f with an axis of the convolution and a value of its dtype.
template <class F>
void with_kind(const Winograd& p, DType dtype, const F& f) {
  if (dtype == DType::f64) {
    p.transposed ? f(Transposed{}, double{}) : f(Plain{}, double{});
  } else {
    p.transposed ? f(Transposed{}, float{}) : f(Plain{}, float{});
  }
}

}  // namespace

void winograd_weights(const Winograd& p, DType dtype, int64_t begin, int64_t end) {
  with_kind(p, dtype, [&](auto axis, auto type) { transform_weights<decltype(axis), decltype(type)>(p, begin, end); });
}

void winograd(const Winograd& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_kind(p, dtype, [&](auto axis, auto type) {
    convolve<decltype(axis)>(p, dtype, static_cast<decltype(type)*>(scratch), begin, end);
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
