"""Registers, spills, shared memory and instructions of every GPU kernel on every target, with no GPU.

``python -m benchmarks.gpu.resources`` runs Triton's launchers on representative inputs with each launch turned into a
compilation: exactly what a GPU of the target would run, the same specialisation of arguments, the same configuration.
It disassembles these kernels and those of the CUDA extension, and writes build/gpu_resources.json, or with ``--record``
the one in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from imgops.kernels import adain, bias_act, filtered_lrelu, fused_conv2d, gram_matrix, grid_sample, upfirdn2d
from torch import Tensor
from triton.backends.compiler import GPUTarget

from imgops import _backend
from imgops._epilogue import Epilogue

from ..record import BUILD, RESULTS, add_out

REPORT = RESULTS / "gpu_resources.json"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LRELU = ("lrelu", 0.2, 2**0.5, 256.0)
#: of the CUDA extension as it is built unless TORCH_CUDA_ARCH_LIST says otherwise
CUDA_TARGETS = ("sm_80", "sm_90", "sm_100")
#: instructions that move global memory: what they do, and how much at once
PTX_TRANSFER = re.compile(r"\b(ld|st)\.global(?:\.[a-zA-Z][\w:]*)*?(?:\.v(\d))?\.[bfus](\d+)\b")
PTX_COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (\w+)")
SASS_TRANSFER = re.compile(r"\b(LDG|LDGSTS|STG)\.([\w.]+)")
AMD_TRANSFER = re.compile(r"\b(?:global|buffer)_(load|store)_(\w+)")
SASS_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)([^;]*);")
MATRIX_INSTRUCTION = re.compile(r"\b(wgmma|tcgen05)\.mma|\bmma\.sync|\bv_mfma_")


class Launch(NamedTuple):
    """One launch: the launcher's problem, the kernel, its programs, and the values of its largest tensor."""

    problem: str
    kernel: Any
    programs: int
    values: int


