// Kernels of bias_act, compiled once per instruction set; a row is at most kRow elements and stays in L1.
#include <cstring>

#include "bias_act_rows.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

constexpr int64_t kRow = 2048;

// dz = dy * slope, and its sum; the slope from z, or from y, or constant
template <Act act, bool kClamped, class A>
A slope_row(const A* dy, const A* z, const A* y, A* dz, int64_t n, const Limits<A> l) {
  A total = 0;
  if (z) {
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; ++i) total += dz[i] = dy[i] * l.template slope_at<act, kClamped>(z[i]);
  } else if (y) {
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; ++i) total += dz[i] = dy[i] * l.template slope_from<act, kClamped>(y[i]);
  } else {
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; ++i) total += dz[i] = dy[i] * l.gain;
  }
  return total;
}

template <Act act, class A>
A slope_row(const A* dy, const A* z, const A* y, A* dz, int64_t n, const Limits<A>& limits) {
  return limits.clamped ? slope_row<act, true>(dy, z, y, dz, n, limits)
                        : slope_row<act, false>(dy, z, y, dz, n, limits);
}

template <class A>
A dot_row(const A* u, const A* v, int64_t n) {
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += u[i] * v[i];
  return total;
}

template <Act act, class A>
void forward_row(const A* x, A* y, int64_t n, A s, A b, const A* noise, const Limits<A> limits) {
  if constexpr (act != Act::linear && act != Act::relu && act != Act::lrelu) {
    // gcc vectorizes none of the others together with what comes before it
    pre_activation_planar(x, y, n, s, b, noise);
    finish_row<act>(y, y, n, limits);
  } else if (noise) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = limits.template finish<act>(x[i] * s + noise[i] + b);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = limits.template finish<act>(x[i] * s + b);
  }
}

// The tasks of a range, one after another. Sample, channel and chunk are counted, as divisions cost too much for small
// planes.
struct Tasks {
  int64_t channels, chunks, o, c, k;

  Tasks(const BiasAct& p, int64_t of_channels, int64_t begin)
      : channels(of_channels), chunks(p.chunks), o(begin / p.chunks / channels), c(begin / p.chunks % channels),
        k(begin % p.chunks) {}

  void next() {
    if (++k < chunks) return;
    k = 0;
    if (++c < channels) return;
    c = 0;
    ++o;
  }
};

template <Act act, class T>
void forward_planar(const BiasAct& p, DType dtype, int64_t begin, int64_t end) {
  using A = typename Accumulate<T>::type;
  const Limits<A> limits(p, dtype);
  A in[kRow], out[kRow];
  Tasks at_task(p, p.channels, begin);
  for (int64_t task = begin; task < end; ++task, at_task.next()) {
    const int64_t plane = at_task.o * p.channels + at_task.c, first = at_task.k * p.chunk;
    const int64_t last = first + p.chunk < p.inner ? first + p.chunk : p.inner;
    const A s = at<A>(p.scale, plane, 1), b = at<A>(p.b, at_task.c, 0);
    const A* noise = p.noise ? static_cast<const A*>(p.noise) + at_task.o * p.noise_stride : nullptr;
    for (int64_t i = first; i < last; i += kRow) {
      const int64_t n = last - i < kRow ? last - i : kRow;
      const A* x = load_row(static_cast<const T*>(p.x) + plane * p.inner + i, in, n);
      T* dst = static_cast<T*>(p.out) + plane * p.inner + i;
      A* y = row_target(dst, out);
      forward_row<act>(x, y, n, s, b, noise ? noise + i : nullptr, limits);
      store_row(dst, y, n);
    }
  }
}

// The pixels that a row of few channels has side by side, and the values of each channel as often: a row of one pixel's
// channels alone would be over before it paid.
template <class A>
class Repeated {
 public:
  Repeated(const BiasAct& p) : channels_(p.channels) {
    const bool alone = p.noise || p.dnoise || channels_ == 0;
    pixels_ = alone || channels_ >= kRow ? 1 : kRow / channels_;
    repeat(static_cast<const A*>(p.b), b_);
  }

  int64_t pixels() const { return pixels_; }
  // values of the channels from c on, for one pixel or all
  const A* bias(const BiasAct& p, int64_t c) const {
    return p.b == nullptr ? nullptr : pixels_ > 1 ? b_ : static_cast<const A*>(p.b) + c;
  }
  const A* scale(const BiasAct& p, int64_t o, int64_t c) {
    if (p.scale == nullptr) return nullptr;
    const A* s = static_cast<const A*>(p.scale) + o * channels_ + c;
    if (pixels_ == 1) return s;
    if (o != sample_) repeat(s, s_), sample_ = o;
    return s_;
  }

