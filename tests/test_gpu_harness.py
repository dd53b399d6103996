"""The GPU harness, run dry: the whole logic on the CPU with tiny shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from golden import relative_error
from harness_tasks import LOST_GPU, double, hang, misbehave

import imgops
from imgops import _backend

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import performance
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import correctness, timing
from benchmarks.gpu.sections import SECTIONS, Context
from benchmarks.gpu.workers import spread
from benchmarks.record import IDENTITY, Record, output_of
from tests.op_specs import FORWARD_ONLY, SHEETS, as_tuple, cases
from tests.op_specs.bias_act import bias_act_case
from tests.op_specs.filtered_lrelu import filtered_case
from tests.op_specs.modulated_conv2d import modulated_case
from tests.op_specs.upfirdn2d import resample_case

ROOT = Path(__file__).resolve().parent.parent
#: problems of which the dry run has but one kind
MORE_CASES = [
    modulated_case(2, 4, 3, 8, torch.float32),
    modulated_case(2, 4, 3, 8, torch.float32, down=2),
    filtered_case((1, 2, 9, 7), torch.float32, up=4),
    filtered_case((1, 2, 9, 7), torch.float32, radial=True),
]


def harness(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--dry", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_dry_run(tmp_path):
    """Every section ends, leaves nothing out, and says on which machine it ran; no check fails."""
    result = harness("--out", tmp_path, "--against", "bias_act=tests.op_specs.bias_act:eager")
    assert result.returncode == 0, result.stdout + result.stderr
    for section in [name for name, (_, limit) in SECTIONS.items() if limit]:
        data = json.loads((tmp_path / f"gpu-{section}.json").read_text())
        assert data["complete"], section
        assert set(IDENTITY) | {"date"} <= data["machine"].keys()
        assert data["results"], section
        assert not [r for r in data["results"].values() if "error" in r]
    speed = json.loads((tmp_path / "gpu-speed.json").read_text())["results"]
    for name, forms in speed.items():
        measured = {k: v for k, v in forms.items() if isinstance(v, dict)}
        assert "eager" in measured
        assert all(form["seconds"] > 0 for form in measured.values()), name
        # the work of matrices' roots is not counted
        counted = not name.startswith("wasserstein_loss")
        assert all(("fraction_of_ceiling" in form) == counted for form in measured.values()), name
        assert ("tests.op_specs.bias_act:eager" in measured) == name.startswith("bias_act")
    checked = json.loads((tmp_path / "gpu-correctness.json").read_text())["results"]
    assert {name.split("/")[0] for name in checked} == set(_backend.OPS)
    assert any("/recorded/" in name for name in checked)
    wholes = json.loads((tmp_path / "gpu-end_to_end.json").read_text())["results"]
    networks = {name: r for name, r in wholes.items() if name.startswith("stylegan2")}
    assert {name.rpartition("/")[2] for name in networks} == {"fused", "reference"}
    assert all(r["generate"]["images_per_second"] > 0 for r in networks.values())
    assert all(r["train"]["seconds_per_1000_images"] > 0 for r in networks.values())
    steps = {name.partition(":")[0]: r["steps"] for name, r in wholes.items() if name not in networks}
    assert set(steps) == {"style step", "dream step"}
    assert all(side["steps_per_second"] > 0 for sides in steps.values() for side in sides.values())
    assert "steps/s" in result.stdout


@pytest.mark.slow
def test_dry_run_of_the_sanitizers(tmp_path):
    """The program that they watch runs the checks of one backend, and its end is recorded."""
    result = harness("--out", tmp_path, "--section", "sanitizers")
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "gpu-sanitizers.json").read_text())["results"]
    assert {name: r["code"] for name, r in found.items()} == {"memcheck": 0, "racecheck": 0}
    passed, _, count = found["memcheck"]["told"][-1].removesuffix(" checks passed").split()
    assert int(passed) == int(count) > 20
    assert result.stdout.splitlines()[-2:] == ["memcheck: clean", "racecheck: clean"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--against", "nonsense"), "takes [op=]module:function"),
        (("--against", "math:sqrt"), "the op must be one of"),
        (("--against", "bias_act=math:nothing"), "has no attribute"),
        (("--device", "nowhere"), "nowhere"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--dry", "--out", str(tmp_path), *arguments])
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last
    assert not list(tmp_path.iterdir())


class TestRecord:
    machine = dict.fromkeys(IDENTITY, "same")

    def test_a_cut_off_run_goes_on(self, tmp_path):
        first = Record(tmp_path / "r.json", self.machine)
        first.add("done", seconds=1)
        first.add("broken", error="out of memory")
        second = Record(tmp_path / "r.json", {**self.machine, "date": "later"})
        assert second.results == {"done": {"seconds": 1}}

    @pytest.mark.parametrize("key", IDENTITY)
    def test_other_code_or_machine_starts_anew(self, tmp_path, key):
        Record(tmp_path / "r.json", self.machine).add("done", seconds=1)
        assert Record(tmp_path / "r.json", {**self.machine, key: "other"}).results == {}

    def test_a_damaged_file_starts_anew(self, tmp_path):
        (tmp_path / "r.json").write_text('{"machine": {')
        assert Record(tmp_path / "r.json", self.machine).results == {}


def test_failed_checks_mark_the_timings_of_their_backend(tmp_path):
    machine = dict.fromkeys((*IDENTITY, "date"), "x")
    checks = Record(tmp_path / "gpu-correctness.json", machine)
    checks.add("bias_act/cpu/odd", passed=False, errors={"order0": 1.0})
    checks.finish([])
    speed = Record(tmp_path / "gpu-speed.json", machine)
    speed.add("bias_act/case/forward", cpu={"seconds": 1e-6}, eager={"seconds": 2e-6})
    speed.finish(["left"])
    old = Record(tmp_path / "gpu-end_to_end.json", machine | {"device": "another"})
    old.add("stylegan2 256 px/fused", train={"failed": "so"})
    lines, failed = gpu.table(tmp_path, machine)
    assert failed
    assert "end_to_end: of other code or another machine, left out" in lines
    assert not any("stylegan2" in line for line in lines)
    assert "bias_act/case/forward: cpu 1 us WRONG, eager 2 us" in lines
    assert "speed: not complete, 1 cases left out" in lines


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("taps", [4, 12])
def test_eager_resampling_is_the_same_work(up, down, taps):
    case = resample_case((2, 3, 10, 14), torch.float32, up=up, down=down, taps=taps, padding=(6, 5))
    kwargs = case.make(torch.device("cpu"))
    expected = imgops.upfirdn2d(**kwargs, impl="reference")
    for form in SHEETS["upfirdn2d"].forms.values():
        assert relative_error(form(**kwargs), expected) < 1e-5


@pytest.mark.parametrize("case", [*cases(dry=True), *MORE_CASES], ids=lambda case: case.id)
def test_eager_forms_are_the_same_work(case):
    """Forward, and each gradient where the form has them."""
    kwargs = case.make(torch.device("cpu"))
    inputs = [kwargs[name].requires_grad_() for name in case.differentiable]

    def outputs(form, backward):
        y = as_tuple(form(**kwargs))
        return [*y, *torch.autograd.grad([t.sin().sum() for t in y], inputs)] if backward else y

    for name, form in SHEETS[case.op].forms.items():
        if name != "plain conv":
            backward = name not in FORWARD_ONLY
            with torch.set_grad_enabled(backward):
                expected = outputs(partial(getattr(imgops, case.op), impl="reference"), backward)
                for actual, wanted in zip(outputs(form, backward), expected, strict=True):
                    # instance_norm has the biased variance
                    assert relative_error(actual, wanted) < (0.05 if "instance_norm" in name else 1e-4), name


@pytest.mark.parametrize(
    "case",
    [case for case in cases(dry=True) if not case.op.endswith(("_matrix", "_statistics", "_loss", "_neighbor"))],
    ids=lambda case: case.id,
)
def test_eager_forms_of_half_images_are_half(case):
    """As the op's own are: twice the bytes would be twice the time."""
    kwargs = case.make(torch.device("cpu"))
    kwargs |= {name: kwargs[name].half() for name in ("x", "content", "style") if name in kwargs}
    for name, form in SHEETS[case.op].forms.items():
        assert form(**kwargs).dtype == getattr(imgops, case.op)(**kwargs).dtype == torch.float16, name


