"""The benchmarks collect and run under pytest, and a run of one's own leaves the kept records alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import bench_iteration, networks, performance, report
from benchmarks import record as records
from benchmarks.gpu import __main__ as gpu

ROOT = records.ROOT
HERE = {"device": "this CPU", "torch": "2.13.0", "python": "3.11", "threads": 2, "commit": "new", "sources": "n"}
OF_OTHER = {"device": "another CPU", "torch": "2.10.0", "python": "3.10", "threads": 64}
PROBLEMS = {"bench_a": ["a: one", "a: two"], "bench_b": ["b: one"]}
COLLECT = """
import json, pytest, sys
class Plugin:
    def pytest_collection_modifyitems(self, items):
        print("PARAMETERS", json.dumps([[item.path.stem, item.callspec.params] for item in items]))
sys.exit(pytest.main(["benchmarks/", "--benchmark-only", "--collect-only", "-q"], plugins=[Plugin()]))
"""


def python(*arguments: object) -> str:
    """What a process prints that ends well."""
    # not as a worker of pytest-xdist, beside which pytest-benchmark times nothing
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_benchmark_is_collected_with_parameters_that_a_record_holds():
    printed = python("-c", COLLECT).splitlines()
    found = json.loads(next(line for line in printed if line.startswith("PARAMETERS ")).removeprefix("PARAMETERS "))
    assert {stem for stem, _ in found} == {"bench_ops", *report.MODULES}
    # the problems of the report, and imgops on each
    problems = {problem for module in report.problems().values() for problem in module}
    assert {p["problem"] for _, p in found if p["side"] == "imgops"} == problems


def test_a_benchmark_runs_and_its_record_names_what_it_timed(tmp_path):
    quick = ("--benchmark-min-rounds=1", "--benchmark-max-time=0.001", "--benchmark-warmup=off")
    chosen = ("benchmarks/bench_dream.py", "-k", "update and 256", "--benchmark-only")
    python("-m", "pytest", "-q", *chosen, *quick, f"--benchmark-json={tmp_path / 'record.json'}")
    found = json.loads((tmp_path / "record.json").read_text())["benchmarks"]
    problem = "dream update: 1x3x256x256"
    assert [b["params"] for b in found] == [{"problem": problem, "side": side} for side in ("imgops", "eager")]


#: patterns of the problems that are checked: where some differ in size alone, the smallest; the training step that has
#: all parts of the others
CHECKED = {
    "bench_families": "tiny|progan|code",
    "bench_iteration": "tiny, with path length and R1",
    "bench_style": "256x",
    "bench_training": "channel_base 16384",
}


@pytest.mark.slow
@pytest.mark.parametrize("module", report.MODULES)
def test_the_sides_of_what_is_not_an_op_compute_the_same(module):
    chosen = CHECKED.get(module, "")
    program = f"""
import re
from benchmarks import comparison, report
for one in report.comparisons({module!r}):
    if re.search({chosen!r}, one.id):
        comparison.check(one)
        print("SAME", one.id)
