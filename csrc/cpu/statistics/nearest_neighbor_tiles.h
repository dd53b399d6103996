// Unit vectors rounded to bfloat16, and their products on the tiles of AMX; compiled once per instruction set, and
// without effect but for AVX-512.
#pragma once

#include <cmath>
#include <cstring>

#include "cpu/common/amx.h"
#include "cpu/common/storage.h"
#include "panel_size.h"

#if defined(IMGOPS_AMX) && defined(__AVX512F__)
#include <immintrin.h>
#define IMGOPS_TILES
#endif

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// vectors side by side in a tile, channels in one, and its bytes
constexpr int64_t kTileWidth = 16, kTileDepth = 32, kTile = kTileWidth * kTileDepth;

// Keys of a panel [depth][kPanelWidth] as the right side of products, rounded[2][depth / 32][16 pairs][16 keys][2];
// errors: the length of what that took off each.
inline void round_keys(const float* panel, int64_t depth, uint16_t* rounded, float* errors) {
  float squares[kPanelWidth] = {};
  for (int64_t c = 0; c < depth; c += 2) {
    for (int64_t half = 0; half < 2; ++half) {
      const float* even = panel + c * kPanelWidth + half * kTileWidth;
      uint16_t* to = rounded + (half * depth / kTileDepth + c / kTileDepth) * kTile + c % kTileDepth * kTileWidth;
      float* square = squares + half * kTileWidth;
#pragma omp simd
      for (int64_t j = 0; j < kTileWidth; ++j) {
        const float a = even[j], b = even[j + kPanelWidth];
        const bf16_t low = to_bf16(a), high = to_bf16(b);
        const float lost = a - to_float(low), lost_too = b - to_float(high);
        to[2 * j] = low.bits;
        to[2 * j + 1] = high.bits;
        square[j] += lost * lost + lost_too * lost_too;
      }
    }
  }
  for (int64_t j = 0; j < kPanelWidth; ++j) errors[j] = std::sqrt(squares[j]);
}

// Queries vectors[kPanelWidth][depth] as the left side, rounded[depth / 32][kPanelWidth][32].
inline void round_queries(const float* vectors, int64_t depth, uint16_t* rounded, float* errors) {
  for (int64_t j = 0; j < kPanelWidth; ++j) {
    float error = 0;
    for (int64_t c = 0; c < depth; c += kTileDepth) {
      const float* from = vectors + j * depth + c;
      uint16_t* to = rounded + c * kPanelWidth + j * kTileDepth;
#pragma omp simd reduction(+ : error)
      for (int64_t k = 0; k < kTileDepth; ++k) {
        const bf16_t value = to_bf16(from[k]);
        const float lost = from[k] - to_float(value);
        to[k] = value.bits;
        error += lost * lost;
      }
    }
    errors[j] = std::sqrt(error);
  }
}

#ifdef IMGOPS_TILES

// The thread's tiles set up for the products, and at the end as they were before: oneDNN remembers its own.
class TileConfiguration {
 public:
  IMGOPS_AMX explicit TileConfiguration(bool wanted) : wanted_(wanted) {
    if (!wanted_) return;
    _tile_storeconfig(before_);
    alignas(64) uint8_t ours[64] = {1};
    for (int t = 0; t < 8; ++t) {
      ours[16 + 2 * t] = 64;
      ours[48 + t] = 16;
    }
    // GCC's intrinsic says that it reads a few bytes of these only
    asm volatile("" : : "r"(ours) : "memory");
    _tile_loadconfig(ours);
  }
  IMGOPS_AMX ~TileConfiguration() {
    if (wanted_) _tile_loadconfig(before_);
  }
  TileConfiguration(const TileConfiguration&) = delete;

 private:
  bool wanted_;
  alignas(64) uint8_t before_[64];
};

// products[block][kPanelWidth][kPanelWidth] of rounded queries with some blocks of rounded keys
IMGOPS_AMX inline void multiply_tiles(const uint16_t* queries, const uint16_t* keys, float* products, int64_t depth,
                                      int64_t blocks) {
  const int64_t steps = depth / kTileDepth;
  for (int64_t b = 0; b < blocks; ++b) {
    const uint16_t *left = queries, *right = keys + b * depth * kPanelWidth;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < steps; ++k, left += 2 * kTile, right += kTile) {
      _tile_loadd(4, left, 64);
      _tile_loadd(6, right, 64);
      _tile_loadd(7, right + steps * kTile, 64);
      _tile_loadd(5, left + kTile, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    float* to = products + b * kPanelWidth * kPanelWidth;
    constexpr int64_t row = kPanelWidth * sizeof(float);
    _tile_stored(0, to, row);
    _tile_stored(1, to + kTileWidth, row);
    _tile_stored(2, to + kTileWidth * kPanelWidth, row);
    _tile_stored(3, to + kTileWidth * kPanelWidth + kTileWidth, row);
  }
}

#else

struct TileConfiguration {
  explicit TileConfiguration(bool) {}
};

inline void multiply_tiles(const uint16_t*, const uint16_t*, float*, int64_t, int64_t) {}

#endif

}  // namespace
}  // namespace IMGOPS_ISA
}  // namespace imgops
