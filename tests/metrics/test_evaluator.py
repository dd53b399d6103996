"""The distances of generated pictures from a dataset's: the cache, processes, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from imgops.data import ImageDataset, ImageFolder, open_dataset
from imgops.metrics import Evaluator, FeatureExtractor, FeatureStatistics, frechet_distance, sliced_wasserstein
from imgops.metrics._cache import cache_folder

ROOT = Path(__file__).resolve().parents[2]
#: of few pictures, which make tests quick
pytestmark = pytest.mark.filterwarnings("ignore:fd_embedded of")


def noise(seeds: Sequence[int]) -> Tensor:
    """A picture of each seed, uint8 [N, 3, 32, 32]."""
    made = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return (torch.stack(made) * 255).byte()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """60 pictures: fewer than the features, of which a warning tells."""
    out = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(noise(range(1000, 1060))):
        Image.fromarray((picture // 2).permute(1, 2, 0).numpy()).save(out / f"{i:02}.png")
    return out


def evaluator(folder: Path, cache: object = False, **more: object) -> Evaluator:
    settings = {"weights": "embedded", "size": 32, "samples": 50, "device": "cpu", "seed": 5, **more}
    return Evaluator(ImageFolder(folder, 32), cache=cache, **settings)


@pytest.fixture(scope="module")
def figures(folder) -> dict[str, float]:
    return evaluator(folder)(noise)


def test_the_figures_are_those_of_the_functions(folder, figures):
    extractor, data = FeatureExtractor("embedded", size=32, device="cpu"), ImageFolder(folder, 32)
    real, fake = extractor(torch.stack([data.picture(i) for i in range(60)])), extractor(noise(range(5, 55)))
    sets = [FeatureStatistics(256), FeatureStatistics(256)]
    for statistics, features in zip(sets, (real, fake), strict=True):
        statistics.update(features)
    wanted = frechet_distance(*(value for s in sets for value in (s.mean, s.covariance)))
    assert figures["fd_embedded"] == pytest.approx(wanted, rel=1e-5)
    assert figures["swd_embedded"] == pytest.approx(sliced_wasserstein(real, fake, projections=256), rel=1e-5)
    assert list(figures) == ["fd_embedded", "swd_embedded"]


def test_a_set_has_no_distance_from_itself(folder, figures):
    found = evaluator(folder).compare(ImageFolder(folder, 32))
    assert found["swd_embedded"] < 1e-4 * figures["swd_embedded"]
    assert found["fd_embedded"] < 1e-6 * figures["fd_embedded"]


def test_mirroring_changes_nothing_and_reals_are_spread(folder):
    data = ImageFolder(folder, 32, mirror=True)
    read = []
    data.picture = lambda index: read.append(index) or ImageFolder.picture(data, index)  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="fd_embedded of 3 pictures of the data in 256 features is biased upwards"):
        few = Evaluator(data, weights="embedded", size=32, samples=9, reals=3, device="cpu", cache=False)
    few(noise)
    assert sorted(read) == [0, 20, 40]


def test_features_of_the_data_are_computed_once_and_cached(folder, figures, tmp_path):
    seen = []
    told = {"progress": lambda what, done, total: seen.append((what, done, total))}
    first = evaluator(folder, tmp_path, **told)
    assert first(noise) == pytest.approx(figures, rel=1e-9)
    assert [what for what, _, _ in seen] == ["data"] * 2 + ["samples"] * 2
    assert seen[1] == ("data", 60, 60)
    (path,) = tmp_path.iterdir()
    seen.clear()
    first(noise)
    # another evaluator of the same pictures under other names
    other = tmp_path / "moved"
    other.mkdir()
    for picture in folder.iterdir():
        (other / f"x{picture.name}").write_bytes(picture.read_bytes())
    assert evaluator(other, tmp_path, **told)(noise) == figures
    assert {what for what, _, _ in seen} == {"samples"}
    # other content, and another size, are computed
    Image.new("RGB", (32, 32)).save(other / "x00.png")
    assert evaluator(other, tmp_path, **told)(noise) != figures
    evaluator(folder, tmp_path, size=40, **told)(noise)
    assert len([p for p in tmp_path.iterdir() if p.suffix]) == 3
    assert path.is_file()


@pytest.mark.parametrize("damage", [b"", b"no safetensors", "half", "other"])
def test_an_unreadable_cache_is_computed_again(folder, figures, tmp_path, damage):
    evaluator(folder, tmp_path)(noise)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    if damage == "other":
        safetensors.torch.save_file({"count": torch.tensor(60), "mean": torch.zeros(256)}, path)
    else:
        path.write_bytes(good[: len(good) // 2] if damage == "half" else damage)
    assert evaluator(folder, tmp_path)(noise) == figures
    assert path.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_told(folder, figures, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=f"statistics of the data cannot be kept in {tmp_path}/file"):
        assert evaluator(folder, tmp_path / "file")(noise) == figures


def test_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("IMGOPS_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "imgops"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/imgops")
    monkeypatch.setenv("IMGOPS_CACHE_DIR", "/own")
    assert cache_folder() == Path("/own")


def test_few_samples_are_told_once(folder):
    few = evaluator(folder, samples=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(evaluator(folder, metrics=("swd",), samples=10)(noise)) == ["swd_embedded"]
    with pytest.warns(UserWarning, match="fd_embedded of 10 samples in 256 features is biased upwards"):
        few(noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few(noise)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metrics": ("fid",)}, "metrics must be one or several of fd, swd; got"),
        ({"metrics": "fd"}, "metrics must be one or several of fd, swd; got 'fd'"),
        ({"metrics": ()}, "metrics must be one or several"),
        ({"metrics": ("fd", "fd")}, "metrics must be one or several"),
        ({"samples": 1}, "samples must be >= 2; got 1"),
        ({"reals": 1}, "reals must be >= 2; got 1"),
        ({"seed": -1}, "seed must be >= 0; got -1"),
    ],
)
def test_arguments_are_checked(folder, more, message):
    with pytest.raises(ValueError, match=message):
        evaluator(folder, **more)


def test_what_is_generated_is_checked(folder):
    one = evaluator(folder, metrics=("swd",), samples=4)
    with pytest.raises(ValueError, match="generate must return a picture per seed; got 1 for 4"):
        one(lambda seeds: noise(seeds[:1]))
    with pytest.raises(TypeError, match=r"uint8 tensor; got torch\.float32"):
        one(lambda seeds: noise(seeds).float())


def test_a_dataset_of_one_picture_is_refused(folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"dataset must have 2 pictures or more; .* has 1"):
        evaluator(tmp_path)
    with pytest.raises(ValueError, match=r"dataset must have 2 pictures or more; .* has 1"):
        evaluator(folder).compare(ImageFolder(tmp_path, 32))


def test_a_dataset_without_any_variety_is_refused(folder, tmp_path):
    for i in range(3):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{i}.png")
    for _ in range(2):
        with pytest.raises(ValueError, match="all its pictures have the same features of embedded"):
            evaluator(tmp_path, tmp_path / "cache").compare(ImageFolder(folder, 32))


def test_contents_tell_datasets_apart(folder, tmp_path):
    hashes = {
        open_dataset(source, size, channels, seed=seed).content_hash()
        for source in (folder, "samples:textures", "samples:pictures")
        for size, channels, seed in ((32, 3, 0), (16, 3, 0), (32, 1, 0))
    }
    assert len(hashes) == 9
    assert open_dataset("samples:textures", 32, seed=1).content_hash() not in hashes
    again = open_dataset(folder, 32, mirror=True, use_labels=False).content_hash()
    assert again in hashes
    # a set that does not know better hashes its pictures
    decoded = ImageDataset.content_hash(ImageFolder(folder, 32))
    assert decoded not in hashes
    assert decoded == ImageDataset.content_hash(ImageFolder(folder, 32))


WORKER = """
import json, os, sys, torch
sys.path.insert(0, sys.argv[3])
from test_evaluator import evaluator, noise
from imgops.metrics import FeatureStatistics
from pathlib import Path

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
control = torch.distributed.new_group()
waits, broadcast = [], torch.distributed.broadcast
torch.distributed.broadcast = lambda *given, group: waits.append(group) or broadcast(*given, group=group)
# only the first process has a cache that knows the data
found = []
for group in None, control:
    # the second one finds the data in the cache
    one = evaluator(Path(sys.argv[1]), Path(sys.argv[2]) / str(rank), samples=51, group=group)
    found += [one(noise), one(noise)]
    assert waits == [group] * 3
    waits.clear()
statistics = FeatureStatistics(2)
statistics.all_reduce()
empty = statistics.count
if rank == 1:
    statistics.update(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
statistics.all_reduce()
print(json.dumps([found, empty, statistics.count, statistics.mean.tolist(), statistics.scatter.tolist()]))
torch.distributed.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_two_processes_have_the_figures_of_one(folder, tmp_path):
    script, cache = tmp_path / "worker.py", tmp_path / "cache"
    script.write_text(WORKER)
    command = [sys.executable, str(script), str(folder), str(cache), str(Path(__file__).parent)]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)
    assert first == second
    found, empty, count, mean, scatter = first
    assert found[0] == pytest.approx(evaluator(folder, samples=51)(noise), rel=1e-6)
    assert found == [found[0]] * 4
    assert (empty, count, mean, scatter) == (0, 2, [2.0, 2.0], [[2.0, 0.0], [0.0, 0.0]])
    assert [path.name for path in cache.iterdir()] == ["0"]
