// Kernels of fused_conv2d and conv2d_weight_gradient for convolutions of few channels, such as those of a group; compiled
// once per instruction set. Channels lie side by side in vectors, so that tiles need no run of neighbors, and so many
// tiles are transformed together that all of them stay in the second-level cache.
#include <cstring>

#include "cpu/pointwise/bias_act_rows.h"
#include "winograd.h"
#include "winograd_axes.h"
#include "winograd_weights.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

constexpr int64_t T = kNarrowBlock, kNumbers = 36;

// tiles whose products with a vector of weights are summed together
#if defined(__AVX512F__)
constexpr int kTileRows = 16;
#else
constexpr int kTileRows = 8;
#endif

template <class A>
class TileMaker {
 public:
  static constexpr int64_t L = kLanes<A>;
  using V = typename Vector<A, L>::type;

  explicit TileMaker(A* window) : window_(window) {}

  static V load(const A* p) { return *reinterpret_cast<const V*>(p); }
  static void store(A* p, V v) { *reinterpret_cast<V*>(p) = v; }

  // planes of h * w pixels, one after the other, and factors for them or null
  struct Image {
    const A *planes, *factors;
    int64_t channels, h, w;
  };

  // dst[block of T tiles][number][vector of channels][T][L], from the piece's first tile on: the windows of from * from
  // pixels of its tiles, four pixels apart and the first at (y, x), transformed to 6 * 6 numbers
  template <int64_t from, class F>
  void transform(const Image& image, const Piece& piece, int64_t y, int64_t x, A* dst, const F& f) {
    const int64_t stride = narrow_number(image.channels);
    const int64_t height = 4 * piece.rows + from - 4, width = 4 * piece.columns + from - 4;
    for (int64_t channel = 0; channel < image.channels; channel += L) {
      gather(image, channel, y, x, height, width);
      int64_t tile = piece.tile;
      for (int64_t row = 0; row < piece.rows; ++row) {
        for (int64_t column = 0; column < piece.columns; ++column, ++tile) {
          A* place = dst + tile / T * kNumbers * stride + channel * T + tile % T * L;
          const A* corner = window_ + (4 * row * width + 4 * column) * L;
          V pixels[from][from], transformed[6][6];
#pragma GCC unroll 36
          for (int64_t k = 0; k < from * from; ++k) {
            pixels[k / from][k % from] = load(corner + (k / from * width + k % from) * L);
          }
          along_both_axes(pixels, transformed, f);
#pragma GCC unroll 36
          for (int64_t k = 0; k < kNumbers; ++k) store(place + k * stride, transformed[k / 6][k % 6]);
        }
      }
    }
  }

 private:
  // window_[height][width][L]: the pixels from (y, x) on of L channels side by side; zero outside the image
  void gather(const Image& image, int64_t channel, int64_t y, int64_t x, int64_t height, int64_t width) {
    const auto inside = [](int64_t pixel, int64_t size) { return pixel < 0 ? 0 : pixel < size ? pixel : size; };
    const int64_t top = inside(y, image.h), bottom = inside(y + height, image.h);
    const int64_t left = inside(x, image.w), right = inside(x + width, image.w);
    const int64_t columns = right - left, rows = bottom - top;
    if (rows < height || columns < width) std::memset(window_, 0, height * width * L * sizeof(A));
    if (rows <= 0 || columns <= 0) return;
    const int64_t lanes = image.channels - channel < L ? image.channels - channel : L;
    V factors = V{} + A(1);
    for (int64_t c = 0; image.factors && c < lanes; ++c) factors[c] = image.factors[channel + c];
    const A* src = image.planes + (channel * image.h + top) * image.w + left;
    A* to = window_ + ((top - y) * width + left - x) * L;
    // whole rows follow each other in memory
    const bool whole = columns == image.w;
    const int64_t runs = whole ? 1 : rows, length = whole ? rows * columns : columns;
    for (int64_t run = 0; run < runs; ++run, src += image.w, to += width * L) {
      gather_run(src, image.h * image.w, lanes, length, factors, to, columns, width);
    }
  }

