// Kernels of fused_conv2d, compiled once an instruction set. For a group of tiles: transform the inputs, multiply by
// the transformed weights frequency by frequency, transform back, finish. Nothing but the output goes to memory.
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

template <class A>
struct Simd {
  typedef A type __attribute__((vector_size(kBytes), may_alias));
};

// sums[r * kFrequencies * kWinogradTiles + t] (+)= sum_i weights[i][r] * tiles[i][t] for kRows rows r and the tiles t
// of kVectors vectors, all sums in registers
template <class A>
inline void multiply(const A* weights, const A* tiles, A* sums, int64_t inputs, bool add) {
  using V = typename Simd<A>::type;
  constexpr int64_t lanes = kBytes / sizeof(A), row = kFrequencies * kWinogradTiles;
  V acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = add ? *reinterpret_cast<const V*>(sums + r * row + v * lanes) : V{};
    }
  }
  for (int64_t i = 0; i < inputs; ++i) {
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

template <class A>
class GroupMaker {
 public:
  GroupMaker(const Winograd& p, DType dtype, A* scratch)
      : p_(p), limits_(p.epilogue, dtype), tiles_(scratch),
        sums_(tiles_ + kFrequencies * kWinogradInputs * kWinogradTiles),
        corners_(sums_ + kFrequencies * kWinogradTiles * kWinogradOutputs * p.kept_blocks()),
        row_(corners_ + kFrequencies * kWinogradTiles) {
    // lanes past the last tile are computed and thrown away: they must not be signalling or slow
    for (int64_t i = 0; i < kFrequencies * kWinogradTiles; ++i) corners_[i] = 0;
  }

  // output blocks begin to end of group number `group`
  void make(int64_t group, int64_t begin, int64_t end) {
    first_ = group * kWinogradTiles;
    count_ = p_.tiles() - first_ < kWinogradTiles ? p_.tiles() - first_ : kWinogradTiles;
    const int64_t blocks = p_.input_blocks();
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * kWinogradInputs;
      const int64_t inputs = p_.inputs - first < kWinogradInputs ? p_.inputs - first : kWinogradInputs;
      for (int64_t i = 0; i < inputs; ++i) transform_input(first + i, tiles_ + i * kWinogradTiles);
      for (int64_t o = begin; o < end; ++o) {
        A* sums = sums_ + (blocks > 1 ? o - begin : 0) * kWinogradOutputs * kFrequencies * kWinogradTiles;
        multiply_block(o, first, inputs, sums, block > 0);
        if (block == blocks - 1) finish_block(o, sums);
      }
    }
  }

 private:
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

  // dst[frequency][kWinogradInputs][t] = B' d B of each tile d of 4 x 4 inputs of channel i
  void transform_input(int64_t i, A* dst) {
    for_runs([&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
      const A* plane = static_cast<const A*>(p_.x) + (sample * p_.inputs + i) * p_.h * p_.w;
      const A style = at<A>(p_.styles, sample * p_.inputs + i, 1);
      for (int64_t r = 0; r < 4; ++r) gather(plane, 2 * ty - p_.pad_y + r, 2 * tx - p_.pad_x, n, style, corners_ + 4 * r * kWinogradTiles + t);
    });
    constexpr int64_t T = kWinogradTiles, step = kWinogradInputs * T;
    const A* d = corners_;
#pragma omp simd
    for (int64_t t = 0; t < T; ++t) {
      A m[4][4];
      for (int64_t c = 0; c < 4; ++c) {
        const A d0 = d[c * T + t], d1 = d[(4 + c) * T + t], d2 = d[(8 + c) * T + t], d3 = d[(12 + c) * T + t];
        m[0][c] = d0 - d2, m[1][c] = d1 + d2, m[2][c] = d2 - d1, m[3][c] = d1 - d3;
      }
      for (int64_t r = 0; r < 4; ++r) {
        dst[(4 * r + 0) * step + t] = m[r][0] - m[r][2];
        dst[(4 * r + 1) * step + t] = m[r][1] + m[r][2];
        dst[(4 * r + 2) * step + t] = m[r][2] - m[r][1];
        dst[(4 * r + 3) * step + t] = m[r][1] - m[r][3];
      }
    }
  }

  // dst[c * kWinogradTiles + j] = pixel x + 2 j + c of row y, times the style; 0 outside the image
  void gather(const A* plane, int64_t y, int64_t x, int64_t n, A style, A* dst) {
    constexpr int64_t T = kWinogradTiles;
    const int64_t length = 2 * n + 2;
    A* row = row_;
    if (y < 0 || y >= p_.h) {
      for (int64_t c = 0; c < 4; ++c) {
        for (int64_t j = 0; j < n; ++j) dst[c * T + j] = 0;
      }
      return;
    }
    const int64_t before = x >= 0 ? 0 : (-x < length ? -x : length);
    const int64_t inside = p_.w - x < length ? (p_.w - x > before ? p_.w - x : before) : length;
    for (int64_t k = 0; k < before; ++k) row[k] = 0;
    const A* src = plane + y * p_.w + x;
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

  void multiply_block(int64_t o, int64_t first, int64_t inputs, A* sums, bool add) const {
    constexpr int64_t step = kVectors * kBytes / sizeof(A);
    const A* weights = static_cast<const A*>(p_.transformed) + o * kFrequencies * p_.inputs * kWinogradOutputs;
    for (int64_t k = 0; k < kFrequencies; ++k) {
      const A* w = weights + (k * p_.inputs + first) * kWinogradOutputs;
      const A* tiles = tiles_ + k * kWinogradInputs * kWinogradTiles;
      for (int64_t r = 0; r < kWinogradOutputs; r += kRows) {
        for (int64_t t = 0; t < kWinogradTiles; t += step) {
          multiply(w + r, tiles + t, sums + (r * kFrequencies + k) * kWinogradTiles + t, inputs, add);
        }
      }
    }
  }

  // y = the epilogue of A' m A for each tile m of an output block
  void finish_block(int64_t o, const A* sums) {
    constexpr int64_t T = kWinogradTiles;
    for (int64_t r = 0; r < kWinogradOutputs && o * kWinogradOutputs + r < p_.outputs; ++r) {
      const A* m = sums + r * kFrequencies * T;
      A* pixels = corners_;
#pragma omp simd
      for (int64_t t = 0; t < T; ++t) {
        A a[2][4];
        for (int64_t c = 0; c < 4; ++c) {
          const A m1 = m[(4 + c) * T + t], m2 = m[(8 + c) * T + t];
          a[0][c] = m[c * T + t] + m1 + m2;
          a[1][c] = m1 - m2 - m[(12 + c) * T + t];
        }
        for (int64_t y = 0; y < 2; ++y) {
          pixels[2 * y * T + t] = a[y][0] + a[y][1] + a[y][2];
          pixels[(2 * y + 1) * T + t] = a[y][1] - a[y][2] - a[y][3];
        }
      }
      for_runs([&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
        for (int64_t y = 0; y < 2 && 2 * ty + y < p_.out_h; ++y) {
          finish_row_of(o * kWinogradOutputs + r, pixels + 2 * y * T + t, n, sample, 2 * ty + y, 2 * tx);
        }
      });
    }
  }

  // 2 n pixels of one row of one output channel, given as those of even and those of odd x
  void finish_row_of(int64_t channel, const A* even, int64_t n, int64_t sample, int64_t y, int64_t x) {
    const A* odd = even + kWinogradTiles;
    A* row = row_;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      row[2 * j] = even[j];
      row[2 * j + 1] = odd[j];
    }
    const int64_t width = p_.out_w - x < 2 * n ? p_.out_w - x : 2 * n, plane = sample * p_.outputs + channel;
    const int64_t place = (plane * p_.out_h + y) * p_.out_w + x;
    if (p_.kept) std::memcpy(static_cast<A*>(p_.kept) + place, row, width * sizeof(A));
    const BiasAct& e = p_.epilogue;
    const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample * e.noise_stride + y * p_.out_w + x : nullptr;
    pre_activation_planar(row, row, width, at<A>(e.scale, plane, 1), at<A>(e.b, channel, 0), noise);
    imgops::IMGOPS_ISA::finish_row(e.act, row, static_cast<A*>(p_.y) + place, width, limits_);
  }

  const Winograd& p_;
  Limits<A> limits_;
  A *tiles_, *sums_, *corners_, *row_;
  int64_t first_ = 0, count_ = 0;
};

