// The activations of bias_act and their slopes, shared by the CPU and CUDA kernels.
#pragma once

#include <type_traits>

#include "math.h"

namespace imgops {

enum class Act : int { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish, hardswish };

constexpr const char* kActNames[] = {"linear", "relu", "lrelu",    "tanh",  "sigmoid",
                                     "elu",    "selu", "softplus", "swish", "hardswish"};
constexpr int kActCount = 10;

// Index of an activation's name, or -1.
inline int act_index(const char* name) {
  for (int i = 0; i < kActCount; ++i) {
    if (std::strcmp(name, kActNames[i]) == 0) return i;
  }
  return -1;
}

constexpr double kSeluAlpha = 1.6732632423543772, kSeluScale = 1.0507009873554805;

template <class A>
IMGOPS_HD A sigmoid(A z) {
  return A(1) / (A(1) + exp_(-z));
}

// act(z)
template <Act act, class A>
IMGOPS_HD A activate(A z, A alpha) {
  if constexpr (act == Act::linear) return z;
  // NaN fails the comparison, so the branch that returns z must be the one taken on failure
  if constexpr (act == Act::relu) return z < A(0) ? A(0) : z;
  if constexpr (act == Act::lrelu) return z > A(0) ? z : z * alpha;
  if constexpr (act == Act::tanh) return tanh_(z);
  if constexpr (act == Act::sigmoid) return sigmoid(z);
  if constexpr (act == Act::elu) return z > A(0) ? z : expm1_(z);
  if constexpr (act == Act::selu) return A(kSeluScale) * (z > A(0) ? z : A(kSeluAlpha) * expm1_(z));
  if constexpr (act == Act::softplus) {
    const A magnitude = z < A(0) ? -z : z;
    return (z < A(0) ? A(0) : z) + log1p_(exp_(-magnitude));
  }
  if constexpr (act == Act::swish) return z * sigmoid(z);
  if constexpr (act == Act::hardswish) {
    const A above = z + A(3);
    return z * (above < A(0) ? A(0) : above > A(6) ? A(6) : above) * A(1. / 6);
  }
}

// d act(z) / dz
template <Act act, class A>
IMGOPS_HD A slope(A z, A alpha) {
  if constexpr (act == Act::linear) return A(1);
  if constexpr (act == Act::relu) return z > A(0) ? A(1) : A(0);
  if constexpr (act == Act::lrelu) return z > A(0) ? A(1) : alpha;
  if constexpr (act == Act::tanh) {
    const A t = tanh_(z);
    return A(1) - t * t;
  }
  if constexpr (act == Act::sigmoid) {
    const A s = sigmoid(z);
    return s * (A(1) - s);
  }
  if constexpr (act == Act::elu) return z > A(0) ? A(1) : exp_(z < A(0) ? z : A(0));
  if constexpr (act == Act::selu) return A(kSeluScale) * (z > A(0) ? A(1) : A(kSeluAlpha) * exp_(z < A(0) ? z : A(0)));
  if constexpr (act == Act::softplus) return sigmoid(z);
  if constexpr (act == Act::swish) {
    const A s = sigmoid(z);
    return s * (A(1) + z * (A(1) - s));
  }
  if constexpr (act == Act::hardswish) return z <= A(-3) ? A(0) : z < A(3) ? z * A(1. / 3) + A(0.5) : A(1);
}

// Call f with the activation as a compile-time constant.
template <class F>
IMGOPS_DEVICE void with_act(Act act, const F& f) {
  switch (act) {
    case Act::linear: return f(std::integral_constant<Act, Act::linear>{});
    case Act::relu: return f(std::integral_constant<Act, Act::relu>{});
    case Act::lrelu: return f(std::integral_constant<Act, Act::lrelu>{});
    case Act::tanh: return f(std::integral_constant<Act, Act::tanh>{});
    case Act::sigmoid: return f(std::integral_constant<Act, Act::sigmoid>{});
    case Act::elu: return f(std::integral_constant<Act, Act::elu>{});
    case Act::selu: return f(std::integral_constant<Act, Act::selu>{});
    case Act::softplus: return f(std::integral_constant<Act, Act::softplus>{});
    case Act::swish: return f(std::integral_constant<Act, Act::swish>{});
    case Act::hardswish: return f(std::integral_constant<Act, Act::hardswish>{});
  }
}

}  // namespace imgops
