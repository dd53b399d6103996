// The CPU kernels that library.cpp registers.
#pragma once

#include "tensors.h"

namespace imgops {

Tensor bias_act_cpu(const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise,
                    int64_t dim, std::string act, double alpha, double gain, double clamp);

std::tuple<Tensor, Tensor, Tensor, Tensor> bias_act_backward_cpu(
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b,
    const OptionalTensor& scale, const OptionalTensor& noise, int64_t dim, std::string act, double alpha, double gain,
    double clamp, bool needs_b, bool needs_scale, bool needs_noise);

Tensor upfirdn2d_cpu(const Tensor& x, const OptionalTensor& f, std::vector<int64_t> up, std::vector<int64_t> down,
                     std::vector<int64_t> padding, bool flip_filter, double gain);

std::tuple<Tensor, Tensor> upfirdn2d_bias_act_cpu(const Tensor& x, const OptionalTensor& f, std::vector<int64_t> up,
                                                  std::vector<int64_t> down, std::vector<int64_t> padding,
                                                  bool flip_filter, double gain, const OptionalTensor& b,
                                                  const OptionalTensor& scale, const OptionalTensor& noise,
                                                  std::string act, double alpha, double act_gain, double clamp,
                                                  bool keep);

std::tuple<Tensor, Tensor> fused_conv2d_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& styles,
                                            const OptionalTensor& demod, const OptionalTensor& noise,
                                            const OptionalTensor& b, std::string act, double alpha, double gain,
                                            double clamp, int64_t stride, std::vector<int64_t> padding, int64_t up,
                                            bool keep);

Tensor conv2d_weight_gradient_cpu(const Tensor& dy, const Tensor& x, int64_t stride, std::vector<int64_t> padding);

Tensor weight_energy_cpu(const Tensor& weight);

Tensor grid_sample_cpu(const Tensor& x, const Tensor& positions, bool displaced, std::string padding_mode,
                       std::vector<int64_t> order);

std::tuple<Tensor, Tensor> grid_sample_backward_cpu(const Tensor& dy, const OptionalTensor& x, const Tensor& positions,
                                                    std::vector<int64_t> size, bool displaced, std::string padding_mode,
                                                    std::vector<int64_t> order, bool needs_x, bool needs_positions);

}  // namespace imgops
