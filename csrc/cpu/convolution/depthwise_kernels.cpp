// Kernels of depthwise_conv2d and depthwise_weight_gradient, compiled once per instruction set. Planes lie side by side
// in vectors, whose lanes have taps of their own, so that rows may be as short as they like and strides cost nothing.
#include <cstring>

#include "cpu/common/vectors.h"
#include "cpu/pointwise/bias_act_rows.h"
#include "depthwise.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// Planes of values that lie one after the other in memory, and the same side by side.
template <class A>
struct Planes {
  static constexpr int64_t L = kLanes<A>;
  using V = typename Vector<A, L>::type;

  static V load(const A* p) { return *reinterpret_cast<const V*>(p); }
  static void store(A* p, V v) { *reinterpret_cast<V*>(p) = v; }
  // into a register: GCC would read memory anew for each product
  static V load_once(const A* p) {
    V v = load(p);
#ifdef IMGOPS_X86
    asm("" : "+v"(v));
#endif
    return v;
  }

  // Call put(i, v) for i < n, where lane l of v is value i of plane l; some values are put twice.
  template <class F>
  static void side_by_side(const A* const* planes, int64_t n, const F& put) {
    for (int64_t i = 0; i < n && n < L; ++i) {
      V v{};
      for (int64_t l = 0; l < L; ++l) v[l] = planes[l][i];
      put(i, v);
    }
    for (int64_t i = 0; i < n && n >= L; i += L) {
      // the last vectors begin among the values of those before
      const int64_t first = i + L <= n ? i : n - L;
      V block[L];
#pragma GCC unroll 16
      for (int64_t l = 0; l < L; ++l) std::memcpy(&block[l], planes[l] + first, sizeof(V));
      transpose<A, L>(block);
#pragma GCC unroll 16
      for (int64_t j = 0; j < L; ++j) put(first + j, block[j]);
    }
  }

  // The inverse for the first `count` planes: planes[l][i] = from[i][l] for i < n.
  static void apart(const A* from, int64_t n, A* const* planes, int64_t count) {
    for (int64_t i = 0; i < n && n < L; ++i) {
      for (int64_t l = 0; l < count; ++l) planes[l][i] = from[i * L + l];
    }
    for (int64_t i = 0; i < n && n >= L; i += L) {
      const int64_t first = i + L <= n ? i : n - L;
      V block[L];
#pragma GCC unroll 16
      for (int64_t j = 0; j < L; ++j) block[j] = load(from + (first + j) * L);
      transpose<A, L>(block);
#pragma GCC unroll 16
      for (int64_t l = 0; l < L; ++l) {
        if (l < count) std::memcpy(planes[l] + first, &block[l], sizeof(V));
      }
    }
  }
};

// The pixels of a vector of planes that some rows of outputs read, with the zeros around them.
template <class A>
class Window {
  using P = Planes<A>;
  static constexpr int64_t L = P::L;

 public:
  Window(const Depthwise& p, A* scratch)
      : p_(p), pixels_(scratch), rows_(p.reads(p.rows)), columns_(p.reads(p.out_w)), left_(-first(-p.pad_x)) {
    std::memset(scratch, 0, size() * sizeof(A));
  }

  // values of scratch memory: the pixels, and a place for those that no output reads
  int64_t size() const { return (rows_ * columns_ + 1) * L; }

  // Read what rows of outputs from oy on need.
  void fill(const A* const* planes, int64_t oy) {
    top_ = first(p_.stride * oy - p_.pad_y);
    const int64_t begin = top_ < 0 ? (-top_ < rows_ ? -top_ : rows_) : 0;
    const int64_t inside = p_.h - top_ < rows_ ? p_.h - top_ : rows_, end = inside > begin ? inside : begin;
    std::memset(pixels_, 0, begin * row() * sizeof(A));
    std::memset(pixels_ + end * row(), 0, (rows_ - end) * row() * sizeof(A));
    const A* from[L];
    for (int64_t l = 0; l < L; ++l) from[l] = planes[l] + (top_ + begin) * p_.w;
    const bool cropped = left_ < 0 || left_ + p_.w > columns_;
    int64_t next = 0, x = left_;
    A* to = pixels_ + begin * row();
    P::side_by_side(from, (end - begin) * p_.w, [&](int64_t i, typename P::V v) {
      if (i != next) x = i % p_.w + left_, to = pixels_ + (begin + i / p_.w) * row();
      P::store(cropped && (x < 0 || x >= columns_) ? pixels_ + rows_ * row() : to + x * L, v);
      next = i + 1;
      if (++x == p_.w + left_) x = left_, to += row();
    });
  }