 private:
  void repeat(const A* values, A* to) const {
    for (int64_t i = 0; values && pixels_ > 1 && i < pixels_ * channels_; i += channels_) {
      std::memcpy(to + i, values, channels_ * sizeof(A));
    }
  }

  int64_t channels_, pixels_, sample_ = -1;
  A b_[kRow], s_[kRow];
};

template <Act act, class T>
void forward_channels_last(const BiasAct& p, DType dtype, int64_t begin, int64_t end) {
  using A = typename Accumulate<T>::type;
  const Limits<A> limits(p, dtype);
  A in[kRow], z[kRow], out[kRow];
  Repeated<A> repeated(p);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t o = task / p.chunks, first = task % p.chunks * p.chunk;
    const int64_t last = first + p.chunk < p.inner ? first + p.chunk : p.inner;
    for (int64_t pixel = first; pixel < last; pixel += repeated.pixels()) {
      const int64_t pixels = last - pixel < repeated.pixels() ? last - pixel : repeated.pixels();
      const A noise = p.noise ? static_cast<const A*>(p.noise)[o * p.noise_stride + pixel] : A(0);
      for (int64_t c = 0; c < p.channels; c += kRow) {
        const int64_t n = p.channels - c < kRow ? pixels * (p.channels - c) : kRow;
        const int64_t at = (o * p.inner + pixel) * p.channels + c;
        const A* x = load_row(static_cast<const T*>(p.x) + at, in, n);
        const A *s = repeated.scale(p, o, c), *b = repeated.bias(p, c);
        T* dst = static_cast<T*>(p.out) + at;
        A* y = row_target(dst, out);
        pre_activation_channels_last(x, z, n, s, b, noise);
        finish_row<act>(z, y, n, limits);
        store_row(dst, y, n);
      }
    }
  }
}

// the inputs of a backward row, as A, and its outputs
template <class T, class A>
struct BackwardRow {
  A dy_buffer[kRow], x_buffer[kRow], y_buffer[kRow], z_buffer[kRow], dz[kRow], out[kRow];
  const A *dy, *x, *y;

  void load(const BiasAct& p, int64_t at, int64_t n) {
    dy = load_row(static_cast<const T*>(p.dy) + at, dy_buffer, n);
    x = p.x ? load_row(static_cast<const T*>(p.x) + at, x_buffer, n) : nullptr;
    y = p.y ? load_row(static_cast<const T*>(p.y) + at, y_buffer, n) : nullptr;
  }
};

template <Act act, class T>
void backward_planar(const BiasAct& p, DType dtype, int64_t begin, int64_t end) {
  using A = typename Accumulate<T>::type;
  const Limits<A> limits(p, dtype);
  // a linear slope needs no z
  const bool needs_z = p.x && !(act == Act::linear && p.clamp < 0);
  BackwardRow<T, A> row;
  // with dnoise a task owns its chunk of every channel, and so sums over them without a race
  const int64_t channels = p.dnoise ? p.channels : 1;
  Tasks at_task(p, p.channels / channels, begin);
  for (int64_t task = begin; task < end; ++task, at_task.next()) {
    const int64_t o = at_task.o, c0 = at_task.c, k = at_task.k, first = k * p.chunk;
    const int64_t last = first + p.chunk < p.inner ? first + p.chunk : p.inner;
    const A* noise = p.noise ? static_cast<const A*>(p.noise) + o * p.noise_stride : nullptr;
    A* dnoise = p.dnoise ? static_cast<A*>(p.dnoise) + o * p.inner : nullptr;
    if (dnoise) {
      for (int64_t i = first; i < last; ++i) dnoise[i] = 0;
    }
    for (int64_t c = c0; c < c0 + channels; ++c) {
      const int64_t plane = o * p.channels + c;
      const A s = at<A>(p.scale, plane, 1), b = at<A>(p.b, c, 0);
      double sum_dz = 0, sum_dz_x = 0;
      for (int64_t i = first; i < last; i += kRow) {
        const int64_t n = last - i < kRow ? last - i : kRow, at = plane * p.inner + i;
        row.load(p, at, n);
        if (needs_z) pre_activation_planar(row.x, row.z_buffer, n, s, b, noise ? noise + i : nullptr);
        T* dst = static_cast<T*>(p.out) + at;
        A* dx = row_target(dst, row.out);
        // without a scale dz is dx
        A* dz = p.scale ? row.dz : dx;
        sum_dz += slope_row<act>(row.dy, needs_z ? row.z_buffer : nullptr, row.y, dz, n, limits);
        if (p.sum_dz_x) sum_dz_x += dot_row(dz, row.x, n);
        if (dnoise) {
#pragma omp simd
          for (int64_t j = 0; j < n; ++j) dnoise[i + j] += dz[j];
        }
        if (p.scale) {
#pragma omp simd
          for (int64_t j = 0; j < n; ++j) dx[j] = dz[j] * s;
        }
        store_row(dst, dx, n);
      }
      const int64_t partial = (o * p.chunks + k) * p.channels + c;
      if (p.sum_dz) static_cast<A*>(p.sum_dz)[partial] = static_cast<A>(sum_dz);
      if (p.sum_dz_x) static_cast<A*>(p.sum_dz_x)[partial] = static_cast<A>(sum_dz_x);
    }
  }
}

