"""``make bench``: every op on the CPU against plain PyTorch, in one run, as a table and a JSON file.

    python -m benchmarks.report [--only TEXT] [--seconds S] [--out FILE]
    python -m benchmarks.report --record      # into the kept record, benchmarks/results/cpu.json
    python -m benchmarks.report --markdown    # prints the kept record as docs/performance.md has it

The sides of a problem are checked against each other, then timed in turns; figures are medians. Ratios are against the
other sides of the same run, the form that one writes first and the fastest: on a shared machine they mean more than
milliseconds do. With ``--only``, the rows of a record of the same machine stay, beside those measured anew.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tests.op_specs import SHEETS, Comparison

from .bench_iteration import means
from .comparison import OBVIOUS, OURS, medians
from .record import BUILD, RESULTS, ROOT, add_out, machine

#: modules of this folder that time other things than the ops
MODULES = (
    "bench_augment",
    "bench_data",
    "bench_dream",
    "bench_families",
    "bench_iteration",
    "bench_style",
    "bench_training",
)
#: the record that is kept with the code, and where a run goes unless asked to go there
KEPT, OUT = RESULTS / "cpu.json", BUILD / "benchmarks" / "cpu.json"
#: rows are of one record only where all of these are the same
MACHINE = ("device", "torch", "python", "threads")
#: what a row says of itself where it is of other code than its record
CODE = ("commit", "sources", "date")
MEAN = "modulated_conv2d: geometric mean over the layers"
#: the rows that the README shows: each op, and whole steps, also where little is gained
README_ROWS = (
    "upfirdn2d: 4x64x128x128 nchw up 2",
    "upfirdn2d: 4x64x128x128 nhwc down 2",
    "bias_act: 8x128x64x64 lrelu forward+backward, reused memory",
    "filtered_lrelu: 4x64x64x64 nchw up 2 down 2 with gradients",
    "modulated_conv2d: 4x256x128x128 -> 256",
    "adain: 4x256x64x64 nchw forward+backward",
    "style_loss: 1x256x64x64 forward+backward",
    "displace: 4x64x64x64 planar forward+backward",
    "dream step: relu4_2 of the small VGG, 1x3x512x512",
    "style step: VGG-19, 512x384",
    "R1 step: 4x3x64x64, channel_base 32768",
    "training iteration: 4x3x64x64, channel_base 4096",
)


def ratios(times: dict[str, float]) -> tuple[float, float]:
    """How many times faster imgops is than the obvious other side, and than the fastest."""
    return times[OBVIOUS] / times[OURS], min(t for side, t in times.items() if side != OURS) / times[OURS]


def figures(row: dict[str, Any]) -> dict[str, float] | None:
    """What a row shows of each side: milliseconds, or megabytes; None where it is a mean of ratios."""
    if "seconds" in row:
        return {side: seconds * 1e3 for side, seconds in row["seconds"].items()}
    return {side: taken / 1e6 for side, taken in row["bytes"].items()} if "bytes" in row else None


def markdown(record: dict[str, Any], chosen: Sequence[str] = ()) -> str:
    """A record as a table, with what it was measured on; only the chosen problems, if any are."""
    lines = ["| | imgops, ms | obvious form, ms | ratio | fastest form, ms | ratio |", "| --- |" + " ---: |" * 5]
    for row in record["rows"]:
        if chosen and row["problem"] not in chosen:
            continue
        times = figures(row)
        if times is not None:
            obvious, fastest = ratios(times)
            ours = times[OURS]
            cells = [
                f"{ours:.1f}",
                f"{ours * obvious:.1f}",
                f"{obvious:.2f}",
                f"{ours * fastest:.1f}",
                f"{fastest:.2f}",
            ]
        else:
            cells = ["", "", "", "", f"{row['ratio']:.2f}"]
        lines.append("| " + " | ".join([row["problem"], *cells]) + " |")
    on = record["machine"]
    return "\n".join([*lines, "", f"Medians on {on['threads']} threads of {on['device']}, torch {on['torch']}."])


def comparisons(source: str) -> Sequence[Comparison]:
    """The rows of an op's fact sheet, or of a module."""
    if source in SHEETS:
        return SHEETS[source].comparisons()
    return importlib.import_module(f"benchmarks.{source}").comparisons()


def problems() -> dict[str, list[str]]:
    """The names of the problems of each op and module."""
    return {source: [comparison.id for comparison in comparisons(source)] for source in (*SHEETS, *MODULES)}


