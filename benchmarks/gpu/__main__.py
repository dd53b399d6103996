"""Everything that can be said of imgops on one GPU, within 8 minutes: ``python -m benchmarks.gpu``.

Builds the extensions in place, measures what the card can do, checks every backend against the reference, times every
op and the models as wholes. One JSON per section, written case by case into build/gpu: what was done before a cut-off
is kept, and the next run of the same code on the same machine goes on from there. A short table comes last.

    python -m benchmarks.gpu                                        all of it
    python -m benchmarks.gpu --record                               into benchmarks/results, kept with the code
    python -m benchmarks.gpu --section speed --against mine:upfirdn2d
    python -m benchmarks.gpu --section sanitizers                   the CUDA kernels under compute-sanitizer
    python -m benchmarks.gpu --dry --device cpu                     the same logic on tiny shapes, without a GPU
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..record import BUILD, RESULTS, ROOT, Record, add_out, machine, read, same, wrong_backends
from .sections import SECTIONS, Context

#: seconds for everything; a section that hangs is ended
TOTAL = 475.0
#: what a section gets at least beyond its own deadline, to write and to end
GRACE = 10.0
#: how often a section is started while its time lasts
RESTARTS = 4


def against(specification: str) -> tuple[str, str, Callable[..., Any]]:
    """(op, name, callable) of ``[op=]module:function``; without an op, the function's name says which.

    Raises:
        ValueError: the text has another form, there is no such function, or no such op.
    """
    from imgops._backend import OPS

    op, _, target = specification.rpartition("=")
    module, colon, name = target.partition(":")
    if not colon or not module or not name:
        raise ValueError(f"--against takes [op=]module:function; got {specification!r}")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--against {specification}: {error}") from None
    op = op or name
    if op not in OPS:
        raise ValueError(f"--against {specification}: the op must be one of {', '.join(OPS)}; name it as op={target}")
    return op, target, function


def path_of(out: Path, section: str) -> Path:
    return out / f"gpu-{section}.json"


def results_of(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The results of a section by case; none where it has not run with the same code on the same machine."""
    data = read(path)
    return data["results"] if data is not None and same(data["machine"], about) else {}


def work(section: str, options: argparse.Namespace) -> int:
    """Run one section in this process."""
    deadline = time.monotonic() + options.seconds
    functions: dict[str, dict[str, Callable[..., Any]]] = {}
    for specification in options.against:
        op, name, function = against(specification)
        functions.setdefault(op, {})[name] = function
    about = machine(options.device, options.dry)
    record = Record(path_of(options.out, section), about)
    others = {name: results_of(path_of(options.out, name), about) for name in SECTIONS if name != section}
    context = Context(options.device, options.dry, deadline, record, others, functions)
    SECTIONS[section][0](context)
    record.finish(context.left_out)
    return 0


