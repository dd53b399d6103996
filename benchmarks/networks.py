"""Whole networks of other packages: PyTorch, compilers and runtimes against ``imgops.accelerate``, on this CPU.

    python -m benchmarks.networks [--only TEXT] [--seconds S] [--rounds N]

Weights are random, of the published shapes. The sides of a network are checked against each other, then timed in turns,
each call after an untimed one of its side; figures are medians. The results of each processor are a file of
benchmarks/results/networks/, written row by row, and docs/accelerate.md shows all of them. The packages of
requirements-networks.txt are needed; networks and runtimes whose package is not installed are left out.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import imgops
from imgops._memory import peak_memory, resident_memory
from imgops.models.encoders import VGG
from imgops.models.style.transform_net import TransformNet
from imgops.nn.joined import split

from .bench_style import plain_copy
from .comparison import Comparison, medians
from .performance import table
from .record import RESULTS, ROOT, cpu_name, machine

PLACE, PAGE = RESULTS / "networks", ROOT / "docs" / "accelerate.md"
_TABLES = re.compile(r"(?<=<!-- networks: written by python -m benchmarks.networks -->\n).*?(?=<!-- end)", re.DOTALL)
#: sides by their columns; the first two are PyTorch's layouts, of which the faster counts
SIDES = ("PyTorch", "channels-last", "torch.compile", "ONNX Runtime", "OpenVINO", "imgops")


class Network(NamedTuple):
    """A network to time.

    Attributes:
        make: returns it.
        inputs: by the picture's side in pixels, what it is given.
        sides: of pictures.
        package: that it comes from.
        backward: whether a step forward and backward is timed too.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    sides: tuple[int, ...] = (256, 512)
    package: str = "imgops"
    backward: bool = False


def _picture(size: int) -> tuple[Tensor, ...]:
    return (torch.rand(1, 3, size, size),)


def _vgg19() -> nn.Module:
    return plain_copy(VGG(19))


def _transform_net() -> nn.Module:
    network = TransformNet()
    split(network, built_in=True)
    # torchvision's layer, as the published network has it
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, imgops.nn.InstanceNorm2d):
                setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))
    return network


class _DenseBlock(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(5):
            outputs = growth if i < 4 else channels
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels + i * growth, outputs, 3, 1, 1))
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for i in range(1, 5):
            found.append(self.lrelu(self.get_submodule(f"conv{i}")(torch.cat(found, 1))))
        return self.conv5(torch.cat(found, 1)) * 0.2 + x  # type: ignore[operator]


class _RRDB(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_DenseBlock(channels, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x) * 0.2 + x


class _RRDBNet(nn.Module):
    """ESRGAN's generator (Wang et al. 2018), four times the side of what it is given."""

    def __init__(self, channels: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, channels, 3, 1, 1)
        self.body = nn.Sequential(*(_RRDB(channels, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(channels, channels, 3, 1, 1)
        self.up = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, 1, 1), nn.LeakyReLU(0.2))
            )
        )
        self.last = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(channels, 3, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        return self.last(self.up(x + self.conv_body(self.body(x))))


def _autoencoder() -> nn.Module:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **blocks).decoder


class _Unet(nn.Module):
    """The shape of google/ddpm-church-256, at one time step."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        down = ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D")
        up = ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4
        self.unet = UNet2DModel(
            block_out_channels=(128, 128, 256, 256, 512, 512), down_block_types=down, up_block_types=up
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.unet(x, 10, return_dict=False)[0]


def _timm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name)

    return make


NETWORKS = {
    "AutoencoderKL decoder": Network(
        _autoencoder, lambda size: (torch.randn(1, 4, size // 8, size // 8),), package="diffusers"
    ),
    "UNet2D (ddpm-church)": Network(_Unet, _picture, (256,), package="diffusers", backward=True),
    "RRDBNet x4": Network(_RRDBNet, lambda size: (torch.rand(1, 3, size // 4, size // 4),)),
    "VGG-19": Network(_vgg19, _picture, backward=True),
    "TransformNet": Network(_transform_net, _picture),
    "ResNet-50": Network(_timm("resnet50"), _picture, package="timm"),
    "ConvNeXt-T": Network(_timm("convnext_tiny"), _picture, package="timm"),
}


def forward_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """A call of the network for its output."""

    def call() -> Tensor:
        with torch.no_grad():
            return network(*inputs)

    return call


def step_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], list[Tensor]]:
    """A call for the output and the gradient of the input, as losses of pictures need it."""
    network.requires_grad_(False)

    def call() -> list[Tensor]:
        given = [x.detach().requires_grad_() for x in inputs]
        y = network(*given)
        return [y, *torch.autograd.grad(y.square().mean(), given)]

    return call


def sides_of(network: nn.Module, inputs: tuple[Tensor, ...], backward: bool) -> dict[str, Callable[[], Any]]:
    """Each side's call; of runtimes that are installed."""
    made = step_of if backward else forward_of
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs_last = tuple(x.contiguous(memory_format=torch.channels_last) for x in inputs)
    fast = copy.deepcopy(network).requires_grad_(not backward)
    given = tuple(x.detach().clone().requires_grad_(backward) for x in inputs)
    imgops.accelerate(fast, given, training=backward, verbose=False)
    fast.eval()
    sides = {
        "imgops": made(fast, inputs),
        "PyTorch": made(network, inputs),
        "channels-last": made(last, inputs_last),
        "torch.compile": made(torch.compile(copy.deepcopy(network)), inputs),  # type: ignore[arg-type]
    }
    if not backward and importlib.util.find_spec("onnx"):
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/network.onnx"
            torch.onnx.export(network, inputs, file, dynamo=False, input_names=["x"])
            if importlib.util.find_spec("onnxruntime"):
                sides["ONNX Runtime"] = _onnx_runtime(file, inputs)
            if importlib.util.find_spec("openvino"):
                sides["OpenVINO"] = _openvino(file, inputs)
    return sides


