// Kernels of filtered_lrelu, compiled once per instruction set. The up-sampled image is made a few rows at a time: the
// input rows under their taps are summed, filtered along x (up), activated, filtered along x (down), and kept until the
// output rows have all the rows that they sum. These rows are in cache: of the up-sampled image only the sign mask is
// written to memory.
#include "filtered_lrelu.h"

#include "cpu/common/vectors.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// vectors that the group's pixels at one place fill
template <class A>
constexpr int64_t kVectors = kGroup / kLanes<A>;

// values that are transposed at once: a vector's, and as many bytes of the mask as the group has planes
template <class A>
constexpr int64_t kTransposed = sizeof(A) == 1 ? kGroup : kLanes<A>;

// dst[i][c] = rows[c][i] + b[c] for n pixels and the whole group; b may be null. The next row of each plane,
// which follows in memory, is prefetched.
template <class A>
void interleave(const A* const* rows, const A* b, A* dst, int64_t n) {
  constexpr int64_t L = kTransposed<A>;
  using V = typename Vector<A, L>::type;
  for (int64_t i = 0; i < n; i += L) {
    const int64_t some = n - i < L ? n - i : L;
    for (int64_t c = 0; c < kGroup; c += L) {
      V m[L];
      if (some == L) {
        for (int64_t j = 0; j < L; ++j) {
          std::memcpy(&m[j], rows[c + j] + i, sizeof(V));
          __builtin_prefetch(rows[c + j] + i + n);
        }
      } else {
        for (int64_t j = 0; j < L; ++j) m[j] = V{}, std::memcpy(&m[j], rows[c + j] + i, some * sizeof(A));
      }
      transpose<A, L>(m);
      const V bias = b ? *reinterpret_cast<const V*>(b + c) : V{};
      for (int64_t j = 0; j < some; ++j) *reinterpret_cast<V*>(dst + (i + j) * kGroup + c) = m[j] + bias;
    }
  }
}

// rows[c][i] = src[i][c], the inverse; the next rows are prefetched likewise
template <class A>
void separate(const A* src, A* const* rows, int64_t n) {
  constexpr int64_t L = kTransposed<A>;
  using V = typename Vector<A, L>::type;
  for (int64_t i = 0; i < n; i += L) {
    const int64_t some = n - i < L ? n - i : L;
    for (int64_t c = 0; c < kGroup; c += L) {
      V m[L];
      for (int64_t j = 0; j < L; ++j) m[j] = *reinterpret_cast<const V*>(src + (i + (j < some ? j : 0)) * kGroup + c);
      transpose<A, L>(m);
      if (some == L) {
        for (int64_t j = 0; j < L; ++j) {
          std::memcpy(rows[c + j] + i, &m[j], sizeof(V));
          __builtin_prefetch(rows[c + j] + i + n);
        }
      } else {
        for (int64_t j = 0; j < L; ++j) std::memcpy(rows[c + j] + i, &m[j], some * sizeof(A));
      }
    }
  }
}

// Outputs that are summed at once, so that each tap is loaded once for all of them.
template <class A>
constexpr int64_t kOutputs = 8 / kVectors<A>;

// dst[q * period] (+)= sum_j taps[j] * src[q * step + j] for q < kCount, each a pixel of the group; kStep 0: step
template <class A, int64_t kCount, int64_t kStep>
inline __attribute__((always_inline)) void filter_pixels(const A* src, const A* taps, int64_t count, int64_t step,
                                                         A* dst, int64_t period, bool add) {
  if constexpr (kStep) step = kStep;
  using V = typename Vector<A, kLanes<A>>::type;
  constexpr int64_t K = kVectors<A>;
  const V* x = reinterpret_cast<const V*>(src);
  V* d = reinterpret_cast<V*>(dst);
  V sums[kCount][K] = {};
  for (int64_t j = 0; j < count; ++j, x += K) {
#pragma GCC unroll 8
    for (int64_t q = 0; q < kCount; ++q) {
#pragma GCC unroll 8
      for (int64_t k = 0; k < K; ++k) sums[q][k] += x[q * step * K + k] * taps[j];
    }
  }
#pragma GCC unroll 8
  for (int64_t q = 0; q < kCount; ++q) {
#pragma GCC unroll 8
    for (int64_t k = 0; k < K; ++k) {
      V& to = d[q * period * K + k];
      to = add ? to + sums[q][k] : sums[q][k];
    }
  }
}

