"""The CUDA kernels, compiled for the CPU over an emulation of CUDA's threads, against the reference.

Every index, barrier and reduction runs as on a GPU, thread by thread; what this cannot show is speed, and errors of
the GPU's compiler.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from backends import TOLERANCE
from golden import cases, relative_error

from imgops._epilogue import Epilogue
from imgops.ops.bias_act import activation_arguments
from imgops.ops.filtered_lrelu import _transposed
from imgops.reference import bias_act as reference_bias_act
from imgops.reference import filtered_lrelu as reference_filtered_lrelu
from imgops.reference import upfirdn2d as reference_upfirdn2d
from imgops.reference.bias_act import ACTIVATIONS
from tests.op_specs.upfirdn2d import RESAMPLE, resample_filter

ROOT = Path(__file__).resolve().parent.parent.parent
COMPILER = shutil.which("g++")
TORCH = Path(torch.__file__).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="no g++ on PATH to compile the emulation"),
    pytest.mark.skipif(
        not (TORCH / "include" / "torch" / "csrc" / "stable").is_dir(), reason="torch came without headers"
    ),
]

#: more than one tile, planes enough for several in a block, channels that fill vectors
PROBLEMS = [
    *RESAMPLE,
    RESAMPLE[0]._replace(shape=(1, 4, 34, 37), taps=(4, 4)),
    RESAMPLE[1]._replace(shape=(2, 8, 133, 35), padding=(2, 1, 0, 3)),
    RESAMPLE[2]._replace(shape=(1, 8, 67, 70), padding=(3, 1, -1, 2)),
    RESAMPLE[1]._replace(shape=(40, 3, 4, 4)),
    RESAMPLE[2]._replace(shape=(1, 1, 3, 160), taps=(150,), padding=(80, 80, 150, 0)),
    RESAMPLE[2]._replace(shape=(1, 2, 20, 130), taps=(17, 120)),
]
PIECEWISE = ("linear", "relu", "lrelu")


class Filtered(NamedTuple):
    """A problem of filtered_lrelu; more than one tile, of every phase, with padding that cuts tiles short."""

    shape: tuple[int, int, int, int]
    padding: tuple[int, int, int, int]
    up: int = 2
    down_taps: tuple[int, ...] = (12,)
    up_taps: tuple[int, ...] | None = None
    down: int = 2
    rank_one: bool = False
    clamp: float = 0.5
    flip_filter: bool = False

    def filters(self):
        taps = (6 * self.up,) if self.up_taps is None else self.up_taps
        # of the size of low-pass filters, so that the image keeps its magnitude
        return tuple(
            resample_filter(t, self.rank_one) / (2 * (t[0] * t[-1]) ** 0.5) if t is not None else None
            for t in (taps, self.down_taps)
        )


FILTERED = [
    Filtered((1, 2, 36, 38), (9, 8, 9, 8)),
    Filtered((2, 1, 33, 35), (10, 11, 12, 9), down_taps=(12, 12), flip_filter=True),
    Filtered((1, 2, 34, 20), (11, 10, 10, 11), down_taps=(12, 12), rank_one=True, clamp=-1.0),
    Filtered((1, 1, 20, 37), (9, 10, 8, 7), down_taps=(12,), up_taps=(12, 12)),
    Filtered((2, 1, 18, 17), (24, 20, 25, 22), up=4),
    Filtered((1, 2, 17, 19), (23, 21, 22, 20), up=4, down_taps=(12, 12)),
    Filtered((1, 1, 15, 17), (-3, 14, 17, -2), up=4, clamp=-1.0),
    Filtered((1, 1, 7, 6), (6, 5, 7, 7), flip_filter=True),
    # as its steps
    Filtered((1, 3, 9, 8), (9, 8, 7, 12), up_taps=(5,), down_taps=(4, 5), down=3),
    Filtered((1, 2, 12, 11), (9, 10, 9, 10), up_taps=(12, 12), down_taps=(12, 12)),
    # an output of one pixel, whose gradient does not show its format
    Filtered((2, 3, 4, 4), (2, 2, 2, 2), up=1, up_taps=(4,), down_taps=(4,), down=4),
    # more tiles than blocks
    Filtered((2, 20, 19, 18), (9, 8, 9, 8)),
]


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    """The ops of csrc/cuda in the namespace imgops_emulated, for tensors on the CPU."""
    folder = tmp_path_factory.mktemp("emulated")
    for source in (ROOT / "csrc" / "cuda").iterdir():
        text = source.read_text()
        text = text.replace(
            "STABLE_TORCH_LIBRARY_IMPL(imgops, CUDA, m)", "STABLE_TORCH_LIBRARY_IMPL(imgops_emulated, CPU, m)"
        )
        # C++ has no shared memory whose size the launch sets
        text = re.sub(
            r"extern __shared__ .*unsigned char shared\[\];", "unsigned char* shared = emulated_shared;", text
        )
        (folder / source.name).write_text(text)
    include = [ROOT / "tests" / "emulated_cuda", ROOT / "csrc" / "include", ROOT / "csrc"]
    command = [COMPILER, "-std=c++17", "-O1", "-fPIC", "-w", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command += [*(f"-I{path}" for path in include), "-isystem", str(TORCH / "include"), "-x", "c++", "-c"]
    jobs = [
        subprocess.Popen(
            [*command, str(source), "-o", str(source.with_suffix(".o"))], stderr=subprocess.PIPE, text=True
        )
        for source in folder.glob("*.cu")
    ]
    for job in jobs:
        errors = job.communicate()[1]
        assert job.returncode == 0, errors[-4000:]
    library = folder / "emulated.so"
    link = [
        COMPILER,
        "-shared",
        *map(str, folder.glob("*.o")),
        f"-L{TORCH / 'lib'}",
        "-ltorch",
        "-ltorch_cpu",
        "-o",
        str(library),
    ]
    subprocess.run(link, check=True)
    schemas = torch.library.Library("imgops_emulated", "DEF")
    for definition in re.findall(r'm\.def\(\s*((?:"[^"]*"\s*)+)\)', (ROOT / "csrc" / "library.cpp").read_text()):
        schemas.define("".join(re.findall(r'"([^"]*)"', definition)))
    torch.ops.load_library(str(library))
    yield torch.ops.imgops_emulated
    schemas._destroy()


def acc_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def image(shape, dtype, channels_last):
    x = torch.randn(shape).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last and x.ndim == 4 else x


def doubles(*tensors):
    return [None if t is None else t.double().requires_grad_() for t in tensors]


@pytest.mark.parametrize("case", cases("upfirdn2d"))
def test_recorded_upfirdn2d(ops, case):
    p, a = case.params, case.arrays
    y = ops.upfirdn2d(a["x"], a.get("f"), p["up"], p["down"], p["padding"], p["flip_filter"], p["gain"])
    assert relative_error(y, a["y"]) < 1e-10


@pytest.mark.parametrize("case", cases("bias_act"))
def test_recorded_bias_act(ops, case):
    p, a = case.params, case.arrays
    activation = activation_arguments("bias_act", p["act"], p["alpha"], p["gain"], p["clamp"])
    dim, epilogue = p["dim"] if "b" in a else 0, Epilogue(a.get("b"), None, None, *activation)
    y = ops.bias_act(a["x"], dim, *epilogue)
    dx, db, *_ = ops.bias_act_backward(a["dy"], a["x"], None, dim, *epilogue, "b" in a, False, False)
    assert relative_error(y, a["y"]) < 1e-10
    assert relative_error(dx, a["dx"]) < 1e-10
    if "b" in a:
        assert relative_error(db, a["db"]) < 1e-10


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", PROBLEMS, ids=[f"{c.shape}-{c.taps}" for c in PROBLEMS])
def test_upfirdn2d(ops, case, channels_last, dtype):
    x = image(case.shape, dtype, channels_last)
    for rank_one in (False, True) if case.taps is not None and len(case.taps) == 2 else (False,):
        f = resample_filter(case.taps, rank_one)
        arguments = (f, case.up, case.down, case.padding, case.flip_filter, case.gain)
        expected = reference_upfirdn2d.upfirdn2d(x.double(), *arguments)
        assert relative_error(ops.upfirdn2d(x, *arguments), expected) < 2 * TOLERANCE[dtype]

        b, scale = (
            torch.randn(case.shape[1], dtype=acc_dtype(dtype)),
            torch.randn(case.shape[:2], dtype=acc_dtype(dtype)),
        )
        noise = torch.randn(1, 1, *expected.shape[2:], dtype=acc_dtype(dtype))
        for act, keep in (("lrelu", True), ("swish", False)):
            epilogue = Epilogue(b, scale, noise, act, 0.2, 1.4, 2.0)
            y, filtered = ops.upfirdn2d_bias_act(x, *arguments, *epilogue, keep)
            z = reference_bias_act.bias_act(expected, epilogue.to(torch.float64))
            # the filtered image may be larger than what the clamp leaves of it
            slack = max(1.0, float(expected.abs().max() * scale.abs().max() * 1.4 / z.abs().max()))
            assert relative_error(y, z) < 2 * TOLERANCE[dtype] * slack
            assert relative_error(filtered, expected) < 2 * TOLERANCE[dtype] if keep else filtered.numel() == 0


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 7), (3, 40, 4, 4), (2, 16, 33, 17), (1, 8, 64, 64), (600, 8), (2, 6, 10), (0, 4, 3, 3)]
)
def test_bias_act(ops, shape, channels_last, dtype):
    """Forward and backward with every sum, for each activation and each set of operands."""
    x, dy = image(shape, dtype, channels_last), image(shape, dtype, False)
    noise_shape = (shape[0], 1, *shape[2:])
    # the activations do not depend on the dtype
    acts = ACTIVATIONS if dtype == torch.float32 else ("lrelu", "swish")
    for act, modulated in itertools.product(acts, (False, True)):
        clamp = 0.7 if modulated else -1.0
        b = torch.randn(shape[1], dtype=acc_dtype(dtype))
        scale, noise = torch.randn(shape[:2], dtype=acc_dtype(dtype)), torch.randn(noise_shape, dtype=acc_dtype(dtype))
        operands = (b, scale, noise) if modulated else (b, None, None)
        epilogue = Epilogue(*operands, act, 0.2, 1.3, clamp)
        inputs = doubles(x, *operands)
        expected = reference_bias_act.bias_act(inputs[0], Epilogue(*inputs[1:], *epilogue[3:]))
        y = ops.bias_act(x, 1, *epilogue)
        assert relative_error(y, expected) < TOLERANCE[dtype]

        needs = (True, modulated, modulated)
        given = [t for t in inputs if t is not None]
        gradients = torch.autograd.grad(expected, given, dy.double())
        # without a scale, the sign of the output is enough for these
        sources = [(x, None), (None, y)] if act in PIECEWISE and not modulated else [(x, None)]
        for source in sources:
            dx, *sums = ops.bias_act_backward(dy, *source, 1, *epilogue, *needs)
            assert relative_error(dx, gradients[0]) < TOLERANCE[dtype]
            for actual, gradient in zip(sums, gradients[1:], strict=False):
                assert relative_error(actual, gradient) < 4 * TOLERANCE[acc_dtype(dtype)]


@pytest.mark.parametrize("case", cases("filtered_lrelu"))
def test_recorded_filtered_lrelu(ops, case):
    p, a = dict(case.params), case.arrays
    clamp = -1.0 if p.get("clamp") is None else p["clamp"]
    padding, activation = p["padding"], (p["gain"], p["slope"], clamp, p["flip_filter"])
    y, sign_mask = ops.filtered_lrelu(
        a["x"], a.get("fu"), a.get("fd"), a["b"], p["up"], p["down"], padding, *activation, True
    )
    arguments = (p["up"], p["down"], padding, (0,) * 4, p["flip_filter"], p["up"] ** 2, 1.0, p["gain"], p["slope"])
    dx = _transposed(ops, a["dy"], sign_mask, a.get("fu"), a.get("fd"), a["x"].shape, arguments)
    assert relative_error(y, a["y"]) < 1e-10
    assert relative_error(dx, a["dx"]) < 1e-10


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", FILTERED, ids=[f"{c.shape}-up{c.up}-{c.down_taps}" for c in FILTERED])
def test_filtered_lrelu(ops, case, channels_last, dtype):
    """Forward with a sign mask and without, the gradient, and the gradient's, which runs from the other end."""
    x, (fu, fd) = image(case.shape, dtype, channels_last), case.filters()
    b = torch.randn(case.shape[1], dtype=acc_dtype(dtype))
    activation = (1.3, 0.2, case.clamp)
    y, sign_mask = ops.filtered_lrelu(
        x, fu, fd, b, case.up, case.down, case.padding, *activation, case.flip_filter, True
    )
    without, none = ops.filtered_lrelu(
        x, fu, fd, b, case.up, case.down, case.padding, *activation, case.flip_filter, False
    )
    assert torch.equal(without, y)
    assert none.shape == (0,)

    x64, b64 = doubles(x, b)
    settings = dict(zip(("gain", "slope", "clamp"), activation, strict=True), flip_filter=case.flip_filter)
    expected = reference_filtered_lrelu.filtered_lrelu(x64, fu, fd, b64, case.up, case.down, case.padding, **settings)
    assert relative_error(y, expected) < 2 * TOLERANCE[dtype]

    z = reference_upfirdn2d.upfirdn2d(
        x64 + b64[:, None, None], fu, (case.up,) * 2, (1, 1), case.padding, case.flip_filter, case.up**2
    )
    a = (torch.where(z > 0, z, 0.2 * z) * 1.3).abs()
    bits = (z <= 0).int() + 2 * (a >= case.clamp).int() * (case.clamp >= 0)
    unpacked = torch.stack([sign_mask >> shift & 3 for shift in (0, 2, 4, 6)], 3).flatten(2, 3)
    sure = (z.abs() > 1e-5) & ((a - case.clamp).abs() > 1e-5)
    assert torch.equal(unpacked[:, :, : z.shape[2]].int()[sure], bits[sure])
    assert not unpacked[:, :, z.shape[2] :].any()

    arguments = (case.up, case.down, case.padding, (0,) * 4, case.flip_filter, case.up**2, 1.0, 1.3, 0.2)
    dy = torch.randn(y.shape).to(dtype)
    dx = _transposed(ops, dy, sign_mask, fu, fd, x.shape, arguments)
    dy64 = dy.double().requires_grad_()
    (dx64,) = torch.autograd.grad(expected, x64, dy64, create_graph=True)
    assert relative_error(dx, dx64) < 2 * TOLERANCE[dtype]
    v = image(case.shape, dtype, channels_last)
    ddy = ops.filtered_lrelu_slopes(
        v, sign_mask, fu, fd, case.up, case.down, case.padding, (0,) * 4, case.flip_filter, case.up**2, 1.0, 1.3, 0.2
    )
    (ddy64,) = torch.autograd.grad(dx64, dy64, v.double())
    assert relative_error(ddy, ddy64) < 2 * TOLERANCE[dtype]


def test_sums_are_deterministic(ops):
    x, dy = torch.randn(4, 24, 40, 40), torch.randn(4, 24, 40, 40)
    b, scale, noise = torch.randn(24), torch.randn(4, 24), torch.randn(4, 1, 40, 40)
    arguments = (dy, x, None, 1, *Epilogue(b, scale, noise, "swish"), True, True, True)
    for first, second in zip(ops.bias_act_backward(*arguments), ops.bias_act_backward(*arguments), strict=True):
        assert torch.equal(first, second)
