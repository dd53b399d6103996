// The parameters of bias_act, as an op or as the epilogue of another.
#pragma once

#include "bias_act.h"
#include "cpu/common/tensors.h"

namespace imgops {

inline void fill(BiasAct& p, const Operands& t, const std::string& act, double alpha, double gain, double clamp) {
  p.b = data_of(t.b);
  p.scale = data_of(t.scale);
  p.noise = data_of(t.noise);
  p.noise_stride = t.noise_stride;
  p.act = act_of(act);
  p.alpha = alpha;
  p.gain = gain;
  p.clamp = clamp;
}

}  // namespace imgops