  // the pixel of the image, or the zero, at (y, x) of the image with zeros between its pixels; y and x fall on a pixel
  const A* at(int64_t y, int64_t x) const { return pixels_ + (y / p_.up - top_) * row() + (x / p_.up + left_) * L; }
  // values from a row to the next
  int64_t row() const { return columns_ * L; }

 private:
  // the pixel at or before a place among the zeros between pixels
  int64_t first(int64_t place) const { return p_.up == 2 ? place >> 1 : place; }

  const Depthwise& p_;
  A* pixels_;
  int64_t rows_, columns_, left_, top_ = 0;
};

template <class A, int K>
class PlaneMaker {
  using P = Planes<A>;
  using V = typename P::V;
  static constexpr int64_t L = P::L;
  // outputs that are summed at a time
  static constexpr int kOutputs = 4;

 public:
  PlaneMaker(const Depthwise& p, DType dtype, A* scratch)
      : p_(p), limits_(p.epilogue, dtype), window_(p, scratch), taps_(scratch + window_.size()),
        run_(taps_ + K * K * L) {}

  // a chunk of rows of a vector of planes
  void make(int64_t vector, int64_t chunk) {
    const BiasAct& e = p_.epilogue;
    first_ = vector * L;
    count_ = p_.planes - first_ < L ? p_.planes - first_ : L;
    const A *planes[L], *taps[L];
    // in whole vectors, as fewer values take long
    constexpr int64_t whole = (K * K + L - 1) / L * L;
    A copies[L][whole] = {}, b[L], scale[L];
    int64_t channel = first_ % p_.channels;
    for (int64_t l = 0; l < L; ++l) {
      const int64_t plane = plane_of(l);
      planes[l] = static_cast<const A*>(p_.x) + plane * p_.h * p_.w;
      std::memcpy(copies[l], static_cast<const A*>(p_.weight) + channel * K * K, K * K * sizeof(A));
      taps[l] = copies[l];
      b[l] = at<A>(e.b, channel, 0);
      scale[l] = at<A>(e.scale, plane, 1);
      if (++channel == p_.channels) channel = 0;
    }
    std::memcpy(&b_, b, sizeof(V)), std::memcpy(&scale_, scale, sizeof(V));
    P::side_by_side(taps, whole, [&](int64_t k, V v) {
      if (k < K * K) P::store(taps_ + k * L, v);
    });
    const int64_t begin = chunk * p_.rows, end = begin + p_.rows < p_.out_h ? begin + p_.rows : p_.out_h;
    window_.fill(planes, begin);
    for (int64_t oy = begin, n = 0; oy < end; ++oy) {
      sum_row(oy, run_ + n * L);
      n += p_.out_w;
      // a last run that is shorter than a vector would take long
      const int64_t left = (end - oy - 1) * p_.out_w;
      if (left > 0 && (left < L || n < kDepthwiseRun)) continue;
      finish((oy + 1) * p_.out_w - n, n);
      n = 0;
    }
  }

 private:
  // of a lane; those without a plane repeat the last
  int64_t plane_of(int64_t lane) const { return first_ + (lane < count_ ? lane : count_ - 1); }

  // whether sums start at the bias, as nothing comes between
  bool starts_at_bias() const { return !p_.kept && !p_.epilogue.scale && !p_.epilogue.noise; }

  void sum_row(int64_t oy, A* out) const {
    const int64_t y = p_.stride * oy - p_.pad_y, x = -p_.pad_x;
    if (p_.up == 1) {
      p_.stride == 2 ? sum<0, 0, 1, 2, 1>(window_.at(y, x), out, p_.out_w)
                     : sum<0, 0, 1, 1, 1>(window_.at(y, x), out, p_.out_w);
      return;
    }
    // every other output meets every other tap
    for (int64_t ox = 0; ox < 2 && ox < p_.out_w; ++ox) {
      const int64_t ky = y & 1, kx = (x + ox) & 1, n = (p_.out_w - ox + 1) / 2;
      const A* in = window_.at(y + ky, x + ox + kx);
      A* to = out + ox * L;
      if (ky == 0) {
        kx == 0 ? sum<0, 0, 2, 1, 2>(in, to, n) : sum<0, 1, 2, 1, 2>(in, to, n);
      } else {
        kx == 0 ? sum<1, 0, 2, 1, 2>(in, to, n) : sum<1, 1, 2, 1, 2>(in, to, n);
      }
    }
  }

