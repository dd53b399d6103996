// What makes a Resampling: the polyphase plan of each axis, the filter's factors, the taps in the order of the plan.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cpu/common/tensors.h"
#include "imgops/rank_one.h"
#include "resample.h"

namespace imgops {

// The phases of one axis and its taps in the order that they name.
struct Plan {
  Axis axis;
  std::vector<int64_t> first, offset, count, outputs;
  // tap_at[offset[r] + j] is the index, in the filter as correlated, of tap j of phase r
  std::vector<int64_t> tap_at;

  Plan(int64_t in, int64_t taps, int64_t up, int64_t down, int64_t pad0, int64_t pad1, const char* name) {
    STD_TORCH_CHECK(up >= 1 && down >= 1, "imgops: up and down must be >= 1; got ", up, " and ", down);
    axis.in = in;
    const int64_t length = in * up + pad0 + pad1 - taps;
    STD_TORCH_CHECK(length >= 0, "imgops: the padded image is smaller than the filter in ", name);
    axis.out = length / down + 1;
    const int64_t common = std::gcd(up, down);
    axis.period = up / common;
    axis.step = down / common;
    // phases without an output are left out: there may be as many as the factor
    for (int64_t r = 0; r < std::min(axis.period, axis.out); ++r) {
      // tap 0 of output r lies here in the up-sampled image; its samples are multiples of up
      const int64_t start = r * down - pad0;
      const int64_t skip = ((-start) % up + up) % up;
      first.push_back((start + skip) / up);
      offset.push_back(static_cast<int64_t>(tap_at.size()));
      for (int64_t k = skip; k < taps; k += up) tap_at.push_back(k);
      count.push_back(static_cast<int64_t>(tap_at.size()) - offset.back());
      outputs.push_back((axis.out - r + axis.period - 1) / axis.period);
      if (count.back() > 0) {
        const int64_t last = first.back() + (axis.out - 1 - r) / axis.period * axis.step + count.back();
        axis.before = std::max(axis.before, -first.back());
        axis.after = std::max(axis.after, last - in);
      }
    }
  }

  Axis bound() {
    axis.first = first.data();
    axis.offset = offset.data();
    axis.count = count.data();
    axis.outputs = outputs.data();
    return axis;
  }
};

// The filter as doubles [fh, fw], gain included, in the order of a correlation; its factors where it has them.
struct Filter {
  int64_t fh = 1, fw = 1;
  bool separable = true;
  std::vector<double> column, row, full;

  Filter(const OptionalTensor& f, bool flip_filter, double gain, bool float64) {
    if (!f.has_value()) {
      column = {1.0};
      row = {static_cast<double>(static_cast<float>(gain))};
      return;
    }
    STD_TORCH_CHECK(f->dim() == 1 || f->dim() == 2, "imgops: a filter must have 1 or 2 dimensions");
    const Tensor dense_f = torch::stable::contiguous(*f);
    const bool is_double = f->scalar_type() == ScalarType::Double;
    STD_TORCH_CHECK(is_double || f->scalar_type() == ScalarType::Float, "imgops: a filter must be float32 or float64");
    // the gain is part of the filter, and so is rounded to the filter's dtype
    const double factor = std::pow(gain, f->dim() / 2.0);
    std::vector<double> taps(f->numel());
    for (size_t i = 0; i < taps.size(); ++i) {
      taps[i] = is_double ? static_cast<const double*>(dense_f.data_ptr())[i] * factor
                          : static_cast<const float*>(dense_f.data_ptr())[i] * static_cast<float>(factor);
    }
    // a true convolution is a correlation with the flipped filter
    if (!flip_filter) std::reverse(taps.begin(), taps.end());
    fh = f->size(0);
    fw = f->size(f->dim() - 1);
    if (f->dim() == 1) {
      column = row = taps;
      return;
    }
    column.resize(fh);
    row.resize(fw);
    separable =
        rank_one(taps.data(), fh, fw, float64 ? kRankOneTolerance : kRankOneToleranceFloat, column.data(), row.data());
    if (!separable) full = taps;
  }
};

template <class A>
std::vector<A> gather(const std::vector<double>& taps, const std::vector<int64_t>& at) {
  std::vector<A> result;
  for (const int64_t i : at) result.push_back(static_cast<A>(taps[i]));
  return result;
}

// The taps of a Resampling in the accumulation type, alive as long as it points at them.
template <class A>
class Taps {
 public:
  Taps(const Filter& filter, Plan& x, Plan& y, Resampling& r) {
    if (filter.separable) {
      taps_y_ = gather<A>(filter.column, y.tap_at);
      taps_x_ = gather<A>(filter.row, x.tap_at);
    } else {
      r.taps_x_stride = static_cast<int64_t>(x.tap_at.size());
      for (const int64_t i : y.tap_at) {
        for (const int64_t j : x.tap_at) taps_x_.push_back(static_cast<A>(filter.full[i * filter.fw + j]));
      }
    }
    r.x = x.bound();
    r.y = y.bound();
    r.separable = filter.separable;
    r.taps_y = taps_y_.data();
    r.taps_x = taps_x_.data();
  }

 private:
  std::vector<A> taps_y_, taps_x_;
};

}  // namespace imgops