class _Driver:
    """Stands for a GPU of the target, as far as compilation asks."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return f"{self.target.backend}{self.target.arch}"

    def get_current_stream(self, device: str) -> int:
        return 0


def deterministic(call: Callable[[], Any]) -> Any:
    """The call where PyTorch is to be deterministic."""
    torch.use_deterministic_algorithms(True)
    try:
        return call()
    finally:
        torch.use_deterministic_algorithms(False)


def launches(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, call of a launcher) for shapes of StyleGAN2 and 3 and of VGG's features; the memory is never read."""

    def image(n: int, c: int, h: int, w: int, last: bool) -> Tensor:
        form = torch.channels_last if last else torch.contiguous_format
        return torch.empty([n, c, h, w], dtype=dtype, memory_format=form)

    b, scale, noise = torch.empty(128), torch.empty(16, 128), torch.empty(16, 1, 128, 128)
    square, long, large = torch.empty(4, 4), torch.empty(12), torch.empty(8, 8)
    longer, radial = torch.empty(24), torch.empty(12, 12)
    weight, to_rgb = torch.empty(128, 128, 3, 3, dtype=dtype), torch.empty(3, 128, 1, 1, dtype=dtype)
    deep, deep_weight = torch.empty(32, 512), torch.empty(512, 512, 3, 3, dtype=dtype)
    one, two, no_padding = (1, 1), (2, 2), (0, 0, 0, 0)
    for last in (False, True):
        layout = "channels-last" if last else "planar"
        x, grown, small = image(16, 128, 128, 128, last), image(16, 128, 129, 129, last), image(32, 512, 4, 4, last)

        def backward(act: Sequence[Any], from_input: bool, x: Tensor = x) -> Any:
            given = (x, None) if from_input else (None, x)
            return bias_act.bias_act_backward(x, *given, 1, b, scale, noise, *act, True, from_input, True)

        def resample(f: Tensor | None, up: Any, down: Any, pad: Any, x: Tensor = x) -> Any:
            return upfirdn2d.upfirdn2d(x, f, up, down, pad, False, 1.0)

        def warp_backward(displaced: bool, x: Tensor = x) -> Any:
            positions = torch.empty([16, 2, 128, 128] if displaced else [16, 128, 128, 2])
            return grid_sample.grid_sample_backward(x, x, positions, x.shape, displaced, "border", (0, 0), True, True)

        yield (
            f"grid_sample, {layout}",
            partial(grid_sample.grid_sample, x, torch.empty(16, 128, 128, 2), False, "zeros", (0, 0)),
        )
        yield (
            f"displace, {layout}",
            partial(grid_sample.grid_sample, x, torch.empty(16, 2, 128, 128), True, "reflection", (0, 0)),
        )
        yield f"grid_sample_backward, {layout}", partial(warp_backward, False)
        yield f"displace_backward, {layout}", partial(warp_backward, True)
        yield f"displace_backward, deterministic, {layout}", partial(deterministic, partial(warp_backward, True))
        for c, side in ((512, 16), (128, 128), (64, 512)):
            planes, of_planes, size = image(8, c, side, side, last), torch.empty(8, c), f"{side}x{side}"
            yield f"mean_std of {size}, {layout}", partial(adain.mean_std, planes, 1e-5, True)
            yield (
                f"adaptive_instance_norm of {size}, {layout}",
                partial(adain.adaptive_instance_norm, planes, of_planes, of_planes, 1e-5, True),
            )
            yield (
                f"adaptive_instance_norm_backward of {size}, {layout}",
                partial(adain.adaptive_instance_norm_backward, planes, planes, of_planes, 1e-5, True),
            )
        yield f"bias_act, {layout}", partial(bias_act.bias_act, x, 1, b, scale, noise, *LRELU)
        yield f"bias_act_backward from x, {layout}", partial(backward, ("swish", 0.0, 2**0.5, 256.0), True)
        yield f"bias_act_backward from y, {layout}", partial(backward, LRELU, False)
        yield f"upfirdn2d up 2, 4x4, {layout}", partial(resample, square, two, one, (2, 1, 2, 1))
        yield f"upfirdn2d down 2, 4x4, {layout}", partial(resample, square, one, two, (1, 1, 1, 1))
        yield f"upfirdn2d up 2, 12 separable, {layout}", partial(resample, long, two, one, (6, 5, 6, 5))
        yield f"upfirdn2d down 2, 12 separable, {layout}", partial(resample, long, one, two, (5, 5, 5, 5))
        yield f"upfirdn2d 8x8, {layout}", partial(resample, large, one, one, (4, 3, 4, 3))
        yield (
            f"upfirdn2d_bias_act 4x4, {layout}",
            partial(
                upfirdn2d.upfirdn2d_bias_act,
                grown, square, one, one, (1, 1, 1, 1), False, 4.0, b, scale, noise, *LRELU, True,
            ),
        )  # fmt: skip
        for name, up, down, fu, fd in (
            ("up 2, down 2", 2, 2, long, long),
            ("up 4, down 2", 4, 2, longer, long),
            ("up 2, down 4", 2, 4, long, longer),
            ("up 2, down 2 by 12x12", 2, 2, long, radial),
        ):
            act = (2**0.5, 0.2, 256.0, False, True)
            yield (
                f"filtered_lrelu {name}, {layout}",
                partial(filtered_lrelu.filtered_lrelu, x, fu, fd, b, up, down, (9, 8, 9, 8), *act),
            )
        codes = torch.empty([16, 128, 66, 262], dtype=torch.uint8)
        yield (
            f"filtered_lrelu_slopes up 2, down 2, {layout}",
            partial(
                filtered_lrelu.filtered_lrelu_slopes,
                x, codes.contiguous(memory_format=torch.channels_last) if last else codes, long, long, 2, 2,
                (9, 8, 9, 8), no_padding, False, 4.0, 1.0, 2**0.5, 0.2,
            ),
        )  # fmt: skip
        yield (
            f"conv2d 3x3, {layout}",
            partial(fused_conv2d.fused_conv2d, x, weight, scale, 1, (1, 1, 1, 1), 1, b, scale, noise, *LRELU, True),
        )
        yield (
            f"conv2d 3x3 of 4x4 images, {layout}",
            partial(
                fused_conv2d.fused_conv2d,
                small, deep_weight, deep, 1, (1, 1, 1, 1), 1,
                torch.empty(512), deep, torch.empty(32, 1, 4, 4), *LRELU, True,
            ),
        )  # fmt: skip
        yield (
            f"conv2d 1x1 to RGB, {layout}",
            partial(fused_conv2d.fused_conv2d, x, to_rgb, scale, 1, no_padding, 1, *Epilogue(torch.empty(3)), False),
        )
        yield (
            f"conv2d 3x3 transposed, {layout}",
            partial(fused_conv2d.fused_conv2d, x, weight, scale, 1, no_padding, 2, *Epilogue(), False),
        )
        features, few, products = image(1, 512, 32, 32, last), image(1, 64, 256, 256, last), torch.empty(1, 512, 512)
        mean = torch.empty(1, 512)
        yield f"gram_matrix, {layout}", partial(gram_matrix.gram_matrix, features, "none")
        yield f"gram_matrix of 64 channels, {layout}", partial(gram_matrix.gram_matrix, few, "none")
        yield f"gram_matrix less a mean, {layout}", partial(gram_matrix.feature_statistics, features)
        yield f"mix_channels, {layout}", partial(gram_matrix.mix_channels, features, products, mean, mean)


