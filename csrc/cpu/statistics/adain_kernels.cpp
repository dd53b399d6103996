// Kernels of adaptive instance normalization, compiled once per instruction set. A task owns a whole
// plane, or a block of channels of a channels-last image: statistics come from one read, and the next pass finds the
// values in cache.
#include <cmath>

#include "adain.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// elements of a plane that are summed in the accumulation type, before a double takes over
constexpr int64_t kRow = 2048;
constexpr int64_t kBlock = Adain::kBlock, kPixels = kRow / kBlock;
// a block of channels is prefetched so many pixels ahead: no hardware prefetcher follows from pixel to pixel
constexpr int64_t kAhead = 32;

// one value or pixel in so many of the first row gives the mean that is taken for the row's
constexpr int64_t kSparse = 16;

// Mean and sum of squared deviations, merged chunk by chunk (Chan et al. 1979). A chunk is read once, about a pivot:
// the mean of the chunks before it, and for the first chunk the mean of some of its own values. Where a chunk's mean is
// far from its pivot, their squared distance is part of m2 (for the first chunk a kSparse-th of it), so that the
// digits that cancel are few.
struct Moments {
  double mean = 0, m2 = 0;
  int64_t n = 0;

  // sums of (v - pivot) and (v - pivot)^2 over a chunk
  void add(double pivot, double sum, double squares, int64_t count) {
    const double chunk_mean = pivot + sum / count, delta = chunk_mean - mean;
    n += count;
    mean += delta * count / n;
    m2 += squares - sum * sum / count + delta * delta * count * (n - count) / n;
  }
};

// What a plane is normalized by: x_hat = ((x - m) - rest) * r, with m the mean rounded to A.
template <class A>
struct Plane {
  A m;
  double rest, r;
  int64_t n, freedom;

  Plane() = default;
  Plane(const Adain& p, const Moments& s) : m(static_cast<A>(s.mean)), n(p.pixels), freedom(n - p.unbiased) {
    rest = s.mean - m;
    r = 1 / std::sqrt(s.m2 / freedom + p.eps);
  }
};

// y = (x - m) * k + shift
template <class A>
struct Forward {
  A m, k, shift;

  Forward() = default;
  Forward(const Plane<A>& s, double scale, double bias) : m(s.m) {
    k = static_cast<A>(scale * s.r);
    shift = static_cast<A>(bias - s.rest * scale * s.r);
  }
};

// dx = dy * k + (x - m) * q + shift, for y = scale * x_hat + bias
template <class A>
struct Backward {
  A m, k, q, shift;

  Backward() = default;
  // sum of dy, and of dy * (x - m); dscale and dbias
  Backward(const Plane<A>& s, double scale, double sum, double dot, A* dscale, A* dbias) : m(s.m) {
    const double along = (dot - s.rest * sum) * s.r, slope = -scale * s.r * s.r * along / s.freedom;
    k = static_cast<A>(scale * s.r);
    q = static_cast<A>(slope);
    shift = static_cast<A>(-scale * s.r * sum / s.n - slope * s.rest);
    *dscale = static_cast<A>(along);
    *dbias = static_cast<A>(sum);
  }
};

template <class A>
A sparse_mean(const A* x, int64_t n) {
  A total = 0;
  for (int64_t i = 0; i < n; i += kSparse) total += x[i];
  return total / ((n + kSparse - 1) / kSparse);
}

// Rows of one plane.
template <class T, class A>
class Planar {
 public:
  Planar(const Adain& p, int64_t plane)
      : n_(p.pixels), at_(plane * p.pixels), x_(static_cast<const T*>(p.x) + at_), plane_(plane) {}

