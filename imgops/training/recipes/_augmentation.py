"""What a discriminator sees in place of its images: augmentations, and what drives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._draws import Draws
from ..augment import AdaptivePseudoAugment, AdaptiveStrength, AugmentPipe, DiffAugment


class Choices(NamedTuple):
    """The settings of the augmentation; see ``imgops train --help``."""

    kind: str
    pipe: str
    p: float
    policy: str
    pseudo: bool
    target: float
    interval: int
    kimg: float


class Drawn(NamedTuple):
    """Random numbers of the augmentation of some images: uniform ones [n, k]; a picture of noise of each, or None."""

    uniforms: Tensor
    noise: Tensor | None


class Augmentation:
    """The augmentation of a run, with its state.

    Args:
        choices: which, and how it is driven.
        device: where the images are.
    """

    def __init__(self, choices: Choices, device: torch.device) -> None:
        self.pipe: AugmentPipe | DiffAugment | None = None
        if choices.kind in ("ada", "fixed"):
            self.pipe = AugmentPipe.preset(choices.pipe).to(device)
            self.pipe.p.fill_(choices.p)
        elif choices.kind == "diffaug":
            self.pipe = DiffAugment(choices.policy).to(device)
        self.pseudo = AdaptivePseudoAugment().to(device) if choices.pseudo else None

        def controller() -> AdaptiveStrength:
            return AdaptiveStrength(choices.target, choices.interval, choices.kimg).to(device)

        #: by name, what drives the p of which augmentation
        self.driven: dict[str, tuple[AdaptiveStrength, nn.Module]] = {}
        if choices.kind == "ada" and self.pipe is not None:
            self.driven["augment_p"] = controller(), self.pipe
        if self.pseudo is not None:
            self.driven["pseudo_p"] = controller(), self.pseudo

    def drawn(self, draws: Callable[[], Draws], shape: Sequence[int]) -> Drawn | None:
        """Random numbers for images of a shape [C, H, W], which ``draws`` makes; None where nothing is augmented."""
        if self.pipe is None:
            return None
        numbers = draws()
        uniforms = numbers.uniform(self.pipe.draws)
        noisy = isinstance(self.pipe, AugmentPipe) and self.pipe.noisy
        return Drawn(uniforms, numbers.normal(math.prod(shape)).unflatten(1, shape) if noisy else None)

    def __call__(self, images: Tensor, drawn: Drawn | None) -> Tensor:
        """The images as the discriminator sees them, by what is :meth:`drawn` for them."""
        if self.pipe is None or drawn is None:
            return images
        more = {} if drawn.noise is None else {"noise": drawn.noise}
        return self.pipe(images, uniforms=drawn.uniforms, **more)  # type: ignore[no-any-return]

    def mixed(
        self, real: Tensor, c: Tensor | None, fake: Tensor, fake_c: Tensor | None, draws: Callable[[], Draws]
    ) -> tuple[Tensor, Tensor | None]:
        """Real images and their labels, some of them replaced by generated ones."""
        if self.pseudo is None:
            return real, c
        uniforms = draws().uniform(self.pseudo.draws)
        if c is not None and fake_c is not None:
            c = torch.where(uniforms < self.pseudo.p, fake_c, c)
        return self.pseudo(real, fake, uniforms), c

    def observe(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """Show what drives the augmentations what the discriminator said."""
        for controller, _ in self.driven.values():
            controller.observe(real_logits, fake_logits)

    def step(self) -> dict[str, Tensor]:
        """End a training step; return each p that is driven, by name."""
        found = {}
        for name, (controller, augmentation) in self.driven.items():
            p = augmentation.get_buffer("p")
            controller.step(p)
            found[name] = p.clone()
        return found

    def state(self) -> dict[str, Tensor]:
        """What a run needs to go on."""
        return {f"{name}.{key}": value for name, part in self._parts() for key, value in part.state_dict().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave; what is missing stays as it is."""
        for name, part in self._parts():
            own = {key: tensors[f"{name}.{key}"] for key in part.state_dict() if f"{name}.{key}" in tensors}
            part.load_state_dict({**part.state_dict(), **own})

    def _parts(self) -> list[tuple[str, nn.Module]]:
        """Each driven augmentation's p, and what drives it."""
        return [
            part
            for name, (controller, augmentation) in self.driven.items()
            for part in ((f"{name}.driver", controller), (name, _Strength(augmentation)))
        ]


class _Strength(nn.Module):
    """The p of an augmentation alone, without the filters that each pipe has."""

    def __init__(self, augmentation: nn.Module) -> None:
        super().__init__()
        self.register_buffer("p", augmentation.get_buffer("p"))
