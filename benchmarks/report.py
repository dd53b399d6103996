"""``make bench``: every op on the CPU against plain PyTorch, in one run, as a table and a JSON file.

    python -m benchmarks.report [--only TEXT] [--seconds S] [--out FILE]
    python -m benchmarks.report --markdown    # the kept record as the README has it

The sides of a problem are checked against each other, then timed in turns; figures are medians. Ratios are against
the fastest other side of the same run: on a shared machine they mean more than milliseconds do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .comparison import OURS, medians
from .gpu_record import machine

MODULES = ("bench_upfirdn2d", "bench_bias_act", "bench_modulated_conv2d", "bench_training")
OUT = Path(__file__).parent / "results" / "cpu.json"


def markdown(record: dict[str, Any]) -> str:
    """A record as a table, with what it was measured on."""
    lines = ["| | imgops, ms | fastest plain form, ms | ratio |", "| --- | ---: | ---: | ---: |"]
    for row in record["rows"]:
        times = row.get("seconds")
        others = [t for side, t in times.items() if side != OURS] if times else []
        cells = [f"{times[OURS] * 1e3:.1f}", f"{min(others) * 1e3:.1f}"] if times else ["", ""]
        lines.append("| " + " | ".join([row["problem"], *cells, f"{row['ratio']:.2f}"]) + " |")
    on = record["machine"]
    return "\n".join([*lines, "", f"Medians on {on['threads']} threads of {on['device']}, torch {on['torch']}."])


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
    torch.manual_seed(0)
    rows = []
    table = Table(title="CPU, medians in ms; ratio = fastest other side / imgops")
    for column in ("problem", OURS, "eager forms", "ratio", "goal"):
        table.add_column(column, justify="left" if column in ("problem", "eager forms") else "right")
    for name in MODULES:
        for comparison in importlib.import_module(f"benchmarks.{name}").comparisons():
            if options.only not in comparison.id:
                continue
            times = medians(comparison, options.seconds)
            others = {side: t for side, t in times.items() if side != OURS}
            ratio = min(others.values()) / times[OURS]
            rows.append({"problem": comparison.id, "seconds": times, "ratio": ratio, "goal": comparison.goal})
            print(f"{comparison.id}: {ratio:.2f}x", flush=True)
            table.add_row(
                comparison.id,
                f"{times[OURS] * 1e3:.1f}",
                ", ".join(f"{side} {t * 1e3:.1f}" for side, t in others.items()),
                f"{ratio:.2f}",
                "" if comparison.goal is None else f"{comparison.goal:g}",
            )
    layers = [r["ratio"] for r in rows if r["problem"].startswith("modulated_conv2d") and r["goal"] == 1.0]
    if layers:
        mean = math.exp(sum(map(math.log, layers)) / len(layers))
        rows.append({"problem": "modulated_conv2d: geometric mean over the layers", "ratio": mean, "goal": 1.15})
        table.add_row("modulated_conv2d: geometric mean over the layers", "", "", f"{mean:.2f}", "1.15")
    record = {"machine": machine("cpu", dry=False) | {"threads": torch.get_num_threads()}, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    Console(width=150).print(table)
    print(f"{options.out}: written")


if __name__ == "__main__":
    main()