  void moments(const Adain& p) {
    Moments s;
    each_row([&](int64_t i, int64_t n) {
      const A* x = load_row(x_ + i, x_buffer_, n);
      const A pivot = i > 0 ? static_cast<A>(s.mean) : sparse_mean(x, n);
      A sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum, squares)
      for (int64_t j = 0; j < n; ++j) {
        const A d = x[j] - pivot;
        sum += d;
        squares += d * d;
      }
      s.add(pivot, sum, squares, n);
    });
    stats_ = Plane<A>(p, s);
  }

  void store_statistics(const Adain& p) {
    static_cast<A*>(p.mean)[plane_] = static_cast<A>(stats_.m + stats_.rest);
    static_cast<A*>(p.std)[plane_] = static_cast<A>(1 / stats_.r);
  }

  void forward(const Adain& p) {
    const Forward<A> f(stats_, static_cast<const A*>(p.scale)[plane_], static_cast<const A*>(p.bias)[plane_]);
    each_row([&](int64_t i, int64_t n) {
      const A* x = load_row(x_ + i, x_buffer_, n);
      T* dst = static_cast<T*>(p.out) + at_ + i;
      A* y = row_target(dst, out_);
      const A m = f.m, k = f.k, shift = f.shift;
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) y[j] = (x[j] - m) * k + shift;
      store_row(dst, y, n);
    });
  }

  void backward(const Adain& p) {
    const T* all_dy = static_cast<const T*>(p.dy) + at_;
    double sum = 0, dot = 0;
    each_row([&](int64_t i, int64_t n) {
      const A *x = load_row(x_ + i, x_buffer_, n), *dy = load_row(all_dy + i, dy_buffer_, n);
      const A m = stats_.m;
      A row_sum = 0, row_dot = 0;
#pragma omp simd reduction(+ : row_sum, row_dot)
      for (int64_t j = 0; j < n; ++j) {
        row_sum += dy[j];
        row_dot += dy[j] * (x[j] - m);
      }
      sum += row_sum;
      dot += row_dot;
    });
    const Backward<A> b(stats_, static_cast<const A*>(p.scale)[plane_], sum, dot, static_cast<A*>(p.dscale) + plane_,
                        static_cast<A*>(p.dbias) + plane_);
    each_row([&](int64_t i, int64_t n) {
      const A *x = load_row(x_ + i, x_buffer_, n), *dy = load_row(all_dy + i, dy_buffer_, n);
      T* dst = static_cast<T*>(p.out) + at_ + i;
      A* dx = row_target(dst, out_);
      const A m = b.m, k = b.k, q = b.q, shift = b.shift;
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) dx[j] = dy[j] * k + (x[j] - m) * q + shift;
      store_row(dst, dx, n);
    });
  }

 private:
  template <class F>
  void each_row(const F& f) {
    for (int64_t i = 0; i < n_; i += kRow) f(i, n_ - i < kRow ? n_ - i : kRow);
  }

  int64_t n_, at_;
  const T* x_;
  int64_t plane_;
  Plane<A> stats_;
  A x_buffer_[kRow], dy_buffer_[kRow], out_[kRow];
};

// A block of channels of every pixel of an image; kWhole: as many as a block has, which the compiler then knows.
template <class T, class A, bool kWhole>
class ChannelsLast {
 public:
  ChannelsLast(const Adain& p, int64_t task) : pixels_(p.pixels), channels_(p.channels) {
    const int64_t o = task / p.blocks(), c0 = task % p.blocks() * kBlock;
    rest_ = channels_ - c0;
    plane_ = o * channels_ + c0;
    at_ = o * pixels_ * channels_ + c0;
    x_ = static_cast<const T*>(p.x) + at_;
  }

  void moments(const Adain& p) {
    Moments s[kBlock];
    for (int64_t first = 0; first < pixels_; first += kPixels) {
      const int64_t n = pixels_ - first < kPixels ? pixels_ - first : kPixels;
      A pivot[kBlock] = {}, sum[kBlock] = {}, squares[kBlock] = {};
      if (first == 0) {
        const A share = A(1) / ((n + kSparse - 1) / kSparse);
        for (int64_t i = 0; i < n; i += kSparse) {
          const A* x = load_row(x_ + i * channels_, x_buffer_, width());
#pragma omp simd
          for (int64_t c = 0; c < width(); ++c) pivot[c] += x[c] * share;
        }
      } else {
#pragma omp simd
        for (int64_t c = 0; c < width(); ++c) pivot[c] = static_cast<A>(s[c].mean);
      }
      for (int64_t i = first; i < first + n; ++i) {
        ask(x_ + i * channels_);
        const A* x = load_row(x_ + i * channels_, x_buffer_, width());
#pragma omp simd
        for (int64_t c = 0; c < width(); ++c) {
          const A d = x[c] - pivot[c];
          sum[c] += d;
          squares[c] += d * d;
        }
      }
      for (int64_t c = 0; c < width(); ++c) s[c].add(pivot[c], sum[c], squares[c], n);
    }
    for (int64_t c = 0; c < width(); ++c) stats_[c] = Plane<A>(p, s[c]);
  }

  void store_statistics(const Adain& p) {
    for (int64_t c = 0; c < width(); ++c) {
      static_cast<A*>(p.mean)[plane_ + c] = static_cast<A>(stats_[c].m + stats_[c].rest);
      static_cast<A*>(p.std)[plane_ + c] = static_cast<A>(1 / stats_[c].r);
    }
  }

