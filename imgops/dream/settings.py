"""Every setting of a dream, with its default, checked."""

from __future__ import annotations

from dataclasses import dataclass

from .._settings import MACHINE, RESULT, SEED, Bounds, Choice, accept_former_names, check, setting

#: the group of its options on the help page
DREAM = "Dream"

#: what is done to the gradient before a step
NORMALIZATIONS = ("mean", "std", "laplacian", "none")
#: what a step changes: the pixels, or the Fourier coefficients of decorrelated colors
PARAMETRIZATIONS = ("pixels", "fourier")
#: what a help page says of a default that imgops.dream.looks has
_BY_LOOK = "by the network"
#: the default step_size for pixels by the normalization, and for Fourier coefficients by any
STEP_SIZES = {"mean": 0.005, "std": 0.007, "laplacian": 0.004, "none": 0.0001}
FOURIER_STEP_SIZE = 0.03
#: defaults of a zoom: the share of a frame that leaves the picture, and degrees that it turns
ZOOM, ROTATE = 0.05, 0.0


@accept_former_names
@dataclass(frozen=True)
class DreamSettings:
    """Settings of a dream; plain values, so that ``dataclasses.asdict`` goes into JSON and a picture's metadata.

    What is None is what was chosen by eye for the network and for what is dreamt (:mod:`imgops.dream.looks`).

    Args:
        octaves: sizes that the picture is dreamt at, from small to large; those too small for the deepest layer are
            left out. Default None.
        octave_scale: ratio of each size to the one before, above 1. Default None.
        steps: at each size. Default None.
        step_size: of the pixels, which are in [0, 1]: how far a step moves them per unit of the normalized gradient;
            or Adam's learning rate for the parametrization "fourier". Default None: about 0.004 for the normalization
            "laplacian", 0.005 for "mean", 0.007 for "std", 0.0001 for "none", 0.03 for "fourier", times what suits the
            network.
        jitter: most pixels that the picture is rolled by each way, at random at every step, so that neither the grid of
            the network nor that of tiles shows. Default 32.
        normalization: of the gradient. "mean" divides by its mean absolute value, "std" by its standard deviation;
            "laplacian" brings each level of its Laplacian pyramid to the same size, which strengthens what is smooth;
            "none" takes the gradient as it is, times the number of pixels and colors. Default "laplacian".
        seed: of noise and of all that is at random at each step. Default 0.
        tile: None, or the side in pixels of the tiles that the gradient is computed by, for pictures whose activations
            do not fit in memory. See :class:`~imgops.dream.gradient.Gradient`. Default None.
        alpha: None, or the constraint form: find the picture that minimizes ``|x - input|^2 / 2`` where the objectives
            are at least alpha times those of the input. A step then climbs only while they are less, and always moves
            back to the input (subgradients of a hinge penalty). Above 1; from 1.5 to 3 the dream shows. Default None.
        parametrization: "pixels", or "fourier": steps of Adam on coefficients that are scaled by 1/f, of colors that
            are decorrelated, through a sigmoid (Olah et al. 2017). Default "pixels".
        intensity: how much is dreamt: a factor of the step_size. 0.5 is faint, 2 leaves little of the picture. Default
            1.
        natural_colors: how far a step keeps to the colors of photographs, from 0, the gradient's own, to 1: it then
            differs mostly in light, less from blue to yellow, and least from green to red. Default None.
        padding: pixels of gray that the network sees around the picture. Default None: 0, of a class some.
        random_scale: at each step the network sees the picture larger or smaller, at random, by a factor of 1 + this at
            most. Default None: 0, of a class some.
        random_rotation: and turned, by so many degrees at most. Default None: 0, of a class some.

    Raises:
        TypeError: a value of another type.
        ValueError: a value out of range, or an unknown name.

    >>> DreamSettings(intensity=2, normalization="std").resolved_step_size
    0.014
    """

    # each is planned before those too small for the network are left out
    octaves: int | None = setting(None, DREAM, "How many sizes, from small to large.", _BY_LOOK, Bounds(1, most=1000))
    octave_scale: float | None = setting(
        None, DREAM, "Ratio of each size to the one before.", _BY_LOOK, Bounds(1, above=True)
    )
    steps: int | None = setting(None, DREAM, "Steps at each size.", _BY_LOOK, Bounds(1))
    step_size: float | None = setting(
        None, DREAM, "How strong a step is.", "by the normalization and the network", Bounds(0, above=True)
    )
    jitter: int = setting(
        32, DREAM, "Most pixels that the picture is moved by at each step.", allowed=Bounds(0, most=65536)
    )
    normalization: str = setting(
        "laplacian",
        DREAM,
        "How the gradient is normalized: laplacian, mean, std or none.",
        allowed=Choice(NORMALIZATIONS),
    )
    seed: int = setting(0, RESULT, "Seed of noise and of random steps.", allowed=SEED)
    tile: int | None = setting(
        None, MACHINE, "Side in pixels of the tiles that large pictures are dreamt in.", allowed=Bounds(1)
    )
    alpha: float | None = setting(
        None,
        DREAM,
        "Stay near the picture, with activations this many times its own.",
        allowed=Bounds(1, above=True),
    )
    parametrization: str = setting("pixels", allowed=Choice(PARAMETRIZATIONS))
    intensity: float = setting(
        1.0,
        DREAM,
        "How much is dreamt: 0.5 is faint, 2 leaves little of the picture.",
        allowed=Bounds(0, 100, above=True),
    )
    natural_colors: float | None = setting(
        None, DREAM, "How far the dream keeps to the colors of photographs.", _BY_LOOK, Bounds(0, 1)
    )
    padding: int | None = setting(
        None, DREAM, "Pixels of gray that are seen around the picture.", "0; of a class some", Bounds(0, most=4096)
    )
    random_scale: float | None = setting(
        None, DREAM, "Largest change of size at each step, as 0.1.", "0; of a class some", Bounds(0, 1)
    )
    random_rotation: float | None = setting(
        None, DREAM, "Most degrees that it is turned by at each step.", "0; of a class some", Bounds(0, 180)
    )

    def __post_init__(self) -> None:
        check(self, "DreamSettings: ")

    @property
    def resolved_step_size(self) -> float:
        """The step_size, or the default of the parametrization and the normalization; times the intensity."""
        default = FOURIER_STEP_SIZE if self.parametrization == "fourier" else STEP_SIZES[self.normalization]
        return self.intensity * (default if self.step_size is None else self.step_size)