"""
    same = [line.removeprefix("SAME ") for line in python("-c", program).splitlines() if line.startswith("SAME ")]
    assert same == [problem for problem in report.problems()[module] if re.search(chosen, problem)] != []


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """``bench(*arguments)`` runs the report on problems that take no time; its records are in tmp_path."""

    def in_process(function, *arguments):
        if function is report.problems:
            return PROBLEMS
        module, only, _ = arguments
        row = {"seconds": {"imgops": 1.0, "eager": 2.0}, "ratio": 2.0, "goal": None, "obvious_goal": None}
        return [{"problem": problem} | row for problem in PROBLEMS[module] if only in problem]

    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "KEPT", tmp_path / "kept.json")
    monkeypatch.setattr(report, "OUT", tmp_path / "build" / "cpu.json")
    monkeypatch.setattr(report, "in_process", in_process)
    monkeypatch.setattr(report, "machine", lambda device, dry: dict(HERE))
    monkeypatch.setattr(report.torch, "get_num_threads", lambda: HERE["threads"])
    return lambda *arguments: report.main([str(a) for a in arguments])


def test_a_run_says_how_long_and_where_and_leaves_the_kept_record(bench, capsys):
    bench()
    long, where, *_ = capsys.readouterr().out.splitlines()
    assert long == "3 problems, 4 s each or five rounds: 1 min, more on a slow CPU"
    assert where == f"results go to {report.OUT}"
    assert [row["problem"] for row in json.loads(report.OUT.read_text())["rows"]] == ["a: one", "a: two", "b: one"]
    assert not report.KEPT.exists()


@pytest.mark.parametrize("where", ["--out", "--record"])
def test_a_part_is_merged_into_the_record_of_the_same_machine(bench, tmp_path, where):
    path = tmp_path / "mine.json" if where == "--out" else report.KEPT
    old = [{"problem": p, "ratio": 1.0, "goal": None} for p in ("a: one", "b: one", "gone: by now", report.MEAN)]
    path.write_text(json.dumps({"machine": HERE | {"commit": "old"}, "rows": old}))
    bench("--only", "a:", *([where, path] if where == "--out" else [where]))
    record = json.loads(path.read_text())
    assert record["machine"]["commit"] == "new"
    assert [(row["problem"], row["ratio"], row.get("commit")) for row in record["rows"]] == [
        ("a: one", 2.0, None),
        ("a: two", 2.0, None),
        ("b: one", 1.0, "old"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            json.dumps({"machine": HERE | OF_OTHER, "rows": []}),
            "machine (device another CPU, here this CPU;",
        ),
        (json.dumps({"machine": HERE | {"threads": 1}, "rows": []}), "(threads 1, here 2)"),
        ("[]", "is not a record of this program"),
        ("{", "is not a record of this program"),
    ],
)
def test_a_part_is_not_mixed_with_rows_of_another_machine(bench, capsys, content, expected):
    report.KEPT.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        bench("--only", "a: one", "--record")
    assert expected in capsys.readouterr().err
    assert report.KEPT.read_text() == content


def test_a_part_that_is_nowhere_is_an_error_that_names_what_there_is(bench, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench("--only", "nosuch")
    assert "--only nosuch: no problem's name holds this text; there are a, b" in capsys.readouterr().err
    assert not report.OUT.exists()


def test_what_a_gpu_did_and_its_page_go_elsewhere_unless_asked_for(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(gpu, "run", lambda options: asked.append(options.out) or 0)
    for options in [], ["--record"], ["--dry"]:
        assert gpu.main(["--device", "cpu", *options]) == 0
    assert asked == [ROOT / "build" / "gpu", ROOT / "benchmarks" / "results", ROOT / "build" / "gpu-dry"]
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", "cpu", "--dry", "--record"])
    kept = performance.PAGE.read_bytes()
    monkeypatch.setattr(performance, "BUILD", tmp_path)
    performance.main([])
    assert performance.PAGE.read_bytes() == kept
    made = (tmp_path / "performance.md").read_bytes()
    assert made == kept, "python -m benchmarks.performance --record writes docs/performance.md anew"


def test_the_cost_of_training_is_the_mean_of_its_steps_as_often_as_they_come():
    networks, taken = next(iter(bench_iteration.NETWORKS)), {"imgops": 5e6, "eager strided": 10e6, "eager": 20e6}
    rows = [
        {"problem": f"training step: {networks}, {kind}", "seconds": dict.fromkeys(taken, seconds), "goal": None}
        for kind, seconds in zip(bench_iteration.KINDS, (1.0, 3.0, 7.0), strict=True)
    ]
    rows[-1]["bytes"] = taken
    *steps, time, memory = report.merged([], rows, [row["problem"] for row in rows])
    assert steps == rows
    # of 16 steps the path length is part of every fourth, and R1 of one of those
    assert time["seconds"] == dict.fromkeys(taken, (12 * 1.0 + 3 * 3.0 + 7.0) / 16)
    assert (time["ratio"], memory["ratio"]) == (1.0, 2.0)
    page = report.markdown({"rows": [time, memory], "machine": {"threads": 2, "device": "a CPU", "torch": "2"}})
    assert f"| training iteration: {networks} | 1750.0 | 1750.0 | 1.00 | 1750.0 | 1.00 |" in page
    assert f"| training iteration: {networks}, peak memory in MB | 5.0 | 20.0 | 4.00 | 10.0 | 2.00 |" in page
    # a part of the steps says nothing of training
    assert report.merged([], rows[:2], [row["problem"] for row in rows]) == rows[:2]


def test_the_page_of_networks_shows_the_records_of_all_processors():
    assert networks.pages() in networks.PAGE.read_text()
    rows = [row for path in networks.PLACE.glob("*.json") for row in json.loads(path.read_text())["rows"].values()]
    assert {row["network"] for row in rows} == set(networks.NETWORKS)


@pytest.mark.parametrize("backward", [False, True])
def test_the_sides_of_a_network_compute_the_same(backward):
    network = networks.NETWORKS["TransformNet"]
    sides = networks.sides_of(network.make().eval(), network.inputs(32), backward)
    del sides["torch.compile"]
    # it raises where a side differs
    times = networks.medians(networks.Comparison("network", "TransformNet", sides, tolerance=0.1), 0.0, 1)
    assert {"imgops", "PyTorch", "channels-last"} <= times.keys()
