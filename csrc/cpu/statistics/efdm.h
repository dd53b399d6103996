// What the launchers and the kernels of efdm and sort_rows share.
#pragma once

#include <algorithm>

#include "cpu/common/storage.h"

namespace imgops {

// Planes of an image x and of a style y, [samples, channels, pixels] each, whose pixels are `stride` elements apart.
struct Efdm {
  struct Planes {
    int64_t samples = 1, pixels = 1;
    bool channels_last = false;
  };
  Planes x, y;
  int64_t channels = 1;
  double alpha = 1;
  const void *image = nullptr, *style = nullptr;
  void* out = nullptr;
  // the pixels of each plane from small to large, or null
  int32_t *x_order = nullptr, *y_order = nullptr;

  bool one_style() const { return y.samples == 1; }
  int64_t tasks() const { return x.samples * channels; }
  // bytes that a thread works in, for keys of so many bytes and sums of so many
  int64_t most_pixels() const { return std::max(x.pixels, y.pixels); }
  int64_t scratch(int64_t key, int64_t sum) const {
    return most_pixels() * (2 * std::max<int64_t>(8, 2 * key) + sum + key) + x.pixels * sum + 64;
  }
};

// Rows of `length` numbers.
struct SortRows {
  int64_t rows = 0, length = 0;
  const void* x = nullptr;
  void* values = nullptr;
  int32_t* order = nullptr;

  int64_t scratch(int64_t key) const { return length * (2 * std::max<int64_t>(8, 2 * key) + key); }
};

IMGOPS_KERNEL(void efdm(const Efdm&, DType, void* scratch, int64_t begin, int64_t end));
IMGOPS_KERNEL(void sort_rows(const SortRows&, DType, void* scratch, int64_t begin, int64_t end));

}  // namespace imgops