def measure(source: str, only: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each problem of an op or a module whose name holds ``only``."""
    torch.manual_seed(0)
    rows = []
    for comparison in comparisons(source):
        if only in comparison.id:
            times = medians(comparison, seconds)
            goals = {"goal": comparison.goal, "obvious_goal": comparison.obvious_goal}
            rows.append({"problem": comparison.id, "seconds": times, "ratio": ratios(times)[1]} | goals)
            if comparison.peak is not None:
                rows[-1]["bytes"] = {side: comparison.peak(side) for side in comparison.sides}
            print(f"{comparison.id}: {rows[-1]['ratio']:.2f}x", flush=True)
    return rows


def before(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier record, each with the code that it was measured on; none where there is no record.

    Raises:
        ValueError: it is no record, or of another machine.
    """
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text())
        was, rows = record["machine"], record["rows"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a record of this program; name another file with --out") from None
    other = [f"{key} {was.get(key)}, here {about[key]}" for key in MACHINE if was.get(key) != about[key]]
    if other:
        raise ValueError(
            f"{path} is of another machine ({'; '.join(other)}): measure all of it, without --only, or name another "
            "file with --out"
        )
    return [{key: was.get(key) for key in CODE} | row for row in rows]


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]], order: list[str]) -> list[dict[str, Any]]:
    """The rows of both in the problems' order, the new ones in place of the old, and the means of several; rows of
    problems that no longer exist drop out."""
    found = {row["problem"]: row for row in [*old, *new]}
    rows = [found[problem] for problem in order if problem in found]
    layers = [r["ratio"] for r in rows if r["problem"].startswith("modulated_conv2d") and r["goal"] == 1.0]
    if layers:
        mean = math.exp(sum(map(math.log, layers)) / len(layers))
        rows.append({"problem": MEAN, "ratio": mean, "goal": 1.15})
    training = means({row["problem"]: row for row in rows})
    return rows + [row | {"ratio": ratios(row.get("seconds") or row["bytes"])[1]} for row in training]


def _text(goal: float | None) -> str:
    return "" if goal is None else f"{goal:.3g}"


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows for people."""
    result = Table(title="CPU, medians in ms; ratios: other side / imgops, and their goals")
    for column in ("problem", OURS, "eager forms", "to obvious", "goal", "to fastest", "goal"):
        result.add_column(column, justify="left" if column in ("problem", "eager forms") else "right")
    for row in rows:
        times = figures(row)
        if times is None:
            result.add_row(row["problem"], "", "", "", "", f"{row['ratio']:.2f}", _text(row["goal"]))
            continue
        obvious, fastest = ratios(times)
        result.add_row(
            row["problem"],
            f"{times[OURS]:.1f}",
            ", ".join(f"{side} {t:.1f}" for side, t in times.items() if side != OURS),
            f"{obvious:.2f}",
            _text(row.get("obvious_goal")),
            f"{fastest:.2f}",
            _text(row["goal"]),
        )
    return result


def run(only: str, seconds: float, out: Path) -> None:
    """Time the problems whose name holds ``only``, print the table, write the record.

    Raises:
        ValueError: there is no such problem, or the record that the rows belong to is of another machine.
    """
    # building the problems leaves memory behind; each process starts anew
    names = in_process(problems)
    ids = [problem for module in names.values() for problem in module]
    chosen = [problem for problem in ids if only in problem]
    if not chosen:
        ops = ", ".join(dict.fromkeys(problem.partition(":")[0] for problem in ids))
        raise ValueError(f"--only {only}: no problem's name holds this text; there are {ops}")
    about = machine("cpu", dry=False) | {"threads": torch.get_num_threads()}
    old = before(out, about) if only else []
    least = math.ceil(len(chosen) * seconds / 60)
    print(f"{len(chosen)} problems, {seconds:g} s each or five rounds: {least} min, more on a slow CPU", flush=True)
    print(f"results go to {out}", flush=True)
    new: list[dict[str, Any]] = []
    for name, module in names.items():
        if any(only in problem for problem in module):
            # in a process of its own: how the C library hands out memory depends on what it handed out before
            new += in_process(measure, name, only, seconds)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": about, "rows": merged(old, new, ids)}, indent=1) + "\n")
    Console(width=150).print(table(merged([], new, ids)))
    print(f"{out}: written" + (f", with {len(old)} rows of before" if old else ""))


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, called in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options; time, or print the kept record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Time the ops on the CPU.")
    parser.add_argument("--only", default="", help="problems whose name holds this text; other rows of a record stay")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each problem, all sides together (default 4)")
    add_out(parser, KEPT, str(OUT.relative_to(ROOT)))
    parser.add_argument(
        "--markdown",
        type=Path,
        nargs="?",
        const=KEPT,
        help="print this record, or the kept one, and exit",
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.seconds < math.inf:
        parser.error(f"--seconds must be 0 or more; got {options.seconds}")
    try:
        if options.markdown:
            print(markdown(json.loads(options.markdown.read_text())))
        else:
            run(options.only, options.seconds, options.out or OUT)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