  void forward(const Adain& p) {
    A m[kBlock], k[kBlock], shift[kBlock];
    for (int64_t c = 0; c < width(); ++c) {
      const int64_t plane = plane_ + c;
      const Forward<A> f(stats_[c], static_cast<const A*>(p.scale)[plane], static_cast<const A*>(p.bias)[plane]);
      m[c] = f.m, k[c] = f.k, shift[c] = f.shift;
    }
    for (int64_t i = 0; i < pixels_; ++i) {
      const A* x = load_row(x_ + i * channels_, x_buffer_, width());
      T* dst = static_cast<T*>(p.out) + at_ + i * channels_;
      A* y = row_target(dst, out_);
      ask(dst);
#pragma omp simd
      for (int64_t c = 0; c < width(); ++c) y[c] = (x[c] - m[c]) * k[c] + shift[c];
      store_row(dst, y, width());
    }
  }

  void backward(const Adain& p) {
    const T* all_dy = static_cast<const T*>(p.dy) + at_;
    double sum[kBlock] = {}, dot[kBlock] = {};
    A m[kBlock], k[kBlock], q[kBlock], shift[kBlock];
    for (int64_t c = 0; c < width(); ++c) m[c] = stats_[c].m;
    for (int64_t first = 0; first < pixels_; first += kPixels) {
      const int64_t last = pixels_ - first < kPixels ? pixels_ : first + kPixels;
      A some[kBlock] = {}, along[kBlock] = {};
      for (int64_t i = first; i < last; ++i) {
        ask(all_dy + i * channels_);
        const A* x = load_row(x_ + i * channels_, x_buffer_, width());
        const A* dy = load_row(all_dy + i * channels_, dy_buffer_, width());
#pragma omp simd
        for (int64_t c = 0; c < width(); ++c) {
          some[c] += dy[c];
          along[c] += dy[c] * (x[c] - m[c]);
        }
      }
      for (int64_t c = 0; c < width(); ++c) sum[c] += some[c], dot[c] += along[c];
    }
    for (int64_t c = 0; c < width(); ++c) {
      const int64_t plane = plane_ + c;
      const Backward<A> b(stats_[c], static_cast<const A*>(p.scale)[plane], sum[c], dot[c],
                          static_cast<A*>(p.dscale) + plane, static_cast<A*>(p.dbias) + plane);
      k[c] = b.k, q[c] = b.q, shift[c] = b.shift;
    }
    for (int64_t i = 0; i < pixels_; ++i) {
      const A* x = load_row(x_ + i * channels_, x_buffer_, width());
      const A* dy = load_row(all_dy + i * channels_, dy_buffer_, width());
      T* dst = static_cast<T*>(p.out) + at_ + i * channels_;
      A* dx = row_target(dst, out_);
      ask(dst);
#pragma omp simd
      for (int64_t c = 0; c < width(); ++c) dx[c] = dy[c] * k[c] + (x[c] - m[c]) * q[c] + shift[c];
      store_row(dst, dx, width());
    }
  }

 private:
  int64_t width() const { return kWhole ? kBlock : rest_; }

  // Prefetch the block of the pixel kAhead after the one at `at`.
  void ask(const T* at) const {
    const char* block = reinterpret_cast<const char*>(at + kAhead * channels_);
    for (int64_t i = 0; i < kBlock * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(block + i);
  }

  int64_t pixels_, channels_, rest_, plane_, at_;
  const T* x_;
  Plane<A> stats_[kBlock];
  A x_buffer_[kBlock], dy_buffer_[kBlock], out_[kBlock];
};

// Call f for each task with an object that has the task's planes and their moments.
template <class F>
void each_task(const Adain& p, DType dtype, int64_t begin, int64_t end, const F& f) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    using A = typename Accumulate<T>::type;
    for (int64_t task = begin; task < end; ++task) {
      const auto with = [&](auto&& planes) {
        planes.moments(p);
        f(planes);
      };
      if (!p.channels_last) {
        with(Planar<T, A>(p, task));
      } else if (p.channels - task % p.blocks() * kBlock >= kBlock) {
        with(ChannelsLast<T, A, true>(p, task));
      } else {
        with(ChannelsLast<T, A, false>(p, task));
      }
    }
  });
}

}  // namespace

void mean_std(const Adain& p, DType dtype, int64_t begin, int64_t end) {
  each_task(p, dtype, begin, end, [&](auto& planes) { planes.store_statistics(p); });
}

void adaptive_instance_norm(const Adain& p, DType dtype, int64_t begin, int64_t end) {
  each_task(p, dtype, begin, end, [&](auto& planes) { planes.forward(p); });
}

void adaptive_instance_norm_backward(const Adain& p, DType dtype, int64_t begin, int64_t end) {
  each_task(p, dtype, begin, end, [&](auto& planes) { planes.backward(p); });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
