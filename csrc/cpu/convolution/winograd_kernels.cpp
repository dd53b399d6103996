// Kernels of fused_conv2d, compiled once per instruction set. For a group of tiles: transform the inputs, multiply by
// the transformed weights, transform the sums back, finish. Only the output goes to memory.
#include "winograd.h"

#include "cpu/pointwise/bias_act_rows.h"
#include "winograd_axes.h"
#include "winograd_weights.h"

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
      : p_(p), limits_(p.epilogue, dtype), block_inputs_(p.block_inputs()), stride_(p.tiles_of_number()),
        tiles_(scratch), sums_(tiles_ + kTransformed * kTransformed * stride_),
        pixels_(sums_ + kSums * p.kept_blocks()), row_(pixels_ + kUntransformed * T),
        weights_(row_ + kWinogradRow * T) {
    // lanes past the last tile are computed too and thrown away; denormal numbers there would be slow
    for (int64_t i = 0; i < kUntransformed * T; ++i) pixels_[i] = 0;
  }

  // output blocks begin to end of group number `group` of a convolution
  void make(int64_t convolution, int64_t group, int64_t begin, int64_t end) {
    convolution_ = convolution;
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
        multiply_block(transformed_block(o, block), inputs, sums, block > 0);
        if (block == blocks - 1) finish_block(o, sums);
      }
    }
  }

 private:
  static V load(const A* p) { return *reinterpret_cast<const V*>(p); }
  static void store(A* p, V v) { *reinterpret_cast<V*>(p) = v; }

  // dst[kTransformed * kTransformed][stride_] from t on, the tiles of inputs of channel i transformed along both axes
  void transform_input(int64_t i, A* dst) {
    for_runs(p_, first_, count_, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
      const int64_t channel = (sample * p_.convolutions + convolution_) * p_.inputs + i;
      const A* plane = static_cast<const A*>(p_.x) + channel * p_.h * p_.w;
      const A style = at<A>(p_.styles, channel, 1);
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
        store(dst + k * stride_ + t, transformed[k / kTransformed][k % kTransformed]);
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
    cut<kLanes<A>>(row, 0, n, dst);
  }

  // dst[c * T + j] = row[kStep * j + c] for tiles j from `first` on, by vectors of `lanes` tiles, then of fewer
  template <int64_t lanes>
  static void cut(const A* row, int64_t first, int64_t n, A* dst) {
    if constexpr (lanes == 1) {
      for (int64_t j = first; j < n; ++j) {
        for (int64_t c = 0; c < kInputs; ++c) dst[c * T + j] = row[kStep * j + c];
      }
    } else {
      using W = typename Vector<A, lanes>::type;
      int64_t j = first;
      for (; j + lanes <= n; j += lanes) {
        W columns[kStep];
        std::memcpy(columns, row + kStep * j, sizeof(columns));
        take_apart<A, lanes>(columns);
        for (int64_t c = 0; c < kInputs; ++c) {
          W column;
          if (c < kStep) {
            column = columns[c];
          } else {
            // the pixels that a tile shares with the next
            const A next = row[kStep * (j + lanes) + c - kStep];
            move_up<A, lanes>(columns[c - kStep], next, column, std::make_index_sequence<lanes>{});
          }
          std::memcpy(dst + c * T + j, &column, sizeof(column));
        }
      }
      cut<lanes / 2>(row, j, n, dst);
    }
  }

  // row[kPixels * j + k] = columns[k * T + j] for tiles j from `first` on, likewise
  template <int64_t lanes>
  static void join(const A* columns, int64_t first, int64_t n, A* row) {
    if constexpr (lanes == 1) {
      for (int64_t j = first; j < n; ++j) {
        for (int64_t k = 0; k < kPixels; ++k) row[kPixels * j + k] = columns[k * T + j];
      }
    } else {
      using W = typename Vector<A, lanes>::type;
      int64_t j = first;
      for (; j + lanes <= n; j += lanes) {
        W pixels[kPixels];
        for (int64_t k = 0; k < kPixels; ++k) std::memcpy(&pixels[k], columns + k * T + j, sizeof(W));
        put_together<A, lanes>(pixels);
        std::memcpy(row + kPixels * j, pixels, sizeof(pixels));
      }
      join<lanes / 2>(columns, j, n, row);
    }
  }

  // the transformed weights of an output block and an input block
  const A* transformed_block(int64_t o, int64_t block) const {
    if (p_.transformed == nullptr) {
      transform_weights<Axis>(p_, convolution_, o, block, weights_, kWinogradOutputs, p_.weights_of_number());
      return weights_;
    }
    const int64_t before = (convolution_ * p_.output_blocks() + o) * p_.input_blocks() + block;
    return static_cast<const A*>(p_.transformed) + before * p_.weights_of_block();
  }

  // sums[kWinogradOutputs][kProducts * kProducts][T] (+)= the tiles times a block of transformed weights
  void multiply_block(const A* transformed, int64_t inputs, A* sums, bool add) const {
    constexpr int64_t lanes = kLanes<A>, row = kProducts * kProducts * T;
    const int64_t size = p_.weights_of_number();
    const auto weights_of = [&](int64_t k) {
      return transformed + (Axis::kWeights * Axis::kWeight[k / kProducts] + Axis::kWeight[k % kProducts]) * size;
    };
    for (int64_t k = 0; k < kProducts * kProducts; ++k) {
      const A* tiles = tiles_ + (kTransformed * Axis::kTile[k / kProducts] + Axis::kTile[k % kProducts]) * stride_;
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
          finish_row_of(convolution_ * p_.outputs + o * kWinogradOutputs + r, pixels_ + kPixels * y * T + t, n, sample,
                        kPixels * ty + y, kPixels * tx);
        }
      });
    }
  }

  // kPixels * n pixels of a row of one output channel, given as columns [kPixels][T] of their tiles
  void finish_row_of(int64_t channel, const A* columns, int64_t n, int64_t sample, int64_t y, int64_t x) {
    A* row = row_;
    join<kLanes<A>>(columns, 0, n, row);
    const int64_t width = p_.out_w - x < kPixels * n ? p_.out_w - x : kPixels * n;
    const int64_t plane = sample * p_.convolutions * p_.outputs + channel,
                  place = (plane * p_.out_h + y) * p_.out_w + x;
    if (p_.kept) std::memcpy(static_cast<A*>(p_.kept) + place, row, width * sizeof(A));
    const BiasAct& e = p_.epilogue;
    const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample * e.noise_stride + y * p_.out_w + x : nullptr;
    pre_activation_planar(row, row, width, at<A>(e.scale, plane, 1), at<A>(e.b, channel, 0), noise);
    finish_row(e.act, row, static_cast<A*>(p_.y) + place, width, limits_);
  }

  const Winograd& p_;
  Limits<A> limits_;
  int64_t block_inputs_, stride_;
  A *tiles_, *sums_, *pixels_, *row_, *weights_;
  int64_t convolution_ = 0, first_ = 0, count_ = 0;
};

template <class Axis, class A>
void convolve(const Winograd& p, DType dtype, A* scratch, int64_t begin, int64_t end) {
  GroupMaker<Axis, A> maker(p, dtype, scratch);
  const int64_t blocks = p.output_blocks(), groups = p.groups();
  for (int64_t task = begin; task < end;) {
    const int64_t group = task / blocks, first = task % blocks;
    const int64_t last = end - task < blocks - first ? first + end - task : blocks;
    maker.make(group / groups, group % groups, first, last);
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
  with_kind(p, dtype, [&](auto axis, auto type) {
    auto* to = static_cast<decltype(type)*>(p.transformed) + begin * p.input_blocks() * p.weights_of_block();
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t block = 0; block < p.input_blocks(); ++block, to += p.weights_of_block())
        transform_weights<decltype(axis)>(p, o / p.output_blocks(), o % p.output_blocks(), block, to, kWinogradOutputs,
                                          p.weights_of_number());
    }
  });
}

void winograd(const Winograd& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_kind(p, dtype, [&](auto axis, auto type) {
    convolve<decltype(axis)>(p, dtype, static_cast<decltype(type)*>(scratch), begin, end);
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
