// Kernels of upfirdn2d, compiled once per instruction set. Each output row is finished while it is in cache:
// the input rows that it needs are summed into one row (vertical taps), which is then filtered (horizontal taps).
#include "upfirdn2d.h"

#include "cpu/pointwise/bias_act_rows.h"
#include "resample_rows.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// dst[q * P] (+)= sum_j taps[j] * src[j + q * S]; P and S 0: given at run time
template <class A, int P, int S>
struct FilterRow {
  A* dst;
  const A* src;
  const A* taps;
  int64_t n, period, step;
  bool add;

  template <int J>
  void operator()() const {
    const int64_t p = P ? P : period, s = S ? S : step;
    A w[J];
    for (int j = 0; j < J; ++j) w[j] = taps[j];
    A* d = dst;
    const A* x = src;
    if (add) {
#pragma omp simd
      for (int64_t q = 0; q < n; ++q) {
        A sum = d[q * p];
        for (int j = 0; j < J; ++j) sum += w[j] * x[q * s + j];
        d[q * p] = sum;
      }
    } else {
#pragma omp simd
      for (int64_t q = 0; q < n; ++q) {
        A sum = w[0] * x[q * s];
        for (int j = 1; j < J; ++j) sum += w[j] * x[q * s + j];
        d[q * p] = sum;
      }
    }
  }
};

// Both phases of an up-sampling by two with J taps each, so that the row is written in order:
// dst[2q] = sum_j taps0[j] * src0[q + j], dst[2q + 1] = sum_j taps1[j] * src1[q + j]
template <class A>
struct FilterRowTwoPhases {
  A* dst;
  const A *src0, *src1, *taps0, *taps1;
  int64_t n;

  template <int J>
  void operator()() const {
    A w0[J], w1[J];
    for (int j = 0; j < J; ++j) w0[j] = taps0[j], w1[j] = taps1[j];
    A* d = dst;
    const A *x0 = src0, *x1 = src1;
#pragma omp simd
    for (int64_t q = 0; q < n; ++q) {
      A even = w0[0] * x0[q], odd = w1[0] * x1[q];
      for (int j = 1; j < J; ++j) even += w0[j] * x0[q + j], odd += w1[j] * x1[q + j];
      d[2 * q] = even;
      d[2 * q + 1] = odd;
    }
  }
};

template <class A>
void filter_phase(A* dst, const A* src, const A* taps, int64_t count, int64_t n, int64_t period, int64_t step,
                  bool add) {
  for (int64_t j = 0; j < count; j += kUnroll) {
    const int64_t some = count - j < kUnroll ? count - j : kUnroll;
    const bool sum = add || j > 0;
    if (period == 1 && step == 1) {
      with_count(some, FilterRow<A, 1, 1>{dst, src + j, taps + j, n, 1, 1, sum});
    } else if (period == 1 && step == 2) {
      with_count(some, FilterRow<A, 1, 2>{dst, src + j, taps + j, n, 1, 2, sum});
    } else if (period == 2 && step == 1) {
      with_count(some, FilterRow<A, 2, 1>{dst, src + j, taps + j, n, 2, 1, sum});
    } else {
      with_count(some, FilterRow<A, 0, 0>{dst, src + j, taps + j, n, period, step, sum});
    }
  }
  if (count == 0 && !add) {
    for (int64_t q = 0; q < n; ++q) dst[q * period] = 0;
  }
}

// One row of out.out pixels from the padded row v (v[i] is input i, also for i < 0), added to dst if add.
template <class A>
void filter_row(const Axis& axis, const A* taps, const A* v, A* dst, bool add) {
  const int64_t pairs = axis.out / 2;
  // of a single output there is no second phase
  if (pairs > 0 && axis.period == 2 && axis.step == 1 && !add && axis.count[0] == axis.count[1] && axis.count[0] >= 1 &&
      axis.count[0] <= kUnroll) {
    with_count(axis.count[0], FilterRowTwoPhases<A>{dst, v + axis.first[0], v + axis.first[1], taps + axis.offset[0],
                                                    taps + axis.offset[1], pairs});
    if (axis.out % 2) {
      filter_phase(dst + 2 * pairs, v + axis.first[0] + pairs, taps + axis.offset[0], axis.count[0], 1, 2, 1, false);
    }
    return;
  }
  for (int64_t r = 0; r < axis.period && r < axis.out; ++r) {
    filter_phase(dst + r, v + axis.first[r], taps + axis.offset[r], axis.count[r], axis.outputs[r], axis.period,
                 axis.step, add);
  }
}

