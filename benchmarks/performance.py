"""``python -m benchmarks.performance --record`` writes docs/performance.md, what a CPU and GPUs did and what bounds
each op there, and the table of the README.

The page is made of the records in benchmarks/results/: that of ``make bench``, those of ``make gpu``, where there are
any, and gpu_resources.json. What was not measured is counted or *predicted*, and says so. A page of your own GPU:

    python -m benchmarks.performance --results build/gpu --out page.md
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.op_specs import Case, cases

from .gpu.sections import SECTIONS
from .record import BUILD, RESULTS, ROOT, add_out, read, same, wrong_backends
from .report import README_ROWS, markdown

PAGE, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
#: the lines before and after the table in the README
_SPEED = re.compile(
    r"(?<=<!-- speed: written by python -m benchmarks.performance --record -->\n).*?(?=<!-- end)", re.DOTALL
)
#: an H100 SXM5 by its datasheet: bytes/s of its memory, and FLOP/s outside tensor cores and of dense products on them
BANDWIDTH = 3.35e12
RATES = {"float32": 67e12, "tf32": 495e12, "float16": 990e12, "bfloat16": 990e12}
#: shares of these that a prediction reckons with, and the seconds that a kernel takes to start
REACHED_BANDWIDTH, REACHED_RATE, START = 0.85, 0.6, 2e-6
TARGET = "sm_90"
#: instructions that its warps issue per second: one multiply-add of 32 lanes each, when it reaches its FLOP/s
ISSUED = RATES["float32"] / 64


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown; all columns but the first are numbers."""
    return [
        "| " + " | ".join(columns) + " |",
        "| --- |" + " ---: |" * (len(columns) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def floor_of(case: Case, backward: bool) -> tuple[float, float]:
    """Seconds for the bytes, and for the FLOPs, at the datasheet's rates."""
    return case.bytes[backward] / BANDWIDTH, case.flops[backward] / RATES[case.rate]


def floors() -> list[str]:
    """The floor and the prediction of each case."""
    rows = []
    for case in cases(dry=False):
        for backward in (False, True) if case.bytes[0] else ():
            memory, arithmetic = floor_of(case, backward)
            predicted = max(memory / REACHED_BANDWIDTH, arithmetic / REACHED_RATE) + START * (1 + 2 * backward)
            rows.append(
                [
                    f"{case.op} {case.name}{' with gradients' if backward else ''}",
                    f"{case.bytes[backward] / 1e6:.1f}",
                    f"{case.flops[backward] / 1e9:.2f}" if case.flops[backward] else "",
                    f"{max(memory, arithmetic) * 1e6:.1f}",
                    "memory" if memory >= arithmetic else "arithmetic",
                    f"*{predicted * 1e6:.1f}*",
                ]
            )
    return table(["problem", "MB", "GFLOP", "floor, us", "bound by", "*predicted*, us"], rows)


def of_triton(kernels: dict[str, dict[str, int]]) -> list[str]:
    """What each Triton kernel takes, over its launches: the range, or the one value."""
    groups: dict[tuple[str, str], list[dict[str, int]]] = defaultdict(list)
    for name, used in kernels.items():
        launch, _, kernel = name.rpartition(": ")
        groups[kernel, launch.rpartition(", ")[2]].append(used)
    rows = []
    for (kernel, dtype), group in sorted(groups.items()):
        loads, wide = (sum(used[name] for used in group) for name in ("loads", "wide_loads"))
        stores, wide_stores = (sum(used[name] for used in group) for name in ("stores", "wide_stores"))
        rows.append(
            [
                f"{kernel} {dtype}",
                _range(used["registers"] for used in group),
                _range(used["shared_bytes"] for used in group),
                _range(used["warps"] for used in group),
                _range(used["spills"] for used in group),
                _share(wide, loads),
                _share(wide_stores, stores),
                _range(used["matrix_instructions"] for used in group),
                _range(used["issued"] for used in group) + " and more" * any(used["loops"] for used in group),
            ]
        )
    columns = ["kernel", "registers", "shared bytes", "warps", "spilled bytes"]
    return table([*columns, "16-byte loads", "16-byte stores", "matrix instructions", "issued for 32 values"], rows)


def of_cuda(kernels: dict[str, dict[str, int]]) -> list[str]:
    """What each kernel of the CUDA extension takes, over its instances."""
    groups: dict[str, list[dict[str, int]]] = defaultdict(list)
    for name, used in kernels.items():
        groups[name.partition("<")[0]].append(used)
    rows = [
        [
            name,
            str(len(group)),
            _range(used["registers"] for used in group),
            _range(used["spills"] for used in group),
            _share(*(sum(used[kind] for used in group) for kind in ("wide_loads", "loads"))),
            _share(*(sum(used[kind] for used in group) for kind in ("wide_stores", "stores"))),
        ]
        for name, group in sorted(groups.items())
    ]
    columns = ["kernel", "instances", "registers", "spilled bytes", "16-byte loads", "16-byte stores"]
    return table(columns, rows)


def time_to_issue(itemsize: int) -> str:
    """How many instructions are issued while the memory reads and writes 32 values."""
    return f"{2 * 32 * itemsize / (BANDWIDTH * REACHED_BANDWIDTH) * ISSUED:.0f}"


def short_of_the_goals(kernels: dict[str, dict[str, int]]) -> list[str]:
    """What the machine code says will miss the goals, why, and what to try next."""

    def issued(launch: str, kernel: str) -> int:
        return kernels[f"{launch}, planar, float16: {kernel}"]["issued"]

    lines = []
    for what in (
        f"""`filtered_lrelu`, 85% of the bandwidth: in half precision its arithmetic alone takes longer, 72
        multiply-adds
        per output at the factors 2 and 2, and a tile computes its borders anew. In CUDA C++
        (`csrc/cuda/filtered_lrelu_tile.cuh`), which
        the automatic choice takes for StyleGAN3's filters, the passes of a tile of 32 x 32 outputs add up to about 300
        issued for 32 outputs, counted by hand. Next: fewer instructions to load a tile and to find its
        place; pairs of products in
        `half2` where a test shows that rounding allows it. In Triton
        ({issued("filtered_lrelu up 2, down 2", "filtered_lrelu_kernel")} issued) most of a tile is border;
        it runs where
        the CUDA extension is not built, and on AMD.""",
        f"""`upfirdn2d` with 12 taps per axis
        ({issued("upfirdn2d up 2, 12 separable", "upfirdn2d_kernel")} issued up,
        {issued("upfirdn2d down 2, 12 separable", "upfirdn2d_kernel")} down): each thread loads every tap's sample for
        itself. Next: the shuffles of `csrc/cuda/upfirdn2d_four_taps.cuh` for other lengths.""",
        f"""`upfirdn2d` with 4 taps and an epilogue, planar, half precision: about 60 issued in CUDA C++, counted by
        hand, which the automatic choice takes ({issued("upfirdn2d_bias_act 4x4", "upfirdn2d_kernel")} in
        Triton). Next: one load for
        two samples where rows are even.""",
        f"""`grid_sample` and `displace` of planar images
        ({issued("grid_sample", "grid_sample_kernel")} issued): four taps are four loads of 2 bytes. Next: more
        channels per thread, which registers allow.""",
        """`modulated_conv2d`, planar: loads of one value each, and styles multiplied in every tile; channels-last has
        neither. Next: whichever layout `make gpu` shows to be faster for whole layers as the default of half precision
        (`imgops train --half-channels-last`).""",
    ):
        first, *rest = textwrap.wrap(" ".join(what.split()), 118, break_on_hyphens=False)
        lines += ["- " + first, *("  " + line for line in rest)]
    return lines


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def measured(speed: dict[str, Any], checks: dict[str, Any]) -> list[str]:
    """The times of ``make gpu`` by problem: our backends, what people write, and the share of the card's ceiling."""
    rows, ratios, wrong = [], [], wrong_backends(checks)
    for name, forms in speed.items():
        times = {form: r["seconds"] for form, r in forms.items() if isinstance(r, dict) and "seconds" in r}
        eager = {form: t for form, t in times.items() if form.startswith("eager")}
        ours = {
            backend: times[backend]
            for backend in ("triton", "cuda")
            if backend in times and (name.split("/")[0], backend) not in wrong
        }
        if not ours or "eager" not in eager:
            continue
        best = min(ours, key=lambda backend: ours[backend])
        share, fastest = forms[best].get("fraction_of_ceiling"), min(eager.values())
        others = (times.get(form) for form in ("torch.compile", "plain conv"))
        ratios.append(fastest / ours[best])
        rows.append(
            [
                name,
                *(_microseconds(t) for t in (ours.get("triton"), ours.get("cuda"))),
                "" if share is None else f"{share:.0%}",
                *(_microseconds(t) for t in (eager["eager"], fastest, *others)),
                f"{ratios[-1]:.2f}",
            ]
        )
    columns = ["problem", "triton, us", "cuda, us", "of ceiling", "eager, us", "fastest eager, us"]
    lines = table([*columns, "torch.compile, us", "plain convolution, us", "fastest eager / ours"], rows)
    if rows:
        lines += ["", f"Geometric mean of the last column: {statistics.geometric_mean(ratios):.2f}."]
    return lines


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e6:.1f}"


def whole_models(results: dict[str, Any]) -> list[str]:
    """Generators, training, and the steps of style transfer and of dreams, with the fused ops and without."""
    rows = []
    for name, result in results.items():
        made, trained, steps = (result.get(what, {}) for what in ("generate", "train", "steps"))
        if "images_per_second" in made:
            rows.append([f"{name}: images/s", f"{made['images_per_second']:.4g}", _gigabytes(made), ""])
        if "seconds_per_1000_images" in trained:
            busy = f"{trained['busy']:.0%}" if trained["busy"] else ""
            figures = f"{trained['seconds_per_1000_images']:.4g}", _gigabytes(trained), busy
            rows.append([f"{name}: seconds of training per 1000 images", *figures])
        for side, timing in steps.items():
            if "steps_per_second" in timing:
                rows.append([f"{name}, {side}: steps/s", f"{timing['steps_per_second']:.4g}", "", ""])
    return table(["what", "figure", "peak GB", "busy"], rows)


def _gigabytes(result: dict[str, Any]) -> str:
    return "" if result["peak_gb"] is None else f"{result['peak_gb']:.1f}"


def _described(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{key} {machine[key]}" for key in ("driver", "cuda", "torch", "triton", "commit", "date"))
    return f"{machine['device']} ({versions})"


def _paragraph(text: str) -> list[str]:
    return ["", *textwrap.wrap(" ".join(text.split()), 120, break_on_hyphens=False), ""]


def of_cpu(record: dict[str, Any]) -> list[str]:
    """What ``make bench`` measured, and how to read it."""
    lines = ["## Measured on a CPU"]
    lines += _paragraph("""`make bench` times the ops on this CPU against plain PyTorch, the obvious form and the
        fastest known one, all sides in turns in one run. It says at its start how long it takes, and writes
        `build/benchmarks/cpu.json`; with `python -m benchmarks.report --record` the results become those below. `pytest
        benchmarks/ --benchmark-only` times the same problems one by one.""")
    lines += [markdown(record)]
    lines += _paragraph("""PyTorch's large results lie in fresh pages, which the kernel maps and clears each time;
        imgops' own lie in those of earlier ones. Where PyTorch's are reused as well (rows "reused memory"), less is
        left to gain. `dream update` is plain PyTorch on both sides: there is little to gain. The record, with every
        form's time, is [benchmarks/results/cpu.json](../benchmarks/results/cpu.json).""")
    return (
        lines
        + _paragraph("""A training step is bound by its products. The aim, twice as fast as the fastest plain form in
        0.7 of its memory, is reached by the memory of the preset tiny alone. At channel_base 4096 and batch 4 a step
        without regularizers has 90 GFLOP of products, counted directly, and one core of this CPU multiplies 135
        GFLOP/s: that alone is half of what the plain form takes. On one quiet core the plain form took 1.54 s of CPU
        time and imgops 1.10, of which convolutions, by Winograd's algorithm, were 0.54 and linear layers 0.10. For
        twice the speed, 0.77 s, all else had to take 0.13 where it takes 0.46: Adam, sums of gradients, filters,
        activations, norms, autograd. In memory R1's gradients of the layer of 512 x 8,192 weights outweigh the rest on
        both sides.""")[1:]
        + _paragraph("""Rows "family" are the other generators and their steps. The aim for StyleGAN3, eight times as
        fast as the fastest plain form, is not reached: filters and leaky ReLU, one pass here, are no longer what
        its time goes to. Convolutions take
        most of it, and of the plain form a large part. R3GAN, where 1.5 is the aim, is bound by products of 1
        x 1 convolutions, which are as fast on both sides.
        The small
        autoencoders are slower than channels-last PyTorch: with 16 to 48 channels oneDNN's convolutions win. DCGAN has
        no row: it is plain PyTorch, whose convolutions and batch norm are the fastest forms.""")[1:]
    )


def readme(text: str) -> str:
    """The README with the table of the kept record."""
    record = json.loads((RESULTS / "cpu.json").read_text())
    return _SPEED.sub(lambda _: markdown(record, README_ROWS) + "\n", text)


def page(results: Path = RESULTS) -> str:
    """The page, of the records in a folder; what the compiler says is the kept record's where the folder has none."""
    found = ((section, read(results / f"gpu-{section}.json")) for section in SECTIONS)
    records = {section: data for section, data in found if data is not None and not data["machine"]["dry"]}
    of_compiler = results / "gpu_resources.json"
    resources = json.loads((of_compiler if of_compiler.is_file() else RESULTS / of_compiler.name).read_text())
    lines = ["# Performance"]
    lines += _paragraph("""This page is written by `python -m benchmarks.performance --record` from the records in
        `benchmarks/results/`.""")
    if (results / "cpu.json").is_file():
        lines += of_cpu(json.loads((results / "cpu.json").read_text()))
    lines += ["## Measured on GPUs"]
    if records:
        lines += _paragraph("""By `make gpu`. Times are medians, inputs are rotated past the L2 cache, and the ceiling
            is what this card's own copy and matrix products reach.""")
        for section, data in records.items():
            left = len(data.get("left_out", ()))
            rest = "" if data["complete"] else f"; {left or 'some'} left out for want of time"
            lines += [f"- {section}: {_described(data['machine'])}{rest}"]
        done = {section: data["results"] for section, data in records.items()}
        checks = done.get("correctness", {})
        measured_on = records.get("speed", {}).get("machine", {})
        # the checks of other code say nothing of these timings
        valid = checks if "correctness" in records and same(records["correctness"]["machine"], measured_on) else {}
        passed = sum(check["passed"] for check in checks.values())
        lines += _paragraph(f"{passed} of {len(checks)} checks against the float64 reference passed.")
        for tool, ended in done.get("sanitizers", {}).items():
            lines += [f"- compute-sanitizer's {tool}: {'clean' if ended.get('code') == 0 else 'not clean'}"]
        lines += ["", *measured(done.get("speed", {}), valid), "", *whole_models(done.get("end_to_end", {})), ""]
    else:
        lines += _paragraph("""Nothing yet: no record of a GPU has been committed. The kernels compile for their
            targets, and agree with the reference in Triton's interpreter and in an emulation of CUDA; how fast they are
            nobody knows. `make gpu` measures for 8 minutes, and its next run goes on from there; the section
            "sanitizers" of `python -m benchmarks.gpu` runs the CUDA kernels under compute-sanitizer. Their
            records belong here.""")
    lines += ["## Counted for a GPU"]
    lines += _paragraph(f"""The bytes and FLOPs that each problem cannot do without, each tensor once per pass, and the
        floor that they set on an H100 by its datasheet: {BANDWIDTH / 1e12:.2f} TB/s, {RATES["float32"] / 1e12:.0f}
        TFLOP/s in float32, {RATES["tf32"] / 1e12:.0f} in dense products in TF32 and {RATES["float16"] / 1e12:.0f} in
        half precision. What is *predicted* is the floor at
        {REACHED_BANDWIDTH:.0%} of the bandwidth and {REACHED_RATE:.0%} of the rate, and {START * 1e6:.0f} us for each
        kernel to start, one forward and two backward. It is no measurement. `wasserstein_loss`, most of whose
        work is in the roots of matrices, is left out.""")
    lines += [*floors(), "", f"## What the kernels take on {TARGET}"]
    lines += _paragraph(f"""Read off the compiled code by `python -m benchmarks.gpu.resources`, whose record has the
        other targets as well. Loads and stores are the instructions that move global memory, over all launches of the
        record, of PTX for Triton and of machine code for CUDA. "Issued" are the instructions that warps issue for 32
        values of the largest tensor of a launch, each loop counted once; in the time that its memory takes to read and
        write 32 values, at {REACHED_BANDWIDTH:.0%} of the bandwidth, an H100 issues {time_to_issue(2)} in half
        precision and {time_to_issue(4)} in float32; both sides of every branch are counted. Triton
        {resources["triton"]}:""")
    lines += of_triton(resources["kernels"][TARGET])
    lines += _paragraph("CUDA C++:")
    lines += of_cuda(resources["cuda"][TARGET])
    lines += ["", "## Short of the goals on a GPU"]
    lines += _paragraph("""Not measured: what the machine code says will keep an op from 85% of the bandwidth, or a
        convolution from the library's speed, and what to try next.""")
    lines += short_of_the_goals(resources["kernels"][TARGET])
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance", description="Write the page on GPUs.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records (default: the kept ones)")
    add_out(parser, PAGE, "build/performance.md")
    options = parser.parse_args(arguments)
    if not options.results.is_dir():
        parser.error(f"--results {options.results}: no such folder")
    out = options.out or BUILD / "performance.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(options.results))
    print(f"{out}: written")
    if out == PAGE:
        README.write_text(readme(README.read_text()))
        print(f"{README}: its table written")


if __name__ == "__main__":
    main()