  // pixels of a run to dst, whose rows hold `columns` of them and start `width` apart
  static void gather_run(const A* src, int64_t plane, int64_t lanes, int64_t length, V factors, A* dst, int64_t columns,
                         int64_t width) {
    for (int64_t next = 0; next < length; next += L) {
      // the last vector starts early, so that it ends with the run
      const int64_t k = next + L <= length || length < L ? next : length - L;
      const int64_t pixels = length < L ? length : L;
      V block[L];
      if (lanes == L && pixels == L) {
#pragma GCC unroll 16
        for (int64_t c = 0; c < L; ++c) std::memcpy(&block[c], src + c * plane + k, sizeof(V));
      } else {
        for (int64_t c = 0; c < L; ++c) block[c] = V{};
        for (int64_t c = 0; c < lanes; ++c) {
          // of a size that the compiler knows where it can: a call for so few bytes would take most of the time
          if (pixels == L) std::memcpy(&block[c], src + c * plane + k, sizeof(V));
          for (int64_t j = 0; pixels < L && j < pixels; ++j) block[c][j] = src[c * plane + k + j];
        }
      }
      transpose<A, L>(block);
      int64_t column = k % columns;
      A* to = dst + (k / columns * width + column) * L;
      for (int64_t j = 0; j < pixels; ++j, to += L) {
        store(to, block[j] * factors);
        if (++column == columns) column = 0, to += (width - columns) * L;
      }
    }
  }

  A* window_;
};

template <class A>
class NarrowConvolution {
  static constexpr int64_t L = kLanes<A>;
  using V = typename Vector<A, L>::type;
  using Tiles = TileMaker<A>;

 public:
  NarrowConvolution(const Winograd& p, DType dtype, A* scratch)
      : p_(p), limits_(p.epilogue, dtype), pieces_(p.pieces()), maker_(scratch),
        tiles_(scratch + kNarrowWindow * kWinogradLanes), sums_(tiles_ + narrow_tiles(p.inputs)),
        weights_(sums_ + narrow_tiles(p.outputs)), pixels_(weights_ + kNumbers * weights_of_number()),
        rows_(pixels_ + kNarrowPixels * kWinogradLanes) {
    // lanes past the last output are multiplied too and thrown away; denormal numbers there would be slow
    std::memset(weights_, 0, kNumbers * weights_of_number() * sizeof(A));
  }

  // chunk number `chunk` of a convolution, whose weights are transformed before the first one
  void make(int64_t convolution, int64_t chunk) {
    if (convolution != convolution_) transform_convolution(convolution);
    const int64_t count = pieces_.for_each(chunk, [&](const Piece& piece) {
      const int64_t first = (piece.sample * p_.convolutions + convolution) * p_.inputs;
      const A* factors = p_.styles ? static_cast<const A*>(p_.styles) + first : nullptr;
      const typename Tiles::Image image{static_cast<const A*>(p_.parts->x) + first * p_.h * p_.w, factors, p_.inputs,
                                        p_.h, p_.w};
      maker_.template transform<6>(image, piece, 4 * piece.y - p_.pad_y, 4 * piece.x - p_.pad_x, tiles_,
                                   [](const auto& from, auto& to) { Plain::input(from, to); });
    });
    const A* tiles = tiles_;
    A* sums = sums_;
    for (int64_t first = 0; first < count; first += T) {
      const int64_t n = count - first < T ? count - first : T;
      const A* weights = weights_;
      for (int64_t k = 0; k < kNumbers; ++k) {
        for (int64_t o = 0; o < p_.outputs; o += L) {
          multiply_tiles<kTileRows>(tiles, weights + block(o), sums + o * T, 0, n);
        }
        tiles += narrow_number(p_.inputs);
        sums += narrow_number(p_.outputs);
        weights += weights_of_number();
      }
    }
    pieces_.for_each(chunk, [&](const Piece& piece) {
      for (int64_t o = 0; o < p_.outputs; o += L) finish(piece, o);
    });
  }