// Pixels of `width` values: dst[q * period + c] (+)= sum_j taps[j] * src[q * step + j * pitch + c]
template <class A>
struct FilterPixels {
  A* dst;
  const A *src, *taps;
  int64_t n, width, pitch, period, step;
  bool add;

  template <int J>
  void operator()() const {
    A w[J];
    for (int j = 0; j < J; ++j) w[j] = taps[j];
    for (int64_t q = 0; q < n; ++q) {
      A* d = dst + q * period;
      const A* x = src + q * step;
      if (add) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          A sum = d[c];
          for (int j = 0; j < J; ++j) sum += w[j] * x[j * pitch + c];
          d[c] = sum;
        }
      } else {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          A sum = w[0] * x[c];
          for (int j = 1; j < J; ++j) sum += w[j] * x[j * pitch + c];
          d[c] = sum;
        }
      }
    }
  }
};

// The same with the channels innermost. Where the factors are 1, the row is one long pixel.
template <class A>
void filter_row_channels_last(const Axis& axis, int64_t channels, const A* taps, const A* v, A* dst, bool add) {
  const bool one_pixel = axis.period == 1 && axis.step == 1;
  const int64_t width = one_pixel ? axis.out * channels : channels;
  for (int64_t r = 0; r < axis.period && r < axis.out; ++r) {
    const int64_t count = axis.count[r], n = one_pixel ? 1 : axis.outputs[r], period = axis.period * channels;
    A* const d = dst + r * channels;
    for (int64_t j = 0; j < count; j += kUnroll) {
      const int64_t some = count - j < kUnroll ? count - j : kUnroll;
      with_count(some, FilterPixels<A>{d, v + (axis.first[r] + j) * channels, taps + axis.offset[r] + j, n, width,
                                       channels, period, axis.step * channels, add || j > 0});
    }
    for (int64_t q = 0; count == 0 && !add && q < n; ++q) {
      for (int64_t c = 0; c < width; ++c) d[q * period + c] = 0;
    }
  }
}

template <class T>
class RowMaker {
  using A = typename Accumulate<T>::type;

 public:
  RowMaker(const Upfirdn2d& p, DType dtype, A* scratch)
      : p_(p), limits_(p.epilogue, dtype), channels_(p.channels_last ? p.channels : 1), width_(p.x.in * channels_) {
    A* row = scratch;
    for (int64_t i = 0; i < p.x.before * channels_; ++i) *row++ = 0;
    v_ = row;
    row += width_;
    for (int64_t i = 0; i < p.x.after * channels_; ++i) *row++ = 0;
    converted_ = row;
    out_ = converted_ + (sizeof(T) == sizeof(A) ? 0 : kUnroll * width_);
    z_ = out_ + p.x.out * channels_;
  }

  // rows begin to end of a plane; the indices that take a division are computed once for all rows
  void make(int64_t plane, int64_t begin, int64_t end) {
    const BiasAct& e = p_.epilogue;
    sample_ = p_.channels_last ? plane : plane / e.channels;
    if (!p_.channels_last && p_.has_epilogue) {
      scale_ = imgops::IMGOPS_ISA::at<A>(e.scale, plane, 1);
      b_ = imgops::IMGOPS_ISA::at<A>(e.b, plane - sample_ * e.channels, 0);
    }
    for (int64_t oy = begin; oy < end; ++oy) make(plane, oy);
  }

