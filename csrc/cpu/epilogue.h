// The bias_act that another op ends with.
#pragma once

#include "bias_act.h"
#include "tensors.h"

namespace imgops {

// The epilogue's operands, alive as long as the plan that points at them.
class Epilogue {
 public:
  // of an output like `like`, of the given size
  Epilogue(const Tensor& like, const std::vector<int64_t>& size, const OptionalTensor& b, const OptionalTensor& scale,
           const OptionalTensor& noise, const std::string& act, double alpha, double gain, double clamp)
      : act_(act_of(act)), alpha_(alpha), gain_(gain), clamp_(clamp) {
    const int64_t samples = noise.has_value() && noise->dim() > 0 ? noise->size(0) : 1;
    STD_TORCH_CHECK(samples == 1 || samples == size[0], "imgops: noise must have 1 or N samples");
    b_ = operand(b, like, "b", size[1]);
    scale_ = operand(scale, like, "scale", size[0] * size[1]);
    noise_ = operand(noise, like, "noise", samples * size[2] * size[3]);
  }

  void fill(BiasAct& e, const std::vector<int64_t>& size) const {
    e.channels = size[1];
    e.act = act_;
    e.alpha = alpha_;
    e.gain = gain_;
    e.clamp = clamp_;
    e.b = data_of(b_);
    e.scale = data_of(scale_);
    e.noise = data_of(noise_);
    e.noise_stride = noise_.has_value() && noise_->size(0) > 1 ? size[2] * size[3] : 0;
  }

 private:
  OptionalTensor b_, scale_, noise_;
  Act act_;
  double alpha_, gain_, clamp_;
};

}  // namespace imgops
