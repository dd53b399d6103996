"""Graphs made at one size and run at others: in every op and layer, what depends on a size is worked out inside."""

from __future__ import annotations

import pytest
import torch
from open_sizes import SIZES, modules, picture
from torch import nn

import imgops
from imgops.ops._common import STATUSES

BACKENDS = ["reference"] + ["cpu"] * STATUSES["cpu", "cpu"].available
NAMES = list(modules())
needs_cpu_backend = pytest.mark.skipif("cpu" not in BACKENDS, reason="the CPU extension is not built")


class Side(nn.Module):
    """Modules side by side, one number from each."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        every = modules()
        self.modules_ = nn.ModuleList(every[name] for name in names)

    def forward(self, x):
        return torch.stack([m(x).float().square().mean() for m in self.modules_])


def assert_agrees(graph, module, sizes=SIZES):
    for size in sizes:
        x = picture(*size)
        torch.testing.assert_close(graph(x), module(x), msg=lambda text, size=size: f"{size}: {text}")


@pytest.mark.parametrize("backend", [pytest.param("reference", marks=pytest.mark.slow), *BACKENDS[1:]])
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_program(name, backend):
    module, auto = modules()[name].eval(), torch.export.Dim.AUTO
    with torch.no_grad(), imgops.use_impl(backend):
        program = torch.export.export(module, (picture(*SIZES[0]),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
        assert_agrees(program.module(), module)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_a_trace(name, backend):
    module = modules()[name].eval()
    with imgops.use_impl(backend):
        # traced as people do, with the tracer's own check, which runs without gradients
        assert_agrees(torch.jit.trace(module, picture(*SIZES[0])), module)


@pytest.mark.parametrize("batch", [2, 4])
def test_a_trace_of_a_discriminator_s_statistics(batch):
    """A batch smaller than a group is the group, of the trace alone."""
    module = imgops.nn.MinibatchStdDev(4)
    traced = torch.jit.trace(module, torch.randn(batch, 3, 4, 4))
    for n in (1, 3, 4, 8):
        x = torch.randn(n, 3, 4, 4)
        torch.testing.assert_close(traced(x), module(x))


@needs_cpu_backend
@pytest.mark.parametrize("name", ["filtered_lrelu", "upfirdn2d", "modulated_conv2d up", "FIRDownsample2d"])
def test_a_trace_warns_of_nothing(name, recwarn):
    torch.jit.trace(modules()[name].eval(), picture(*SIZES[0]))
    assert not [w.message for w in recwarn if issubclass(w.category, torch.jit.TracerWarning)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "names",
    [
        ["gram_matrix chw", "gram_matrix nchw", "StyleLoss", "style_loss none", "adain", "TotalVariation"],
        pytest.param(["filtered_lrelu", "upfirdn2d", "FIRDownsample2d"], marks=pytest.mark.slow),
        pytest.param(["modulated_conv2d down", "EqualizedConv2d up", "ModulatedDisplacement"], marks=pytest.mark.slow),
    ],
)
def test_six_sizes_compile_twice_at_most(names, backend):
    """Forward and backward, whose paddings depend on the sizes too."""
    module, graphs = Side(names), []

    def compiler(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=compiler)
    with imgops.use_impl(backend):
        for size in SIZES:
            x = picture(*size).requires_grad_()
            actual, expected = compiled(x), module(x)
            torch.testing.assert_close(actual, expected)
            dx, dx_expected = (torch.autograd.grad(y.sum(), x)[0] for y in (actual, expected))
            torch.testing.assert_close(dx, dx_expected)
    assert len(graphs) <= 2


@pytest.mark.slow
@needs_cpu_backend
def test_a_package_of_machine_code(tmp_path):
    """AOTInductor writes floats into its code, so that a scale that comes from a size must not be one."""
    module, auto = Side(["GramMatrix", "StyleLoss"]).eval(), torch.export.Dim.AUTO
    with torch.no_grad():
        program = torch.export.export(module, (picture(*SIZES[0]),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "style.pt2"))
        assert_agrees(torch._inductor.aoti_load_package(path), module)
