// Tasks on libtorch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <exception>
#include <mutex>

namespace imgops {

// f(begin, end) for parts of a range, as torch::stable::parallel_for, which loses what f throws; here it arrives.
template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  std::exception_ptr error;
  std::mutex mutex;
  torch::stable::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) {
    try {
      f(from, to);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace imgops
