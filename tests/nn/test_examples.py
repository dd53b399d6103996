"""The examples in the docstrings of imgops.nn, and what every layer can do: be copied, pickled, saved and compiled."""

from __future__ import annotations

import copy
import doctest
import importlib
import inspect
import io
import pickle
import pkgutil
import re

import pytest
import torch

import imgops.nn

LAYERS = sorted(
    name
    for name in imgops.nn.__all__
    if inspect.isclass(getattr(imgops.nn, name)) and issubclass(getattr(imgops.nn, name), torch.nn.Module)
)
MODULES = [f"imgops.nn.{m.name}" for m in pkgutil.iter_modules(imgops.nn.__path__)]
NETWORK = torch.nn.Sequential(torch.nn.Conv2d(4, 3, 3), torch.nn.ReLU())
X, STYLES, W = torch.randn(2, 4, 8, 8), torch.randn(2, 4), torch.randn(2, 5)
#: how to build each layer, and what to call it with
CALLS = {
    "AdaIN": ((), (X, X[:1, :, :3])),
    "AdaptiveInstanceNorm2d": ((4, 5), (X, W)),
    "BiasAct": ((4,), (X,)),
    "FusedConv2d": ((4, 3, 3), (X,)),
    "FusedConvTranspose2d": ((4, 3, 3, 2), (X, (18, 17))),
    "ContentLoss": ((X[:1],), (X,)),
    "EFDM": ((), (X, X[:1, :, :3])),
    "EqualizedConv2d": ((4, 3, 3), (X,)),
    "EqualizedLinear": ((4, 3), (STYLES,)),
    "FIRDownsample2d": ((), (X,)),
    "FIRUpsample2d": ((), (X,)),
    "Features": ((NETWORK, ["1", "0"]), (X,)),
    "FilteredLReLU": ((4, [1, 3, 3, 1], [1, 2, 1]), (X,)),
    "GramMatrix": ((), (X,)),
    "InstanceNorm2d": ((4,), (X,)),
    "MappingNetwork": ((4, 5, 6, 3, 2), (STYLES, W)),
    "MinibatchStdDev": ((), (X,)),
    "ModulatedConv2d": ((4, 3, 3), (X, STYLES)),
    "ModulatedDisplacement": ((4, 5), (X, W)),
    "PerceptualLoss": ((NETWORK, ["1"]), (X, X.flip(0))),
    "SlicedWassersteinLoss": ((X[:1], 5, 0), (X,)),
    "StyleLoss": ((X[:1],), (X,)),
    "SynthesisLayer": ((4, 3, 5, 8), (X, W, "const")),
    "ToRGB": ((4, 3, 5), (X, W)),
    "TotalVariation": ((), (X,)),
    "VectorQuantizer": ((8, 4), (X,)),
}


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    failed, _ = doctest.testmod(importlib.import_module(module), extraglobs={"torch": torch})
    assert failed == 0


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_an_example(name):
    assert re.search(rf">>> .*\b{name}\(", getattr(imgops.nn, name).__doc__)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_compute_the_same(name):
    arguments, inputs = CALLS[name]
    layer = getattr(imgops.nn, name)(*arguments)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    loaded = getattr(imgops.nn, name)(*arguments)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    expected = layer(*inputs)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        torch.testing.assert_close(other(*inputs), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compile_without_a_break(name):
    arguments, inputs = CALLS[name]
    layer = getattr(imgops.nn, name)(*arguments)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), layer(*inputs))