template <class A, int64_t kStep>
void filter_phase(const A* src, const A* taps, int64_t count, int64_t step, A* dst, int64_t n, int64_t period,
                  bool add) {
  constexpr int64_t B = kOutputs<A>;
  int64_t q = 0;
  for (; q + B <= n; q += B) {
    filter_pixels<A, B, kStep>(src + q * step * kGroup, taps, count, step, dst + q * period * kGroup, period, add);
  }
  for (; q < n; ++q) {
    filter_pixels<A, 1, kStep>(src + q * step * kGroup, taps, count, step, dst + q * period * kGroup, period, add);
  }
}

// One row of axis.out pixels of the group from the padded row v, added to dst if add.
template <class A>
void filter_row(const Axis& axis, const A* taps, const A* v, A* dst, bool add) {
  for (int64_t r = 0; r < axis.period && r < axis.out; ++r) {
    const auto filter = axis.step == 1 ? filter_phase<A, 1> : axis.step == 2 ? filter_phase<A, 2> : filter_phase<A, 0>;
    filter(v + axis.first[r] * kGroup, taps + axis.offset[r], axis.count[r], axis.step, dst + r * kGroup,
           axis.outputs[r], axis.period, add);
  }
}

// Rows of the group's pixels, of which the latest `rows` are kept.
template <class A>
struct Ring {
  A* begin;
  int64_t rows, row_size;

  A* row(int64_t y) const { return begin + y % rows * row_size; }
  A* end() const { return begin + rows * row_size; }
};

// A row to be computed: dst = sum_j taps[j] * (row j from first, in a ring), for count rows.
template <class A>
struct Sum {
  const A *first, *taps;
  int64_t count;
  A* dst;
};

// Vectors begin to begin + kCount of a sum.
template <class A, int64_t kCount>
inline __attribute__((always_inline)) void sum_vectors(const Ring<A>& ring, const Sum<A>& sum, int64_t begin) {
  using V = typename Vector<A, kLanes<A>>::type;
  constexpr int64_t L = kLanes<A>;
  V sums[kCount] = {};
  const A *x = sum.first + begin * L, *last = ring.end() - ring.row_size + begin * L, *taps = sum.taps;
  for (int64_t j = 0; j < sum.count; ++j) {
#pragma GCC unroll 8
    for (int64_t k = 0; k < kCount; ++k) sums[k] += reinterpret_cast<const V*>(x)[k] * taps[j];
    x = x == last ? ring.begin + begin * L : x + ring.row_size;
  }
  V* dst = reinterpret_cast<V*>(sum.dst) + begin;
#pragma GCC unroll 8
  for (int64_t k = 0; k < kCount; ++k) dst[k] = sums[k];
}

// Sums of rows of n pixels. Rows that several sums read are in the first-level cache for all but the first.
template <class A>
void sum_rows(const Ring<A>& ring, const Sum<A>* sums, int64_t how_many, int64_t n) {
  constexpr int64_t B = 8;
  const int64_t vectors = n * kVectors<A>;
  int64_t i = 0;
  for (; i + B <= vectors; i += B) {
    for (int64_t s = 0; s < how_many; ++s) sum_vectors<A, B>(ring, sums[s], i);
  }
  for (; i < vectors; ++i) {
    for (int64_t s = 0; s < how_many; ++s) sum_vectors<A, 1>(ring, sums[s], i);
  }
}

template <class A>
struct Lrelu {
  static constexpr int64_t L = kLanes<A>;
  using V = typename Vector<A, L>::type;
  using Ints = typename Vector<std::conditional_t<sizeof(A) == 4, int32_t, int64_t>, L>::type;
  using Bytes = typename Vector<uint8_t, L>::type;

  A slope, gain, hi;

  // z = clamp(gain * lrelu(z)) of n pixels; and its signs into two bits of each byte, `shift` from its lowest
  template <bool kClamped, bool kMask>
  void activate(A* pixels, uint8_t* sign_mask, int shift, int64_t n) const {
    const V slopes = V{} + slope, gains = V{} + gain, high = V{} + hi, low = -high;
    const Ints negative = Ints{} + (1 << shift), clamped = Ints{} + (2 << shift), none{};
    V* z = reinterpret_cast<V*>(pixels);
    for (int64_t i = 0; i < n * kVectors<A>; ++i) {
      V y = (z[i] > A(0) ? z[i] : z[i] * slopes) * gains;
      if constexpr (kMask) {
        Ints bits = z[i] > A(0) ? none : negative;
        // a NaN has no slope either
        if constexpr (kClamped) bits |= ((y < A(0) ? -y : y) < high) ? none : clamped;
        reinterpret_cast<Bytes*>(sign_mask)[i] |= __builtin_convertvector(bits, Bytes);
      }
      if constexpr (kClamped) {
        // a NaN fails both comparisons and passes through
        y = low > y ? low : y;
        y = high < y ? high : y;
      }
      z[i] = y;
    }
  }

