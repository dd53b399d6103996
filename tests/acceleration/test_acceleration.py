"""``imgops.accelerate`` on networks as people write them."""

from __future__ import annotations

import copy
import doctest
import io
import json
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from typer.testing import CliRunner

import imgops
from imgops import acceleration
from imgops.acceleration import Row, Table
from imgops.acceleration.discovery import parts_of
from imgops.cli import app
from imgops.models.encoders import VGG
from imgops.nn import Features
from imgops.nn.chains import base_class
from imgops.nn.joined import chains_called_by, split
from tests.acceleration.architectures import ARCHITECTURES, BasicBlock, settled

X = torch.randn(2, 3, 24, 20, generator=torch.Generator().manual_seed(1))
NAMES = list(ARCHITECTURES)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(acceleration.measuring, "SECONDS", 0.0)


def outputs(network, x=X):
    return tree_leaves(network(x))


def assert_close(found, wanted, tolerance):
    # what is 0 in exact arithmetic, as the gradient of a bias before a normalization, has no digits of its own
    least = 1e-3 * max([b.abs().max() for b in wanted], default=0)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert a.stride() == b.stride()
        assert (a - b).abs().max() <= tolerance * max(b.abs().max(), least)


def gradients(network, x=X):
    x = x.clone().requires_grad_()
    torch.manual_seed(0)
    sum(y.square().sum() for y in outputs(network, x)).backward()
    found = [x.grad, *(p.grad for p in network.parameters())]
    network.zero_grad()
    return found


def kinds(network):
    return {name: type(layer) for name, layer in network.named_modules()}


@pytest.mark.parametrize("name", NAMES)
def test_a_network_gives_what_it_gave(name):
    network = settled(name)
    before, classes, state = outputs(network), kinds(network), copy.deepcopy(network.state_dict())
    wanted = gradients(network)
    assert imgops.accelerate(network, verbose=False) is network
    assert any(type(layer) is not classes[n] for n, layer in network.named_modules())
    assert_close(outputs(network), before, 1e-5)
    assert_close(gradients(network), wanted, 1e-4)
    with torch.no_grad():
        assert_close(outputs(network), before, 1e-5)
    assert list(network.state_dict()) == list(state)
    network.load_state_dict(state)
    assert_close(outputs(network), before, 1e-5)
    # what it was, to the last bit
    assert imgops.restore(network) is network
    assert kinds(network) == classes
    assert not any("_chains" in vars(layer) for layer in network.modules())
    assert all(torch.equal(a, b) for a, b in zip(outputs(network), before, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_training_is_what_it_was(name):
    network = settled(name).double().train()
    plain = copy.deepcopy(network)
    imgops.accelerate(network, verbose=False)
    for _ in range(2):
        assert_close(gradients(network, X.double()), gradients(plain, X.double()), 1e-8)
        assert_close(list(network.buffers()), list(plain.buffers()), 1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_found(name):
    network = settled(name)
    found = parts_of(network).units
    assert [unit.kind for unit in found if not unit.reason] == ARCHITECTURES[name][1]
    reasons = {unit.name: unit.reason for unit in found if unit.reason}
    assert reasons == ({"0": "has a forward of its own", "2": "has a parametrization"} if name == "unusual" else {})


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_faster_is_kept(name, training, monkeypatch, capsys):
    network = settled(name)
    before, modes = outputs(network), [module.training for module in network.modules()]
    # without a look at the clock, every second part is faster
    turns = iter([(2.0, 1.0), (1.0, 2.0)] * 20)
    blocks = []

    def patch(name):
        original = getattr(acceleration.measuring, name)

        def patched(part, *inputs):
            assert all(seconds > 0 for seconds in original(part, *inputs))
            if name == "_both_calls":
                blocks.append(part)
            return next(turns)

        monkeypatch.setattr(acceleration.measuring, name, patched)

    patch("_both_ways")
    patch("_both_calls")
    imgops.accelerate(network, X, training=training)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "kind", "input", "before", "ms", "after", "ms", "kept"]
    assert len(lines) == len(parts_of(settled(name)).units) + len(blocks) + 2
    assert bool(blocks) == (not training and name in ("groups", "rrdb", "painter"))
    assert any(line.endswith("yes") for line in lines)
    assert any(line.endswith("not faster") for line in lines)
    assert_close(outputs(network), before, 1e-5)
    assert [module.training for module in network.modules()] == modes


def test_inputs_by_name_and_several():
    network = settled("choosing")
    imgops.accelerate(network, {"x": X, "both": False}, verbose=False)
    network = settled("unet")
    imgops.accelerate(network, (X, 0.5), verbose=False)
    with imgops.accelerated(network) as fast:
        assert fast is network
        assert type(network.enter) is not nn.Conv2d
    assert type(network.enter) is nn.Conv2d


def test_copies_pickles_and_compiled_ones():
    network = settled("resnet")
    wanted = outputs(network)
    imgops.accelerate(network, verbose=False)
    copied = copy.deepcopy(network)
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copied, loaded):
        assert_close(outputs(other), wanted, 1e-5)
        assert other[0].conv1 is chains_called_by(other[0])[0].first
        assert type(imgops.restore(other)[0]) is BasicBlock
    assert_close(outputs(network), wanted, 1e-5)
    torch._dynamo.reset()
    assert_close(outputs(torch.compile(network, fullgraph=True, backend="aot_eager")), wanted, 1e-5)
    exported = torch.export.export(network, (X,)).module()
    assert_close(outputs(exported), wanted, 1e-5)
    assert_close(outputs(torch.jit.trace(network, X)), wanted, 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(outputs(network), outputs(copied), 0.05)


def seen_by_hooks(network, name):
    """What goes into a layer and comes out of it."""
    seen, layer = [], network.get_submodule(name)
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.clone())),
        layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone())),
    ]
    network(X)
    for handle in handles:
        handle.remove()
    return seen