 private:
  void make(int64_t plane, int64_t oy) {
    const int64_t out_width = p_.x.out * channels_, at = (plane * p_.y.out + oy) * out_width;
    T* dst = static_cast<T*>(p_.out) + at;
    // without an epilogue the row is filtered straight into the output, where that has the accumulation type
    A* u = p_.has_epilogue ? out_ : row_target(dst, out_);
    filter(plane, oy, u);
    if (!p_.has_epilogue) return store_row(dst, u, out_width);
    if (p_.filtered) {
      T* kept = static_cast<T*>(p_.filtered) + at;
      if constexpr (sizeof(T) == sizeof(A)) {
        std::memcpy(kept, u, out_width * sizeof(A));
      } else {
        store_row(kept, u, out_width);
      }
    }
    finish(oy, u, dst);
  }

  // u = row oy of the filtered plane
  void filter(int64_t plane, int64_t oy, A* u) {
    const Axis& y = p_.y;
    int64_t q, r;
    split(oy, y.period, q, r);
    const int64_t first = y.first[r] + q * y.step;
    // taps on rows outside the image add nothing
    const int64_t begin = first < 0 ? -first : 0;
    const int64_t end = first + y.count[r] > y.in ? y.in - first : y.count[r];
    const A* taps_x = static_cast<const A*>(p_.taps_x);
    if (!p_.separable) {
      const A one = 1;
      for (int64_t j = begin; j < end; ++j) {
        sum_rows(plane, first + j, 1, &one);
        filter_horizontally(taps_x + (y.offset[r] + j) * p_.taps_x_stride, u, j > begin);
      }
      if (begin >= end) std::memset(u, 0, p_.x.out * channels_ * sizeof(A));
      return;
    }
    sum_rows(plane, first + begin, end - begin, static_cast<const A*>(p_.taps_y) + y.offset[r] + begin);
    filter_horizontally(taps_x, u, false);
  }

  // v_ = sum_j taps[j] * (row first + j of the plane), for count rows
  void sum_rows(int64_t plane, int64_t first, int64_t count, const A* taps) {
    if (count <= 0) {
      std::memset(v_, 0, width_ * sizeof(A));
      return;
    }
    const T* rows = static_cast<const T*>(p_.in) + (plane * p_.y.in + first) * width_;
    imgops::IMGOPS_ISA::sum_rows(v_, count, taps, width_, false, [&](int64_t j) {
      return load_row(rows + j * width_, converted_ + j % kUnroll * width_, width_);
    });
  }

  void filter_horizontally(const A* taps, A* u, bool add) {
    if (p_.channels_last) {
      filter_row_channels_last(p_.x, channels_, taps, v_, u, add);
    } else {
      filter_row(p_.x, taps, v_, u, add);
    }
  }

  // dst = clamp(gain * act(u * scale + noise + b))
  void finish(int64_t oy, const A* u, T* dst) {
    const BiasAct& e = p_.epilogue;
    const int64_t n = p_.x.out;
    const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample_ * e.noise_stride + oy * n : nullptr;
    A* y = row_target(dst, z_);
    if (p_.channels_last) {
      const A* scale = e.scale ? static_cast<const A*>(e.scale) + sample_ * channels_ : nullptr;
      const A* b = static_cast<const A*>(e.b);
      for (int64_t i = 0; i < n; ++i) {
        pre_activation_channels_last(u + i * channels_, y + i * channels_, channels_, scale, b,
                                     noise ? noise[i] : A(0));
      }
    } else {
      pre_activation_planar(u, y, n, scale_, b_, noise);
    }
    finish_row(e.act, y, y, n * channels_, limits_);
    store_row(dst, y, n * channels_);
  }

  const Upfirdn2d& p_;
  Limits<A> limits_;
  int64_t channels_, width_;
  A *v_, *converted_, *out_, *z_;
  // of the plane at hand; scale and bias where it is one channel's
  int64_t sample_ = 0;
  A scale_ = 1, b_ = 0;
};

}  // namespace

void upfirdn2d(const Upfirdn2d& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    RowMaker<T> maker(p, dtype, static_cast<typename Accumulate<T>::type*>(scratch));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t plane = task / p.tasks_per_plane, first = task % p.tasks_per_plane * p.rows_per_task;
      const int64_t last = first + p.rows_per_task < p.y.out ? first + p.rows_per_task : p.y.out;
      maker.make(plane, first, last);
    }
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
