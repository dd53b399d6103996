// The weights of a convolution by Winograd's algorithm, transformed; compiled once per instruction set.
#pragma once

#include <cstring>

#include "winograd.h"
#include "winograd_axes.h"

namespace imgops {
namespace IMGOPS_ISA {

// Transform the 3 x 3 weights of an output block and an input block of a convolution along both axes, to
// dst[kWeights * kWeights], `stride` apart, of inputs, `row` apart, of the block's outputs.
template <class Axis, class A>
inline void transform_weights(const Winograd& p, int64_t convolution, int64_t o, int64_t block, A* dst, int64_t row,
                              int64_t stride) {
  constexpr int64_t R = kWinogradOutputs, K = Axis::kWeights;
  using V = typename Vector<A, R>::type;
  static_assert(R == 8, "eight of the nine taps are transposed");
  const int64_t* s = p.weight_strides;
  const int64_t inputs = p.block_inputs(), first = block * inputs;
  const int64_t end = p.inputs - first < inputs ? p.inputs : first + inputs;
  const A *weight = static_cast<const A*>(p.weight) + (convolution * p.outputs + o * R) * s[0], *rows[R];
  // lanes past the last output hold the first weights again; their sums are never read
  for (int64_t r = 0; r < R; ++r) rows[r] = weight + (o * R + r < p.outputs ? r * s[0] : 0);
  const bool dense = s[2] == 3 && s[3] == 1;
  for (int64_t i = first; i < end; ++i) {
    // eight taps of each output, transposed, and the ninth
    V m[R], ninth, transformed[K][K];
#pragma GCC unroll 8
    for (int64_t r = 0; r < R; ++r) {
      const A* taps = rows[r] + i * s[1];
      // prefetch the same of the next output block: rows are too short for the processor to prefetch by itself
      __builtin_prefetch(taps + R * s[0]);
      ninth[r] = taps[2 * s[2] + 2 * s[3]];
      if (dense) {
        std::memcpy(&m[r], taps, sizeof(V));
      } else {
        for (int64_t k = 0; k < R; ++k) m[r][k] = taps[k / 3 * s[2] + k % 3 * s[3]];
      }
    }
    transpose<A, R>(m);
    const V taps[3][3] = {{m[0], m[1], m[2]}, {m[3], m[4], m[5]}, {m[6], m[7], ninth}};
    along_both_axes(taps, transformed, [](const auto& from, auto& to) { Axis::weight(from, to); });
    A* to = dst + (i - first) * row;
#pragma GCC unroll 36
    for (int64_t k = 0; k < K * K; ++k) std::memcpy(to + k * stride, &transformed[k / K][k % K], sizeof(V));
  }
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
