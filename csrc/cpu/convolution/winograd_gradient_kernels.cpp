// Kernels of conv2d_weight_gradient, compiled once per instruction set. For a block of outputs and one of inputs:
// transform some tiles of both, add their products to the sums, and at the end transform the sums back to weights.
#include <cstring>

#include "winograd.h"
#include "winograd_axes.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

template <class Axis, class A>
class BlockMaker {
  static constexpr int64_t T = kGradientTiles, G = kGradientGroup, L = kLanes<A>;
  static constexpr int64_t kProducts = Axis::kProducts, kTransformed = Axis::kTransformed, kAdjoints = Axis::kAdjoints,
                           kWeights = Axis::kWeights;
  static constexpr int kVectors = G >= 2 * L ? 2 : 1;
  using V = typename Vector<A, L>::type;
  static_assert(Axis::kInputs <= kGradientRows && Axis::kStep * (T - 1) + Axis::kInputs <= kGradientRow &&
                    L <= kGradientLanes,
                "scratch is too small for the pixels of a run");
  static_assert(G % (kVectors * L) == 0 && G % kRows == 0, "a group is whole vectors and rows");

 public:
  BlockMaker(const WinogradGradient& p, A* scratch)
      : p_(p), inputs_(scratch), outputs_(inputs_ + kTransformed * kTransformed * p.side()),
        sums_(outputs_ + kAdjoints * kAdjoints * p.side()), pixels_(sums_ + kWeights * kWeights * p.block * p.block) {
    // lanes past the last channel are multiplied too and thrown away; denormal numbers there would be slow
    std::memset(inputs_, 0, (outputs_ - inputs_ + kAdjoints * kAdjoints * p.side()) * sizeof(A));
  }

