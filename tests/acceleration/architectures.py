"""Networks as people write them, to be made faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """ResNet's, with one ReLU for both places."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.down(x))


def resnet() -> nn.Module:
    return nn.Sequential(BasicBlock(3, 16), BasicBlock(16, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())


class UNet(nn.Module):
    """Skips, group normalization, SiLU as a module and as a function, and nearest up-sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.act = nn.Conv2d(3, 16, 3, padding=1), nn.SiLU()
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.norm, self.middle = nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2)
        self.leave = nn.Conv2d(48, 3, 3, padding=1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        x = self.act(self.enter(x)) * scale
        y = self.middle(F.silu(self.norm(self.down(x))))
        return self.leave(torch.cat([x, self.up(y)], 1))


class Groups(nn.Module):
    """A residual block of a diffusion model, which takes what it does not name."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.act, self.conv = nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)
        self.last, self.pass_on = nn.GroupNorm(8, 16, affine=False), nn.Identity()

    def forward(self, x: Tensor, *args: Tensor, **kwargs: Tensor) -> Tensor:
        x = self.enter(x)
        y = x + self.conv(self.act(self.norm(x)))
        return self.act(self.pass_on(self.last(y)))


class DenseBlock(nn.Module):
    """RRDB's."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(16 + 8 * i, 8 if i < 3 else 16, 3, padding=1) for i in range(4))
        self.lrelu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for conv in self.convs[:3]:
            found.append(self.lrelu(conv(torch.cat(found, 1))))
        return 0.2 * self.convs[3](torch.cat(found, 1)) + x


def rrdb() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), DenseBlock(), DenseBlock(), nn.Conv2d(16, 3, 3, padding=1))


def mobilenet() -> nn.Module:
    def step(
        act: nn.Module, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), act]

    first = *step(nn.ReLU6(), 3, 24, 3, 2), *step(nn.ReLU6(), 24, 24, 5, 1, 24)
    return nn.Sequential(*first, *step(nn.Hardswish(), 24, 16, 1), *step(nn.Hardswish(), 16, 16, 3, 2, 16))


class Painter(nn.Module):
    """Image to image, with instance normalization and reflection."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, 16, 9, padding=4, padding_mode="reflect"), nn.InstanceNorm2d(16))
        self.inner = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, padding_mode="replicate"), nn.InstanceNorm2d(16, affine=True), nn.ReLU()
        )
        self.leave = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(16, 3, 3, padding="same"), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.enter(x))
        return self.leave(self.inner(y) + y)


def discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(32, 1, 3, padding=(1, 0)),
    )  # fmt: skip


class Before(nn.Module):
    """DenseNet's order: normalization and activation before each convolution, and the input beside its output."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.norm, self.relu, self.conv = nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


class Recurrent(nn.Module):
    """A convolution that is called again and again, and one whose output two layers take."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.conv, self.act = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1), nn.ELU()
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        x = self.act(y) + self.tanh(y)
        for _ in range(3):
            x = self.act(self.conv(x))
        return x


class Choosing(nn.Module):
    """A forward that depends on the values it gets, with arguments by name and several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.second = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, *, both: bool = True) -> dict[str, Tensor]:
        y = self.first(x)
        if y.mean() > 1e9:
            y = -y
        return {"y": y, "z": self.drop(self.second(y))} if both else {"y": y}


class Own(nn.Conv2d):
    """A convolution with a forward of its own, and one with a parametrization."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


def unusual() -> nn.Module:
    return nn.Sequential(
        Own(3, 16, 3), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3)),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"), nn.Softplus(), nn.Conv2d(16, 8, 3), nn.GELU(),
    )  # fmt: skip


#: each with the kinds of its parts that are made fast
ARCHITECTURES = {
    "vgg": (vgg, ["Conv2d + ReLU"] * 4),
    "resnet": (
        resnet, ["Conv2d + BatchNorm2d + ReLU", "Conv2d + BatchNorm2d", "Conv2d + BatchNorm2d"] * 2
    ),
    "unet": (UNet, ["Conv2d + SiLU", "Conv2d", "Conv2d", "Conv2d"]),
    "groups": (Groups, ["Conv2d", "GroupNorm + SiLU", "Conv2d", "GroupNorm + SiLU"]),
    "rrdb": (rrdb, ["Conv2d", *(["Conv2d + LeakyReLU"] * 3 + ["Conv2d"]) * 2, "Conv2d"]),
    "mobilenet": (mobilenet, ["Conv2d + BatchNorm2d + ReLU6"] * 2 + ["Conv2d + BatchNorm2d + Hardswish"] * 2),
    "painter": (Painter, ["Conv2d", "InstanceNorm2d", "Conv2d", "InstanceNorm2d", "Conv2d + Tanh"]),
    "discriminator": (discriminator, ["Conv2d + LeakyReLU", "Conv2d + BatchNorm2d + LeakyReLU", "Conv2d"]),
    "before": (Before, ["Conv2d", "Conv2d"]),
    "recurrent": (Recurrent, ["Conv2d", "Conv2d"]),
    "choosing": (Choosing, ["Conv2d + ReLU", "Conv2d"]),
    "unusual": (unusual, ["Conv2d + Softplus", "Conv2d"]),
}  # fmt: skip


def settled(name: str) -> nn.Module:
    """The network, with running statistics of something."""
    torch.manual_seed(0)
    network = ARCHITECTURES[name][0]()
    network.train()(torch.randn(4, 3, 24, 20))
    return network.eval()