def compile_all(target: str, dtypes: Sequence[str], pattern: str = "") -> Iterator[Launch]:
    """Every launch for the target whose problem the pattern finds, compiled."""
    compiled: list[tuple[Any, int, int]] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        made = original(kernel, *args, grid=grid, warmup=True, **options)
        compiled.append((made, math.prod(grid), max(a.numel() for a in args if isinstance(a, Tensor))))

    original, hip = triton.JITFunction.run, torch.version.hip
    triton.runtime.driver.set_active(_Driver(TARGETS[target]))
    triton.JITFunction.run = run
    # the launchers ask torch which vendor's GPU they configure for
    torch.version.hip = "compiled ahead of time" if target.startswith("gfx") else None
    try:
        for dtype in dtypes:
            for name, call in launches(DTYPES[dtype]):
                if not re.search(pattern, name):
                    continue
                call()
                for made in compiled:
                    yield Launch(f"{name}, {dtype}", *made)
                compiled.clear()
    finally:
        triton.JITFunction.run, torch.version.hip = original, hip


def resources(launch: Launch) -> dict[str, int]:
    """What a launch of Triton's takes of the GPU.

    ``spills`` counts bytes of stack and local memory on NVIDIA, where what registers do not hold goes; vector registers
    on AMD. ``loads`` and ``stores`` are the instructions that move global memory, ``wide_...`` those of 16 bytes a
    thread. On NVIDIA ``issued`` counts the instructions that warps issue for 32 values of the largest tensor, each
    loop run once, and ``loops`` the loops.
    """
    kernel = launch.kernel
    if "amdgcn" in kernel.asm:
        text = kernel.asm["amdgcn"]
        registers, *spills = (
            int(value)
            for name in ("vgpr_count", "vgpr_spill_count")
            for value in re.findall(rf"\.{name}:\s+(\d+)", text)
        )
        used = {"registers": registers, "spills": sum(spills)}
        transfers = [(kind, width == "dwordx4") for kind, width in AMD_TRANSFER.findall(text)]
    else:
        text = kernel.asm["ptx"]
        with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
            cubin.write(kernel.asm["cubin"])
            cubin.flush()
            (used,) = _usage(cubin.name).values()
            instructions, used["loops"] = _instructions(_cuobjdump("-sass", cubin.name))
        warps = kernel.metadata.num_warps * launch.programs
        used["issued"] = round(instructions * warps * 32 / launch.values)
        # of PTX, whose vectors are those of the machine code
        transfers = [(kind, int(n or 1) * int(bits) >= 128) for kind, n, bits in PTX_TRANSFER.findall(text)]
        transfers += [("ld", size in ("16", "0x10")) for size in PTX_COPY.findall(text)]
    return {
        **used,
        **_transfers(transfers),
        "shared_bytes": kernel.metadata.shared,
        "warps": kernel.metadata.num_warps,
        "matrix_instructions": len(MATRIX_INSTRUCTION.findall(text)),
    }


def _transfers(found: Iterable[tuple[str, bool]]) -> dict[str, int]:
    """The counts of (kind, whether it is wide) of instructions that move global memory."""
    counts = {"loads": 0, "wide_loads": 0, "stores": 0, "wide_stores": 0}
    for kind, wide in found:
        name = "stores" if kind.lower().startswith("st") else "loads"
        counts[name] += 1
        counts[f"wide_{name}"] += wide
    return counts


