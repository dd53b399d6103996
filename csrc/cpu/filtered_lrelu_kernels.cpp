// Kernels of filtered_lrelu, compiled once an instruction set. Row by row of the up-sampled image: the input rows under
// its taps are summed, filtered along x, activated, filtered along x downwards, and kept until an output row has all
// the rows that it sums. All of them are in cache; only codes are written at the high resolution.
#include "filtered_lrelu.h"

#include "resample_rows.h"
#include "vectors.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// vectors of the group's pixels at one place
template <class A>
constexpr int64_t kVectors = kGroup / kLanes<A>;

// dst[i][c] = src[c][i] for n pixels and the whole group; src is readable up to a multiple of kGroup
template <class A>
void interleave(const A* src, int64_t src_row, A* dst, int64_t n) {
  constexpr int64_t L = kLanes<A>;
  using V = typename Vector<A, L>::type;
  for (int64_t i = 0; i < n; i += L) {
    for (int64_t c = 0; c < kGroup; c += L) {
      V m[L];
      for (int64_t j = 0; j < L; ++j) std::memcpy(&m[j], src + (c + j) * src_row + i, sizeof(V));
      transpose<A, L>(m);
      for (int64_t j = 0; j < L && i + j < n; ++j) *reinterpret_cast<V*>(dst + (i + j) * kGroup + c) = m[j];
    }
  }
}

// dst[c][i] = src[i][c], the inverse; dst is written up to a multiple of kGroup
template <class A>
void separate(const A* src, A* dst, int64_t dst_row, int64_t n) {
  constexpr int64_t L = kLanes<A>;
  using V = typename Vector<A, L>::type;
  for (int64_t i = 0; i < n; i += L) {
    for (int64_t c = 0; c < kGroup; c += L) {
      V m[L];
      for (int64_t j = 0; j < L; ++j) m[j] = *reinterpret_cast<const V*>(src + ((i + j < n ? i + j : n - 1)) * kGroup + c);
      transpose<A, L>(m);
      for (int64_t j = 0; j < L; ++j) std::memcpy(dst + (c + j) * dst_row + i, &m[j], sizeof(V));
    }
  }
}

// dst[q * period] (+)= sum_j taps[j] * src[q * step + j], each a pixel of the group
template <class A>
struct FilterPixels {
  A* dst;
  const A* src;
  const A* taps;
  int64_t n, period, step;
  bool add;

  template <int J>
  void operator()() const {
    using V = typename Vector<A, kLanes<A>>::type;
    V w[J];
    for (int j = 0; j < J; ++j) w[j] = taps[j] - V{};
    V* d = reinterpret_cast<V*>(dst);
    const V* x = reinterpret_cast<const V*>(src);
    for (int64_t q = 0; q < n; ++q) {
#pragma GCC unroll 8
      for (int64_t k = 0; k < kVectors<A>; ++k) {
        V sum = w[0] * x[k];
        for (int j = 1; j < J; ++j) sum += w[j] * x[j * kVectors<A> + k];
        d[k] = add ? d[k] + sum : sum;
      }
      d += period * kVectors<A>;
      x += step * kVectors<A>;
    }
  }
};

// One row of out.out pixels of the group from the padded row v, added to dst if add.
template <class A>
void filter_row(const Axis& axis, const A* taps, const A* v, A* dst, bool add) {
  for (int64_t r = 0; r < axis.period && r < axis.out; ++r) {
    const int64_t count = axis.count[r], n = axis.outputs[r];
    for (int64_t j = 0; j < count; j += kUnroll) {
      const int64_t some = count - j < kUnroll ? count - j : kUnroll;
      with_count(some, FilterPixels<A>{dst + r * kGroup, v + (axis.first[r] + j) * kGroup, taps + axis.offset[r] + j, n,
                                       axis.period, axis.step, add || j > 0});
    }
    if (count == 0 && !add) {
      for (int64_t q = 0; q < n; ++q) std::memset(dst + (r + q * axis.period) * kGroup, 0, kGroup * sizeof(A));
    }
  }
}