  // n outputs, `to` apart, of every step-th tap from (ky0, kx0) on, and of pixels that begin `from` apart
  template <int ky0, int kx0, int step, int from, int to>
  void sum(const A* in, A* out, int64_t n) const {
    const V start = starts_at_bias() ? b_ : V{};
    V taps[K * K];
#pragma GCC unroll 49
    for (int k = 0; k < K * K; ++k) taps[k] = P::load(taps_ + k * L);
    for (int64_t i = 0; i < n && n >= kOutputs; i += kOutputs) {
      // the last outputs begin among those before
      const int64_t first = i + kOutputs <= n ? i : n - kOutputs;
      sum_some<ky0, kx0, step, from, to, kOutputs>(taps, in + first * from * L, start, out + first * to * L);
    }
    for (int64_t i = 0; i < n && n < kOutputs; ++i) {
      sum_some<ky0, kx0, step, from, to, 1>(taps, in + i * from * L, start, out + i * to * L);
    }
  }

  template <int ky0, int kx0, int step, int from, int to, int count>
  __attribute__((always_inline)) void sum_some(const V (&taps)[K * K], const A* in, V start, A* out) const {
    constexpr int columns = from * (count - 1) + (K - kx0 + step - 1) / step;
    V sums[count];
#pragma GCC unroll 4
    for (int j = 0; j < count; ++j) sums[j] = start;
#pragma GCC unroll 7
    for (int ky = ky0; ky < K; ky += step) {
#pragma GCC unroll 13
      for (int c = 0; c < columns; ++c) {
        const V pixel = P::load_once(in + (ky - ky0) / step * window_.row() + c * L);
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) {
          const int kx = kx0 + step * (c - from * j);
          if (kx >= kx0 && kx < K) sums[j] += taps[ky * K + kx] * pixel;
        }
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < count; ++j) P::store(out + j * to * L, sums[j]);
  }

  // The epilogue of a run of n outputs, from `place` of their planes on.
  void finish(int64_t place, int64_t n) {
    const BiasAct& e = p_.epilogue;
    if (p_.kept) put(p_.kept, place, n);
    if (!starts_at_bias()) {
      for (int64_t i = 0; i < n; ++i) P::store(run_ + i * L, P::load(run_ + i * L) * scale_ + b_);
      for (int64_t l = 0; l < L && e.noise; ++l) {
        const A* noise = static_cast<const A*>(e.noise) + plane_of(l) / p_.channels * e.noise_stride + place;
        for (int64_t i = 0; i < n; ++i) run_[i * L + l] += noise[i];
      }
    }
    finish_row(e.act, run_, run_, n * L, limits_);
    put(p_.y, place, n);
  }

  void put(void* images, int64_t place, int64_t n) const {
    A* planes[L];
    for (int64_t l = 0; l < L; ++l) planes[l] = static_cast<A*>(images) + plane_of(l) * p_.out_h * p_.out_w + place;
    P::apart(run_, n, planes, count_);
  }

  const Depthwise& p_;
  Limits<A> limits_;
  Window<A> window_;
  A *taps_, *run_;
  int64_t first_ = 0, count_ = 0;
  V b_{}, scale_{};
};

// The gradient for the taps of a vector of channels.
template <class A, int K>
class GradientMaker {
  using P = Planes<A>;
  using V = typename P::V;
  static constexpr int64_t L = P::L;
  // rows of taps whose sums fit into registers together
#if defined(__AVX512F__)
  static constexpr int kTogether = K <= 5 ? K : 1;
#else
  static constexpr int kTogether = K == 3 ? K : 1;
#endif

 public:
  GradientMaker(const Depthwise& p, A* scratch)
      : p_(p), window_(p, scratch), total_(scratch + window_.size()), sums_(total_ + K * K * L),
        dy_(sums_ + K * K * L) {}