def section(name: str, seconds: float, options: argparse.Namespace) -> int | None:
    """Run a section in a process of its own; its exit status, or None where the time was out."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", name, "--seconds", str(max(1.0, seconds - GRACE))]
    command += ["--device", options.device, "--out", str(options.out)]
    command += ["--dry"] * options.dry + [part for s in options.against for part in ("--against", s)]
    # a session of its own, so that it can be ended with all that it started
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(options: argparse.Namespace) -> int:
    """Each section in a process of its own, so that a fault in a kernel ends no other; then the table."""
    end = time.monotonic() + TOTAL
    names = [options.section] if options.section else [name for name, (_, limit) in SECTIONS.items() if limit]
    spare, status = 0.0, 0
    print(
        f"at most {TOTAL / 60:.0f} minutes; results go to {options.out}, and the next run goes on from there",
        flush=True,
    )
    for name in names:
        limit = TOTAL if options.section else (SECTIONS[name][1] or 0) + spare
        until = time.monotonic() + min(limit, end - time.monotonic())
        print(f"{name} ...", flush=True)
        # a section that ended by itself, as after a fault of the GPU, is started again and repeats nothing that it has
        code: int | None = -1
        for _ in range(RESTARTS):
            left = until - time.monotonic()
            if not code or left <= GRACE:
                break
            code = section(name, left, options)
        if code is None:
            print(f"{name}: ended after {limit:.0f} s; what it had measured is kept")
        status |= code != 0
        spare = max(0.0, until - time.monotonic())
    lines, failed = table(options.out, machine(options.device, options.dry))
    print("\n".join(lines))
    return int(status or failed)


def table(out: Path, about: dict[str, Any]) -> tuple[list[str], bool]:
    """The results on disk of this code on this machine in short, and whether any check failed."""
    found = {name: d for name in SECTIONS if (d := read(path_of(out, name))) is not None}
    data = {name: d for name, d in found.items() if same(d["machine"], about)}
    versions = ", ".join(f"{key} {about[key]}" for key in ("driver", "cuda", "torch", "triton", "commit", "date"))
    lines = ["", f"{about['device']} ({versions})"]
    lines += [f"{name}: of other code or another machine, left out" for name in found if name not in data]
    results = {name: d["results"] for name, d in data.items()}
    for name, d in data.items():
        if not d["complete"]:
            left = f"{len(d['left_out'])} cases left out" if "left_out" in d else "cut off"
            lines.append(f"{name}: not complete, {left}")
    for case, r in results.get("build", {}).items():
        if "available" in r and not r["available"]:
            lines.append(f"build: without {case}: {r['reason']}")
        elif "error" in r:
            lines.append(f"build: {r['error']}")
    limits = results.get("ceilings", {}).get("ceilings", {})
    lines += [f"ceiling: {name} {r['per_second'] / 1e12:.3g} T/s" for name, r in limits.items() if "per_second" in r]

    checks = results.get("correctness", {})
    wrong = [name for name, r in checks.items() if not r["passed"]]
    if checks:
        lines.append(f"correctness: {len(checks) - len(wrong)} of {len(checks)} checks passed")
        lines += [f"  wrong: {name} {checks[name].get('error', checks[name].get('errors'))}" for name in wrong[:20]]
    bad = wrong_backends(checks)

    for case, r in results.get("speed", {}).items():
        forms = {name: form for name, form in r.items() if isinstance(form, dict)}
        parts = []
        for name, form in forms.items():
            if "failed" in form:
                parts.append(f"{name} failed")
                continue
            part = f"{name} {form['seconds'] * 1e6:.4g} us"
            if "fraction_of_ceiling" in form:
                part += f" ({form['fraction_of_ceiling']:.0%})"
            # a fast wrong answer is no result
            parts.append(part + (" WRONG" if (case.split("/")[0], name) in bad else ""))
        lines.append(f"{case}: " + ", ".join(parts))
    for case, r in results.get("end_to_end", {}).items():
        made, trained, steps = r.get("generate", {}), r.get("train", {}), r.get("steps", {})
        parts = [
            f"{what} failed: {d['failed']}"
            for what, d in (("generate", made), ("train", trained), ("steps", steps))
            if "failed" in d
        ]
        if "images_per_second" in made:
            parts.append(f"{made['images_per_second']:.4g} images/s")
        if "seconds_per_1000_images" in trained:
            peak = f", {trained['peak_gb']:.1f} GB" if trained["peak_gb"] is not None else ""
            peak += f", busy {trained['busy']:.0%}" if trained["busy"] else ""
            parts.append(f"training {trained['seconds_per_1000_images']:.4g} s per 1000 images{peak}")
        parts += [f"{side} {t['steps_per_second']:.4g} steps/s" for side, t in steps.items() if side != "failed"]
        lines.append(f"{case}: " + "; ".join(parts))
    watched = results.get("sanitizers", {})
    for tool, r in watched.items():
        ended = "clean" if r.get("code") == 0 else f"ended with {r.get('code')}"
        lines.append(f"{tool}: {r.get('error', ended)}")
    return lines, bool(wrong) or any(r.get("code") != 0 for r in watched.values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--section", choices=SECTIONS, help="run this section alone")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="[OP=]MODULE:FUNCTION",
        help="time a callable with the op's own signature in the same run; may be repeated",
    )
    parser.add_argument("--device", default="cuda", help="default: cuda")
    add_out(parser, RESULTS, "build/gpu, with --dry build/gpu-dry")
    parser.add_argument("--dry", action="store_true", help="tiny shapes and no build: run the logic, measure nothing")
    parser.add_argument("--worker", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=TOTAL, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.dry and options.out == RESULTS:
        parser.error("--record is for measurements, and --dry makes none")
    options.out = (options.out or BUILD / ("gpu-dry" if options.dry else "gpu")).resolve()
    if options.worker:
        return work(options.worker, options)
    try:
        import torch

        torch.empty(0, device=options.device)
        for specification in options.against:
            against(specification)
    except (ValueError, RuntimeError, AssertionError) as error:
        parser.error(str(error).splitlines()[0])
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