// Passed by value: a compiler must know that no row overlaps it before it vectorises.
template <class A>
struct Lrelu {
  A slope, gain, hi;

  // z = clamp(gain * lrelu(z)); and the codes into two bits of each number, `shift` from its lowest
  template <bool kClamped, bool kCodes>
  void activate(A* z, int32_t* codes, int shift, int64_t n) const {
    const Lrelu s = *this;
    const int32_t negative = 1 << shift, clamped = 2 << shift;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      A y = (z[i] > A(0) ? z[i] : z[i] * s.slope) * s.gain;
      if constexpr (kCodes) {
        int32_t code = z[i] > A(0) ? 0 : negative;
        // a NaN has no slope either
        if constexpr (kClamped) code |= (y < A(0) ? -y : y) < s.hi ? 0 : clamped;
        codes[i] |= code;
      }
      if constexpr (kClamped) {
        // a NaN fails both comparisons and passes through
        y = y < -s.hi ? -s.hi : y;
        y = y > s.hi ? s.hi : y;
      }
      z[i] = y;
    }
  }

  // z times the slope that its code names
  void multiply(A* z, const int32_t* codes, int shift, int64_t n) const {
    const A positive = gain, negative = gain * slope;
    const int32_t is_negative = 1 << shift, is_clamped = 2 << shift;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const A y = z[i] * (codes[i] & is_negative ? negative : positive);
      z[i] = codes[i] & is_clamped ? A(0) : y;
    }
  }
};

template <class T>
class BandMaker {
  using A = typename Accumulate<T>::type;

 public:
  BandMaker(const FilteredLrelu& p, A* scratch)
      : p_(p), layout_(p.layout()), scratch_(scratch), codes_(reinterpret_cast<int32_t*>(scratch + layout_.codes)),
        plain_codes_(reinterpret_cast<int32_t*>(scratch + layout_.plain_codes)),
        lrelu_{static_cast<A>(p.slope), static_cast<A>(p.gain), static_cast<A>(p.clamp)} {
    // padding is not written again, and pixels of planes that a group lacks are numbers, so that none is slow
    for (int64_t i = 0; i < layout_.size; ++i) scratch[i] = 0;
  }

  // output rows begin to end of a group of planes
  void make(int64_t group, int64_t begin, int64_t end) {
    const int64_t groups = (p_.planes() + kGroup - 1) / kGroup;
    sample_ = group / groups;
    plane_ = group % groups * kGroup;
    planes_ = p_.planes() - plane_ < kGroup ? p_.planes() - plane_ : kGroup;
    loaded_ = 0, codes_row_ = -1;
    for (int64_t c = 0; p_.b && c < planes_; ++c) b_[c] = static_cast<const A*>(p_.b)[(plane_ + c) % p_.channels];
    const int64_t rows = p_.up.y.out;
    const bool keeps = p_.activates && p_.codes;
    // all codes are written once, also those of rows that no output needs
    own_end_ = !keeps ? 0 : end == p_.down.y.out ? rows : owned_from(end);
    int64_t next = !keeps || begin == 0 ? 0 : owned_from(begin);
    for (int64_t oy = begin; oy < end; ++oy) {
      const int64_t first = p_.down.y.first[0] + oy * p_.down.y.step, last = first + p_.down.y.count[0];
      if (!keeps && next < first) next = first;
      for (; next < last && next < rows; ++next) make_row(next);
      sum(oy, first, last < rows ? last : rows);
    }
    for (; next < own_end_; ++next) make_row(next);
  }

 private:
  // the first row that the band of output row oy needs, down to where a byte of codes starts
  int64_t owned_from(int64_t oy) const {
    const int64_t first = p_.down.y.first[0] + oy * p_.down.y.step;
    return first < 0 ? 0 : first < p_.up.y.out ? first / kPacked * kPacked : p_.up.y.out;
  }

  A* act_row(int64_t y) const { return scratch_ + layout_.act + (p_.down.separable ? 0 : y % p_.taps_down * layout_.act_row); }
  A* ring_row(int64_t y) const { return scratch_ + layout_.ring + y % p_.taps_down * p_.down.x.out * kGroup; }