  // of some chunks of rows, numbered over the samples
  void make(int64_t vector, int64_t begin, int64_t end, A* dweight) {
    const int64_t first = vector * L, count = p_.channels - first < L ? p_.channels - first : L;
    std::memset(total_, 0, K * K * L * sizeof(A));
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t oy = chunk % p_.chunks * p_.rows, rows = p_.out_h - oy < p_.rows ? p_.out_h - oy : p_.rows;
      const A *planes[L], *dy[L];
      for (int64_t l = 0; l < L; ++l) {
        const int64_t plane = chunk / p_.chunks * p_.channels + first + (l < count ? l : count - 1);
        planes[l] = static_cast<const A*>(p_.x) + plane * p_.h * p_.w;
        dy[l] = static_cast<const A*>(p_.dy) + (plane * p_.out_h + oy) * p_.out_w;
      }
      window_.fill(planes, oy);
      P::side_by_side(dy, rows * p_.out_w, [&](int64_t i, V v) { P::store(dy_ + i * L, v); });
      // sums of sums lose fewer digits than one long sum
      std::memset(sums_, 0, K * K * L * sizeof(A));
      for (int64_t r = 0; r < rows; ++r) {
        const A* in = window_.at(p_.stride * (oy + r) - p_.pad_y, -p_.pad_x);
        for (int ky = 0; ky < K; ky += kTogether) p_.stride == 2 ? add<2>(in, r, ky) : add<1>(in, r, ky);
      }
      for (int64_t k = 0; k < K * K * L; ++k) total_[k] += sums_[k];
    }
    A* taps[L];
    for (int64_t l = 0; l < L; ++l) taps[l] = dweight + (first + l) * K * K;
    P::apart(total_, K * K, taps, count);
  }

 private:
  // Add the products of row r of dy to the sums of kTogether rows of taps.
  template <int S>
  void add(const A* in, int64_t r, int ky0) {
    V sums[kTogether][K] = {};
    for (int64_t i = 0; i < p_.out_w; ++i) {
      const V d = P::load(dy_ + (r * p_.out_w + i) * L);
      const A* pixels = in + ky0 * window_.row() + S * i * L;
#pragma GCC unroll 7
      for (int ky = 0; ky < kTogether; ++ky) {
#pragma GCC unroll 7
        for (int kx = 0; kx < K; ++kx) sums[ky][kx] += d * P::load(pixels + ky * window_.row() + kx * L);
      }
    }
    A* to = sums_ + ky0 * K * L;
#pragma GCC unroll 49
    for (int k = 0; k < kTogether * K; ++k) P::store(to + k * L, P::load(to + k * L) + sums[k / K][k % K]);
  }

  const Depthwise& p_;
  Window<A> window_;
  A *total_, *sums_, *dy_;
};

// Call f with the taps along an axis and a value of the dtype.
template <class F>
void with_kind(const Depthwise& p, DType dtype, const F& f) {
  const auto with_type = [&](auto taps) { dtype == DType::f64 ? f(taps, double{}) : f(taps, float{}); };
  switch (p.taps) {
    case 3: return with_type(std::integral_constant<int, 3>{});
    case 5: return with_type(std::integral_constant<int, 5>{});
    case 7: return with_type(std::integral_constant<int, 7>{});
  }
}

}  // namespace

int64_t depthwise_lanes(DType dtype) { return dtype == DType::f64 ? kLanes<double> : kLanes<float>; }

void depthwise(const Depthwise& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_kind(p, dtype, [&](auto taps, auto type) {
    using A = decltype(type);
    PlaneMaker<A, taps()> maker(p, dtype, static_cast<A*>(scratch));
    for (int64_t task = begin; task < end; ++task) maker.make(task / p.chunks, task % p.chunks);
  });
}

void depthwise_gradient(const Depthwise& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_kind(p, dtype, [&](auto taps, auto type) {
    using A = decltype(type);
    GradientMaker<A, taps()> maker(p, static_cast<A*>(scratch));
    const int64_t size = p.channels * p.taps * p.taps;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % p.parts;
      maker.make(task / p.parts, part * p.all_chunks() / p.parts, (part + 1) * p.all_chunks() / p.parts,
                 static_cast<A*>(p.dweight) + part * size);
    }
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
