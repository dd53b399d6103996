"""The GPU harness, run dry: the whole logic on the CPU with tiny shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from golden import relative_error

import imgops
from imgops import _backend

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import eager, gpu, gpu_cases, gpu_record, gpu_timing, performance
from benchmarks.gpu_sections import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
#: problems of which the dry run has but one kind
MORE_CASES = [
    gpu_cases.modulated_case(2, 4, 3, 8, torch.float32),
    gpu_cases.modulated_case(2, 4, 3, 8, torch.float32, down=2),
    gpu_cases.filtered_case((1, 2, 9, 7), torch.float32, up=4),
    gpu_cases.filtered_case((1, 2, 9, 7), torch.float32, radial=True),
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
    result = harness("--out", tmp_path, "--against", "bias_act=benchmarks.eager:bias_act")
    assert result.returncode == 0, result.stdout + result.stderr
    for section in [name for name, (_, limit) in SECTIONS.items() if limit]:
        data = json.loads((tmp_path / f"gpu-{section}.json").read_text())
        assert data["complete"], section
        assert set(gpu_record.IDENTITY) | {"date"} <= data["machine"].keys()
        assert data["results"], section
        assert not [r for r in data["results"].values() if "error" in r]
    speed = json.loads((tmp_path / "gpu-speed.json").read_text())["results"]
    for name, forms in speed.items():
        measured = {k: v for k, v in forms.items() if isinstance(v, dict)}
        assert "eager" in measured
        assert all(form["seconds"] > 0 and "fraction_of_ceiling" in form for form in measured.values()), name
        assert ("benchmarks.eager:bias_act" in measured) == name.startswith("bias_act")
    checked = json.loads((tmp_path / "gpu-correctness.json").read_text())["results"]
    assert {name.split("/")[0] for name in checked} == {*_backend.OPS, "recorded"}
    wholes = json.loads((tmp_path / "gpu-end_to_end.json").read_text())["results"]
    networks = {name: r for name, r in wholes.items() if name.startswith("stylegan2")}
    assert {name.rpartition("/")[2] for name in networks} == {"fused", "reference"}
    assert all(r["generate"]["images_per_second"] > 0 for r in networks.values())
    assert all(r["train"]["seconds_per_1000_images"] > 0 for r in networks.values())
    steps = {name.partition(":")[0]: r["steps"] for name, r in wholes.items() if name not in networks}
    assert set(steps) == {"style step", "dream step"}
    assert all(side["steps_per_second"] > 0 for sides in steps.values() for side in sides.values())
    assert "steps/s" in result.stdout.splitlines()[-1]


@pytest.mark.slow
def test_dry_run_of_the_sanitizers(tmp_path):
    """The program that they watch runs the checks of one twin, and its end is recorded."""
    result = harness("--out", tmp_path, "--section", "sanitizers")
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "gpu-sanitizers.json").read_text())["results"]
    assert {name: r["code"] for name, r in found.items()} == {"memcheck": 0, "racecheck": 0}
    assert found["memcheck"]["checks"].endswith("checks passed")
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
    machine = dict.fromkeys(gpu_record.IDENTITY, "same")

    def test_a_cut_off_run_goes_on(self, tmp_path):
        first = gpu_record.Record(tmp_path / "r.json", self.machine)
        first.add("done", seconds=1)
        first.add("broken", error="out of memory")
        second = gpu_record.Record(tmp_path / "r.json", {**self.machine, "date": "later"})
        assert second.results == {"done": {"seconds": 1}}

    @pytest.mark.parametrize("key", gpu_record.IDENTITY)
    def test_other_code_or_machine_starts_anew(self, tmp_path, key):
        gpu_record.Record(tmp_path / "r.json", self.machine).add("done", seconds=1)
        assert gpu_record.Record(tmp_path / "r.json", {**self.machine, key: "other"}).results == {}

    def test_a_damaged_file_starts_anew(self, tmp_path):
        (tmp_path / "r.json").write_text('{"machine": {')
        assert gpu_record.Record(tmp_path / "r.json", self.machine).results == {}


def test_failed_checks_mark_the_timings_of_their_twin(tmp_path):
    machine = dict.fromkeys((*gpu_record.IDENTITY, "date"), "x")
    checks = gpu_record.Record(tmp_path / "gpu-correctness.json", machine)
    checks.add("bias_act/cpu/odd", passed=False, errors={"order0": 1.0})
    checks.finish([])
    speed = gpu_record.Record(tmp_path / "gpu-speed.json", machine)
    speed.add("bias_act/case/forward", cpu={"seconds": 1e-6}, eager={"seconds": 2e-6})
    speed.finish(["left"])
    lines, failed = gpu.table(tmp_path)
    assert failed
    assert "bias_act/case/forward: cpu 1 us WRONG, eager 2 us" in lines
    assert "speed: not complete, 1 cases left out" in lines


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("taps", [4, 12])
def test_eager_resampling_is_the_same_work(up, down, taps):
    case = gpu_cases.resample_case((2, 3, 10, 14), torch.float32, up=up, down=down, taps=taps, padding=(6, 5))
    kwargs = case.make(torch.device("cpu"))
    expected = imgops.upfirdn2d(**kwargs, impl="reference")
    for form in eager.FORMS["upfirdn2d"].values():
        assert relative_error(form(**kwargs), expected) < 1e-5


@pytest.mark.parametrize("case", [*gpu_cases.cases(dry=True), *MORE_CASES], ids=lambda case: case.id)
def test_eager_forms_are_the_same_work(case):
    """Forward, and each gradient where the case has them and the form does."""
    kwargs = case.make(torch.device("cpu"))
    inputs = [kwargs[name].requires_grad_() for name in case.differentiable]

    def outputs(form):
        y = form(**kwargs)
        y = y if isinstance(y, tuple) else (y,)
        return [*y, *torch.autograd.grad([t.sin().sum() for t in y], inputs)] if inputs else y

    expected = outputs(partial(getattr(imgops, case.op), impl="reference"))
    for name, form in eager.FORMS[case.op].items():
        if name != "plain conv":
            for actual, wanted in zip(outputs(form), expected, strict=True):
                # instance_norm has the biased variance
                assert relative_error(actual, wanted) < (0.05 if "instance_norm" in name else 1e-4), name


def test_unwritten_values_fail_a_check():
    from benchmarks.gpu_correctness import _worst_error

    one, nan = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, float("nan"), 1.0])
    for actual in ([one, nan], [nan, one]):
        assert not _worst_error(actual, [one, one]) <= 1e9
    assert _worst_error([one, one * 1.5], [one, one]) == 0.5


def test_costs_are_counted():
    """16 x 8 pixels to 32 x 16 with 4 taps: 2 products a tap and pixel, along x on 8 rows and along y on 16."""
    case = gpu_cases.resample_case((1, 1, 8, 16), torch.float16, up=2, padding=(2, 1))
    assert case.bytes == (2 * (8 * 16 + 16 * 32), 4 * (8 * 16 + 16 * 32))
    assert case.flops[0] == 2 * 2 * (8 * 32 + 16 * 32)
    assert gpu_cases.bias_act_case((1, 2, 3, 4), torch.float32).bytes == (2 * 24 * 4, 5 * 24 * 4)
    # 12 taps twice: 8 x 8 to 26 x 26 and back
    case = gpu_cases.filtered_case((1, 1, 8, 8), torch.float32)
    assert case.bytes == (4 * (64 + 64), 4 * (3 * 64 + 2 * 64))
    assert case.flops[0] == 2 * 6 * (8 * 26 + 26 * 26) + 2 * 12 * (26 * 8 + 8 * 8)
    for case in gpu_cases.cases(dry=True):
        if case.op == "filtered_lrelu":
            y = imgops.filtered_lrelu(**case.make(torch.device("cpu")))
            assert case.bytes[0] == 4 * (case.make(torch.device("cpu"))["x"].numel() + y.numel())


def test_clock_repeats_until_its_budget_ends():
    calls = []
    result = gpu_timing.Clock("cpu", dry=False).measure([lambda: calls.append(1), lambda: calls.append(2)], budget=0.01)
    assert result["rounds"] * 2 == len(calls) > 2
    assert 0 < result["seconds"] < 0.01


class TestPage:
    """docs/performance.md is what its records say."""

    def test_the_committed_page_is_that_of_the_records(self):
        assert performance.PAGE.read_text() == performance.page()

    def test_measurements_take_the_place_of_their_absence(self, tmp_path):
        (tmp_path / "gpu_resources.json").write_text((performance.RESULTS / "gpu_resources.json").read_text())
        machine = dict.fromkeys((*gpu_record.IDENTITY, "date"), "x") | {"device": "Some GPU"}
        speed = gpu_record.Record(tmp_path / "gpu-speed.json", machine)
        forms = {"triton": 1e-5, "cuda": 2e-5, "eager": 6e-5, "eager in place": 4e-5, "torch.compile": 3e-5}
        speed.add("bias_act/case/forward", bytes=1, **{f: {"seconds": t} for f, t in forms.items()})
        speed.add("bias_act/other/forward", bytes=1, eager={"seconds": 1.0}, triton={"failed": "no memory"})
        checks = gpu_record.Record(tmp_path / "gpu-correctness.json", machine)
        checks.add("bias_act/cuda/odd", passed=True)
        checks.add("bias_act/triton/odd", passed=False)
        whole = gpu_record.Record(tmp_path / "gpu-end_to_end.json", machine)
        figures = {"seconds_per_1000_images": 4.0, "peak_gb": 9.0, "busy": {"plain": 0.5}}
        whole.add("stylegan2 256 px/fused", generate={"failed": "no memory"}, train=figures)
        page = performance.page(tmp_path)
        assert "Some GPU" in page
        assert "1 of 2 checks" in page
        assert "| bias_act/case/forward | 10.0 | 20.0 |  | 60.0 | 40.0 | 30.0 | 3.00 |" in page
        assert "bias_act/other" not in page
        assert "| stylegan2 256 px/fused: seconds of training per 1000 images | 4 | 9.0 | 50% |" in page
        assert "Nothing yet" not in page
