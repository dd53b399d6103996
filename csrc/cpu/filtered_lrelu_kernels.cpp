// Kernels of filtered_lrelu, compiled once an instruction set. Row by row of the up-sampled image: the input rows under
// its taps are summed, filtered along x, activated, filtered along x downwards, and kept until an output row has all
// the rows that it sums. All of them are in cache; only codes are written at the high resolution.
#include "filtered_lrelu.h"

#include "resample_rows.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// Passed by value: a compiler must know that no row overlaps it before it vectorises.
template <class A>
struct Lrelu {
  A slope, gain, hi;

  // y = clamp(gain * lrelu(z)) in place
  template <bool kClamped>
  void activate(A* z, int64_t n) const {
    const Lrelu s = *this;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const A y = (z[i] > A(0) ? z[i] : z[i] * s.slope) * s.gain;
      z[i] = s.clamped<kClamped>(y);
    }
  }

  // The same, and the codes into two bits of each byte, `shift` from its lowest.
  template <bool kClamped>
  void activate(A* z, uint8_t* codes, int shift, int64_t n) const {
    const Lrelu s = *this;
    const uint8_t negative = uint8_t(1 << shift), clamped = uint8_t(2 << shift);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const bool positive = z[i] > A(0);
      const A y = (positive ? z[i] : z[i] * s.slope) * s.gain;
      uint8_t code = positive ? uint8_t(0) : negative;
      // a NaN has no slope either
      if (kClamped) code |= (y < A(0) ? -y : y) < s.hi ? uint8_t(0) : clamped;
      codes[i] |= code;
      z[i] = s.clamped<kClamped>(y);
    }
  }

  // z times the slope that its code names
  void multiply(A* z, const uint8_t* codes, int shift, int64_t n) const {
    const A positive = gain, negative = gain * slope;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const int code = codes[i] >> shift;
      const A s = code & 1 ? negative : positive;
      z[i] = code & 2 ? A(0) : z[i] * s;
    }
  }

 private:
  template <bool kClamped>
  A clamped(A y) const {
    if constexpr (!kClamped) return y;
    // a NaN fails both comparisons and passes through
    y = y < -hi ? -hi : y;
    return y > hi ? hi : y;
  }
};

template <class T>
class BandMaker {
  using A = typename Accumulate<T>::type;

 public:
  BandMaker(const FilteredLrelu& p, A* scratch)
      : p_(p), layout_(p.layout()), scratch_(scratch), codes_(reinterpret_cast<uint8_t*>(scratch + layout_.codes)),
        act_{static_cast<A>(p.slope), static_cast<A>(p.gain), static_cast<A>(p.clamp)}, pitch_(p.interleaved ? p.channels : 1) {}

  // output rows begin to end of the lanes from `lane` on of a plane
  void make(int64_t plane, int64_t lane, int64_t begin, int64_t end) {
    plane_ = plane, lane_ = lane;
    const int64_t lanes = pitch_ - lane < p_.lanes ? pitch_ - lane : p_.lanes;
    if (lanes != lanes_) {
      // what pads the rows of so many lanes is not written again
      for (int64_t i = 0; i < layout_.size; ++i) scratch_[i] = 0;
      lanes_ = lanes;
    }
    loaded_ = 0;
    const int64_t rows = p_.up.y.out;
    // the rows whose codes this band writes: all are written once, also those that no output needs
    const int64_t own_begin = begin == 0 ? 0 : owned_from(begin);
    own_end_ = p_.activates && p_.codes ? (end == p_.down.y.out ? rows : owned_from(end)) : 0;
    int64_t next = own_end_ > 0 ? own_begin : 0;
    for (int64_t oy = begin; oy < end; ++oy) {
      const int64_t first = p_.down.y.first[0] + oy * p_.down.y.step, last = first + p_.down.y.count[0];
      if (own_end_ == 0 && next < first) next = first;
      for (; next < last && next < rows; ++next) make_row(next);
      sum(oy, first, last < rows ? last : rows);
    }
    for (; next < own_end_; ++next) make_row(next);
  }

 private:
  // the first row that the band of output row oy needs, down to where a byte of codes starts
  int64_t owned_from(int64_t oy) const {
    const int64_t first = p_.down.y.first[0] + oy * p_.down.y.step;
    const int64_t row = first < 0 ? 0 : first > p_.up.y.out ? p_.up.y.out : first;
    return row == p_.up.y.out ? row : row / kPacked * kPacked;
  }

