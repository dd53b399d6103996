// Whether the compiler knows the tiles of AMX; free of frameworks. Functions that use them are marked IMGOPS_AMX.
#pragma once

#if defined(IMGOPS_X86) && defined(__linux__) && defined(__x86_64__)
#if (defined(__clang__) && __clang_major__ >= 16) || (!defined(__clang__) && __GNUC__ >= 12)
#define IMGOPS_AMX __attribute__((target("amx-tile,amx-bf16")))
#endif
#endif
