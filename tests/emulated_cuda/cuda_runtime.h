// CUDA's execution model on one CPU thread: a fiber for each thread of a block, blocks one after the other.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) alignas(n)

struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
using std::min;
using cudaStream_t = void*;
using cudaError_t = int;
struct dim3 {
  unsigned x;
  dim3(unsigned n = 1) : x(n) {}
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};
constexpr int cudaDevAttrMultiProcessorCount = 0;
inline int cudaDeviceGetAttribute(int* value, int, int) { return *value = 2, 0; }
inline int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) { return *stream = nullptr, 0; }
inline int32_t torch_c10_cuda_check_msg(int32_t, const char*, const char*, uint32_t, bool, char** message) {
  return *message = nullptr, 0;
}
inline void torch_c10_cuda_free_error_msg(char*) {}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;
alignas(16) inline unsigned char emulated_shared[1 << 16];

namespace emulation {

// Threads that wait for each other.
struct Group {
  int size = 0, arrived = 0, generation = 0;
  uint64_t slots[32];
};
struct Fiber {
  // the first entry; from then on it is left and resumed by jumps, which cost no system call
  ucontext_t context;
  jmp_buf resume;
  std::vector<char> stack = std::vector<char>(1 << 16);
  bool started = false, done = false;
};
inline std::vector<Fiber> fibers(1024);
inline jmp_buf scheduler;
inline std::vector<Group> warps;
inline Group block;
inline std::function<void()> body;
inline unsigned current;
inline bool progress;

inline void wait(Group& group) {
  const int generation = group.generation;
  progress = true;
  if (++group.arrived == group.size) {
    group.arrived = 0;
    ++group.generation;
    return;
  }
  while (group.generation == generation) {
    if (_setjmp(fibers[current].resume) == 0) _longjmp(scheduler, 1);
  }
}

inline void enter() {
  body();
  fibers[current].done = true;
  progress = true;
  _longjmp(scheduler, 1);
}

// Run a thread until it waits or ends.
[[gnu::noinline]] inline void resume(unsigned i) {
  current = i;
  threadIdx.x = i;
  Fiber& f = fibers[i];
  if (_setjmp(scheduler) != 0) return;
  if (f.started) _longjmp(f.resume, 1);
  f.started = true;
  setcontext(&f.context);
}

template <class T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  Group& warp = warps[current / 32];
  std::memcpy(&warp.slots[current % 32], &value, sizeof(T));
  wait(warp);
  T result;
  std::memcpy(&result, &warp.slots[from], sizeof(T));
  wait(warp);
  return result;
}

inline void run_block(unsigned threads) {
  block = {};
  block.size = int(threads);
  warps.assign(threads / 32, Group{});
  for (Group& warp : warps) warp.size = 32;
  // shared memory is not zero on a GPU either
  std::memset(emulated_shared, 0xff, sizeof emulated_shared);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& f = fibers[i];
    f.started = f.done = false;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  // a missing barrier shows in one order or the other
  static bool backwards = false;
  backwards = !backwards;
  for (unsigned left = threads; left > 0;) {
    progress = false;
    left = 0;
    for (unsigned turn = 0; turn < threads; ++turn) {
      const unsigned i = backwards ? threads - 1 - turn : turn;
      if (fibers[i].done) continue;
      ++left;
      resume(i);
    }
    if (left > 0 && !progress) {
      std::fprintf(stderr, "threads of a block wait for others that never come\n");
      std::abort();
    }
  }
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::block); }
inline void __syncwarp() { emulation::wait(emulation::warps[emulation::current / 32]); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::exchange(value, (emulation::current % 32) ^ unsigned(mask));
}
template <class T>
T __shfl_down_sync(unsigned, T value, int distance) {
  const unsigned lane = emulation::current % 32, from = lane + unsigned(distance);
  return emulation::exchange(value, from < 32 ? from : lane);
}
inline bool __all_sync(unsigned, bool value) {
  bool all = true;
  for (unsigned lane = 0; lane < 32; ++lane) all &= emulation::exchange(value, lane);
  return all;
}

template <class... P, class... Q>
int cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), const Q&... arguments) {
  if (config->dynamicSmemBytes > 48 * 1024) std::abort();
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  emulation::body = [&] { kernel(arguments...); };
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) emulation::run_block(blockDim.x);
  return 0;
}