  // n pixels times the slopes that their bits name
  void multiply(A* z, const uint8_t* sign_mask, int shift, int64_t n) const {
    const A positive = gain, negative = gain * slope;
    const int is_negative = 1 << shift, is_clamped = 2 << shift;
#pragma omp simd
    for (int64_t i = 0; i < n * kGroup; ++i) {
      const A y = z[i] * (sign_mask[i] & is_negative ? negative : positive);
      z[i] = sign_mask[i] & is_clamped ? A(0) : y;
    }
  }
};

template <class T>
class BandMaker {
  using A = typename Accumulate<T>::type;

 public:
  BandMaker(const FilteredLrelu& p, A* scratch)
      : p_(p), layout_(p.layout()), scratch_(scratch), mask_(reinterpret_cast<uint8_t*>(scratch + layout_.mask)),
        spare_mask_(reinterpret_cast<uint8_t*>(scratch + layout_.spare_mask)),
        input_{scratch + layout_.input, p.input_rows(), layout_.input_row},
        act_{scratch + layout_.act, p.down.separable ? 1 : p.up_rows(), layout_.act_row},
        filtered_{scratch + layout_.filtered, p.up_rows(), layout_.filtered_row},
        lrelu_{static_cast<A>(p.slope), static_cast<A>(p.gain), static_cast<A>(p.clamp)} {
    // padding is zeroed only here; planes that a group lacks must hold no denormal numbers, which would be slow
    for (int64_t i = 0; i < layout_.size; ++i) scratch[i] = 0;
  }

  // output rows begin to end of a group of planes
  void make(int64_t group, int64_t begin, int64_t end) {
    const int64_t groups = (p_.planes() + kGroup - 1) / kGroup;
    sample_ = group / groups;
    plane_ = group % groups * kGroup;
    planes_ = p_.planes() - plane_ < kGroup ? p_.planes() - plane_ : kGroup;
    loaded_ = 0, mask_row_ = -1;
    for (int64_t c = 0; p_.b && c < kGroup; ++c) {
      b_[c] = c < planes_ ? static_cast<const A*>(p_.b)[(plane_ + c) % p_.channels] : A(0);
    }
    const Axis& ay = p_.down.y;
    const int64_t rows = p_.up.y.out;
    const bool keeps = p_.activates && p_.sign_mask;
    // the whole mask is written once, also for rows that no output needs
    own_end_ = !keeps ? 0 : end == ay.out ? rows : owned_from(end);
    next_ = !keeps || begin == 0 ? 0 : owned_from(begin);
    // rows between those that outputs need are computed for their signs alone
    const int64_t together = !keeps && ay.step > ay.count[0] ? 1 : kTogether;
    for (int64_t oy = begin; oy < end; oy += together) {
      const int64_t some = end - oy < together ? end - oy : together;
      const int64_t first = ay.first[0] + oy * ay.step, last = first + (some - 1) * ay.step + ay.count[0];
      if (!keeps && next_ < first) next_ = first;
      make_rows(last < rows ? last : rows);
      down_sample(oy, some);
    }
    make_rows(own_end_);
  }

 private:
  // the first row that the band of output row oy needs, down to where a byte of the mask starts
  int64_t owned_from(int64_t oy) const {
    const int64_t first = p_.down.y.first[0] + oy * p_.down.y.step;
    return first < 0 ? 0 : first < p_.up.y.out ? first / kPacked * kPacked : p_.up.y.out;
  }

  // The offset of row y of the group's first plane in a tensor of planes of [h, w].
  int64_t place(int64_t h, int64_t w, int64_t y) const {
    return p_.channels_last ? (sample_ * h + y) * w * p_.channels + plane_ : (plane_ * h + y) * w;
  }

