"""StyleGAN2 against the recorded networks, and what a user does with it: train, compile, copy, load, halve."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from golden import Case, cases, relative_error

import imgops
from imgops import _backend
from imgops.models.stylegan2 import Discriminator, Generator

CPU = _backend.load()["cpu", "cpu"]
TWINS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason or "-"))]


def _params(case: Case, *others: str) -> dict:
    return {k: v for k, v in case.params.items() if v is not None and k not in others}


def _load(network: torch.nn.Module, case: Case) -> torch.nn.Module:
    state = {k.removeprefix("state/"): v for k, v in case.arrays.items() if k.startswith("state/")}
    network.load_state_dict(state, strict=True)
    return network


@pytest.mark.parametrize("impl", TWINS)
@pytest.mark.parametrize("case", cases("stylegan2_generator"))
def test_recorded_generator(case, impl):
    a = case.arrays
    truncation = {k: case.params[k] for k in ("truncation_psi", "truncation_cutoff")}
    G = _load(Generator(**_params(case, *truncation)), case).eval()
    with imgops.use_impl(impl):
        w = G.mapping(a["z"], a.get("c"))
        assert relative_error(w, a["w"]) < 1e-4
        img = G.synthesis(w, noise_mode="const")
        assert relative_error(img, a["img"]) < 1e-4
        assert relative_error(G(a["z"], a.get("c"), **truncation, noise_mode="const"), a["img_trunc"]) < 1e-4

        # path lengths, whose noise is recorded already divided by sqrt(height * width)
        (dw,) = torch.autograd.grad((img * a["pl_noise"]).sum(), w, create_graph=True)
        lengths = dw.square().sum(2).mean(1).sqrt()
        assert relative_error(lengths, a["pl_lengths"]) < 1e-4
        names = [k.removeprefix("pl_grad/") for k in a if k.startswith("pl_grad/")]
        grads = torch.autograd.grad(lengths.sum(), [G.get_parameter(k) for k in names])
    for name, grad in zip(names, grads, strict=True):
        assert relative_error(grad, a[f"pl_grad/{name}"]) < 1e-4, name


@pytest.mark.parametrize("impl", TWINS)
@pytest.mark.parametrize("case", cases("stylegan2_discriminator"))
def test_recorded_discriminator(case, impl):
    a = case.arrays
    D = _load(Discriminator(**_params(case)), case)
    img = a["img"].clone().requires_grad_()
    with imgops.use_impl(impl):
        logits = D(img, a.get("c"))
        assert relative_error(logits, a["logits"]) < 1e-4
        (img_grad,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
        assert relative_error(img_grad, a["img_grad"]) < 1e-4
        r1 = img_grad.square().sum((1, 2, 3))
        assert relative_error(r1, a["r1"]) < 1e-4
        names = [k.removeprefix("r1_grad/") for k in a if k.startswith("r1_grad/")]
        grads = torch.autograd.grad(r1.mean(), [D.get_parameter(k) for k in names], allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        assert relative_error(grad, a[f"r1_grad/{name}"]) < 1e-4, name
