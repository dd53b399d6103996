// Kernels of fused_conv2d, compiled once per instruction set. For a group of tiles: transform the inputs, multiply by
// the transformed weights, transform the sums back, finish. Only the output goes to memory.
#include "winograd.h"

#include "cpu/pointwise/bias_act_rows.h"
#include "winograd_axes.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

template <class Axis, class A>
class GroupMaker {
  static constexpr int64_t T = kWinogradTiles, kProducts = Axis::kProducts, kPixels = Axis::kPixels;
  static constexpr int64_t kInputs = Axis::kInputs, kStep = Axis::kStep, kTransformed = Axis::kTransformed;
  using V = typename Vector<A, kLanes<A>>::type;
  static_assert(kPixels * kPixels <= kUntransformed && kPixels <= kWinogradRow,
                "scratch is too small for a tile's outputs");
  static_assert(kInputs * kInputs <= kUntransformed && kStep < kWinogradRow,
                "scratch is too small for a tile's inputs");
  // of an output block
  static constexpr int64_t kSums = kWinogradOutputs * kProducts * kProducts * T;

 public:
  GroupMaker(const Winograd& p, DType dtype, A* scratch)
      : p_(p), limits_(p.epilogue, dtype), block_inputs_(p.block_inputs()), tiles_(scratch),
        sums_(tiles_ + kTransformed * kTransformed * block_inputs_ * T), pixels_(sums_ + kSums * p.kept_blocks()),
        row_(pixels_ + kUntransformed * T) {
    // lanes past the last tile are computed too and thrown away; denormal numbers there would be slow
    for (int64_t i = 0; i < kUntransformed * T; ++i) pixels_[i] = 0;
  }