def test_unwritten_values_fail_a_check():
    one, nan = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, float("nan"), 1.0])
    for actual in ([one, nan], [nan, one]):
        assert not correctness.worst_error(actual, [one, one]) <= 1e9
    assert correctness.worst_error([one, one * 1.5], [one, one]) == 0.5


def test_each_tensor_of_a_check_counts_by_itself():
    """However much larger the others are, unless it is zero but for rounding."""
    small, large = torch.full([3], 1e-6, dtype=torch.float64), torch.full([3], 1e2, dtype=torch.float64)
    assert correctness.worst_error([large, 0 * small], [large, small]) == 1.0
    assert correctness.worst_error([large, 0 * small], [large, small * 1e-15]) < 1e-20
    with pytest.raises(ValueError, match=r"must be \(3,\); got \(1,\)"):
        correctness.worst_error([small[:1]], [small])


def test_no_gradient_at_all_fails_every_check():
    for op in SHEETS:
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            # zeros are wrong by 1
            assert max(correctness.tolerances(op, dtype)) < 0.5


class TestSpread:
    """Items over processes, which do what harness_tasks.py says."""

    def test_every_item_is_done(self):
        assert dict(spread(double, range(5), 2, 60.0)) == {i: {"value": 2 * i} for i in range(5)}

    def test_what_raises_or_dies_costs_itself_alone(self):
        results = dict(spread(misbehave, ["fine", "raise", "die", "lose the GPU", "fine too"], 1, 60.0))
        assert results.pop("raise") == {"error": "ValueError: so"}
        assert results.pop("die") == {"error": "the process died"}
        assert results.pop("lose the GPU") == {"error": "RuntimeError: an illegal memory access"}
        # the process that lost its GPU is another by then
        assert len({r["process"] for r in results.values()}) == len(results) == 2

    def test_what_has_not_ended_in_time_is_left_out_and_ended(self, tmp_path):
        start = time.monotonic()
        results = dict(spread(hang, [tmp_path / "a", tmp_path / "b"], 1, 15.0))
        assert results == {}
        assert time.monotonic() - start < 40
        process = int((tmp_path / "a").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
        assert not (tmp_path / "b").exists()


class TestAttempt:
    def context(self, path, left=60.0):
        record = Record(path / "r.json", dict.fromkeys(IDENTITY, "same"))
        return Context("cpu", True, time.monotonic() + left, record, {}, {})

    def test_a_failure_is_recorded_and_tried_again(self, tmp_path):
        context = self.context(tmp_path)
        context.attempt("case", "form", partial(misbehave, "raise"))
        assert context.record.results == {"case": {"form": {"failed": "ValueError: so"}}}
        assert context.failed("case", "form")
        again = self.context(tmp_path)
        again.attempt("case", "form", dict)
        again.attempt("case", "form", partial(misbehave, "raise"))
        assert again.record.results == {"case": {"form": {}}}

    def test_a_lost_gpu_ends_the_section_when_it_is_on_record(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch, "cuda", LOST_GPU)
        context = self.context(tmp_path)
        with pytest.raises(RuntimeError, match="so"):
            context.attempt("case", "form", partial(misbehave, "raise"))
        assert self.context(tmp_path).failed("case", "form")

    def test_what_never_returns_is_on_record(self, tmp_path):
        context = self.context(tmp_path)
        with pytest.raises(SystemExit):
            context.attempt("case", "form", sys.exit)
        assert self.context(tmp_path).failed("case", "form")

    def test_what_would_take_longer_is_left_out(self, tmp_path):
        context = self.context(tmp_path, left=5.0)
        context.attempt("case", "form", partial(misbehave, "raise"), least=30.0)
        assert (context.record.results, context.left_out) == ({}, ["case/form"])


def test_costs_are_counted():
    """16 x 8 pixels to 32 x 16 with 4 taps: 2 products per tap and pixel, along x on 8 rows and along y on 16."""
    case = resample_case((1, 1, 8, 16), torch.float16, up=2, padding=(2, 1))
    assert case.bytes == (2 * (8 * 16 + 16 * 32), 4 * (8 * 16 + 16 * 32))
    assert case.flops[0] == 2 * 2 * (8 * 32 + 16 * 32)
    assert bias_act_case((1, 2, 3, 4), torch.float32).bytes == (2 * 24 * 4, 5 * 24 * 4)
    # 12 taps twice: 8 x 8 to 26 x 26 and back
    case = filtered_case((1, 1, 8, 8), torch.float32)
    assert case.bytes == (4 * (64 + 64), 4 * (3 * 64 + 2 * 64))
    assert case.flops[0] == 2 * 6 * (8 * 26 + 26 * 26) + 2 * 12 * (26 * 8 + 8 * 8)
    # x, y, 9 weights and the noise of 4 x 4 pixels; then dy, x, y, dx, the weight twice, and the noise's gradient
    case = modulated_case(1, 1, 1, 4, torch.float16)
    assert case.bytes == (2 * 32 + 4 * (9 + 16), 2 * 32 + 4 * (9 + 16) + 2 * 64 + 4 * (18 + 16))


def test_clock_repeats_until_its_budget_ends():
    calls = []
    result = timing.Clock("cpu", dry=False).measure([lambda: calls.append(1), lambda: calls.append(2)], budget=0.01)
    assert result["rounds"] * 2 == len(calls) > 2
    assert 0 < result["seconds"] < 0.01


class TestPage:
    """docs/performance.md is what its records say."""

    def test_the_committed_page_is_that_of_the_committed_records(self, tmp_path):
        committed = output_of("git", "ls-files", "benchmarks/results")
        paths = committed.splitlines() if committed else map(str, performance.RESULTS.iterdir())
        for path in paths:
            (tmp_path / Path(path).name).write_text((ROOT / path).read_text())
        assert performance.PAGE.read_text() == performance.page(tmp_path)

    def test_measurements_take_the_place_of_their_absence(self, tmp_path):
        (tmp_path / "gpu_resources.json").write_text((performance.RESULTS / "gpu_resources.json").read_text())
        machine = dict.fromkeys((*IDENTITY, "date"), "x") | {"device": "Some GPU", "dry": False}
        speed = Record(tmp_path / "gpu-speed.json", machine)
        forms = {"triton": 1e-5, "cuda": 2e-5, "eager": 6e-5, "eager in place": 4e-5, "torch.compile": 3e-5}
        speed.add("bias_act/case/forward", bytes=1, **{f: {"seconds": t} for f, t in forms.items()})
        speed.add("bias_act/other/forward", bytes=1, eager={"seconds": 1.0}, triton={"failed": "no memory"})
        checks = Record(tmp_path / "gpu-correctness.json", machine)
        checks.add("bias_act/cuda/odd", passed=True)
        checks.add("bias_act/triton/odd", passed=False)
        whole = Record(tmp_path / "gpu-end_to_end.json", machine)
        figures = {"seconds_per_1000_images": 4.0, "peak_gb": 9.0, "busy": 0.5}
        whole.add("stylegan2 256 px/fused", generate={"failed": "no memory"}, train=figures)
        whole.add("on a CPU", generate={"images_per_second": 5.0, "peak_gb": None})
        Record(tmp_path / "gpu-ceilings.json", machine | {"dry": True, "device": "a dry run"})
        page = performance.page(tmp_path)
        assert "- speed: Some GPU (driver x," in page
        assert "1 of 2 checks" in page
        # the other backend is wrong there
        assert "| bias_act/case/forward |  | 20.0 |  | 60.0 | 40.0 | 30.0 |  | 2.00 |" in page
        assert "bias_act/other" not in page
        assert "| stylegan2 256 px/fused: seconds of training per 1000 images | 4 | 9.0 | 50% |" in page
        assert "| on a CPU: images/s | 5 |  |  |" in page
        assert "Nothing yet" not in page
        assert "dry run" not in page