def _instructions(sass: str) -> tuple[int, int]:
    """(instructions, loops) of a kernel's machine code; behind its end it is filled up with NOP."""
    found = [(int(place, 16), name, operands) for place, name, operands in SASS_INSTRUCTION.findall(sass)]
    targets = [(place, re.search(r"0x([0-9a-f]+)", operands)) for place, name, operands in found if name == "BRA"]
    loops = sum(target is not None and int(target[1], 16) < place for place, target in targets)
    return sum(name != "NOP" for _, name, _ in found), loops


def _cuobjdump(*arguments: str) -> str:
    command = [triton.knobs.nvidia.cuobjdump.path, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _usage(*arguments: str) -> dict[str, dict[str, int]]:
    """Registers and spilled bytes of each kernel of a cubin, or of an extension, by its mangled name."""
    used = {}
    for name, usage in re.findall(r"Function (\S+):\n\s*(REG:.*)", _cuobjdump("--dump-resource-usage", *arguments)):
        registers, *spills = (
            int(value) for kind in ("REG", "STACK", "LOCAL") for value in re.findall(rf"\b{kind}:(\d+)", usage)
        )
        used[name] = {"registers": registers, "spills": sum(spills)}
    return used


def triton_resources(target: str, dtypes: Sequence[str], pattern: str) -> dict[str, dict[str, int]]:
    """What each launch of Triton's that the pattern finds takes on a target."""
    launched = compile_all(target, dtypes, pattern)
    return {f"{launch.problem}: {launch.kernel.name}": resources(launch) for launch in launched}


def cuda_resources(target: str) -> dict[str, dict[str, int]]:
    """What each kernel of the CUDA extension takes on an architecture that it was built for.

    Raises:
        FileNotFoundError: the extension is not built, or there is no c++filt to make its names legible.
    """
    extension = next(Path(_backend.__file__).parent.glob("_C_cuda*.so"), None)
    if extension is None:
        raise FileNotFoundError("the CUDA extension is not built; see imgops info")
    found = _usage("-arch", target, str(extension))
    for part in re.split(r"\n\s*Function : ", _cuobjdump("-sass", "-arch", target, str(extension)))[1:]:
        found[part.split("\n", 1)[0].strip()] |= _transfers(
            (kind, "128" in rest) for kind, rest in SASS_TRANSFER.findall(part)
        )
    names = subprocess.run(["c++filt"], input="\n".join(found), check=True, capture_output=True, text=True).stdout
    # without the return type, the arguments and our namespace
    short = (re.sub(r"^void |\(.*|imgops::", "", name) for name in names.splitlines())
    return dict(sorted(zip(short, found.values(), strict=True)))


def main() -> None:
    """Write the report; given TARGETS, DTYPES and a PATTERN of Triton's launches, print that part of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.resources", description="What GPU kernels take.")
    parser.add_argument("part", nargs="*", metavar="TARGETS DTYPES PATTERN", help="print this part; write nothing")
    add_out(parser, REPORT, "build/gpu_resources.json")
    options = parser.parse_args()
    part, out = options.part, options.out or BUILD / REPORT.name
    if len(part) not in (0, 3):
        parser.error(f"a part is targets, dtypes and a pattern, such as sm_90 float16,float32 bias_act; got {part}")
    targets, dtypes, pattern = list(TARGETS), list(DTYPES), ""
    if part:
        targets, dtypes, pattern = part[0].split(","), part[1].split(","), part[2]
    for given, known in (targets, TARGETS), (dtypes, DTYPES):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"{', '.join(unknown)}: unknown; there are {', '.join(known)}")
    report: dict[str, Any] = {"triton": triton.__version__}
    # a process for each, for a target is set for a whole process
    with ProcessPoolExecutor(min(len(targets), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        found = pool.map(triton_resources, targets, [dtypes] * len(targets), [pattern] * len(targets))
        report["kernels"] = dict(zip(targets, found, strict=True))
    if part:
        print(json.dumps(report, indent=1))
        return
    report["cuda"] = {target: cuda_resources(target) for target in CUDA_TARGETS}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{out}: written")


if __name__ == "__main__":
    main()