  // output blocks begin to end of group number `group`
  void make(int64_t group, int64_t begin, int64_t end) {
    first_ = p_.first_tile(group);
    const int64_t next = p_.first_tile(group + 1);
    count_ = (next < p_.tiles() ? next : p_.tiles()) - first_;
    const int64_t blocks = p_.input_blocks();
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * block_inputs_;
      const int64_t inputs = p_.inputs - first < block_inputs_ ? p_.inputs - first : block_inputs_;
      for (int64_t i = 0; i < inputs; ++i) transform_input(first + i, tiles_ + i * T);
      for (int64_t o = begin; o < end; ++o) {
        A* sums = sums_ + (blocks > 1 ? o - begin : 0) * kSums;
        multiply_block(o * blocks + block, inputs, sums, block > 0);
        if (block == blocks - 1) finish_block(o, sums);
      }
    }
  }

 private:
  static V load(const A* p) { return *reinterpret_cast<const V*>(p); }
  static void store(A* p, V v) { *reinterpret_cast<V*>(p) = v; }

  // dst[kTransformed * kTransformed][block_inputs_][t], the tiles of inputs of channel i transformed along both axes
  void transform_input(int64_t i, A* dst) {
    for_runs(p_, first_, count_, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
      const A* plane = static_cast<const A*>(p_.x) + (sample * p_.inputs + i) * p_.h * p_.w;
      const A style = at<A>(p_.styles, sample * p_.inputs + i, 1);
      for (int64_t r = 0; r < kInputs; ++r) {
        gather(plane, kStep * ty - p_.pad_y + r, kStep * tx - p_.pad_x, n, style, pixels_ + kInputs * r * T + t);
      }
    });
    for (int64_t t = 0; t < count_; t += kLanes<A>) {
      V d[kInputs][kInputs], transformed[kTransformed][kTransformed];
#pragma GCC unroll 36
      for (int64_t k = 0; k < kInputs * kInputs; ++k) d[k / kInputs][k % kInputs] = load(pixels_ + k * T + t);
      along_both_axes(d, transformed, [](const auto& from, auto& to) { Axis::input(from, to); });
#pragma GCC unroll 36
      for (int64_t k = 0; k < kTransformed * kTransformed; ++k) {
        store(dst + k * block_inputs_ * T + t, transformed[k / kTransformed][k % kTransformed]);
      }
    }
  }

  // dst[c * T + j] = pixel x + kStep j + c of row y, times the style; 0 outside the image
  void gather(const A* plane, int64_t y, int64_t x, int64_t n, A style, A* dst) {
    if (y < 0 || y >= p_.h) {
      for (int64_t c = 0; c < kInputs; ++c) {
        for (int64_t j = 0; j < n; ++j) dst[c * T + j] = 0;
      }
      return;
    }
    const int64_t length = kStep * (n - 1) + kInputs;
    const int64_t before = x >= 0 ? 0 : (-x < length ? -x : length);
    const int64_t inside = p_.w - x < length ? (p_.w - x > before ? p_.w - x : before) : length;
    const A* src = plane + y * p_.w + x;
    A* row = row_;
    // prefetch the next channel's row: rows are too short for the processor to prefetch by itself
    for (int64_t k = before; k < inside; k += 64 / sizeof(A)) __builtin_prefetch(src + p_.h * p_.w + k);
    for (int64_t k = 0; k < before; ++k) row[k] = 0;
#pragma omp simd
    for (int64_t k = before; k < inside; ++k) row[k] = src[k] * style;
    for (int64_t k = inside; k < length; ++k) row[k] = 0;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t c = 0; c < kInputs; ++c) dst[c * T + j] = row[kStep * j + c];
    }
  }

  // sums[kWinogradOutputs][kProducts * kProducts][T] (+)= the tiles times block number `block` of transformed weights
  void multiply_block(int64_t block, int64_t inputs, A* sums, bool add) const {
    constexpr int64_t lanes = kLanes<A>, row = kProducts * kProducts * T;
    const int64_t size = block_inputs_ * kWinogradOutputs;
    const A* transformed = static_cast<const A*>(p_.transformed) + block * p_.transformed_weights() * size;
    const auto weights_of = [&](int64_t k) {
      return transformed + (Axis::kWeights * Axis::kWeight[k / kProducts] + Axis::kWeight[k % kProducts]) * size;
    };
    for (int64_t k = 0; k < kProducts * kProducts; ++k) {
      const A* tiles =
          tiles_ + (kTransformed * Axis::kTile[k / kProducts] + Axis::kTile[k % kProducts]) * block_inputs_ * T;
      const A *weights = weights_of(k), *next = weights_of(k + 1 < kProducts * kProducts ? k + 1 : k);
      for (int64_t r = 0; r < kWinogradOutputs; r += kRows) {
        for (int64_t t = 0; t < count_; t += 3 * lanes) {
          const auto multiply_vectors = [&](auto vectors) {
            A* to = sums + r * row + k * T + t;
            multiply<vectors(), kWinogradOutputs, T, row>(weights + r, tiles + t, to, inputs, add, next);
          };
          if (count_ - t > 2 * lanes) {
            multiply_vectors(std::integral_constant<int, 3>{});
          } else if (count_ - t > lanes) {
            multiply_vectors(std::integral_constant<int, 2>{});
          } else {
            multiply_vectors(std::integral_constant<int, 1>{});
          }
        }
      }
    }
  }

  // y = the epilogue of the sums of an output block, transformed back
  void finish_block(int64_t o, const A* sums) {
    for (int64_t r = 0; r < kWinogradOutputs && o * kWinogradOutputs + r < p_.outputs; ++r) {
      const A* m = sums + r * kProducts * kProducts * T;
      for (int64_t t = 0; t < count_; t += kLanes<A>) {
        V back[kPixels][kPixels], products[kProducts][kProducts];
#pragma GCC unroll 36
        for (int64_t k = 0; k < kProducts * kProducts; ++k)
          products[k / kProducts][k % kProducts] = load(m + k * T + t);
        along_both_axes(products, back, [](const auto& from, auto& to) { Axis::output(from, to); });
#pragma GCC unroll 16
        for (int64_t k = 0; k < kPixels * kPixels; ++k) store(pixels_ + k * T + t, back[k / kPixels][k % kPixels]);
      }
      for_runs(p_, first_, count_, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
        for (int64_t y = 0; y < kPixels && kPixels * ty + y < p_.out_h; ++y) {
          finish_row_of(o * kWinogradOutputs + r, pixels_ + kPixels * y * T + t, n, sample, kPixels * ty + y,
                        kPixels * tx);
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

// Transform each 3 x 3 weight along both axes; the outputs of a block lie side by side.
template <class Axis, class A>
void transform_weights(const Winograd& p, int64_t begin, int64_t end) {
  constexpr int64_t R = kWinogradOutputs, K = Axis::kWeights;
  // a cache line is written whole
  constexpr int64_t lanes = 64 / sizeof(A), step = lanes / R;
  using V = typename Vector<A, lanes>::type;
  const int64_t* s = p.weight_strides;
  const int64_t inputs = p.block_inputs(), blocks = p.input_blocks();
  for (int64_t o = begin; o < end; ++o) {
    const A* weight = static_cast<const A*>(p.weight) + o * R * s[0];
    A* block = static_cast<A*>(p.transformed) + o * blocks * K * K * inputs * R;
    for (int64_t i = 0; i < p.inputs; i += step) {
      // lanes past the last output hold the first weights again; their sums are never read
      int64_t places[lanes];
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t output = lane % R, input = lane / R;
        places[lane] = (o * R + output < p.outputs ? output * s[0] : 0) + (i + input < p.inputs ? input * s[1] : 0);
      }
      V taps[3][3], transformed[K][K];
#pragma GCC unroll 9
      for (int64_t k = 0; k < 9; ++k) {
        const A* tap = weight + i * s[1] + k / 3 * s[2] + k % 3 * s[3];
#pragma GCC unroll 16
        for (int64_t lane = 0; lane < lanes; ++lane) taps[k / 3][k % 3][lane] = tap[places[lane]];
      }
      along_both_axes(taps, transformed, [](const auto& from, auto& to) { Axis::weight(from, to); });
      A* to = block + (i / inputs * K * K * inputs + i % inputs) * R;
#pragma GCC unroll 36
      for (int64_t k = 0; k < K * K; ++k) std::memcpy(to + k * inputs * R, &transformed[k / K][k % K], sizeof(V));
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
  const auto with_axis = [&](auto axis) { dtype == DType::f64 ? f(axis, double{}) : f(axis, float{}); };
  switch (p.kind) {
    case Convolution::plain: return with_axis(Plain{});
    case Convolution::strided: return with_axis(Strided{});
    case Convolution::transposed: return with_axis(Transposed{});
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