  A* act_row(int64_t y) const { return scratch_ + layout_.act + (p_.down.separable ? 0 : y % p_.rows_down * layout_.act_row); }
  A* ring_row(int64_t y) const { return scratch_ + layout_.ring + y % p_.rows_down * layout_.ring_row; }

  // Row y of the input with its bias, as A: where it lies, or made once, in a ring.
  const A* input_row(int64_t y) {
    const int64_t w = p_.up.x.in;
    const T* src = static_cast<const T*>(p_.in) + (plane_ * p_.up.y.in + y) * w * pitch_ + lane_;
    if constexpr (sizeof(T) == sizeof(A)) {
      if (lanes_ == pitch_ && !p_.b) return reinterpret_cast<const A*>(src);
    }
    A* row = scratch_ + layout_.input + y % p_.rows_up * layout_.input_row;
    if (y < loaded_) return row;
    loaded_ = y + 1;
    if (lanes_ == pitch_) {
      copy_row(src, row, w * lanes_);
    } else {
      for (int64_t i = 0; i < w; ++i) copy_row(src + i * pitch_, row + i * lanes_, lanes_);
    }
    if (p_.b) add_bias(row);
    return row;
  }

  static void copy_row(const T* src, A* dst, int64_t n) {
    const A* row = load_row(src, dst, n);
    if (row != dst) std::memcpy(dst, row, n * sizeof(A));
  }

