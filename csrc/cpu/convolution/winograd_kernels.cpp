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
        inputs_(sums_ + kSums * p.kept_blocks()), pixels_(inputs_ + kUntransformed * T),
        row_(pixels_ + kUntransformed * T), weights_(row_ + kWinogradRow * T), looks_up_(p.looks_up()) {
    // lanes past the last tile are computed too and thrown away; denormal numbers there would be slow
    for (int64_t i = 0; i < 2 * kUntransformed * T; ++i) inputs_[i] = 0;
  }

  // output blocks begin to end of group number `group` of a convolution
  void make(int64_t convolution, int64_t group, int64_t begin, int64_t end) {
    convolution_ = convolution;
    first_ = p_.first_tile(group);
    const int64_t next = p_.first_tile(group + 1);
    count_ = (next < p_.tiles() ? next : p_.tiles()) - first_;
    if (looks_up_) find_places();
    part_ = nullptr;
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

  // a channel of inputs of a sample, counted over all samples
  int64_t input_plane(int64_t sample, int64_t i) const {
    return (sample * p_.convolutions + convolution_) * p_.inputs + i;
  }

  // the same channel's plane in the part that has it
  const A* plane_of(int64_t sample, int64_t i) const {
    return images_ + sample * part_->stride + (input_plane(0, i) - part_->first) * p_.h * p_.w;
  }

  // Turn to the part that has a channel of inputs.
  void find_part(int64_t i) {
    const int64_t channel = input_plane(0, i);
    if (part_ && channel < part_->end) return;
    if (!part_) part_ = p_.parts;
    while (channel >= part_->end) ++part_;
    images_ = static_cast<const A*>(part_->x);
    images_end_ = images_ + part_->size;
    if (looks_up_) find_pixels();
  }

  // Where the tiles of the group are.
  void find_places() {
    for_runs(p_, first_, count_, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
      for (int64_t j = 0; j < n; ++j)
        places_[t + j] = {sample, kPixels * ty - p_.skip_y, kPixels * (tx + j) - p_.skip_x};
    });
  }

  // Where their pixels are: they are the same in every channel of a part.
  void find_pixels() {
    for_runs(p_, first_, count_, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
      const int64_t before = (sample - places_[0].sample) * part_->stride;
      for (int64_t j = 0; j < n; ++j) {
        const int64_t y = kStep * ty - p_.pad_y, x = kStep * (tx + j) - p_.pad_x;
        for (int64_t k = 0; k < kInputs * kInputs; ++k) {
          const int64_t row = y + k / kInputs, column = x + k % kInputs;
          const bool inside = row >= 0 && row < p_.h && column >= 0 && column < p_.w;
          numbers_[k * T + t + j] = inside ? static_cast<int32_t>(before + row * p_.w + column) : -1;
        }
      }
    });
  }

  // inputs_[k * T + t] = pixel k of tile t of a channel, times the style; 0 outside the image
  void look_up(int64_t i) {
    const A* from = plane_of(places_[0].sample, i);
    A* to = inputs_;
    for (int64_t k = 0; k < kInputs * kInputs; ++k) {
      const int32_t* number = numbers_ + k * T;
#pragma omp simd
      for (int64_t t = 0; t < count_; ++t) to[k * T + t] = number[t] < 0 ? A(0) : from[number[t]];
    }
    if (p_.styles == nullptr) return;
    for (int64_t t = 0; t < count_; ++t) row_[t] = at<A>(p_.styles, input_plane(places_[t].sample, i), 1);
    for (int64_t k = 0; k < kInputs * kInputs; ++k) {
#pragma omp simd
      for (int64_t t = 0; t < count_; ++t) to[k * T + t] *= row_[t];
    }
  }

  // dst[kTransformed * kTransformed][stride_] from t on, the tiles of inputs of channel i transformed along both axes
  void transform_input(int64_t i, A* dst) {
    find_part(i);
    if (looks_up_) {
      look_up(i);
    } else {
      for_runs(p_, first_, count_, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
        const A* plane = plane_of(sample, i);
        const A style = at<A>(p_.styles, input_plane(sample, i), 1);
        for (int64_t r = 0; r < kInputs; ++r) {
          gather(plane, kStep * ty - p_.pad_y + r, kStep * tx - p_.pad_x, n, style, inputs_ + kInputs * r * T + t);
        }
      });
    }
    for (int64_t t = 0; t < count_; t += kLanes<A>) {
      V d[kInputs][kInputs], transformed[kTransformed][kTransformed];
#pragma GCC unroll 36
      for (int64_t k = 0; k < kInputs * kInputs; ++k) d[k / kInputs][k % kInputs] = load(inputs_ + k * T + t);
      along_both_axes(d, transformed, [](const auto& from, auto& to) { Axis::input(from, to); });
#pragma GCC unroll 36
      for (int64_t k = 0; k < kTransformed * kTransformed; ++k) {
        store(dst + k * stride_ + t, transformed[k / kTransformed][k % kTransformed]);
      }
    }
  }

  // the pixels of a row of an image that a run of tiles takes: number k is src[k] times the style from `begin` to `end`,
  // and 0 elsewhere, outside the image
  struct Row {
    const A* src;
    int64_t begin, end;
    A style;

    A pixel(int64_t k) const { return k >= begin && k < end ? src[k] * style : A(0); }
  };

  // dst[c * T + j] = pixel x + kStep j + c of row y, times the style; 0 outside the image
  void gather(const A* plane, int64_t y, int64_t x, int64_t n, A style, A* dst) const {
    if (y < 0 || y >= p_.h) {
      for (int64_t c = 0; c < kInputs; ++c) {
        for (int64_t j = 0; j < n; ++j) dst[c * T + j] = 0;
      }
      return;
    }
    cut<kLanes<A>>(Row{plane + y * p_.w + x, -x, p_.w - x, style}, 0, n, dst);
  }

  // pixels k to k + lanes of a row
  template <int64_t lanes>
  typename Vector<A, lanes>::type pixels(const Row& row, int64_t k) const {
    typename Vector<A, lanes>::type v;
    const A* from = row.src + k;
    if (k >= row.begin && k + lanes <= row.end) {
      // prefetch the next channel's row: rows are too short for the processor to prefetch by itself
      __builtin_prefetch(from + p_.h * p_.w);
      std::memcpy(&v, from, sizeof(v));
      return v * row.style;
    }
    if (from >= images_ && from + lanes <= images_end_) {
      // pixels of other rows are read, and thrown away
      std::memcpy(&v, from, sizeof(v));
      return select<A, lanes>(v * row.style, row.begin - k, row.end - k, std::make_integer_sequence<int64_t, lanes>{});
    }
    return pixels_one_by_one<lanes>(row, k);
  }

  // the same of the first and the last pixels of a part, beside which nothing may be read; rarely called, and apart,
  // as it would fill the loops of the others
  template <int64_t lanes>
  [[gnu::noinline, gnu::cold]] static typename Vector<A, lanes>::type pixels_one_by_one(const Row& row, int64_t k) {
    typename Vector<A, lanes>::type v;
    for (int64_t i = 0; i < lanes; ++i) v[i] = row.pixel(k + i);
    return v;
  }

  // dst[c * T + j] = pixel kStep * j + c of a row for tiles j from `first` on, by vectors of `lanes` tiles, then of fewer
  template <int64_t lanes>
  void cut(const Row& row, int64_t first, int64_t n, A* dst) const {
    if constexpr (lanes == 1) {
      for (int64_t j = first; j < n; ++j) {
        for (int64_t c = 0; c < kInputs; ++c) dst[c * T + j] = row.pixel(kStep * j + c);
      }
    } else {
      using W = typename Vector<A, lanes>::type;
      int64_t j = first;
      for (; j + lanes <= n; j += lanes) {
        W columns[kStep];
#pragma GCC unroll 4
        for (int64_t c = 0; c < kStep; ++c) columns[c] = pixels<lanes>(row, kStep * j + c * lanes);
        take_apart<A, lanes>(columns);
#pragma GCC unroll 6
        for (int64_t c = 0; c < kInputs; ++c) {
          W column;
          if (c < kStep) {
            column = columns[c];
          } else {
            // the pixels that a tile shares with the next
            const A next = row.pixel(kStep * (j + lanes) + c - kStep);
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
      const int64_t channel = convolution_ * p_.outputs + o * kWinogradOutputs + r;
      if (looks_up_) {
        for (int64_t y = 0; y < kPixels; ++y) finish_rows_of(channel, y);
        continue;
      }
      for_runs(p_, first_, count_, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
        const int64_t top = kPixels * ty - p_.skip_y, left = kPixels * tx - p_.skip_x;
        for (int64_t y = top < 0 ? -top : 0; y < kPixels && top + y < p_.out_h; ++y) {
          finish_row_of(channel, pixels_ + kPixels * y * T + t, n, sample, top + y, left);
        }
      });
    }
  }

  // row y of all tiles of one output channel: the epilogue of all together, then each to its place
  void finish_rows_of(int64_t channel, int64_t y) {
    A* row = row_;
    join<kLanes<A>>(pixels_ + kPixels * y * T, 0, count_, row);
    if (p_.residual) {
      for_rows(channel, y, [&](int64_t, int64_t first, int64_t width, int64_t plane, int64_t place) {
        // of a size that the compiler knows where it can
        if (width == kPixels) {
          add_residual(plane * p_.out_h * p_.out_w + place, row + first, kPixels);
        } else {
          add_residual(plane * p_.out_h * p_.out_w + place, row + first, width);
        }
      });
    }
    if (p_.kept) put_rows(row, static_cast<A*>(p_.kept), channel, y);
    const BiasAct& e = p_.epilogue;
    if (e.scale || e.noise) {
      for_rows(channel, y, [&](int64_t sample, int64_t first, int64_t width, int64_t plane, int64_t place) {
        const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample * e.noise_stride + place : nullptr;
        pre_activation_planar(row + first, row + first, width, at<A>(e.scale, plane, 1), at<A>(e.b, channel, 0), noise);
      });
    } else if (e.b) {
      pre_activation_planar(row, row, kPixels * count_, A(1), at<A>(e.b, channel, 0), static_cast<const A*>(nullptr));
    }
    finish_row(e.act, row, row, kPixels * count_, limits_);
    put_rows(row, static_cast<A*>(p_.y), channel, y);
  }

  // row += n pixels of the residual from number `place` on
  void add_residual(int64_t place, A* row, int64_t n) const {
    add_scaled(static_cast<const A*>(p_.residual) + place, row, n, static_cast<A>(p_.residual_scale));
  }

  // Call f(sample, first, width, plane, place) for row y of each tile that has it: its pixels are `width` from number
  // `first` on of the row of all tiles, and from number `place` on of their plane.
  template <class F>
  void for_rows(int64_t channel, int64_t y, const F& f) const {
    for (int64_t t = 0; t < count_; ++t) {
      const Place& at = places_[t];
      if (at.y + y < 0 || at.y + y >= p_.out_h) continue;
      const int64_t skipped = at.x < 0 ? -at.x : 0;
      const int64_t width = (p_.out_w - at.x < kPixels ? p_.out_w - at.x : kPixels) - skipped;
      f(at.sample, kPixels * t + skipped, width, at.sample * p_.convolutions * p_.outputs + channel,
        (at.y + y) * p_.out_w + at.x + skipped);
    }
  }

  void put_rows(const A* row, A* images, int64_t channel, int64_t y) const {
    for_rows(channel, y, [&](int64_t, int64_t first, int64_t width, int64_t plane, int64_t place) {
      A* to = images + plane * p_.out_h * p_.out_w + place;
      if (width == kPixels) {
        std::memcpy(to, row + first, kPixels * sizeof(A));
      } else {
        std::memcpy(to, row + first, width * sizeof(A));
      }
    });
  }

  // kPixels * n pixels of a row of one output channel, given as columns [kPixels][T] of their tiles, from column x on, which
  // may be before the image
  void finish_row_of(int64_t channel, const A* columns, int64_t n, int64_t sample, int64_t y, int64_t x) {
    join<kLanes<A>>(columns, 0, n, row_);
    const int64_t skipped = x < 0 ? -x : 0;
    const int64_t width = (p_.out_w - x < kPixels * n ? p_.out_w - x : kPixels * n) - skipped;
    x += skipped;
    A* row = row_ + skipped;
    const int64_t plane = sample * p_.convolutions * p_.outputs + channel,
                  place = (plane * p_.out_h + y) * p_.out_w + x;
    if (p_.residual) add_residual(place, row, width);
    if (p_.kept) std::memcpy(static_cast<A*>(p_.kept) + place, row, width * sizeof(A));
    const BiasAct& e = p_.epilogue;
    const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample * e.noise_stride + y * p_.out_w + x : nullptr;
    pre_activation_planar(row, row, width, at<A>(e.scale, plane, 1), at<A>(e.b, channel, 0), noise);
    finish_row(e.act, row, static_cast<A*>(p_.y) + place, width, limits_);
  }

  // a tile: its sample, and its first pixel of the outputs
  struct Place {
    int64_t sample, y, x;
  };

  const Winograd& p_;
  Limits<A> limits_;
  int64_t block_inputs_, stride_;
  A *tiles_, *sums_, *inputs_, *pixels_, *row_, *weights_;
  // the part whose channels are transformed, and the memory of its images
  const Part* part_ = nullptr;
  const A *images_ = nullptr, *images_end_ = nullptr;
  bool looks_up_;
  int64_t convolution_ = 0, first_ = 0, count_ = 0;
  // of the group's tiles, and of their pixels: how many lie before them in memory from the channel's plane in the first
  // sample on
  Place places_[T];
  int32_t numbers_[kInputs * kInputs * T];
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
    case Convolution::odd_transposed: return with_axis(OddTransposed{});
    case Convolution::repeated: return with_axis(Repeated{});
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