  // Bring row y of the input, plus its bias, into its ring; each row is loaded once.
  const A* load_input(int64_t y) {
    const int64_t h = p_.up.y.in, w = p_.up.x.in;
    A* row = input_.row(y);
    if (y < loaded_) return row;
    loaded_ = y + 1;
    const T* src = static_cast<const T*>(p_.in) + place(h, w, y);
    if (p_.channels_last) {
      for (int64_t i = 0; i < w; ++i) {
        A* pixel = row + i * kGroup;
        const T* at = src + i * p_.channels;
        __builtin_prefetch(at + w * p_.channels);
        copy_pixel(load_row(at, pixel, planes_), pixel, planes_);
#pragma omp simd
        for (int64_t c = 0; c < kGroup; ++c) pixel[c] += b_[c];
      }
    } else {
      const A* from[kGroup];
      for (int64_t c = 0; c < kGroup; ++c) from[c] = c < planes_ ? load_row(src + c * h * w, plain(c), w) : plain(c);
      interleave(from, b_, row, w);
    }
    return row;
  }

  // the values of n planes at one pixel
  template <class X>
  static void copy_pixel(const X* src, X* dst, int64_t n) {
    if (src == dst) return;
    if (n == kGroup) {
      std::memcpy(dst, src, kGroup * sizeof(X));
    } else {
      std::memcpy(dst, src, n * sizeof(X));
    }
  }

  A* plain(int64_t c) const { return scratch_ + layout_.plain + c * layout_.plain_row; }
  A* v_row(int64_t i) const { return scratch_ + layout_.v + i * layout_.v_row; }

  // Rows next_ to end of the up-sampled image, activated; and filtered along x, where D has factors.
  void make_rows(int64_t end) {
    while (next_ < end) {
      const int64_t some = end - next_ < kTogether ? end - next_ : kTogether;
      if (p_.up.separable) sum_inputs(next_, some);
      for (int64_t i = 0; i < some; ++i) make_row(next_ + i, v_row(i));
      next_ += some;
    }
  }

  // The input rows under the taps of a row of the up-sampled image, and the first of those taps; rows outside the image
  // add nothing.
  struct Inputs {
    int64_t first, count, taps;
  };
  Inputs inputs_of(int64_t y) const {
    const Axis& ay = p_.up.y;
    const int64_t r = y % ay.period, first = ay.first[r] + y / ay.period * ay.step;
    const int64_t begin = first < 0 ? -first : 0, end = first + ay.count[r] > ay.in ? ay.in - first : ay.count[r];
    return {first + begin, end > begin ? end - begin : 0, ay.offset[r] + begin};
  }

  // The vertical half of up-sampling.
  void sum_inputs(int64_t y, int64_t some) {
    Sum<A> sums[kTogether];
    for (int64_t i = 0; i < some; ++i) {
      const Inputs inputs = inputs_of(y + i);
      for (int64_t j = 0; j < inputs.count; ++j) load_input(inputs.first + j);
      const A* taps = static_cast<const A*>(p_.up.taps_y);
      sums[i] = {input_.begin, taps, 0, v_row(i)};
      if (inputs.count) sums[i] = {input_.row(inputs.first), taps + inputs.taps, inputs.count, v_row(i)};
    }
    sum_rows(input_, sums, some, p_.up.x.in);
  }

  void make_row(int64_t y, A* v) {
    A* act = act_.row(y);
    const A* taps_x = static_cast<const A*>(p_.up.taps_x);
    if (p_.up.separable) {
      filter_row(p_.up.x, taps_x, v, act, false);
    } else {
      const Inputs inputs = inputs_of(y);
      if (inputs.count == 0) std::memset(act, 0, p_.up.x.out * kGroup * sizeof(A));
      for (int64_t j = 0; j < inputs.count; ++j) {
        std::memcpy(v, load_input(inputs.first + j), p_.up.x.in * kGroup * sizeof(A));
        filter_row(p_.up.x, taps_x + (inputs.taps + j) * p_.up.taps_x_stride, v, act, j > 0);
      }
    }
    activate(y, act);
    if (p_.down.separable) filter_row(p_.down.x, static_cast<const A*>(p_.down.taps_x), act, filtered_.row(y), false);
  }

  void activate(int64_t y, A* act) {
    const int64_t n = p_.up.x.out;
    const int shift = static_cast<int>(2 * (y % kPacked));
    if (!p_.activates) {
      if (mask_row_ != y / kPacked) load_mask(y / kPacked);
      lrelu_.multiply(act, mask_, shift, n);
    } else if (y < own_end_) {
      if (shift == 0) std::memset(mask_, 0, n * kGroup);
      p_.clamp >= 0 ? lrelu_.template activate<true, true>(act, mask_, shift, n)
                    : lrelu_.template activate<false, true>(act, mask_, shift, n);
      if (y % kPacked == kPacked - 1 || y == p_.up.y.out - 1) store_mask(y / kPacked);
    } else {
      p_.clamp >= 0 ? lrelu_.template activate<true, false>(act, nullptr, 0, n)
                    : lrelu_.template activate<false, false>(act, nullptr, 0, n);
    }
  }