 private:
  // weights_[number][block of outputs][inputs][W], a block being a vector or two
  static constexpr int64_t W = L < kWinogradOutputs ? kWinogradOutputs : L;
  int64_t weights_of_number() const { return narrow_weights(p_.inputs, p_.outputs); }
  int64_t block(int64_t o) const { return o / W * W * p_.inputs + o % W; }

  void transform_convolution(int64_t convolution) {
    convolution_ = convolution;
    for (int64_t o = 0; o < p_.output_blocks(); ++o) {
      A* to = weights_ + block(o * kWinogradOutputs);
      transform_weights<Plain>(p_, convolution, o, 0, to, W, weights_of_number());
    }
  }

  // sums[t][L] = sum_i of tiles[vector of i][t][lane of i] * weights[i][W] for tiles t from `first` on, `rows` at a time,
  // then fewer
  template <int rows>
  void multiply_tiles(const A* tiles, const A* weights, A* sums, int64_t first, int64_t count) const {
    int64_t t = first;
    for (; t + rows <= count; t += rows) {
      V acc[rows] = {};
      const A *left = tiles + t * L, *right = weights;
      for (int64_t i = 0; i < p_.inputs; i += L, left += T * L) {
        const int64_t n = p_.inputs - i < L ? p_.inputs - i : L;
        for (int64_t lane = 0; lane < n; ++lane, right += W) {
          const V w = Tiles::load(right);
#pragma GCC unroll 16
          for (int r = 0; r < rows; ++r) acc[r] += w * left[r * L + lane];
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) Tiles::store(sums + (t + r) * L, acc[r]);
    }
    if constexpr (rows > 1) multiply_tiles<rows / 2>(tiles, weights, sums, t, count);
  }

  // y = the epilogue of a piece's sums of outputs o to o + L, transformed back
  void finish(const Piece& piece, int64_t o) {
    const int64_t y = 4 * piece.y, x = 4 * piece.x;
    const int64_t height = p_.out_h - y < 4 * piece.rows ? p_.out_h - y : 4 * piece.rows;
    const int64_t width = p_.out_w - x < 4 * piece.columns ? p_.out_w - x : 4 * piece.columns;
    int64_t tile = piece.tile;
    for (int64_t row = 0; row < piece.rows; ++row) {
      for (int64_t column = 0; column < piece.columns; ++column, ++tile) {
        const A* sums = sums_ + tile / T * kNumbers * narrow_number(p_.outputs) + o * T + tile % T * L;
        V back[4][4], products[6][6];
#pragma GCC unroll 36
        for (int64_t k = 0; k < kNumbers; ++k)
          products[k / 6][k % 6] = Tiles::load(sums + k * narrow_number(p_.outputs));
        along_both_axes(products, back, [](const auto& from, auto& to) { Plain::output(from, to); });
        const int64_t h = height - 4 * row < 4 ? height - 4 * row : 4;
        const int64_t w = width - 4 * column < 4 ? width - 4 * column : 4;
        A* to = pixels_ + (4 * row * width + 4 * column) * L;
        if (h == 4 && w == 4) {
#pragma GCC unroll 16
          for (int64_t k = 0; k < 16; ++k) Tiles::store(to + (k / 4 * width + k % 4) * L, back[k / 4][k % 4]);
        } else {
          for (int64_t r = 0; r < h; ++r) {
            for (int64_t c = 0; c < w; ++c) Tiles::store(to + (r * width + c) * L, back[r][c]);
          }
        }
      }
    }
    // rows_[L][length]: pixels side by side; those past the last are never read. The length is no power of two, as all
    // rows would share cache sets
    const int64_t length = (height * width + L - 1) / L * L + kWinogradLanes;
    for (int64_t k = 0; k < height * width; k += L) {
      V block[L];
#pragma GCC unroll 16
      for (int64_t j = 0; j < L; ++j) block[j] = Tiles::load(pixels_ + (k + j) * L);
      transpose<A, L>(block);
#pragma GCC unroll 16
      for (int64_t c = 0; c < L; ++c) Tiles::store(rows_ + c * length + k, block[c]);
    }
    const bool whole = width == p_.out_w;
    for (int64_t c = 0; c < L && o + c < p_.outputs; ++c) {
      const int64_t channel = convolution_ * p_.outputs + o + c;
      for (int64_t r = 0; r < (whole ? 1 : height); ++r) {
        finish_run(rows_ + c * length + r * width, whole ? height * width : width, channel, piece.sample, y + r, x);
      }
    }
  }

  // n pixels of one output channel from (y, x) on; inlined it would not be vectorized
  [[gnu::noinline]] void finish_run(A* row, int64_t n, int64_t channel, int64_t sample, int64_t y, int64_t x) {
    const int64_t plane = sample * p_.convolutions * p_.outputs + channel, pixel = y * p_.out_w + x;
    const int64_t place = plane * p_.out_h * p_.out_w + pixel;
    if (p_.residual) {
      add_scaled(static_cast<const A*>(p_.residual) + place, row, n, static_cast<A>(p_.residual_scale));
    }
    if (p_.kept) std::memcpy(static_cast<A*>(p_.kept) + place, row, n * sizeof(A));
    const BiasAct& e = p_.epilogue;
    const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample * e.noise_stride + pixel : nullptr;
    pre_activation_planar(row, row, n, at<A>(e.scale, plane, 1), at<A>(e.b, channel, 0), noise);
    finish_row(e.act, row, static_cast<A*>(p_.y) + place, n, limits_);
  }

  const Winograd& p_;
  Limits<A> limits_;
  Pieces pieces_;
  Tiles maker_;
  A *tiles_, *sums_, *weights_, *pixels_, *rows_;
  int64_t convolution_ = -1;
};

template <class A>
class NarrowGradient {
  static constexpr int64_t L = kLanes<A>;
  using V = typename Vector<A, L>::type;
  using Tiles = TileMaker<A>;

