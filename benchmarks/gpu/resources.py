"""Registers, spills, shared memory and instructions of every GPU kernel on every target, with no GPU.

``python -m benchmarks.gpu.resources`` runs Triton's launchers on representative inputs with each launch turned into a
compilation: exactly what a GPU of the target would run, the same specialization of arguments, the same configuration.
It disassembles these kernels and those of the CUDA extension, and writes build/gpu_resources.json, or with ``--record``
the one in benchmarks/results. What is launched stands in the fact sheets.
"""

from __future__ import annotations

import argparse
import itertools
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
from torch import Tensor
from triton.backends.compiler import GPUTarget

from imgops import _backend
from tests.op_specs import SHEETS

from ..record import BUILD, RESULTS, add_out

REPORT = RESULTS / "gpu_resources.json"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: of the CUDA extension as it is built unless TORCH_CUDA_ARCH_LIST says otherwise
CUDA_TARGETS = ("sm_80", "sm_90", "sm_100")
#: instructions that move global memory: what they do, and how much at once
PTX_TRANSFER = re.compile(r"\b(ld|st)\.global(?:\.[a-zA-Z][\w:]*)*?(?:\.v(\d))?\.[bfus](\d+)\b")
PTX_COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (\w+)")
SASS_TRANSFER = re.compile(r"\b(LDG|LDGSTS|STG)\.([\w.]+)")
AMD_TRANSFER = re.compile(r"\b(?:global|buffer)_(load|store)_(\w+)")
SASS_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)([^;]*);")
MATRIX_INSTRUCTION = re.compile(r"\b(wgmma|tcgen05)\.mma|\bmma\.sync|\bv_mfma_")


class Compiled(NamedTuple):
    """One launch, compiled: the launcher's problem, the kernel, its programs, and the values of its largest tensor."""

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
    """The result of the call in PyTorch's deterministic mode."""
    torch.use_deterministic_algorithms(True)
    try:
        return call()
    finally:
        torch.use_deterministic_algorithms(False)


def launches(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, call of a launcher) of every fact sheet, in both memory formats."""
    for last, sheet in itertools.product((False, True), SHEETS.values()):
        for launch in sheet.launches(dtype, last):
            call = partial(deterministic, launch) if launch.deterministic else launch
            yield f"{launch.name}, {'channels-last' if last else 'planar'}", call


def compile_all(target: str, dtypes: Sequence[str], pattern: str = "") -> Iterator[Compiled]:
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
                    yield Compiled(f"{name}, {dtype}", *made)
                compiled.clear()
    finally:
        triton.JITFunction.run, torch.version.hip = original, hip


def resources(launch: Compiled) -> dict[str, int]:
    """What a launch of Triton's takes of the GPU.

    ``spills`` counts bytes of stack and local memory on NVIDIA, where what registers do not hold goes; vector registers
    on AMD. ``loads`` and ``stores`` are the instructions that move global memory, ``wide_...`` those of 16 bytes
    per thread. On NVIDIA ``issued`` counts the instructions that warps issue for 32 values of the largest tensor, each
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


def merged(report: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The report with the launches of the part, which replace those of the same names.

    Raises:
        ValueError: another version of Triton compiled the report.
    """
    if report["triton"] != part["triton"]:
        raise ValueError(f"Triton {report['triton']} compiled the report; with {part['triton']}, record all of it anew")
    kernels = {target: {**report["kernels"].get(target, {}), **found} for target, found in part["kernels"].items()}
    return {**report, "kernels": {**report["kernels"], **kernels}}


def main() -> None:
    """Write the report; given TARGETS, DTYPES and a PATTERN of launches, print that part, or put it into ``--out``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.resources", description="What GPU kernels take.")
    parser.add_argument(
        "part",
        nargs="*",
        metavar="TARGETS DTYPES PATTERN",
        help="print this part, or replace it in a report that is named",
    )
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
    if part and options.out is None:
        print(json.dumps(report, indent=1))
        return
    if part:
        report = merged(json.loads(out.read_text()), report)
    else:
        report["cuda"] = {target: cuda_resources(target) for target in CUDA_TARGETS}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{out}: written")


if __name__ == "__main__":
    main()