  // Where row y of the first plane of the group lies in a tensor of planes of [h, w].
  int64_t place(int64_t h, int64_t w, int64_t y) const {
    return p_.interleaved ? (sample_ * h + y) * w * p_.channels + plane_ : (plane_ * h + y) * w;
  }

  // Row y of the input, with its bias; made once.
  const A* input_row(int64_t y) {
    const int64_t h = p_.up.y.in, w = p_.up.x.in;
    A* row = scratch_ + layout_.input + y % p_.taps_up * w * kGroup;
    if (y < loaded_) return row;
    loaded_ = y + 1;
    const T* src = static_cast<const T*>(p_.in) + place(h, w, y);
    if (p_.interleaved) {
      for (int64_t i = 0; i < w; ++i) copy(load_row(src + i * p_.channels, row + i * kGroup, planes_), row + i * kGroup, planes_);
    } else {
      A* plain = scratch_ + layout_.plain;
      for (int64_t c = 0; c < planes_; ++c) {
        A* dst = plain + c * layout_.plain_row;
        copy(load_row(src + c * h * w, dst, w), dst, w);
      }
      interleave(plain, layout_.plain_row, row, w);
    }
    if (p_.b) {
      for (int64_t i = 0; i < w; ++i) {
        A* pixel = row + i * kGroup;
#pragma omp simd
        for (int64_t c = 0; c < kGroup; ++c) pixel[c] += b_[c];
      }
    }
    return row;
  }

  static void copy(const A* src, A* dst, int64_t n) {
    if (src != dst) std::memcpy(dst, src, n * sizeof(A));
  }

  // Row y of the up-sampled image, activated; and filtered along x, where D has factors.
  void make_row(int64_t y) {
    A* act = act_row(y);
    up_sample(y, act);
    const int64_t n = p_.up.x.out * kGroup;
    const int shift = static_cast<int>(2 * (y % kPacked));
    if (!p_.activates) {
      if (codes_row_ != y / kPacked) load_codes(y / kPacked);
      lrelu_.multiply(act, codes_, shift, n);
    } else if (y < own_end_) {
      if (shift == 0) std::memset(codes_, 0, n * sizeof(int32_t));
      p_.clamp >= 0 ? lrelu_.template activate<true, true>(act, codes_, shift, n)
                    : lrelu_.template activate<false, true>(act, codes_, shift, n);
      if (y % kPacked == kPacked - 1 || y == p_.up.y.out - 1) store_codes(y / kPacked);
    } else {
      p_.clamp >= 0 ? lrelu_.template activate<true, false>(act, nullptr, 0, n)
                    : lrelu_.template activate<false, false>(act, nullptr, 0, n);
    }
    if (p_.down.separable) filter_row(p_.down.x, static_cast<const A*>(p_.down.taps_x), act, ring_row(y), false);
  }

  void up_sample(int64_t y, A* act) {
    const Axis &ay = p_.up.y, &ax = p_.up.x;
    int64_t q, r;
    split(y, ay.period, q, r);
    const int64_t first = ay.first[r] + q * ay.step;
    // taps on rows outside the image add nothing
    const int64_t begin = first < 0 ? -first : 0;
    const int64_t end = first + ay.count[r] > ay.in ? ay.in - first : ay.count[r];
    const A* taps_x = static_cast<const A*>(p_.up.taps_x);
    A* v = scratch_ + layout_.v;
    if (begin >= end) {
      std::memset(act, 0, ax.out * kGroup * sizeof(A));
    } else if (p_.up.separable) {
      const A* taps = static_cast<const A*>(p_.up.taps_y) + ay.offset[r] + begin;
      sum_rows(v, end - begin, taps, ax.in * kGroup, false, [&](int64_t j) { return input_row(first + begin + j); });
      filter_row(ax, taps_x, v, act, false);
    } else {
      for (int64_t j = begin; j < end; ++j) {
        copy(input_row(first + j), v, ax.in * kGroup);
        filter_row(ax, taps_x + (ay.offset[r] + j) * p_.up.taps_x_stride, v, act, j > begin);
      }
    }
  }