def _onnx_runtime(file: str, inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    given = {"x": inputs[0].numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def _openvino(file: str, inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    import openvino

    # in float32, as the others are; OpenVINO takes bfloat16 by itself where the processor has it
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino.compile_model(file, "CPU", settings)
    given = inputs[0].numpy()
    return lambda: torch.from_numpy(model([given])[0].copy())


def peak(name: str, size: int, side: str, backward: bool) -> float:
    """MiB that a process of its own takes for one call of a side, beyond what it has before."""
    command = [sys.executable, "-m", "benchmarks.networks", "--memory", name, str(size), side, str(int(backward))]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def _own_peak(name: str, size: int, side: str, backward: bool) -> float:
    network, inputs = NETWORKS[name].make().eval(), NETWORKS[name].inputs(size)
    if side == "imgops":
        # every layer, as timing them would leave memory behind that the call then takes
        imgops.accelerate(network, verbose=False)
    call = (step_of if backward else forward_of)(network, inputs)
    # Linux forgets the peak so far
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_memory()
    call()
    return ((peak_memory() or before) - before) / 2**20


def place() -> Path:
    """The file of this processor's results."""
    name = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    return PLACE / f"{name}.json"


def record(path: Path, key: str, row: dict[str, Any]) -> None:
    """Keep a row beside those that the file has."""
    data = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    data["machine"] = machine("cpu", dry=False) | {"threads": torch.get_num_threads()}
    data["rows"][key] = row | {"commit": data["machine"]["commit"], "date": data["machine"]["date"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(data, indent=1) + "\n")
    os.replace(beside, path)


def pages() -> str:
    """The tables of all processors."""
    lines: list[str] = []
    for path in sorted(PLACE.glob("*.json")):
        data = json.loads(path.read_text())
        rows = []
        for name in NETWORKS:
            for key, row in data["rows"].items():
                if row["network"] != name:
                    continue
                times = row["seconds"]
                plain = min(times["PyTorch"], times["channels-last"])
                cells = [f"{1e3 * times[side]:.0f}" if side in times else "-" for side in SIDES]
                ratios = [plain / times["imgops"], times["OpenVINO"] / times["imgops"] if "OpenVINO" in times else None]
                memory = f"{row['memory']['imgops']:.0f} / {row['memory']['PyTorch']:.0f}" if "memory" in row else "-"
                rows.append([key, *cells, *("-" if r is None else f"**{r:.2f}**" for r in ratios), memory])
        about = data["machine"]
        lines += [f"{about['device']}, {about['threads']} threads, PyTorch {about['torch']}, {about['date'][:10]}:", ""]
        ours = ["against PyTorch", "against OpenVINO", "peak MiB, imgops / PyTorch"]
        lines += [*table(["milliseconds", *SIDES, *ours], rows), ""]
    return "\n".join(lines)


def write_page() -> None:
    """Put the tables into docs/accelerate.md."""
    PAGE.write_text(_TABLES.sub(lambda match: "\n" + pages() + "\n", PAGE.read_text()))


def main(arguments: list[str] | None = None) -> None:
    """Time what is asked for; write each row when it is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    parser.add_argument("--seconds", type=float, default=2.0, help="time of each row at least (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side at least (default 3)")
    parser.add_argument("--memory", nargs=4, metavar=("NETWORK", "SIZE", "SIDE", "BACKWARD"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    if given.memory:
        name, size, side, backward = given.memory
        print(_own_peak(name, int(size), side, bool(int(backward))))
        return
    for name, network in NETWORKS.items():
        for size in network.sides:
            for backward in (False, True)[: 1 + network.backward]:
                key = f"{name}, {size} px{', forward + input gradient' * backward}"
                if given.only not in key or importlib.util.find_spec(network.package) is None:
                    continue
                torch.compiler.reset()
                sides = sides_of(network.make().eval(), network.inputs(size), backward)
                # gradients of float32 differ from those of float64 by some percent in a deep network of random weights
                comparison = Comparison("network", key, sides, tolerance=0.1 if backward else 1e-2)
                # networks run again and again, and threads of the runtime before would still be busy
                times = medians(comparison, given.seconds, given.rounds, warm=True)
                del sides
                memory = {side: peak(name, size, side, backward) for side in ("PyTorch", "imgops")}
                record(place(), key, {"network": name, "seconds": times, "memory": memory})
                write_page()
                shown = ", ".join(f"{side} {1e3 * seconds:.0f}" for side, seconds in times.items())
                print(f"{key}: {shown} ms; peak {memory['imgops']:.0f} / {memory['PyTorch']:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
