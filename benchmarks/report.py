"""``make bench``: every op on the CPU against plain PyTorch, in one run, as a table and a JSON file.

    python -m benchmarks.report [--only TEXT] [--seconds S] [--out FILE]
    python -m benchmarks.report --markdown    # the kept record as the README has it

The sides of a problem are checked against each other, then timed in turns; figures are medians. Ratios are against the
other sides of the same run, the form that one writes first and the fastest: on a shared machine they mean more than
milliseconds do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .comparison import OBVIOUS, OURS, medians
from .gpu_record import machine

MODULES = (
    "bench_upfirdn2d",
    "bench_bias_act",
    "bench_adain",
    "bench_dream",
    "bench_filtered_lrelu",
    "bench_gram_matrix",
    "bench_grid_sample",
    "bench_modulated_conv2d",
    "bench_style",
    "bench_training",
)
OUT = Path(__file__).parent / "results" / "cpu.json"


def ratios(times: dict[str, float]) -> tuple[float, float]:
    """How many times faster imgops is than the obvious other side, and than the fastest."""
    return times[OBVIOUS] / times[OURS], min(t for side, t in times.items() if side != OURS) / times[OURS]


def markdown(record: dict[str, Any]) -> str:
    """A record as a table, with what it was measured on."""
    lines = ["| | imgops, ms | obvious form, ms | ratio | fastest form, ms | ratio |", "| --- |" + " ---: |" * 5]
    for row in record["rows"]:
        if "seconds" in row:
            times = row["seconds"]
            obvious, fastest = ratios(times)
            ours = times[OURS] * 1e3
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


def measure(module: str, only: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each problem of the module whose name holds ``only``."""
    torch.manual_seed(0)
    rows = []
    for comparison in importlib.import_module(f"benchmarks.{module}").comparisons():
        if only in comparison.id:
            times = medians(comparison, seconds)
            goals = {"goal": comparison.goal, "obvious_goal": comparison.obvious_goal}
            rows.append({"problem": comparison.id, "seconds": times, "ratio": ratios(times)[1]} | goals)
            print(f"{comparison.id}: {rows[-1]['ratio']:.2f}x", flush=True)
    return rows


def _text(goal: float | None) -> str:
    return "" if goal is None else f"{goal:g}"


def main() -> None:
    """Time what ``--only`` selects, print the table, write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Time the ops on the CPU.")
    parser.add_argument("--only", default="", help="problems whose name holds this text")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each problem, all sides together (default 4)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"record to write (default {OUT.name} in results/)")
    parser.add_argument("--markdown", action="store_true", help="print the record in --out as a table; time nothing")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(json.loads(options.out.read_text())))
        return
    rows: list[dict[str, Any]] = []
    for name in MODULES:
        # in a process of its own: how the C library hands out memory depends on what it handed out before
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            rows += process.submit(measure, name, options.only, options.seconds).result()
    table = Table(title="CPU, medians in ms; ratios: other side / imgops, and what they mean to be")
    for column in ("problem", OURS, "eager forms", "to obvious", "goal", "to fastest", "goal"):
        table.add_column(column, justify="left" if column in ("problem", "eager forms") else "right")
    for row in rows:
        times, (obvious, fastest) = row["seconds"], ratios(row["seconds"])
        table.add_row(
            row["problem"],
            f"{times[OURS] * 1e3:.1f}",
            ", ".join(f"{side} {t * 1e3:.1f}" for side, t in times.items() if side != OURS),
            f"{obvious:.2f}",
            _text(row["obvious_goal"]),
            f"{fastest:.2f}",
            _text(row["goal"]),
        )
    layers = [r["ratio"] for r in rows if r["problem"].startswith("modulated_conv2d") and r["goal"] == 1.0]
    if layers:
        mean = math.exp(sum(map(math.log, layers)) / len(layers))
        rows.append({"problem": "modulated_conv2d: geometric mean over the layers", "ratio": mean, "goal": 1.15})
        table.add_row("modulated_conv2d: geometric mean over the layers", "", "", "", "", f"{mean:.2f}", "1.15")
    record = {"machine": machine("cpu", dry=False) | {"threads": torch.get_num_threads()}, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    Console(width=150).print(table)
    print(f"{options.out}: written")


if __name__ == "__main__":
    main()