  void make(int64_t task) {
    convolution_ = task / p_.blocks();
    first_output_ = task % p_.blocks() / p_.input_blocks() * p_.block;
    first_input_ = task % p_.input_blocks() * p_.block;
    const int64_t outputs = p_.outputs - first_output_ < p_.block ? p_.outputs - first_output_ : p_.block;
    const int64_t inputs = p_.inputs - first_input_ < p_.block ? p_.inputs - first_input_ : p_.block;
    std::memset(sums_, 0, kWeights * kWeights * p_.block * p_.block * sizeof(A));
    for (int64_t first = 0; first < p_.tiles(); first += T) {
      const int64_t tiles = p_.tiles() - first < T ? p_.tiles() - first : T;
      transform_tiles(first, tiles, inputs, outputs);
      for (int64_t k = 0; k < kProducts * kProducts; ++k)
        add_products(k / kProducts, k % kProducts, tiles, inputs, outputs);
    }
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t i = 0; i < inputs; i += L) write_weights(o, i, inputs - i < L ? inputs - i : L);
    }
  }

 private:
  // where output o and input i are among the sums of one transformed number: [output group][input group][G][G]
  int64_t place(int64_t o, int64_t i) const { return (o / G * (p_.block / G) + i / G) * G * G + o % G * G + i % G; }

  static V load_unaligned(const A* p) {
    V v;
    std::memcpy(&v, p, sizeof(V));
    return v;
  }
  static V load(const A* p) { return *reinterpret_cast<const V*>(p); }
  static void store(A* p, V v) { *reinterpret_cast<V*>(p) = v; }

  // Transform the windows of `tiles` tiles on both sides, run by run of tiles side by side.
  void transform_tiles(int64_t first, int64_t tiles, int64_t inputs, int64_t outputs) {
    for_runs(p_, first, tiles, [&](int64_t t, int64_t n, int64_t sample, int64_t ty, int64_t tx) {
      const int64_t number = sample * p_.convolutions + convolution_;
      const Image x{static_cast<const A*>(p_.x) + (number * p_.inputs + first_input_) * p_.h * p_.w, p_.h, p_.w};
      transform_run<Axis::kInputs, Axis::kStep, kTransformed>(
          x, inputs, Axis::kStep * ty - p_.pad_y, Axis::kStep * tx - p_.pad_x, n, inputs_ + t * G,
          [](const auto& from, auto& to) { Axis::input(from, to); });
      const A* dy = static_cast<const A*>(p_.dy) + (number * p_.outputs + first_output_) * p_.out_h * p_.out_w;
      transform_run<Axis::kPixels, Axis::kPixels, kAdjoints>(
          Image{dy, p_.out_h, p_.out_w}, outputs, Axis::kPixels * ty, Axis::kPixels * tx, n, outputs_ + t * G,
          [](const auto& from, auto& to) { Axis::output_adjoint(from, to); });
    });
  }

  // planes of h * w, one after the other
  struct Image {
    const A* planes;
    int64_t h, w;
  };

  // dst[number][group][tile][G] of n windows of from * from pixels, `step` apart, the first at (y, x)
  template <int64_t from, int64_t step, int64_t to, class F>
  void transform_run(const Image& image, int64_t channels, int64_t y, int64_t x, int64_t n, A* dst,
                     const F& transform) {
    const int64_t side = p_.side();
    for (int64_t c = 0; c < channels; c += L) {
      const int64_t lanes = channels - c < L ? channels - c : L;
      gather_rows(image, c, lanes, y, from, x, step * (n - 1) + from);
      A* place = dst + c / G * T * G + c % G;
      for (int64_t t = 0; t < n; ++t) {
        V pixels[from][from], transformed[to][to];
#pragma GCC unroll 36
        for (int64_t k = 0; k < from * from; ++k) {
          pixels[k / from][k % from] = load(pixels_ + (k / from * kGradientRow + step * t + k % from) * L);
        }
        along_both_axes(pixels, transformed, transform);
#pragma GCC unroll 36
        for (int64_t k = 0; k < to * to; ++k) store(place + k * side + t * G, transformed[k / to][k % to]);
      }
    }
  }

  // pixels_[row][kGradientRow][L]: `count` rows from y on, `length` pixels from x on; zero outside the image
  void gather_rows(const Image& image, int64_t channel, int64_t lanes, int64_t y, int64_t count, int64_t x,
                   int64_t length) {
    const int64_t top = y < 0 ? 0 : y, bottom = image.h - y < count ? image.h : y + count;
    const int64_t whole = (bottom - top) * image.w;
    // rows that are shorter than a vector lie in memory one after the other, where all of them are wanted
    if (lanes < L || image.w >= L || x > 0 || x + length < image.w || whole < L) {
      for (int64_t r = 0; r < count; ++r) {
        gather(image, channel, lanes, y + r, x, length, pixels_ + r * kGradientRow * L);
      }
      return;
    }
    for (int64_t r = 0; r < count; ++r) std::memset(pixels_ + r * kGradientRow * L, 0, length * L * sizeof(A));
    const A* src = image.planes + (channel * image.h + top) * image.w;
    const int64_t plane = image.h * image.w;
    for (int64_t k = 0; k < whole; k += L) {
      // the last vector may begin among the pixels of the one before
      const int64_t first = k + L <= whole ? k : whole - L;
      V block[L];
#pragma GCC unroll 16
      for (int64_t c = 0; c < L; ++c) block[c] = load_unaligned(src + c * plane + first);
      transpose<A, L>(block);
      int64_t row = first / image.w, column = first % image.w;
#pragma GCC unroll 16
      for (int64_t j = 0; j < L; ++j) {
        store(pixels_ + ((top - y + row) * kGradientRow + column - x) * L, block[j]);
        if (++column == image.w) column = 0, ++row;
      }
    }
  }

  // dst[pixel][L]: row y of L channels side by side, `length` pixels from x on; zero outside the image
  static void gather(const Image& image, int64_t channel, int64_t lanes, int64_t y, int64_t x, int64_t length, A* dst) {
    const int64_t begin = x < 0 ? (-x < length ? -x : length) : 0;
    const int64_t inside = y < 0 || y >= image.h ? begin : (image.w - x < length ? image.w - x : length);
    const A* src = image.planes + (channel * image.h + y) * image.w + x;
    const int64_t plane = image.h * image.w;
    for (int64_t k = 0; k < begin; ++k) store(dst + k * L, V{});
    int64_t k = begin;
    for (; lanes == L && k + L <= inside; k += L) {
      V block[L];
#pragma GCC unroll 16
      for (int64_t c = 0; c < L; ++c) block[c] = load_unaligned(src + c * plane + k);
      transpose<A, L>(block);
#pragma GCC unroll 16
      for (int64_t j = 0; j < L; ++j) store(dst + (k + j) * L, block[j]);
    }
    for (; k < inside; ++k) {
      for (int64_t c = 0; c < L; ++c) dst[k * L + c] = c < lanes ? src[c * plane + k] : A(0);
    }
    for (; k < length; ++k) store(dst + k * L, V{});
  }

  // add product (ky, kx) of each tile to the sums
  void add_products(int64_t ky, int64_t kx, int64_t tiles, int64_t inputs, int64_t outputs) {
    const A* left = outputs_ + (kAdjoints * Axis::kOutput[ky] + Axis::kOutput[kx]) * p_.side();
    const A* right = inputs_ + (kTransformed * Axis::kTile[ky] + Axis::kTile[kx]) * p_.side();
    A* sums = sums_ + (kWeights * Axis::kWeight[ky] + Axis::kWeight[kx]) * p_.block * p_.block;
    for (int64_t i = 0; i < inputs; i += G) {
      for (int64_t o = 0; o < outputs; o += kRows) {
        const A* rows = left + o / G * T * G + o % G;
        A* to = sums + place(o, i);
        for (int64_t lane = 0; lane < G && i + lane < inputs; lane += kVectors * L) {
          multiply<kVectors, G, G, G, A>(rows, right + i * T + lane, to + lane, tiles, true, nullptr);
        }
      }
    }
  }

  // dweight of output o and n inputs from i on
  void write_weights(int64_t o, int64_t i, int64_t n) {
    V sums[kWeights][kWeights], taps[3][3];
    for (int64_t k = 0; k < kWeights * kWeights; ++k) {
      sums[k / kWeights][k % kWeights] = load(sums_ + k * p_.block * p_.block + place(o, i));
    }
    along_both_axes(sums, taps, [](const auto& from, auto& to) { Axis::weight_adjoint(from, to); });
    const int64_t* s = p_.dweight_strides;
    A* dst = static_cast<A*>(p_.dweight) + convolution_ * p_.outputs * p_.inputs * 9;
    dst += (first_output_ + o) * s[0] + (first_input_ + i) * s[1];
    for (int64_t lane = 0; lane < n; ++lane, dst += s[1]) {
      for (int64_t k = 0; k < 9; ++k) dst[k] = taps[k / 3][k % 3][lane];
    }
  }

  const WinogradGradient& p_;
  A *inputs_, *outputs_, *sums_, *pixels_;
  int64_t convolution_ = 0, first_output_ = 0, first_input_ = 0;
};

template <class Axis, class A>
void make_blocks(const WinogradGradient& p, A* scratch, int64_t begin, int64_t end) {
  BlockMaker<Axis, A> maker(p, scratch);
  for (int64_t task = begin; task < end; ++task) maker.make(task);
}

template <class A>
void make_blocks(const WinogradGradient& p, A* scratch, int64_t begin, int64_t end) {
  p.kind == Convolution::strided ? make_blocks<Strided>(p, scratch, begin, end)
                                 : make_blocks<Plain>(p, scratch, begin, end);
}

}  // namespace

void winograd_gradient(const WinogradGradient& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  dtype == DType::f64 ? make_blocks(p, static_cast<double*>(scratch), begin, end)
                      : make_blocks(p, static_cast<float*>(scratch), begin, end);
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
