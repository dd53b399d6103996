// The instruction set that the kernels run on, chosen once at run time.
#pragma once

#include <cstdlib>
#include <cstring>

#include "amx.h"

#ifdef IMGOPS_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace imgops {

// vnni: AVX-512, and its products of bytes for kernels that ask for them by uses_vnni(); amx: the same, and the tiles of
// AMX, by uses_amx()
enum class Capability : int { baseline, avx2, avx512, vnni, amx };

constexpr const char* kCapabilityNames[] = {"baseline", "avx2", "avx512", "vnni", "amx"};

// Whether the CPU multiplies tiles of bfloat16, and the system lets this process: it must ask once.
inline bool detect_amx() {
#ifdef IMGOPS_AMX
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

inline Capability detect_capability() {
#ifdef IMGOPS_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx2 && avx512 && __builtin_cpu_supports("avx512vnni")) return detect_amx() ? Capability::amx : Capability::vnni;
  if (avx2 && avx512) return Capability::avx512;
  if (avx2) return Capability::avx2;
#endif
  return Capability::baseline;
}

// The best that this CPU has, or the lesser one that the environment variable IMGOPS_SIMD names.
inline Capability cpu_capability() {
  static const Capability chosen = [] {
    const Capability best = detect_capability();
    const char* wanted = std::getenv("IMGOPS_SIMD");
    for (int i = 0; wanted && i < static_cast<int>(best); ++i) {
      if (std::strcmp(wanted, kCapabilityNames[i]) == 0) return static_cast<Capability>(i);
    }
    return best;
  }();
  return chosen;
}

inline bool uses_vnni() { return cpu_capability() >= Capability::vnni; }

inline bool uses_amx() { return cpu_capability() == Capability::amx; }

#ifdef IMGOPS_X86
// The kernel of the chosen instruction set.
#define IMGOPS_SELECT(kernel)                                         \
  (cpu_capability() >= Capability::avx512 ? &::imgops::avx512::kernel \
   : cpu_capability() == Capability::avx2 ? &::imgops::avx2::kernel   \
                                          : &::imgops::baseline::kernel)
#else
#define IMGOPS_SELECT(kernel) (&::imgops::baseline::kernel)
#endif

}  // namespace imgops