template <Act act, class T>
void backward_channels_last(const BiasAct& p, DType dtype, int64_t begin, int64_t end) {
  using A = typename Accumulate<T>::type;
  const Limits<A> limits(p, dtype);
  const bool needs_z = p.x && !(act == Act::linear && p.clamp < 0);
  BackwardRow<T, A> row;
  Repeated<A> repeated(p);
  const bool several = repeated.pixels() > 1;
  // of each channel of each pixel of a row of several
  A sums[kRow], sums_x[kRow];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t o = task / p.chunks, first = task % p.chunks * p.chunk;
    const int64_t last = first + p.chunk < p.inner ? first + p.chunk : p.inner;
    A* own_dz = p.sum_dz ? static_cast<A*>(p.sum_dz) + task * p.channels : nullptr;
    A* own_dz_x = p.sum_dz_x ? static_cast<A*>(p.sum_dz_x) + task * p.channels : nullptr;
    A *sum_dz = own_dz && several ? sums : own_dz, *sum_dz_x = own_dz_x && several ? sums_x : own_dz_x;
    for (int64_t c = 0; c < p.channels * repeated.pixels(); ++c) {
      if (sum_dz) sum_dz[c] = 0;
      if (sum_dz_x) sum_dz_x[c] = 0;
    }
    for (int64_t pixel = first; pixel < last; pixel += repeated.pixels()) {
      const int64_t pixels = last - pixel < repeated.pixels() ? last - pixel : repeated.pixels();
      const A noise = p.noise ? static_cast<const A*>(p.noise)[o * p.noise_stride + pixel] : A(0);
      A dnoise = 0;
      for (int64_t c = 0; c < p.channels; c += kRow) {
        const int64_t n = p.channels - c < kRow ? pixels * (p.channels - c) : kRow;
        const int64_t at = (o * p.inner + pixel) * p.channels + c;
        row.load(p, at, n);
        const A *s = repeated.scale(p, o, c), *b = repeated.bias(p, c);
        if (needs_z) pre_activation_channels_last(row.x, row.z_buffer, n, s, b, noise);
        T* dst = static_cast<T*>(p.out) + at;
        A* dx = row_target(dst, row.out);
        A* dz = s ? row.dz : dx;
        dnoise += slope_row<act>(row.dy, needs_z ? row.z_buffer : nullptr, row.y, dz, n, limits);
        if (sum_dz) {
#pragma omp simd
          for (int64_t j = 0; j < n; ++j) sum_dz[c + j] += dz[j];
        }
        if (sum_dz_x) {
#pragma omp simd
          for (int64_t j = 0; j < n; ++j) sum_dz_x[c + j] += dz[j] * row.x[j];
        }
        if (s) {
#pragma omp simd
          for (int64_t j = 0; j < n; ++j) dx[j] = dz[j] * s[j];
        }
        store_row(dst, dx, n);
      }
      if (p.dnoise) static_cast<A*>(p.dnoise)[o * p.inner + pixel] = dnoise;
    }
    for (int64_t c = 0; several && c < p.channels; ++c) {
      double total = 0, total_x = 0;
      for (int64_t k = 0; k < repeated.pixels(); ++k) {
        if (own_dz) total += sums[k * p.channels + c];
        if (own_dz_x) total_x += sums_x[k * p.channels + c];
      }
      if (own_dz) own_dz[c] = static_cast<A>(total);
      if (own_dz_x) own_dz_x[c] = static_cast<A>(total_x);
    }
  }
}

template <Act act>
void dispatch(const BiasAct& p, DType dtype, bool backward, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    if (p.channels_last) {
      backward ? backward_channels_last<act, T>(p, dtype, begin, end)
               : forward_channels_last<act, T>(p, dtype, begin, end);
    } else {
      backward ? backward_planar<act, T>(p, dtype, begin, end) : forward_planar<act, T>(p, dtype, begin, end);
    }
  });
}

void dispatch(const BiasAct& p, DType dtype, bool backward, int64_t begin, int64_t end) {
  with_act(p.act, [&](auto act) { dispatch<decltype(act)::value>(p, dtype, backward, begin, end); });
}

}  // namespace

void bias_act(const BiasAct& p, DType dtype, int64_t begin, int64_t end) { dispatch(p, dtype, false, begin, end); }

void bias_act_backward(const BiasAct& p, DType dtype, int64_t begin, int64_t end) {
  dispatch(p, dtype, true, begin, end);
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