  void add_bias(A* row) const {
    const A* b = static_cast<const A*>(p_.b);
    const int64_t w = p_.up.x.in, n = lanes_;
    if (!p_.interleaved) {
      const A constant = b[plane_ % p_.channels];
#pragma omp simd
      for (int64_t i = 0; i < w; ++i) row[i] += constant;
      return;
    }
    b += lane_;
    for (int64_t i = 0; i < w; ++i) {
      A* pixel = row + i * n;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) pixel[c] += b[c];
    }
  }

  // Row y of the up-sampled image, activated; and filtered along x, where D has factors.
  void make_row(int64_t y) {
    A* act = act_row(y);
    up_sample(y, act);
    const int64_t n = p_.up.x.out * lanes_;
    if (p_.activates) {
      if (y < own_end_) {
        if (y % kPacked == 0) std::memset(codes_, 0, n);
        activate(act, codes_, 2 * (y % kPacked), n);
        if (y % kPacked == kPacked - 1 || y == p_.up.y.out - 1) store_codes(y / kPacked, n);
      } else {
        activate(act, n);
      }
    } else {
      act_.multiply(act, load_codes(y / kPacked, n), 2 * (y % kPacked), n);
    }
    if (p_.down.separable) {
      filter_row(p_.down.x, p_.interleaved, lanes_, static_cast<const A*>(p_.down.taps_x), act, ring_row(y), false);
    }
  }

  void up_sample(int64_t y, A* act) {
    const Axis &ay = p_.up.y, &ax = p_.up.x;
    int64_t q, r;
    split(y, ay.period, q, r);
    const int64_t first = ay.first[r] + q * ay.step;
    // taps on rows outside the image add nothing
    const int64_t begin = first < 0 ? -first : 0;
    const int64_t end = first + ay.count[r] > ay.in ? ay.in - first : ay.count[r];
    const int64_t width = ax.in * lanes_;
    const A* taps_x = static_cast<const A*>(p_.up.taps_x);
    A* v = scratch_ + layout_.v;
    if (begin >= end) {
      std::memset(act, 0, ax.out * lanes_ * sizeof(A));
    } else if (p_.up.separable) {
      const A* taps = static_cast<const A*>(p_.up.taps_y) + ay.offset[r];
      sum_rows(v, end - begin, taps + begin, width, false, [&](int64_t j) { return input_row(first + begin + j); });
      filter_row(ax, p_.interleaved, lanes_, taps_x, v, act, false);
    } else {
      const A one = 1;
      for (int64_t j = begin; j < end; ++j) {
        sum_rows(v, 1, &one, width, false, [&](int64_t) { return input_row(first + j); });
        const A* taps = taps_x + (ay.offset[r] + j) * p_.up.taps_x_stride;
        filter_row(ax, p_.interleaved, lanes_, taps, v, act, j > begin);
      }
    }
  }

  void activate(A* z, int64_t n) const {
    if (p_.clamp >= 0) {
      act_.template activate<true>(z, n);
    } else {
      act_.template activate<false>(z, n);
    }
  }
  void activate(A* z, uint8_t* codes, int shift, int64_t n) const {
    if (p_.clamp >= 0) {
      act_.template activate<true>(z, codes, shift, n);
    } else {
      act_.template activate<false>(z, codes, shift, n);
    }
  }

  uint8_t* codes_at(int64_t packed_row) const {
    const int64_t packed_rows = (p_.up.y.out + kPacked - 1) / kPacked;
    return p_.codes + (plane_ * packed_rows + packed_row) * p_.up.x.out * pitch_ + lane_;
  }

  void store_codes(int64_t packed_row, int64_t n) const {
    uint8_t* dst = codes_at(packed_row);
    if (lanes_ == pitch_) {
      std::memcpy(dst, codes_, n);
    } else {
      for (int64_t i = 0; i < p_.up.x.out; ++i) std::memcpy(dst + i * pitch_, codes_ + i * lanes_, lanes_);
    }
  }

  const uint8_t* load_codes(int64_t packed_row, int64_t n) const {
    const uint8_t* src = codes_at(packed_row);
    if (lanes_ == pitch_) return src;
    for (int64_t i = 0; i < p_.up.x.out; ++i) std::memcpy(codes_ + i * lanes_, src + i * pitch_, lanes_);
    return codes_;
  }

  // Output row oy from rows first to last of the up-sampled image; those before its first are zeros.
  void sum(int64_t oy, int64_t first, int64_t last) {
    const Axis &ay = p_.down.y, &ax = p_.down.x;
    const int64_t begin = first < 0 ? 0 : first, count = last - begin, n = ax.out * lanes_;
    T* dst = static_cast<T*>(p_.out) + (plane_ * ay.out + oy) * ax.out * pitch_ + lane_;
    const bool direct = lanes_ == pitch_;
    A* out = direct ? row_target(dst, scratch_ + layout_.target) : scratch_ + layout_.target;
    if (count <= 0) {
      std::memset(out, 0, n * sizeof(A));
    } else if (p_.down.separable) {
      const A* taps = static_cast<const A*>(p_.down.taps_y) + (begin - first);
      sum_rows(out, count, taps, n, false, [&](int64_t j) { return ring_row(begin + j); });
    } else {
      for (int64_t y = begin; y < last; ++y) {
        const A* taps = static_cast<const A*>(p_.down.taps_x) + (y - first) * p_.down.taps_x_stride;
        filter_row(ax, p_.interleaved, lanes_, taps, act_row(y), out, y > begin);
      }
    }
    if (direct) return store_row(dst, out, n);
    for (int64_t i = 0; i < ax.out; ++i) {
      A* pixel = row_target(dst + i * pitch_, out + i * lanes_);
      if (pixel != out + i * lanes_) std::memcpy(pixel, out + i * lanes_, lanes_ * sizeof(A));
      store_row(dst + i * pitch_, out + i * lanes_, lanes_);
    }
  }

  const FilteredLrelu& p_;
  const FilteredLrelu::Layout layout_;
  A* scratch_;
  uint8_t* codes_;
  Lrelu<A> act_;
  // values from a pixel to the next in memory
  const int64_t pitch_;
  // of the band at hand: its lanes, the end of the input rows in the ring, and of the rows whose codes are its own
  int64_t plane_ = 0, lane_ = 0, lanes_ = 0, loaded_ = 0, own_end_ = 0;
};

}  // namespace

void filtered_lrelu(const FilteredLrelu& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    BandMaker<T> maker(p, static_cast<typename Accumulate<T>::type*>(scratch));
    const int64_t blocks = p.interleaved ? p.lane_blocks() : 1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % p.tasks_per_plane * p.rows_per_task, rest = task / p.tasks_per_plane;
      const int64_t last = first + p.rows_per_task < p.down.y.out ? first + p.rows_per_task : p.down.y.out;
      maker.make(rest / blocks, rest % blocks * p.lanes, first, last);
    }
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