 public:
  NarrowGradient(const WinogradGradient& p, A* scratch)
      : p_(p), pieces_(p.pieces()), maker_(scratch), inputs_(scratch + kNarrowWindow * kWinogradLanes),
        outputs_(inputs_ + narrow_tiles(p.inputs)), sums_(outputs_ + narrow_tiles(p.outputs)) {}

  void make(int64_t convolution) {
    std::memset(sums_, 0, kNumbers * sums_of_number() * sizeof(A));
    for (int64_t chunk = 0; chunk < pieces_.chunks(); ++chunk) {
      const int64_t count = pieces_.for_each(chunk, [&](const Piece& piece) {
        const int64_t number = piece.sample * p_.convolutions + convolution;
        const typename Tiles::Image x{static_cast<const A*>(p_.x) + number * p_.inputs * p_.h * p_.w, nullptr,
                                      p_.inputs, p_.h, p_.w};
        maker_.template transform<6>(x, piece, 4 * piece.y - p_.pad_y, 4 * piece.x - p_.pad_x, inputs_,
                                     [](const auto& from, auto& to) { Plain::input(from, to); });
        const typename Tiles::Image dy{static_cast<const A*>(p_.dy) + number * p_.outputs * p_.out_h * p_.out_w,
                                       nullptr, p_.outputs, p_.out_h, p_.out_w};
        maker_.template transform<4>(dy, piece, 4 * piece.y, 4 * piece.x, outputs_,
                                     [](const auto& from, auto& to) { Plain::output_adjoint(from, to); });
      });
      for (int64_t k = 0; k < kNumbers; ++k) {
        const A *left = outputs_ + k * narrow_number(p_.outputs), *right = inputs_ + k * narrow_number(p_.inputs);
        for (int64_t o = 0; o < p_.outputs; o += L) {
          for (int64_t i = 0; i < p_.inputs; i += L) {
            add_products(left + o * T, right + i * T, sums_ + k * sums_of_number() + place(o, i), count);
          }
        }
      }
    }
    for (int64_t o = 0; o < p_.outputs; ++o) {
      for (int64_t i = 0; i < p_.inputs; i += L) write_weights(convolution, o, i);
    }
  }

