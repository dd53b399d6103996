"""ONNX has no translation of custom ops: its exporters get the reference's plain operators by themselves."""

from __future__ import annotations

import pytest
import torch
from nn.test_examples import CALLS
from torch import nn

import imgops.nn
from imgops.models.stylegan2 import Discriminator, Generator
from imgops.ops._common import STATUSES


class Call(nn.Module):
    """A network with the arguments that are no tensors."""

    def __init__(self, network: nn.Module, *arguments: str) -> None:
        super().__init__()
        self.network, self.arguments = network, arguments

    def forward(self, *inputs):
        return self.network(*inputs, *self.arguments)


class Painted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator(8, 0, 8, 16, 3, 2, 64)

    def forward(self, z):
        return self.generator(z, noise_mode="const")


def example(name):
    """A module, and what it is called with."""
    if name == "Generator":
        return Painted().eval(), (torch.randn(2, 8),)
    if name == "Discriminator":
        return Discriminator(0, 16, 3, channel_base=64).eval(), (torch.randn(4, 3, 16, 16),)
    arguments, inputs = CALLS[name]
    layer, tensors = getattr(imgops.nn, name)(*arguments), tuple(t for t in inputs if isinstance(t, torch.Tensor))
    return Call(layer, *inputs[len(tensors) :]).eval(), tensors


NAMES = [*CALLS, "Generator", "Discriminator"]


@pytest.mark.parametrize("name", NAMES)
def test_a_program_for_onnx_holds_plain_operators(name, monkeypatch):
    module, inputs = example(name)
    with torch.no_grad():
        expected = module(*inputs)
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        program = torch.export.export(module, inputs)
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert {t.namespace for t in targets if isinstance(t, torch._ops.OpOverload)} <= {"aten"}
    torch.testing.assert_close(program.module()(*inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")
@pytest.mark.filterwarnings("ignore")
def test_others_keep_the_ops():
    module, inputs = example("FIRUpsample2d")
    program = torch.export.export(module, inputs)
    assert torch.ops.imgops.upfirdn2d.default in [node.target for node in program.graph.nodes]
    assert "imgops::upfirdn2d" in str(torch.jit.trace(module, inputs).inlined_graph)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_every_layer_can_be_traced(name):
    module, inputs = example(name)
    with torch.no_grad():
        traced = torch.jit.trace(module, inputs, strict=False, check_trace=False)
        torch.testing.assert_close(traced(*inputs), module(*inputs))


@pytest.mark.filterwarnings("ignore")
def test_numbers_may_be_tensors_where_they_are_traced_alone():
    """The older exporter makes tensors of the defaults of forward; elsewhere one would lose its gradient."""
    x, gain = torch.randn(2, 3, 4, 4), torch.tensor(3.0)
    traced = torch.jit.trace(lambda x: imgops.bias_act(x, gain=gain), (x,), check_trace=False)
    torch.testing.assert_close(traced(x), 3 * x)
    with pytest.raises(TypeError, match="gain must be a number; got Tensor"):
        imgops.bias_act(x, gain=gain)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", ["FIRDownsample2d", "StyleLoss", "ModulatedConv2d", "SynthesisLayer", "Generator"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_agrees(name, dynamo, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    module, inputs = example(name)
    path = str(tmp_path / "model.onnx")
    with torch.no_grad():
        torch.onnx.export(module, inputs, path, dynamo=dynamo)
        expected = module(*inputs)
    session = runtime.InferenceSession(path)
    names = [i.name for i in session.get_inputs()]
    (actual,) = session.run(None, dict(zip(names, (t.numpy() for t in inputs), strict=True)))
    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-3, atol=1e-4)