def test_a_hook_sees_what_it_saw():
    plain, network = settled("resnet"), settled("resnet")
    imgops.accelerate(network, verbose=False)
    for name in ("0.conv1", "0.bn1", "0.relu", "1.conv2"):
        assert_close(seen_by_hooks(network, name), seen_by_hooks(plain, name), 1e-5)


def test_layers_called_from_elsewhere_do_what_they_did():
    plain, network = settled("vgg"), settled("vgg")
    imgops.accelerate(network, verbose=False)
    x = y = X
    for layer, same in zip(network, plain, strict=True):
        x, y = layer(x), same(y)
        assert_close([x], [y], 1e-5)
    assert_close([network[:3](X)], [plain[:3](X)], 1e-5)
    assert_close([network[0](X[0])], [plain[0](X[0])], 1e-5)


class Odd(nn.Module):
    """A convolution and an activation, called in ways that do not go together with running as one."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.act, self.how, self.steps = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), how, 0
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Sequential(self.conv, nn.Flatten())
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, skip=None):
        self.steps += 1
        self.calls += 1
        if self.how == "written between":
            y = self.conv(x)
            return self.act(y.add_(1) if skip is None else y)
        if self.how == "read twice":
            y = self.conv(x)
            return self.act(y + 0) + (y if skip is None else skip)
        if self.how == "shared":
            return self.inner(x).mean() + self.act(self.conv(x))
        if self.how == "repeated":
            return nn.Sequential.forward(nn.Sequential(self.conv, self.act, self.norm), x)
        if self.how == "checkpoint":
            return checkpoint(lambda x: self.act(self.conv(x)), x, use_reentrant=False)
        return self.act(self.conv(x))


@pytest.mark.filterwarnings("ignore:Odd does not always call")
@pytest.mark.parametrize(
    "how", ["plain", "written between", "read twice", "shared", "repeated", "checkpoint", "copied", "patched", "int"]
)
def test_odd_ways_to_call_layers(how):
    network = Odd(how).eval()
    wanted, before = outputs(network)[0], copy.deepcopy(network.state_dict())
    imgops.accelerate(network, verbose=False)
    # what a forward counts is not counted by tracing it
    assert network.steps == 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    if how == "copied":
        twin = copy.copy(network.conv)
        twin._parameters = {**twin._parameters, "weight": nn.Parameter(2 * network.conv.weight.detach())}
        assert torch.equal(twin(X), F.conv2d(X, twin.weight, twin.bias))
    if how == "patched":
        network.conv._conv_forward = lambda x, weight, bias: F.conv2d(x, weight, bias) + 1
        wanted = F.relu(F.conv2d(X, network.conv.weight, network.conv.bias) + 1)
    if how == "int":
        network.conv.stride = 2
        wanted = F.relu(F.conv2d(X, network.conv.weight, network.conv.bias, 2))
    x = X.clone().requires_grad_()
    y = network(x)
    assert_close([y], [wanted], 1e-5)
    y.sum().backward()


def test_sequences_with_repeated_layers():
    act = nn.ReLU(inplace=True)
    conv = nn.Conv2d(3, 8, 3)
    for layers in ([conv, act, nn.Conv2d(8, 8, 3), act, nn.BatchNorm2d(8)], [nn.Conv2d(3, 3, 3), conv, act]):
        network = nn.Sequential(*layers).eval()
        wanted = outputs(network)
        assert_close(outputs(imgops.accelerate(network, verbose=False)), wanted, 1e-5)


def test_a_hook_on_an_identity_or_on_the_last_layer():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Identity(), nn.ReLU()).eval()
    imgops.accelerate(network, verbose=False)
    assert len(chains_called_by(network)) == 1
    for layer in (network[1], network[2]):
        seen = []
        handle = layer.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0].clone()))
        network(X)
        handle.remove()
        assert seen[0].min() < 0


def test_layers_that_change_afterwards():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()).eval()
    imgops.accelerate(network, verbose=False)
    nn.utils.parametrizations.weight_norm(network[0])
    wanted = outputs(network)
    imgops.restore(network)
    assert_close(outputs(network), wanted, 1e-5)
    imgops.accelerate(network, verbose=False)
    network[3] = nn.Sigmoid()
    with pytest.warns(UserWarning, match="does not always call"):
        found = Features(network, ["3"])(X)["3"]
    imgops.restore(network)
    assert_close([found], outputs(network), 1e-5)


def test_values_that_float16_cannot_hold():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-8), nn.ReLU()).eval()
    network[0].weight.data[0] = 0
    network[1].running_var.data[0] = 0
    network[1].running_mean.data[0] = network[0].bias.data[0]
    network.half()
    assert outputs(network, X.half())[0].isfinite().all()
    imgops.accelerate(network, verbose=False)
    assert outputs(network, X.half())[0].isfinite().all()
    norm = nn.InstanceNorm2d(3, affine=True)
    norm.weight.data.fill_(1e-6)
    wanted = norm(X)
    assert_close([imgops.accelerate(norm, verbose=False)(X)], [wanted], 1e-5)


def test_a_forward_that_changes_its_mind():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.plain = nn.Conv2d(3, 4, 3), nn.ReLU(), False

        def forward(self, x):
            y = self.conv(x)
            return y if self.plain else self.relu(y)

    network = imgops.accelerate(Fickle(), verbose=False)
    network(X)
    network.plain = True
    with pytest.warns(UserWarning, match="Fickle does not always call the same layers one after another, after Conv2d"):
        y = network(X)
    assert (y < 0).any()
    assert (network(X) == y).all()


def test_threads_do_not_meet():
    network = imgops.accelerate(settled("resnet"), verbose=False)
    wanted = outputs(network)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(outputs(network) for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(torch.equal(y[0], wanted[0]) for y in found)


def test_a_wrong_result_is_refused(monkeypatch):
    network, classes = settled("vgg"), kinds(settled("vgg"))
    monkeypatch.setattr("imgops.nn.chains.ConvChain.as_one", lambda self, x: self.apart(x) * 1.1)
    monkeypatch.setattr(acceleration.measuring, "_both_ways", lambda *arguments: (2.0, 1.0))
    with pytest.raises(RuntimeError, match=r"outputs differ by .* of the largest; the model is as it was"):
        imgops.accelerate(network, X)
    assert kinds(network) == classes


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((3,), TypeError, "model must be a torch.nn.Module; got int"),
        ((nn.ReLU(), 3), TypeError, "example_inputs must be a tensor, a tuple or a dict"),
        ((torch.compile(nn.ReLU()),), ValueError, "accelerate it before torch.compile"),
        ((torch.jit.script(nn.ReLU()),), TypeError, "got RecursiveScriptModule"),
        ((nn.Conv2d(1, 1, 1, device="meta"),), ValueError, "one on the device meta"),
    ],
)
def test_wrong_arguments(arguments, kind, message):
    with pytest.raises(kind, match=message):
        imgops.accelerate(*arguments)


def test_own_networks_are_fast_as_they_are():
    network = VGG((2, 1), widths=(16, 16)).eval()
    plain = copy.deepcopy(network)
    split(plain, built_in=True)
    assert all(type(layer) is base_class(layer) for layer in plain.modules())
    x = torch.rand(1, 3, 32, 32)
    for layers in (["relu1_2"], ["conv1_2", "relu2_1"], ["pool1"]):
        found, wanted = (list(Features(each, layers)(x).values()) for each in (network, plain))
        assert_close(found, wanted, 1e-5)
    imgops.restore(imgops.accelerate(network, verbose=False))
    assert len(chains_called_by(network)) == 3
    assert type(network.conv1_1) is not nn.Conv2d
    assert type(network).__name__ == "VGG"


@pytest.mark.parametrize("package", ["timm", "diffusers"])
def test_networks_of_packages(package):
    made = pytest.importorskip(package)
    if package == "timm":
        network, arguments = made.create_model("resnet18"), (torch.randn(1, 3, 64, 64),)
        found = 20
    else:
        network = made.AutoencoderKL(layers_per_block=1, norm_num_groups=8, block_out_channels=(32,)).decoder
        arguments, found = (torch.randn(1, 4, 16, 16),), 18
    network.eval()
    wanted, state = tree_leaves(network(*arguments)), network.state_dict()
    imgops.accelerate(network, verbose=False)
    assert len(parts_of(imgops.restore(network)).units) == found
    with imgops.accelerated(network):
        assert_close(tree_leaves(network(*arguments)), wanted, 1e-5)
        assert list(network.state_dict()) == list(state)


def test_the_command(tmp_path):
    (tmp_path / "net.py").write_text("from tests.acceleration.architectures import vgg as make\n")

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["accelerate", f"{tmp_path / 'net.py'}:make", *arguments])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    assert "the whole network, forward, " in run("--input", "1x3x16x16")
    told = json.loads(run("--input", "1x3x16x16", "--json", "--training", "--channels-last"))
    assert [row["name"] for row in told["layers"]] == ["0", "2", "4", "7"]
    assert "does not run on --input 1x4x16x16: " in run("--input", "1x4x16x16", code=2)
    for wrong in ("x", "1x0x3x3", "1x3x-2x2", "1x3,"):
        assert "--input must be a shape like 1x3x256x256" in run("--input", wrong, code=2)


def test_tables():
    rows = [
        Row("a.b", "Conv2d", (1, 3, 8, 8), 2.0, 1.0, True),
        Row("c", "Own", kept=False, note="has a forward of its own"),
        Row("a", "Block: add", (1, 3, 8, 8), 3.0, 1.5, True, block=True),
    ]
    lines = str(Table(rows)).splitlines()
    assert lines[1].split() == ["a.b", "Conv2d", "1", "x", "3", "x", "8", "x", "8", "2.00", "1.00", "yes"]
    assert lines[2].endswith("no: has a forward of its own")
    # a block's time has those of its layers in it
    assert lines[4].split() == ["all", "layers", "2.00", "1.00", "1", "of", "2"]


def test_examples_run():
    assert doctest.testmod(acceleration, extraglobs={"imgops": imgops}).failed == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64], ids=str)
def test_an_input_of_another_dtype_is_refused_as_before(dtype):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    x = torch.ones(1, 3, 16, 16, dtype=dtype)
    with pytest.raises(RuntimeError) as before:
        network(x)
    imgops.accelerate(network, verbose=False)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError) as after:
            network(x)
        assert str(after.value) == str(before.value)


def test_autocast_casts_but_not_float64():
    network, x = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU()).eval(), torch.randn(1, 16, 24, 24)
    imgops.accelerate(network, verbose=False)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert network(x).dtype == torch.bfloat16
        with pytest.raises(RuntimeError, match="should be the same"):
            network(x.double())


def test_a_parametrized_weight_is_computed_once():
    class Counted(nn.Module):
        calls = 0

        def forward(self, weight):
            Counted.calls += 1
            return weight

    network = imgops.accelerate(nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU()).eval(), verbose=False)
    nn.utils.parametrize.register_parametrization(network[0], "weight", Counted())
    for grad in (True, False):
        Counted.calls = 0
        with torch.set_grad_enabled(grad):
            network(torch.randn(1, 16, 24, 24))
        assert Counted.calls == 1
