// Kernels of upfirdn2d, compiled once an instruction set. Each output row is made whole while it is in cache:
// the input rows it needs are summed into one row (vertical taps), which is then filtered (horizontal taps).
#include "upfirdn2d.h"

#include "bias_act_rows.h"
#include "resample_rows.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

template <class T>
class RowMaker {
  using A = typename Accumulate<T>::type;

 public:
  RowMaker(const Upfirdn2d& p, DType dtype, A* scratch)
      : p_(p), limits_(p.epilogue, dtype), channels_(p.interleaved ? p.channels : 1), width_(p.x.in * channels_) {
    A* row = scratch;
    for (int64_t i = 0; i < p.x.before * channels_; ++i) *row++ = 0;
    v_ = row;
    row += width_;
    for (int64_t i = 0; i < p.x.after * channels_; ++i) *row++ = 0;
    converted_ = row;
    out_ = converted_ + (sizeof(T) == sizeof(A) ? 0 : kUnroll * width_);
    z_ = out_ + p.x.out * channels_;
  }

  // rows begin to end of a plane; what takes a division is found once for all of them
  void make(int64_t plane, int64_t begin, int64_t end) {
    const BiasAct& e = p_.epilogue;
    sample_ = p_.interleaved ? plane : plane / e.channels;
    if (!p_.interleaved && p_.has_epilogue) {
      scale_ = imgops::IMGOPS_ISA::at<A>(e.scale, plane, 1);
      b_ = imgops::IMGOPS_ISA::at<A>(e.b, plane - sample_ * e.channels, 0);
    }
    for (int64_t oy = begin; oy < end; ++oy) make(plane, oy);
  }

 private:
  void make(int64_t plane, int64_t oy) {
    const int64_t out_width = p_.x.out * channels_, at = (plane * p_.y.out + oy) * out_width;
    T* dst = static_cast<T*>(p_.out) + at;
    // what is filtered goes to its own tensor, or to scratch where the epilogue makes something else of it
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
        filter_row(p_.x, p_.interleaved, channels_, taps_x + (y.offset[r] + j) * p_.taps_x_stride, v_, u, j > begin);
      }
      if (begin >= end) std::memset(u, 0, p_.x.out * channels_ * sizeof(A));
      return;
    }
    sum_rows(plane, first + begin, end - begin, static_cast<const A*>(p_.taps_y) + y.offset[r] + begin);
    filter_row(p_.x, p_.interleaved, channels_, taps_x, v_, u, false);
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

  // dst = clamp(gain * act(u * scale + noise + b))
  void finish(int64_t oy, const A* u, T* dst) {
    const BiasAct& e = p_.epilogue;
    const int64_t n = p_.x.out;
    const A* noise = e.noise ? static_cast<const A*>(e.noise) + sample_ * e.noise_stride + oy * n : nullptr;
    A* y = row_target(dst, z_);
    if (p_.interleaved) {
      const A* scale = e.scale ? static_cast<const A*>(e.scale) + sample_ * channels_ : nullptr;
      const A* b = static_cast<const A*>(e.b);
      for (int64_t i = 0; i < n; ++i) {
        pre_activation_interleaved(u + i * channels_, y + i * channels_, channels_, scale, b, noise ? noise[i] : A(0));
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
