// Winograd's transforms along an axis; compiled once per instruction set.
#pragma once

#include "cpu/common/vectors.h"

namespace imgops {
namespace IMGOPS_ISA {

// An axis of a convolution in tiles: kPixels outputs from kInputs inputs, which start kStep after those of the tile
// before. Of its kProducts products, number p is of transformed input kTile[p] (of kTransformed) and transformed weight
// kWeight[p] (of kWeights). The gradient for a weight multiplies the transformed input by what output_adjoint makes of the
// outputs' gradient, number kOutput[p] (of kAdjoints), and transforms the sums back with weight_adjoint.

// y[j] = sum_k d[j + k] w[k] by F(4, 3), from the values of polynomials at 0, +-a, +-b and infinity. With a = 3/4 and
// b = 3/2 the rounding error is half of that with 1 and 2, the usual choice; all constants but the reciprocals are exact.
struct Plain {
  static constexpr int64_t kProducts = 6, kInputs = 6, kStep = 4, kPixels = 4, kTransformed = 6, kWeights = 6,
                           kAdjoints = 6;
  static constexpr int64_t kTile[] = {0, 1, 2, 3, 4, 5}, kWeight[] = {0, 1, 2, 3, 4, 5}, kOutput[] = {0, 1, 2, 3, 4, 5};
  static constexpr float a = 0.75f, b = 1.5f, a2 = a * a, b2 = b * b;
  // the polynomial that is zero at all points but one: its value at that one
  static constexpr float at_0 = a2 * b2, at_a = 2 * a2 * (a2 - b2), at_b = 2 * b2 * (b2 - a2);
  // 1 / value, in the type of the elements of A's vectors
  template <class A>
  static constexpr auto over(float value) {
    return decltype(A{}[0] + A{}[0])(1) / value;
  }
  template <class A>
  static void input(const A (&d)[6], A (&t)[6]) {
    const A even_a = d[4] - d[2] * b2, odd_a = (d[3] - d[1] * b2) * a;
    const A even_b = d[4] - d[2] * a2, odd_b = (d[3] - d[1] * a2) * b;
    t[0] = d[0] * at_0 + (d[4] - d[2] * (a2 + b2)), t[5] = d[1] * at_0 + (d[5] - d[3] * (a2 + b2));
    t[1] = even_a + odd_a, t[2] = even_a - odd_a, t[3] = even_b + odd_b, t[4] = even_b - odd_b;
  }
  template <class A>
  static void weight(const A (&w)[3], A (&u)[6]) {
    const A even_a = w[0] + w[2] * a2, odd_a = w[1] * a, even_b = w[0] + w[2] * b2, odd_b = w[1] * b;
    u[0] = w[0] * over<A>(at_0), u[5] = w[2];
    u[1] = (even_a + odd_a) * over<A>(at_a), u[2] = (even_a - odd_a) * over<A>(at_a);
    u[3] = (even_b + odd_b) * over<A>(at_b), u[4] = (even_b - odd_b) * over<A>(at_b);
  }
  template <class A>
  static void output(const A (&m)[6], A (&y)[4]) {
    const A even_a = m[1] + m[2], odd_a = (m[1] - m[2]) * a, even_b = m[3] + m[4], odd_b = (m[3] - m[4]) * b;
    y[0] = m[0] + even_a + even_b, y[1] = odd_a + odd_b;
    y[2] = even_a * a2 + even_b * b2, y[3] = odd_a * a2 + odd_b * b2 + m[5];
  }
  template <class A>
  static void output_adjoint(const A (&y)[4], A (&m)[6]) {
    const A even_a = y[0] + y[2] * a2, odd_a = (y[1] + y[3] * a2) * a;
    const A even_b = y[0] + y[2] * b2, odd_b = (y[1] + y[3] * b2) * b;
    m[0] = y[0], m[5] = y[3];
    m[1] = even_a + odd_a, m[2] = even_a - odd_a, m[3] = even_b + odd_b, m[4] = even_b - odd_b;
  }
  template <class A>
  static void weight_adjoint(const A (&u)[6], A (&w)[3]) {
    const A even_a = (u[1] + u[2]) * over<A>(at_a), even_b = (u[3] + u[4]) * over<A>(at_b);
    w[0] = u[0] * over<A>(at_0) + even_a + even_b;
    w[1] = (u[1] - u[2]) * (over<A>(at_a) * a) + (u[3] - u[4]) * (over<A>(at_b) * b);
    w[2] = even_a * a2 + even_b * b2 + u[5];
  }
};

// y[j] = sum_k d[2 j + k] w[k]: what the even inputs give by F(2, 2), the odd ones as they are
struct Strided {
  static constexpr int64_t kProducts = 5, kInputs = 5, kStep = 4, kPixels = 2, kTransformed = 5, kWeights = 4,
                           kAdjoints = 3;
  static constexpr int64_t kTile[] = {0, 1, 2, 3, 4}, kWeight[] = {0, 1, 2, 3, 3}, kOutput[] = {0, 1, 2, 0, 2};
  template <class A>
  static void input(const A (&d)[5], A (&t)[5]) {
    t[0] = d[0] - d[2], t[1] = d[2], t[2] = d[4] - d[2], t[3] = d[1], t[4] = d[3];
  }
  template <class A>
  static void weight(const A (&w)[3], A (&u)[4]) {
    u[0] = w[0], u[1] = w[0] + w[2], u[2] = w[2], u[3] = w[1];
  }
  template <class A>
  static void output(const A (&m)[5], A (&y)[2]) {
    y[0] = m[0] + m[1] + m[3], y[1] = m[1] + m[2] + m[4];
  }
  template <class A>
  static void output_adjoint(const A (&y)[2], A (&m)[3]) {
    m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[1];
  }
  template <class A>
  static void weight_adjoint(const A (&u)[4], A (&w)[3]) {
    w[0] = u[0] + u[1], w[1] = u[3], w[2] = u[1] + u[2];
  }
};

// Of stride 2, transposed, from inputs a - 1, a, a + 1: the even outputs y[0] = d[0] w[2] + d[1] w[0] and
// y[2] = d[1] w[2] + d[2] w[0] by F(2, 2), the odd ones y[1] = d[1] w[1] and y[3] = d[2] w[1] as they are.
// It has no adjoint, as its weight's gradient is that of the strided convolution which takes outputs to inputs.
struct Transposed {
  static constexpr int64_t kProducts = 5, kInputs = 3, kStep = 2, kPixels = 4, kTransformed = 4, kWeights = 4;
  static constexpr int64_t kTile[] = {0, 1, 2, 1, 3}, kWeight[] = {0, 1, 2, 3, 3};
  template <class A>
  static void input(const A (&d)[3], A (&t)[4]) {
    t[0] = d[0] - d[1], t[1] = d[1], t[2] = d[2] - d[1], t[3] = d[2];
  }
  template <class A>
  static void weight(const A (&w)[3], A (&u)[4]) {
    u[0] = w[2], u[1] = w[0] + w[2], u[2] = w[0], u[3] = w[1];
  }
  template <class A>
  static void output(const A (&m)[5], A (&y)[4]) {
    y[0] = m[0] + m[1], y[1] = m[3], y[2] = m[1] + m[2], y[3] = m[4];
  }
};

// The same from an odd output on, as an odd padding leaves it, from inputs a, a + 1, a + 2: the odd outputs
// y[0] = d[0] w[1] and y[2] = d[1] w[1], the even ones y[1] and y[3] as above.
struct OddTransposed : Transposed {
  static constexpr int64_t kTile[] = {0, 1, 2, 3, 1};
  template <class A>
  static void input(const A (&d)[3], A (&t)[4]) {
    t[0] = d[0] - d[1], t[1] = d[1], t[2] = d[2] - d[1], t[3] = d[0];
  }
  template <class A>
  static void output(const A (&m)[5], A (&y)[4]) {
    y[0] = m[3], y[1] = m[0] + m[1], y[2] = m[4], y[3] = m[1] + m[2];
  }
};

// y[j] = sum_k d[(j + k) / 2] w[k], a plain convolution of repeated values from d[0] d[0] d[1] d[1] d[2] d[2] on. Outputs
// y[1] and y[3] are d[0] w[0] + d[1] (w[1] + w[2]) and the same of the next inputs, y[0] and y[2] likewise with
// w[0] + w[1] and w[2]: each pair by F(2, 2), whose products in the middle, of d[1] and all weights, are the same.
struct Repeated {
  static constexpr int64_t kProducts = 5, kInputs = 3, kStep = 2, kPixels = 4, kTransformed = 3, kWeights = 5;
  static constexpr int64_t kTile[] = {0, 0, 1, 2, 2}, kWeight[] = {0, 1, 2, 3, 4};
  template <class A>
  static void input(const A (&d)[3], A (&t)[3]) {
    t[0] = d[0] - d[1], t[1] = d[1], t[2] = d[2] - d[1];
  }
  template <class A>
  static void weight(const A (&w)[3], A (&u)[5]) {
    u[0] = w[0] + w[1], u[1] = w[0], u[2] = u[0] + w[2], u[3] = w[1] + w[2], u[4] = w[2];
  }
  template <class A>
  static void output(const A (&m)[5], A (&y)[4]) {
    y[0] = m[0] + m[2], y[1] = m[1] + m[2], y[2] = m[2] + m[4], y[3] = m[2] + m[3];
  }
};

// Call f(t, n, sample, ty, tx) for each run of n tiles side by side among `count` from number `first` on; t is how many
// come before it. p: a plan, whose tiles lie in rows.
template <class Plan, class F>
inline void for_runs(const Plan& p, int64_t first, int64_t count, const F& f) {
  const int64_t width = p.tiles_x(), height = p.tiles_y();
  int64_t tx = first % width, ty = first / width % height, sample = first / width / height;
  for (int64_t t = 0; t < count;) {
    const int64_t n = width - tx < count - t ? width - tx : count - t;
    f(t, n, sample, ty, tx);
    t += n;
    tx = 0;
    if (++ty == height) ty = 0, ++sample;
  }
}

// t = the transform of d along both axes, by its one-dimensional form f(from, to)
template <int64_t from, int64_t to, class V, class F>
inline void along_both_axes(const V (&d)[from][from], V (&t)[to][to], const F& f) {
  V half[to][from];
#pragma GCC unroll 6
  for (int64_t c = 0; c < from; ++c) {
    V column[from], transformed[to];
#pragma GCC unroll 6
    for (int64_t r = 0; r < from; ++r) column[r] = d[r][c];
    f(column, transformed);
#pragma GCC unroll 6
    for (int64_t r = 0; r < to; ++r) half[r][c] = transformed[r];
  }
#pragma GCC unroll 6
  for (int64_t r = 0; r < to; ++r) f(half[r], t[r]);
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
