"""The GPU harness, run dry: the whole logic on the CPU with tiny shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden import relative_error

import imgops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import eager, gpu, gpu_cases, gpu_record, gpu_timing
from benchmarks.gpu_sections import SECTIONS

ROOT = Path(__file__).resolve().parent.parent


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
    for section in SECTIONS:
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
    network = json.loads((tmp_path / "gpu-end_to_end.json").read_text())["results"]
    assert {name.rpartition("/")[2] for name in network} == {"fused", "reference"}
    assert all(r["generate"]["images_per_second"] > 0 for r in network.values())
    assert all(r["train"]["seconds_per_1000_images"] > 0 for r in network.values())
    assert "images/s" in result.stdout.splitlines()[-1]


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


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_eager_modulation_is_the_same_work(up, down):
    kwargs = gpu_cases.modulated_case(2, 4, 3, 8, torch.float32, up=up, down=down).make(torch.device("cpu"))
    expected = imgops.modulated_conv2d(**kwargs, impl="reference")
    for name, form in eager.FORMS["modulated_conv2d"].items():
        if name != "plain conv":
            assert relative_error(form(**kwargs), expected) < 1e-5


def test_unwritten_values_fail_a_check():
    from benchmarks.gpu_correctness import _worst_error

    one, nan = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, float("nan"), 1.0])
    for actual in ([one, nan], [nan, one]):
        assert not _worst_error(actual, [one, one]) <= 1e9
    assert _worst_error([one, one * 1.5], [one, one]) == 0.5


def test_eager_bias_act_is_the_same_work():
    kwargs = gpu_cases.bias_act_case((2, 3, 4, 5), torch.float32).make(torch.device("cpu"))
    assert relative_error(eager.bias_act(**kwargs), imgops.bias_act(**kwargs, impl="reference")) < 1e-6


def test_costs_are_counted():
    """16 x 8 pixels to 32 x 16 with 4 taps: 2 products a tap and pixel, along x on 8 rows and along y on 16."""
    case = gpu_cases.resample_case((1, 1, 8, 16), torch.float16, up=2, padding=(2, 1))
    assert case.bytes == (2 * (8 * 16 + 16 * 32), 4 * (8 * 16 + 16 * 32))
    assert case.flops[0] == 2 * 2 * (8 * 32 + 16 * 32)
    assert gpu_cases.bias_act_case((1, 2, 3, 4), torch.float32).bytes == (2 * 24 * 4, 5 * 24 * 4)


def test_clock_repeats_until_its_budget_ends():
    calls = []
    result = gpu_timing.Clock("cpu", dry=False).measure([lambda: calls.append(1), lambda: calls.append(2)], budget=0.01)
    assert result["rounds"] * 2 == len(calls) > 2
    assert 0 < result["seconds"] < 0.01