 private:
  int64_t sums_of_number() const { return narrow_channels(p_.outputs) * narrow_channels(p_.inputs); }

  // where output o and inputs i to i + L are among the sums of a number: [vector of outputs][vector of inputs][L][L]
  int64_t place(int64_t o, int64_t i) const {
    return (o / L * (narrow_channels(p_.inputs) / L) + i / L) * L * L + o % L * L;
  }

  // sums[o][i] += sum_t left[t][o] * right[t][i], L of each
  void add_products(const A* left, const A* right, A* sums, int64_t count) const {
    V acc[L] = {};
    for (int64_t first = 0; first < count; first += T) {
      const int64_t n = count - first < T ? count - first : T;
      for (int64_t t = 0; t < n; ++t) {
        const V x = Tiles::load(right + t * L);
#pragma GCC unroll 16
        for (int64_t r = 0; r < L; ++r) acc[r] += x * left[t * L + r];
      }
      left += kNumbers * narrow_number(p_.outputs);
      right += kNumbers * narrow_number(p_.inputs);
    }
#pragma GCC unroll 16
    for (int64_t r = 0; r < L; ++r) Tiles::store(sums + r * L, Tiles::load(sums + r * L) + acc[r]);
  }

  // dweight of output o and inputs from i on
  void write_weights(int64_t convolution, int64_t o, int64_t i) {
    V sums[6][6], taps[3][3];
    for (int64_t k = 0; k < kNumbers; ++k) sums[k / 6][k % 6] = Tiles::load(sums_ + k * sums_of_number() + place(o, i));
    along_both_axes(sums, taps, [](const auto& from, auto& to) { Plain::weight_adjoint(from, to); });
    const int64_t* s = p_.dweight_strides;
    A* dst = static_cast<A*>(p_.dweight) + convolution * p_.outputs * p_.inputs * 9 + o * s[0] + i * s[1];
    for (int64_t lane = 0; lane < L && i + lane < p_.inputs; ++lane, dst += s[1]) {
      for (int64_t k = 0; k < 9; ++k) dst[k] = taps[k / 3][k % 3][lane];
    }
  }

  const WinogradGradient& p_;
  Pieces pieces_;
  Tiles maker_;
  A *inputs_, *outputs_, *sums_;
};

template <class A>
void convolve(const Winograd& p, DType dtype, A* scratch, int64_t begin, int64_t end) {
  NarrowConvolution<A> maker(p, dtype, scratch);
  const int64_t chunks = p.pieces().chunks();
  for (int64_t task = begin; task < end; ++task) maker.make(task / chunks, task % chunks);
}

template <class A>
void sum_gradients(const WinogradGradient& p, A* scratch, int64_t begin, int64_t end) {
  NarrowGradient<A> maker(p, scratch);
  for (int64_t convolution = begin; convolution < end; ++convolution) maker.make(convolution);
}

}  // namespace

void winograd_narrow(const Winograd& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  dtype == DType::f64 ? convolve(p, dtype, static_cast<double*>(scratch), begin, end)
                      : convolve(p, dtype, static_cast<float*>(scratch), begin, end);
}

void winograd_narrow_gradient(const WinogradGradient& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  dtype == DType::f64 ? sum_gradients(p, static_cast<double*>(scratch), begin, end)
                      : sum_gradients(p, static_cast<float*>(scratch), begin, end);
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
