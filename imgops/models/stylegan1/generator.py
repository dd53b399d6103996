"""The generator of StyleGAN1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...nn import ModulatedDisplacement
from ...nn._checks import check_batch, check_choice, check_size
from ...nn.displacement import DisplacementState
from ...nn.mapping import MEAN_LATENTS
from ...nn.synthesis import NOISE_MODES
from ...ops._common import check_number
from .._common import levels
from ..network import GeneratorNetwork
from ..progan.growing import Growing, doubled
from .layers import ConstantInput, EqualConv2d, Mapping, NoiseInjection, StyledNorm, UpConv2d

#: pixels of the shorter side from which on the port's convolutions are transposed ones
FUSED_FROM = 128
#: keys of the port's filters, which are the same in all networks
_FILTER = re.compile(r"generator\.progression\.\d+\.conv1\.(1|2)\.weight(_flip)?")


class StyledConvBlock(nn.Module):
    """The layers of one level (Karras et al. 2019, figure 1b): twice a convolution, noise, activation, AdaIN.

    Args:
        in_channels: of the level below; 0 makes the first level, which starts from a learned picture.
        out_channels, w_dim: sizes.
        shape: of the level's pictures, (height, width).
        half_dtype: dtype of the activations; None is w's.
        eps: of the normalizations.

    ``forward(x, w, noise)``: x [N, in_channels, height / 2, width / 2] or None, w [N, 2, w_dim], noise of both layers,
    each [N or 1, 1, height, width] or None -> [N, out_channels, height, width].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        shape: tuple[int, int],
        half_dtype: torch.dtype | None,
        eps: float,
    ) -> None:
        super().__init__()
        self.half_dtype = half_dtype
        self.conv1: nn.Module = (
            UpConv2d(in_channels, out_channels, fused=min(shape) >= FUSED_FROM)
            if in_channels
            else ConstantInput(out_channels, shape)
        )
        self.noise1, self.adain1 = NoiseInjection(out_channels), StyledNorm(out_channels, w_dim, eps)
        self.conv2 = EqualConv2d(out_channels, out_channels, 3)
        self.noise2, self.adain2 = NoiseInjection(out_channels), StyledNorm(out_channels, w_dim, eps)

    def forward(self, x: Tensor | None, w: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        dtype = self.half_dtype or w.dtype
        x = self.conv1(w.shape[0]).to(dtype) if x is None else self.conv1(x.to(dtype))
        x = self.adain1(self.noise1(x, noise[0]), w[:, 0])
        return self.adain2(self.noise2(self.conv2(x), noise[1]), w[:, 1])  # type: ignore[no-any-return]


class SynthesisNetwork(Growing):
    """w to an image: one :class:`StyledConvBlock` per level, and a 1 x 1 convolution to the image.

    The arguments are those of :class:`Generator`. ``forward(w, noise_mode="random", noise=None)``: w [N, num_ws, w_dim]
    -> [N, img_channels, height, width] in w's dtype; ``grown`` gives the images of the highest level in use.
    ``noise`` takes the place of noise_mode: for each layer in use (or for all) a standard normal tensor [N, 1, height,
    width], as ``noise_shapes`` lists them. The mode "const" adds the same noise to every picture, drawn when the
    network is built, always alike.

    Attributes: ``noise_shapes``, [1, height, width] of each layer, lowest level first; ``num_ws``.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int | tuple[int, int],
        img_channels: int,
        *,
        channel_base: int,
        channel_max: int,
        displacement: bool,
        num_fp16_res: int,
        half_dtype: torch.dtype,
        eps: float,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.w_dim = check_size(owner, "w_dim", w_dim)
        self.img_channels = check_size(owner, "img_channels", img_channels)
        eps = check_number(owner, "eps", eps, minimum=0)
        found = levels(owner, img_resolution, channel_base, channel_max, num_fp16_res, half_dtype)
        self.img_resolution, self.block_resolutions = img_resolution, list(found)
        self.img_height, self.img_width = found[self.block_resolutions[-1]].shape
        self.progression, self.to_rgb = nn.ModuleList(), nn.ModuleList()
        #: between a level and the next
        self.displacement = nn.ModuleList()
        before = 0
        for res, (shape, channels, half) in found.items():
            self.progression.append(StyledConvBlock(before, channels, self.w_dim, shape, half, eps))
            self.to_rgb.append(EqualConv2d(channels, self.img_channels, 1))
            if displacement and res != self.block_resolutions[-1]:
                self.displacement.append(ModulatedDisplacement(channels, self.w_dim))
            before = channels
        self.noise_shapes = [(1, *level.shape) for level in found.values() for _ in range(2)]
        self.num_ws = len(self.noise_shapes)
        for i, noise_shape in enumerate(self.noise_shapes):
            self.register_buffer(f"noise_const{i}", torch.empty(noise_shape), persistent=False)
        self._begin(len(found))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the constant noise, and use all levels, for a network that was made on the meta device."""
        super().reset_parameters()
        for i, shape in enumerate(self.noise_shapes):
            drawn = torch.randn(shape, generator=torch.Generator().manual_seed(i), device="cpu")
            self.get_buffer(f"noise_const{i}").copy_(drawn)

    def forward(self, w: Tensor, noise_mode: str = "random", noise: Sequence[Tensor] | None = None) -> Tensor:
        return doubled(self.grown(w, noise_mode, noise), self.levels - 1 - self.top)

    def grown(self, w: Tensor, noise_mode: str = "random", noise: Sequence[Tensor] | None = None) -> Tensor:
        """The images of the highest level in use, [N, img_channels, height, width] by 2 ** (levels - 1 - top)."""
        owner = type(self).__name__
        check_batch(owner, "w", w, (self.num_ws, self.w_dim))
        check_choice(owner, "noise_mode", noise_mode, NOISE_MODES)
        if noise is not None and len(noise) not in (self.layers, self.num_ws):
            raise ValueError(f"{owner}: noise must be {self.layers} tensors, one for each layer; got {len(noise)}")
        for tensor, shape in zip(noise or (), self.noise_shapes, strict=False):
            check_batch(owner, "noise", tensor, shape)
        w = w.to(self.get_parameter("to_rgb.0.conv.bias").dtype)
        x: Any = None
        below: Any = None
        state: DisplacementState | None = None
        for i in range(self.top + 1):
            own = [self._noise(2 * i + k, w, noise_mode, noise) for k in range(2)]
            if self.displacement and i > 0:
                x, state = self.displacement[i - 1](x, w[:, 2 * i - 1], state)
            x = self.progression[i](x, w[:, 2 * i : 2 * i + 2], own)
            # the level below as it would be the highest, which nothing displaces any more
            below = x if i == self.top - 1 else below
        img = self.to_rgb[self.top](x).to(w.dtype)
        if self.fading:
            img = doubled(self.to_rgb[self.top - 1](below).to(w.dtype)).lerp(img, self.share)
        return img  # type: ignore[no-any-return]

    @property
    def layers(self) -> int:
        """How many layers are in use."""
        return 2 * (self.top + 1)

    def _noise(self, layer: int, w: Tensor, noise_mode: str, noise: Sequence[Tensor] | None) -> Tensor | None:
        """The noise of a layer."""
        if noise is not None:
            return noise[layer]
        if noise_mode == "random":
            return torch.randn(w.shape[0], *self.noise_shapes[layer], dtype=w.dtype, device=w.device)
        return self.get_buffer(f"noise_const{layer}")[None] if noise_mode == "const" else None

    def extra_repr(self) -> str:
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img_resolution={self.img_resolution}"


class Generator(GeneratorNetwork):
    """StyleGAN1's generator (Karras et al. 2019, "A Style-Based Generator Architecture for GANs"), with labels or not.

    Parameters have the names and the meaning of the well-known PyTorch port ("style-based GAN"): ``style.1.linear``,
    ``generator.progression.0.conv1.input``, ``generator.to_rgb.0.conv``; :meth:`load_state_dict` takes such a state
    dict as it is, and computes the mean of w that it lacks.

    Args:
        z_dim, w_dim: sizes of the latent and of the intermediate latent. Default 512.
        c_dim: size of a label; 0 takes none. Default 0.
        img_resolution: the side of the images, or (height, width), as of :class:`imgops.models.stylegan2.Generator`.
            Default 64.
        img_channels: 3 for RGB; 1 and 4 work as well. Default 3.
        mapping_layers: default 8.
        channel_base, channel_max: ``min(channel_base / resolution, channel_max)`` channels. Default 16384 and 512.
        displacement: put a :class:`imgops.nn.ModulatedDisplacement` between each level and the next. Default False.
        num_fp16_res: how many of the highest resolutions run in half precision (4x4 never does). Default 0.
        half_dtype: torch.float16 (default) or torch.bfloat16. Parameters and images stay float32.
        eps: added to the variance of a normalization. Default 1e-8; the port's is 1e-5.

    Attributes: ``mapping`` or ``style`` (z, c -> w [N, num_ws, w_dim], see :class:`imgops.nn.MappingNetwork`),
    ``synthesis`` or ``generator`` (w -> image, see :class:`SynthesisNetwork`, which may still grow), ``num_ws``, and
    the sizes above.

    Raises:
        TypeError, ValueError: a size that is no int in range, a resolution that does not halve so, an unknown dtype;
            in the forward, inputs of the wrong shape, an unknown noise_mode.
    """

    def __init__(
        self,
        z_dim: int = 512,
        c_dim: int = 0,
        w_dim: int = 512,
        img_resolution: int | tuple[int, int] = 64,
        img_channels: int = 3,
        *,
        mapping_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        displacement: bool = False,
        num_fp16_res: int = 0,
        half_dtype: torch.dtype = torch.float16,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(z_dim, c_dim, img_resolution, img_channels)
        self.generator = SynthesisNetwork(
            w_dim,
            img_resolution,
            img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            displacement=displacement,
            num_fp16_res=num_fp16_res,
            half_dtype=half_dtype,
            eps=eps,
        )
        self.w_dim, self.num_ws = self.generator.w_dim, self.generator.num_ws
        self.style = Mapping(z_dim, c_dim, w_dim, self.num_ws, mapping_layers)
        self.register_load_state_dict_post_hook(type(self)._complete)

    @property
    def mapping(self) -> Mapping:
        """``style``, by the name that it has in later networks."""
        return self.style

    @property
    def synthesis(self) -> SynthesisNetwork:
        """``generator``, by the name that it has in later networks."""
        return self.generator

    def grow(self, level: float) -> None:
        """Use the levels up to this one; see :meth:`imgops.models.progan.Growing.grow`."""
        self.generator.grow(level)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_avg: bool = False,
        noise_mode: str = "random",
    ) -> Tensor:
        """z [N, z_dim], c [N, c_dim] -> images [N, img_channels, height, width], about in [-1, 1]."""
        w = self.style(z, c, truncation_psi, truncation_cutoff, update_w_avg)
        return self.generator(w, noise_mode)  # type: ignore[no-any-return]

    def _complete(self, incompatible: Any) -> None:
        """After a state dict of the port was loaded: without its filters, with the mean of w, and all levels in use."""
        missing, unexpected = incompatible
        unexpected[:] = [key for key in unexpected if not _FILTER.fullmatch(key)]
        if set(missing) != {"generator.level", "style.w_avg"} or self.c_dim:
            return
        missing.clear()
        self.grow(self.generator.levels - 1)
        if not self.style.w_avg.is_meta:
            z = torch.randn(MEAN_LATENTS, self.z_dim, generator=torch.Generator().manual_seed(0), device="cpu")
            self.style.settle(z.to(self.style.w_avg))
