// Kernels of gram_matrix, feature_statistics and mix_channels, compiled once per instruction set. Features are copied
// into panels, [row][kPanelWidth] in the accumulation type, and panels are multiplied: for the Gram matrix rows of
// pixels with one another, for the mix rows of channels with the weight.
#include <cmath>

#include "gram_matrix.h"
#include "panels.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

template <class T, class A>
void sum_channels(const Features& x, double* sums, A* scratch, int64_t begin, int64_t end) {
  const T* data = static_cast<const T*>(x.data);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task % x.chunks() * x.chunk(), last = least(first + x.chunk(), x.pixels);
    const T* sample = data + task / x.chunks() * x.channels * x.pixels;
    double* to = sums + task * x.channels;
    for (int64_t c = 0; c < x.channels; ++c) to[c] = 0;
    // short sums in the accumulation type, and their sum in float64
    for (int64_t p = first; p < last; p += kPanelDepth) {
      const int64_t n = least(kPanelDepth, last - p);
      if (!x.channels_last) {
        for (int64_t c = 0; c < x.channels; ++c) {
          const A* row = load_row<T, A>(sample + c * x.pixels + p, scratch, n);
          A sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int64_t k = 0; k < n; ++k) sum += row[k];
          to[c] += sum;
        }
        continue;
      }
      for (int64_t c = 0; c < x.channels; c += W) {
        const int64_t width = least(W, x.channels - c);
        A sum[W] = {};
        for (int64_t k = 0; k < n; ++k) {
          const A* row = load_row<T, A>(sample + (p + k) * x.channels + c, scratch, width);
#pragma omp simd
          for (int64_t j = 0; j < width; ++j) sum[j] += row[j];
        }
        for (int64_t j = 0; j < width; ++j) to[c + j] += sum[j];
      }
    }
  }
}

template <class T, class A>
void sum_products(const GramMatrix& p, A* scratch, int64_t begin, int64_t end) {
  const Features& x = p.x;
  A* buffer = scratch + x.blocks() * kPanel;
  // the first r of n block rows have about (r / n)^2 of the blocks on and below the diagonal
  const auto cut = [&](int64_t k) { return std::lround(x.blocks() * std::sqrt(double(k) / p.cuts)); };
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first_row = cut(task % p.cuts), last_row = cut(task % p.cuts + 1), part = task / p.cuts;
    const int64_t sample = part / x.chunks(), first = part % x.chunks() * x.chunk();
    const int64_t last = least(first + x.chunk(), x.pixels), width = least(x.channels, last_row * W);
    const T* data = static_cast<const T*>(x.data) + sample * x.channels * x.pixels;
    const A* mean = x.mean ? static_cast<const A*>(x.mean) + sample * x.channels : nullptr;
    A* sums = static_cast<A*>(p.sums) + part * p.tiles() * W * W;
    for (int64_t pixel = first; pixel < last; pixel += kPanelDepth) {
      const int64_t depth = least(kPanelDepth, last - pixel);
      pack(Matrix<T, A>{data + pixel * x.pixel_stride(), depth, width, x.pixel_stride(), x.channel_stride(), nullptr,
                        mean},
           scratch, kPanel, buffer);
      for (int64_t i = first_row; i < last_row; ++i) {
        for (int64_t j = 0; j <= i; ++j) {
          multiply_panels(scratch + i * kPanel, scratch + j * kPanel, sums + (i * (i + 1) / 2 + j) * W * W, depth,
                          least(W, x.channels - i * W), i == j, pixel > first);
        }
      }
    }
  }
}

template <class A>
void finish(const GramMatrix& p, int64_t begin, int64_t end) {
  const int64_t channels = p.x.channels, blocks = p.x.blocks(), size = p.tiles() * W * W;
  const A scale = static_cast<A>(p.scale);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t sample = task / blocks, i = task % blocks, rows = least(W, channels - i * W);
    A* out = static_cast<A*>(p.out) + sample * channels * channels;
    for (int64_t j = 0; j <= i; ++j) {
      const A* sums = static_cast<const A*>(p.sums) + sample * p.x.chunks() * size + (i * (i + 1) / 2 + j) * W * W;
      A tile[W * W];
      for (int64_t k = 0; k < rows * W; ++k) tile[k] = sums[k];
      for (int64_t chunk = 1; chunk < p.x.chunks(); ++chunk) {
        for (int64_t k = 0; k < rows * W; ++k) tile[k] += sums[chunk * size + k];
      }
      for (int64_t r = 0; r < rows; ++r) {
        A* row = out + (i * W + r) * channels + j * W;
        const int64_t n = i == j ? r + 1 : W;
        for (int64_t k = 0; k < n; ++k) row[k] = tile[r * W + k] * scale;
      }
      for (int64_t k = 0; k < (i == j ? rows : W); ++k) {
        A* row = out + (j * W + k) * channels + i * W;
        for (int64_t r = i == j ? k + 1 : 0; r < rows; ++r) row[r] = tile[r * W + k] * scale;
      }
    }
  }
}