// G g G' of each 3 x 3 weight g, for the outputs of a block side by side
template <class A>
void transform_weights(const Winograd& p, int64_t begin, int64_t end) {
  constexpr int64_t R = kWinogradOutputs;
  const int64_t* s = p.weight_strides;
  for (int64_t block = begin; block < end; ++block) {
    A* dst = static_cast<A*>(p.transformed) + block * kFrequencies * p.inputs * R;
    const A* weight = static_cast<const A*>(p.weight) + block * R * s[0];
    const int64_t outputs = p.outputs - block * R < R ? p.outputs - block * R : R;
    for (int64_t i = 0; i < p.inputs; ++i) {
      A w[3][3][R] = {};
      for (int64_t r = 0; r < outputs; ++r) {
        const A* one = weight + r * s[0] + i * s[1];
        for (int64_t k = 0; k < 9; ++k) w[k / 3][k % 3][r] = one[k / 3 * s[2] + k % 3 * s[3]];
      }
#pragma omp simd
      for (int64_t r = 0; r < R; ++r) {
        A g[4][3];
        for (int64_t c = 0; c < 3; ++c) {
          const A sum = w[0][c][r] + w[2][c][r];
          g[0][c] = w[0][c][r], g[1][c] = (sum + w[1][c][r]) / 2, g[2][c] = (sum - w[1][c][r]) / 2, g[3][c] = w[2][c][r];
        }
        for (int64_t k = 0; k < 4; ++k) {
          const A sum = g[k][0] + g[k][2];
          const A u[4] = {g[k][0], (sum + g[k][1]) / 2, (sum - g[k][1]) / 2, g[k][2]};
          for (int64_t l = 0; l < 4; ++l) dst[((4 * k + l) * p.inputs + i) * R + r] = u[l];
        }
      }
    }
  }
}

template <class A>
void convolve(const Winograd& p, DType dtype, A* scratch, int64_t begin, int64_t end) {
  GroupMaker<A> maker(p, dtype, scratch);
  const int64_t blocks = p.output_blocks();
  for (int64_t task = begin; task < end;) {
    const int64_t group = task / blocks, first = task % blocks;
    const int64_t last = end - task < blocks - first ? first + end - task : blocks;
    maker.make(group, first, last);
    task += last - first;
  }
}

}  // namespace

void winograd_weights(const Winograd& p, DType dtype, int64_t begin, int64_t end) {
  if (dtype == DType::f64) {
    transform_weights<double>(p, begin, end);
  } else {
    transform_weights<float>(p, begin, end);
  }
}

void winograd(const Winograd& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  if (dtype == DType::f64) {
    convolve(p, dtype, static_cast<double*>(scratch), begin, end);
  } else {
    convolve(p, dtype, static_cast<float*>(scratch), begin, end);
  }
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
