"""Training and test of the encoder that ships with the package: ``python -m imgops.style.encoder_training PICTURES``.

The training is a run of the recipe ``encoder``. The test asks whether crops of one place find each other among crops of
pictures that were not trained on. docs/training_pictures.py collects the pictures.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..data.files import write_file
from ..models.encoders.vgg import VGG
from ..models.encoders.weights import load_encoder
from ..nn import Features
from ..ops.gram_matrix import gram_matrix
from ..training.checkpoint import checkpoints
from ._file_runs import run, state_path
from .encoder_config import SIDE, EncoderConfig
from .encoder_data import Source, crops, held_out_sources, sources
from .encoder_recipe import LAYERS, folded, new_network, trainable

#: steps between two lines of the log
LOGGED = 100


def random_network(train_on: Sequence[Source], rng: np.random.Generator) -> VGG:
    """The same network with random weights from torch's generator, normalized and scaled as the trained one is."""
    body = trainable(new_network())
    with torch.no_grad():
        body.train()(torch.cat([crops(source, 2, rng) for source in train_on]))
    return folded(body, (crops(source, 2, rng) for source in train_on))


@torch.no_grad()
def retrieval_accuracy(network: nn.Module, test: Sequence[Source], layer: str, views: int = 6) -> float:
    """The share of random crops, ``views`` of each source of ``test``, whose nearest other crop is of the same source;
    crops are compared by the directions of their Gram matrices."""
    rng = np.random.default_rng(1)
    features = Features(network, [layer])
    grams = torch.cat([gram_matrix(features(crops(s, views, rng, strong=False))[layer]).flatten(1) for s in test])
    grams = F.normalize(grams - grams.mean(0), dim=1)
    near = (grams @ grams.T).fill_diagonal_(-2).argmax(1)
    return float((near // views == torch.arange(len(grams)) // views).float().mean())


def train(pictures: Path, out: Path, log: Path, steps: int, batch: int, seed: int, folder: Path | None = None) -> None:
    """Train, test against the same network with random weights, and write the weights and the log.

    Args:
        pictures: the folder that docs/training_pictures.py fills.
        out: the file of the weights; one that is there gives way when the new one is trained.
        log: the CSV file of losses and tests.
        steps, batch, seed: of the training.
        folder: of the run, which goes on where it stopped; None: ``out`` with ``.state`` appended.

    Raises:
        ValueError: a run in the folder has other settings.
    """
    kimg, trained = batch / 1000, state_path(out) if folder is None else folder
    config = EncoderConfig(
        data=str(pictures),
        out=str(trained),
        network=str(trained / "encoder.safetensors"),
        kimg=steps * kimg,
        batch=batch,
        seed=seed,
        log_kimg=LOGGED * kimg,
        checkpoint_kimg=5 * LOGGED * kimg,
        device="cpu",
    ).resolve()
    run(config, resume=bool(checkpoints(trained)))
    records = map(json.loads, (trained / "stats.jsonl").read_text().splitlines())
    rows = [
        {"step": str(record["images"] // batch), "seconds": f"{record['seconds']:.0f}"}
        | {name: f"{record[f'loss_{name}']:.4f}" for name in [*LAYERS, "classes"]}
        for record in records
    ]
    train_on = [source for share in sources(pictures, SIDE).values() for source in share]
    torch.manual_seed(seed)
    network = load_encoder(trained / "encoder.safetensors")
    rows += _tested(network, train_on, held_out_sources(), np.random.default_rng(seed))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *LAYERS, "classes", "seconds", "retrieval", "random"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(log, text.getvalue().encode())
    write_file(out, (trained / "encoder.safetensors").read_bytes())


def _tested(
    network: nn.Module, train_on: Sequence[Source], test_on: list[Source], rng: np.random.Generator
) -> list[dict[str, str]]:
    """Lines of the log: how often retrieval is right by each layer, and with random weights."""
    random, rows = random_network(train_on, rng), list[dict[str, str]]()
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        scores = [retrieval_accuracy(n, test_on, layer) for n in (network, random)]
        print(f"retrieval by {layer}: {scores[0]:.3f}, with random weights {scores[1]:.3f}", flush=True)
        rows.append({"step": layer, "retrieval": f"{scores[0]:.4f}", "random": f"{scores[1]:.4f}"})
    return rows


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description="Train the encoder that ships with imgops.")
    parser.add_argument("pictures", type=Path, help="folder that docs/training_pictures.py filled")
    parser.add_argument("--out", type=Path, default=Path("imgops/models/encoders/default_encoder.safetensors"))
    parser.add_argument("--folder", type=Path, default=Path("build/encoder"), help="of the run, which goes on there")
    parser.add_argument("--log", type=Path, default=Path("docs/encoder-training.csv"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
