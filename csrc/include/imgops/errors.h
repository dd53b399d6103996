// Exceptions that keep their reason on the way to Python.
#pragma once

#include <torch/csrc/stable/library.h>

#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#ifdef __linux__
// exported by libtorch from 2.13 on
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();
#endif

namespace imgops {

// The message of an error. A failed call into libtorch returns only a code, so libtorch is asked for its message.
inline std::string reason_of(const std::exception& error) {
  const std::string said = error.what();
#ifdef __linux__
  if (torch_exception_get_what_without_backtrace != nullptr && said.find("API call failed") != std::string::npos) {
    const char* const reason = torch_exception_get_what_without_backtrace();
    if (reason != nullptr && *reason != '\0') return reason;
  }
#endif
  return said;
}

[[noreturn]] inline void out_of_memory(size_t bytes) {
  throw std::runtime_error("imgops: out of memory: " + std::to_string(bytes) + " bytes cannot be allocated");
}

// Wraps a kernel so that its errors carry their reason.
template <auto kKernel>
struct Explained;

template <class R, class... P, R (*kKernel)(P...)>
struct Explained<kKernel> {
  static R call(P... arguments) {
    try {
      return kKernel(std::forward<P>(arguments)...);
    } catch (const std::bad_alloc&) {
      throw std::runtime_error("imgops: out of memory for what a kernel works in");
    } catch (const std::exception& error) {
      throw std::runtime_error(reason_of(error));
    }
  }
};

#define IMGOPS_BOX(kernel) TORCH_BOX(&imgops::Explained<kernel>::call)

}  // namespace imgops
