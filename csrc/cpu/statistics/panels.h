// Panels, [row][kPanelWidth] in the accumulation type: how a matrix is copied into them, and how two are multiplied;
// compiled once per instruction set.
#pragma once

#include "cpu/common/vectors.h"
#include "panel_size.h"

namespace imgops {

namespace IMGOPS_ISA {
// each kernel file has its own copy: other files have functions of these names
namespace {

constexpr int64_t W = kPanelWidth;

template <class A>
using V = typename Vector<A, kLanes<A>>::type;

template <class A>
V<A> load(const A* p) {
  V<A> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <class A>
void store(A* p, V<A> v) {
  std::memcpy(p, &v, sizeof(v));
}

// rows that are prefetched ahead: they lie too far apart for the processor's own prefetcher
constexpr int64_t kAhead = 8;

template <class T>
void prefetch(const T* p, int64_t n) {
  for (int64_t k = 0; k < n; k += 64 / int64_t(sizeof(T))) __builtin_prefetch(p + k);
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A matrix of `depth` rows of `width` values, one of the strides 1, less a mean for each row or each column (or null).
template <class T, class A>
struct Matrix {
  const T* data;
  int64_t depth, width, depth_stride, width_stride;
  const A *row_shift, *column_shift;
};

// Panels dst[width / W][depth][W] of the matrix, each `panel` values large, zero past its width. buffer: kPanel values.
template <class T, class A>
void pack(const Matrix<T, A>& m, A* dst, int64_t panel, A* buffer) {
  constexpr int64_t L = kLanes<A>;
  static_assert(W % L == 0 && L * kPanelDepth <= kPanel, "vectors divide a panel");
  const int64_t padded = (m.width + W - 1) / W * W;
  if (m.width_stride == 1) {
    for (int64_t d = 0; d < m.depth; ++d) {
      const V<A> row = V<A>{} + (m.row_shift ? m.row_shift[d] : A(0));
      for (int64_t w = 0; w < padded; w += W) {
        const int64_t n = least(W, m.width - w);
        const T* from = m.data + d * m.depth_stride + w;
        const A* src = load_row<T, A>(from, buffer, n);
        A* to = dst + w / W * panel + d * W;
        if (d + kAhead < m.depth) prefetch(from + kAhead * m.depth_stride, n);
        if (n == W) {
#pragma GCC unroll 16
          for (int64_t k = 0; k < W; k += L) store(to + k, load(src + k) - row);
        } else {
          for (int64_t k = 0; k < W; ++k) to[k] = k < n ? src[k] - row[0] : A(0);
        }
        for (int64_t k = 0; m.column_shift && k < n; ++k) to[k] -= m.column_shift[w + k];
      }
    }
    return;
  }
  for (int64_t w = 0; w < padded; w += L) {
    A* to = dst + w / W * panel + w % W;
    const A* rows[L];
    A shift[L];
    for (int64_t k = 0; k < L; ++k) {
      const int64_t column = least(w + k, m.width - 1);
      rows[k] = load_row<T, A>(m.data + column * m.width_stride, buffer + k * kPanelDepth, m.depth);
      if (column + L < m.width) prefetch(m.data + (column + L) * m.width_stride, m.depth);
      shift[k] = m.column_shift ? m.column_shift[column] : A(0);
    }
    int64_t d = 0;
    for (; w + L <= m.width && d + L <= m.depth; d += L) {
      V<A> block[L];
#pragma GCC unroll 16
      for (int64_t k = 0; k < L; ++k) block[k] = load(rows[k] + d) - shift[k];
      transpose<A, L>(block);
#pragma GCC unroll 16
      for (int64_t k = 0; k < L; ++k) store(to + (d + k) * W, block[k]);
    }
    for (; d < m.depth; ++d) {
      for (int64_t k = 0; k < L; ++k) to[d * W + k] = w + k < m.width ? rows[k][d] - shift[k] : A(0);
    }
    for (d = 0; m.row_shift && d < m.depth; ++d) {
      for (int64_t k = 0; k < L; ++k) to[d * W + k] -= w + k < m.width ? m.row_shift[d] : A(0);
    }
  }
}

// tile[r][W] (+)= the products of rows [depth][W] of two panels, for r < rows; on the diagonal only up to it.
template <class A>
void multiply_panels(const A* left, const A* right, A* tile, int64_t depth, int64_t rows, bool diagonal, bool add) {
  constexpr int64_t L = kLanes<A>;
  static_assert(W % kRows == 0 && W % (2 * L) == 0, "a panel is whole vectors and rows");
  for (int64_t r = 0; r < rows; r += kRows) {
    const int64_t lanes = diagonal ? r + kRows : W;
    for (int64_t lane = 0; lane < lanes; lane += 2 * L) {
      A* to = tile + r * W + lane;
      if (lane + L < lanes) {
        multiply<2, W, W, W, A>(left + r, right + lane, to, depth, add, nullptr);
      } else {
        multiply<1, W, W, W, A>(left + r, right + lane, to, depth, add, nullptr);
      }
    }
  }
}

}  // namespace
}  // namespace IMGOPS_ISA
}  // namespace imgops