template <class A>
void pack_weights(const ChannelMix& p, int64_t begin, int64_t end) {
  const int64_t blocks = p.x.blocks(), channels = p.x.channels;
  A buffer[kPanel];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t o = task % blocks * W;
    const A* weight = static_cast<const A*>(p.weight) + task / blocks * p.weight_strides[0] + o * p.weight_strides[1];
    for (int64_t k = 0; k < p.depths(); ++k) {
      const int64_t i = k * kPanelDepth;
      pack(Matrix<A, A>{weight + i * p.weight_strides[2], least(kPanelDepth, channels - i), least(W, channels - o),
                        p.weight_strides[2], p.weight_strides[1], nullptr, nullptr},
           static_cast<A*>(p.panels) + (task * p.depths() + k) * kPanel, kPanel, buffer);
    }
  }
}

// y of the pixels of a group and the channels of a block from their tile [channel][pixel].
template <class T, class A>
void write_tile(const Features& x, A* tile, A* turned, const A* bias, T* y, int64_t channels, int64_t pixels) {
  constexpr int64_t L = kLanes<A>;
  if (bias) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t k = 0; k < W; ++k) tile[c * W + k] += bias[c];
    }
  }
  if (x.channels_last) {
    for (int64_t c = 0; c < W; c += L) {
      for (int64_t k = 0; k < W; k += L) {
        V<A> block[L];
#pragma GCC unroll 16
        for (int64_t r = 0; r < L; ++r) block[r] = load(tile + (c + r) * W + k);
        transpose<A, L>(block);
#pragma GCC unroll 16
        for (int64_t r = 0; r < L; ++r) store(turned + (k + r) * W + c, block[r]);
      }
    }
  }
  const A* rows = x.channels_last ? turned : tile;
  const int64_t count = x.channels_last ? pixels : channels, n = x.channels_last ? channels : pixels;
  const int64_t stride = x.channels_last ? x.pixel_stride() : x.channel_stride();
  for (int64_t r = 0; r < count; ++r) {
    if constexpr (sizeof(T) == sizeof(A)) {
      std::memcpy(y + r * stride, rows + r * W, n * sizeof(A));
    } else {
      store_row<T, A>(y + r * stride, rows + r * W, n);
    }
  }
}

template <class T, class A>
void mix(const ChannelMix& p, A* scratch, int64_t begin, int64_t end) {
  const Features& x = p.x;
  const int64_t depths = p.depths(), blocks = x.blocks(), group = depths * kPanel, channels = x.channels;
  A *tile = scratch, *turned = tile + W * W, *buffer = turned + W * W, *pixels = buffer + kPanel;
  // lanes past the last channel are transposed too and thrown away; denormal numbers there would be slow
  std::memset(tile, 0, W * W * sizeof(A));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t sample = task / p.spans(), first = task % p.spans() * p.groups() * W;
    const int64_t width = least(p.groups() * W, x.pixels - first),
                  start = sample * channels * x.pixels + first * x.pixel_stride();
    const A* mean = x.mean ? static_cast<const A*>(x.mean) + sample * channels : nullptr;
    for (int64_t k = 0; k < depths; ++k) {
      const int64_t i = k * kPanelDepth;
      pack(
          Matrix<T, A>{static_cast<const T*>(x.data) + start + i * x.channel_stride(), least(kPanelDepth, channels - i),
                       width, x.channel_stride(), x.pixel_stride(), mean ? mean + i : nullptr, nullptr},
          pixels + k * kPanel, group, buffer);
    }
    for (int64_t o = 0; o < blocks; ++o) {
      const A* weight = static_cast<const A*>(p.panels) + (sample * blocks + o) * depths * kPanel;
      const A* bias = p.bias ? static_cast<const A*>(p.bias) + sample * channels + o * W : nullptr;
      const int64_t outputs = least(W, channels - o * W);
      for (int64_t w = 0; w < width; w += W) {
        for (int64_t k = 0; k < depths; ++k) {
          multiply_panels(weight + k * kPanel, pixels + w / W * group + k * kPanel, tile,
                          least(kPanelDepth, channels - k * kPanelDepth), outputs, false, k > 0);
        }
        T* y = static_cast<T*>(p.y) + start + w * x.pixel_stride() + o * W * x.channel_stride();
        write_tile<T, A>(x, tile, turned, bias, y, outputs, least(W, width - w));
      }
    }
  }
}

}  // namespace

void channel_sums(const Features& x, DType dtype, double* sums, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    using A = typename Accumulate<T>::type;
    sum_channels<T>(x, sums, static_cast<A*>(scratch), begin, end);
  });
}

void gram_sums(const GramMatrix& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    using A = typename Accumulate<T>::type;
    sum_products<T>(p, static_cast<A*>(scratch), begin, end);
  });
}

void gram_finish(const GramMatrix& p, DType dtype, int64_t begin, int64_t end) {
  dtype == DType::f64 ? finish<double>(p, begin, end) : finish<float>(p, begin, end);
}

void mix_panels(const ChannelMix& p, DType dtype, int64_t begin, int64_t end) {
  dtype == DType::f64 ? pack_weights<double>(p, begin, end) : pack_weights<float>(p, begin, end);
}

void mix_channels(const ChannelMix& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    using A = typename Accumulate<T>::type;
    mix<T>(p, static_cast<A*>(scratch), begin, end);
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