  void store_codes(int64_t packed_row) {
    const int64_t h = p_.packed_rows(), w = p_.up.x.out;
    uint8_t* dst = p_.codes + place(h, w, packed_row);
    if (p_.interleaved) {
      for (int64_t i = 0; i < w; ++i) narrow(codes_ + i * kGroup, dst + i * p_.channels, planes_);
    } else {
      separate(codes_, plain_codes_, layout_.plain_row, w);
      for (int64_t c = 0; c < planes_; ++c) narrow(plain_codes_ + c * layout_.plain_row, dst + c * h * w, w);
    }
  }

  void load_codes(int64_t packed_row) {
    codes_row_ = packed_row;
    const int64_t h = p_.packed_rows(), w = p_.up.x.out;
    const uint8_t* src = p_.codes + place(h, w, packed_row);
    if (p_.interleaved) {
      for (int64_t i = 0; i < w; ++i) widen(src + i * p_.channels, codes_ + i * kGroup, planes_);
    } else {
      for (int64_t c = 0; c < planes_; ++c) widen(src + c * h * w, plain_codes_ + c * layout_.plain_row, w);
      interleave(plain_codes_, layout_.plain_row, codes_, w);
    }
  }

  static void narrow(const int32_t* src, uint8_t* dst, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<uint8_t>(src[i]);
  }

  static void widen(const uint8_t* src, int32_t* dst, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) dst[i] = src[i];
  }

  // Output row oy from rows first to last of the up-sampled image; those before its first are zeros.
  void sum(int64_t oy, int64_t first, int64_t last) {
    const Axis &ay = p_.down.y, &ax = p_.down.x;
    const int64_t begin = first < 0 ? 0 : first, w = ax.out;
    A* out = scratch_ + layout_.out;
    if (begin >= last) {
      std::memset(out, 0, w * kGroup * sizeof(A));
    } else if (p_.down.separable) {
      const A* taps = static_cast<const A*>(p_.down.taps_y) + (begin - first);
      sum_rows(out, last - begin, taps, w * kGroup, false, [&](int64_t j) { return ring_row(begin + j); });
    } else {
      for (int64_t y = begin; y < last; ++y) {
        const A* taps = static_cast<const A*>(p_.down.taps_x) + (y - first) * p_.down.taps_x_stride;
        filter_row(ax, taps, act_row(y), out, y > begin);
      }
    }
    T* dst = static_cast<T*>(p_.out) + place(ay.out, w, oy);
    if (p_.interleaved) {
      for (int64_t i = 0; i < w; ++i) store(out + i * kGroup, dst + i * p_.channels, planes_);
    } else {
      A* plain = scratch_ + layout_.plain;
      separate(out, plain, layout_.plain_row, w);
      for (int64_t c = 0; c < planes_; ++c) store(plain + c * layout_.plain_row, dst + c * ay.out * w, w);
    }
  }

  static void store(A* src, T* dst, int64_t n) {
    copy(src, row_target(dst, src), n);
    store_row(dst, src, n);
  }

  const FilteredLrelu& p_;
  const FilteredLrelu::Layout layout_;
  A* scratch_;
  int32_t *codes_, *plain_codes_;
  Lrelu<A> lrelu_;
  A b_[kGroup] = {};
  // of the group at hand; the end of the input rows that are made, and of the rows whose codes the band writes; the
  // row of bytes in codes_
  int64_t sample_ = 0, plane_ = 0, planes_ = 0, loaded_ = 0, own_end_ = 0, codes_row_ = -1;
};

}  // namespace

void filtered_lrelu(const FilteredLrelu& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    BandMaker<T> maker(p, static_cast<typename Accumulate<T>::type*>(scratch));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t band = task % p.bands, rows = p.down.y.out;
      maker.make(task / p.bands, band * rows / p.bands, (band + 1) * rows / p.bands);
    }
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
