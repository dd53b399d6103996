// The CPU kernels that library.cpp registers.
#pragma once

#include "tensors.h"

namespace imgops {

Tensor bias_act_cpu(const Tensor& x, int64_t dim, const OptionalTensor& b, const OptionalTensor& scale,
                    const OptionalTensor& noise, std::string act, double alpha, double gain, double clamp);

std::tuple<Tensor, Tensor, Tensor, Tensor> bias_act_backward_cpu(const Tensor& dy, const OptionalTensor& x,
                                                                 const OptionalTensor& y, int64_t dim,
                                                                 const OptionalTensor& b, const OptionalTensor& scale,
                                                                 const OptionalTensor& noise, std::string act,
                                                                 double alpha, double gain, double clamp, bool needs_b,
                                                                 bool needs_scale, bool needs_noise);

Tensor upfirdn2d_cpu(const Tensor& x, const OptionalTensor& f, std::vector<int64_t> up, std::vector<int64_t> down,
                     std::vector<int64_t> padding, bool flip_filter, double gain);

std::tuple<Tensor, Tensor> upfirdn2d_bias_act_cpu(const Tensor& x, const OptionalTensor& f, std::vector<int64_t> up,
                                                  std::vector<int64_t> down, std::vector<int64_t> padding,
                                                  bool flip_filter, double gain, const OptionalTensor& b,
                                                  const OptionalTensor& scale, const OptionalTensor& noise,
                                                  std::string act, double alpha, double act_gain, double clamp,
                                                  bool keep);

std::tuple<Tensor, Tensor> filtered_lrelu_cpu(const Tensor& x, const OptionalTensor& fu, const OptionalTensor& fd,
                                              const OptionalTensor& b, int64_t up, int64_t down,
                                              std::vector<int64_t> padding, double gain, double slope, double clamp,
                                              bool flip_filter, bool keep);

Tensor filtered_lrelu_slopes_cpu(const Tensor& x, const Tensor& sign_mask, const OptionalTensor& fu,
                                 const OptionalTensor& fd, int64_t up, int64_t down, std::vector<int64_t> padding_up,
                                 std::vector<int64_t> padding_down, bool flip_filter, double gain_up, double gain_down,
                                 double gain, double slope);

std::tuple<Tensor, Tensor> fused_conv2d_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& styles,
                                            int64_t stride, std::vector<int64_t> padding, int64_t up, int64_t groups,
                                            const OptionalTensor& residual, double residual_scale,
                                            const OptionalTensor& b, const OptionalTensor& scale,
                                            const OptionalTensor& noise, std::string act, double alpha, double gain,
                                            double clamp, bool keep);

Tensor concat_conv2d_cpu(std::vector<Tensor> parts, const Tensor& weight, int64_t nearest, std::vector<int64_t> padding,
                         const OptionalTensor& residual, double residual_scale, const OptionalTensor& b,
                         const OptionalTensor& scale, const OptionalTensor& noise, std::string act, double alpha,
                         double gain, double clamp);

Tensor conv2d_weight_gradient_cpu(const Tensor& dy, const Tensor& x, int64_t stride, std::vector<int64_t> padding,
                                  int64_t groups, bool swapped);

std::tuple<Tensor, Tensor> depthwise_conv2d_cpu(const Tensor& x, const Tensor& weight, int64_t stride,
                                                std::vector<int64_t> padding, int64_t up, const OptionalTensor& b,
                                                const OptionalTensor& scale, const OptionalTensor& noise,
                                                std::string act, double alpha, double gain, double clamp, bool keep);

Tensor depthwise_weight_gradient_cpu(const Tensor& dy, const Tensor& x, int64_t stride, std::vector<int64_t> padding,
                                     int64_t kernel);

Tensor squared_norm_cpu(const Tensor& weight);

std::tuple<Tensor, Tensor> mean_std_cpu(const Tensor& x, double eps, bool unbiased);

Tensor adaptive_instance_norm_cpu(const Tensor& x, const Tensor& scale, const Tensor& bias, double eps, bool unbiased);

std::tuple<Tensor, Tensor, Tensor> adaptive_instance_norm_backward_cpu(const Tensor& dy, const Tensor& x,
                                                                       const Tensor& scale, double eps, bool unbiased);

std::tuple<Tensor, Tensor, Tensor> efdm_cpu(const Tensor& x, const Tensor& y, double alpha, bool keep);

std::tuple<Tensor, Tensor> sort_rows_cpu(const Tensor& x);

Tensor gram_matrix_cpu(const Tensor& x, std::string normalization);

std::tuple<Tensor, Tensor> feature_statistics_cpu(const Tensor& x);

Tensor mix_channels_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& mean, const OptionalTensor& bias);

std::tuple<Tensor, Tensor> nearest_neighbor_cpu(const Tensor& x, const Tensor& y);

Tensor grid_sample_cpu(const Tensor& x, const Tensor& positions, bool displaced, std::string padding_mode,
                       std::vector<int64_t> order);

std::tuple<Tensor, Tensor> grid_sample_backward_cpu(const Tensor& dy, const OptionalTensor& x, const Tensor& positions,
                                                    std::vector<int64_t> size, bool displaced, std::string padding_mode,
                                                    std::vector<int64_t> order, bool needs_x, bool needs_positions);

}  // namespace imgops