  void store_mask(int64_t packed_row) const {
    const int64_t h = p_.packed_rows(), w = p_.up.x.out;
    uint8_t* dst = p_.sign_mask + place(h, w, packed_row);
    if (p_.channels_last) {
      for (int64_t i = 0; i < w; ++i) copy_pixel(mask_ + i * kGroup, dst + i * p_.channels, planes_);
    } else {
      uint8_t* to[kGroup];
      for (int64_t c = 0; c < kGroup; ++c) to[c] = c < planes_ ? dst + c * h * w : spare_mask_;
      separate(mask_, to, w);
    }
  }

  void load_mask(int64_t packed_row) {
    mask_row_ = packed_row;
    const int64_t h = p_.packed_rows(), w = p_.up.x.out;
    const uint8_t* src = p_.sign_mask + place(h, w, packed_row);
    if (p_.channels_last) {
      for (int64_t i = 0; i < w; ++i) copy_pixel(src + i * p_.channels, mask_ + i * kGroup, planes_);
    } else {
      const uint8_t* from[kGroup];
      for (int64_t c = 0; c < kGroup; ++c) from[c] = c < planes_ ? src + c * h * w : spare_mask_;
      interleave<uint8_t>(from, nullptr, mask_, w);
    }
  }

  // Output rows y to y + some; rows of the up-sampled image outside it are zeros.
  void down_sample(int64_t y, int64_t some) {
    const Axis &ay = p_.down.y, &ax = p_.down.x;
    const int64_t w = ax.out;
    A* out = scratch_ + layout_.out;
    Sum<A> sums[kTogether];
    for (int64_t i = 0; i < some; ++i) {
      const int64_t first = ay.first[0] + (y + i) * ay.step, skipped = first < 0 ? -first : 0;
      const int64_t last = first + ay.count[0] < p_.up.y.out ? first + ay.count[0] : p_.up.y.out;
      const int64_t count = last > first + skipped ? last - first - skipped : 0;
      A* dst = out + i * w * kGroup;
      if (p_.down.separable) {
        const A* taps = static_cast<const A*>(p_.down.taps_y);
        sums[i] = {filtered_.begin, taps, 0, dst};
        if (count) sums[i] = {filtered_.row(first + skipped), taps + skipped, count, dst};
        continue;
      }
      if (count == 0) std::memset(dst, 0, w * kGroup * sizeof(A));
      for (int64_t j = 0; j < count; ++j) {
        const A* taps = static_cast<const A*>(p_.down.taps_x) + (skipped + j) * p_.down.taps_x_stride;
        filter_row(ax, taps, act_.row(first + skipped + j), dst, j > 0);
      }
    }
    if (p_.down.separable) sum_rows(filtered_, sums, some, w);
    for (int64_t i = 0; i < some; ++i) store(y + i, out + i * w * kGroup);
  }

  // Output row y from the group's pixels.
  void store(int64_t y, const A* out) const {
    const int64_t h = p_.down.y.out, w = p_.down.x.out;
    T* dst = static_cast<T*>(p_.out) + place(h, w, y);
    if (p_.channels_last) {
      for (int64_t i = 0; i < w; ++i) {
        T* at = dst + i * p_.channels;
        __builtin_prefetch(at + w * p_.channels);
        if constexpr (sizeof(T) == sizeof(A)) {
          copy_pixel(out + i * kGroup, at, planes_);
        } else {
          store_row(at, out + i * kGroup, planes_);
        }
      }
    } else {
      A* to[kGroup];
      for (int64_t c = 0; c < kGroup; ++c) to[c] = c < planes_ ? row_target(dst + c * h * w, plain(c)) : plain(c);
      separate(out, to, w);
      for (int64_t c = 0; c < planes_; ++c) store_row(dst + c * h * w, to[c], w);
    }
  }

  const FilteredLrelu& p_;
  const FilteredLrelu::Layout layout_;
  A* scratch_;
  uint8_t *mask_, *spare_mask_;
  const Ring<A> input_, act_, filtered_;
  const Lrelu<A> lrelu_;
  alignas(64) A b_[kGroup] = {};
  // of the group at hand; the next row to make; the end of the input rows that are made, and of the rows whose signs
  // the band writes; the row of bytes in mask_
  int64_t sample_ = 0, plane_ = 0, planes_ = 0, next_ = 0, loaded_ = 0, own_end_ = 0, mask_row_ = -1;
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
