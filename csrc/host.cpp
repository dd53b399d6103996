// What a schema cannot say: how the extension was built, and what the CPU can do.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu/common/capability.h"
#include "imgops/rank_one.h"

namespace py = pybind11;

namespace {

std::map<std::string, bool> cpu_features() {
  std::map<std::string, bool> features;
#ifdef IMGOPS_X86
  __builtin_cpu_init();
  features["avx2"] = __builtin_cpu_supports("avx2");
  features["fma"] = __builtin_cpu_supports("fma");
  features["avx512f"] = __builtin_cpu_supports("avx512f");
  features["avx512bw"] = __builtin_cpu_supports("avx512bw");
  features["avx512vl"] = __builtin_cpu_supports("avx512vl");
  features["avx512dq"] = __builtin_cpu_supports("avx512dq");
  features["avx512vnni"] = __builtin_cpu_supports("avx512vnni");
  features["amx"] = imgops::detect_amx();
#endif
  return features;
}

std::map<std::string, std::string> build_info() {
  std::map<std::string, std::string> info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["standard"] = std::to_string(__cplusplus);
#ifdef IMGOPS_X86
  info["instruction_sets"] = "baseline avx2 avx512";
#else
  info["instruction_sets"] = "baseline";
#endif
  return info;
}

using Factors = std::pair<std::vector<double>, std::vector<double>>;

std::optional<Factors> rank_one_factors(const std::vector<std::vector<double>>& f) {
  const size_t h = f.size(), w = h ? f[0].size() : 0;
  std::vector<double> flat;
  for (const auto& row : f) {
    if (row.size() != w) throw py::value_error("f must be a rectangle: every row of the same length");
    flat.insert(flat.end(), row.begin(), row.end());
  }
  if (flat.empty()) throw py::value_error("f must not be empty");
  Factors factors{std::vector<double>(h), std::vector<double>(w)};
  const bool separable = imgops::rank_one<double>(flat.data(), h, w, imgops::kRankOneToleranceFloat,
                                                  factors.first.data(), factors.second.data());
  return separable ? std::optional<Factors>(factors) : std::nullopt;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "How imgops was built and what the CPU can do.";
  m.def("cpu_features", &cpu_features,
        "The instruction sets that the kernels ask about, and whether this CPU has each.");
  m.def(
      "simd_level", [] { return imgops::kCapabilityNames[static_cast<int>(imgops::cpu_capability())]; },
      "The instruction set in use: baseline, avx2, avx512 or amx; IMGOPS_SIMD may lower it.");
  m.def("build_info", &build_info, "The compiler, the C++ standard and the instruction sets built.");
  m.def("rank_one_factors", &rank_one_factors, py::arg("f"),
        "(column, row) with f = outer(column, row) to float32 precision, or None: whether a 2-D filter runs as a "
        "separable one.");
}
