"""Processes meet under a name of their own each time that they are started, whatever an earlier start has left."""

from __future__ import annotations

import datetime
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from imgops.training import processes
from imgops.training._start import _KEY, meet


def met(store: object, restarted: list[bool]) -> tuple[str, bool]:
    """What all processes of a start say, of which torchrun says to each whether it was restarted."""
    with ThreadPoolExecutor(len(restarted)) as pool:
        # the first one comes last, so that the others see what is left of an earlier start
        asked = [pool.submit(meet, store, k, len(restarted), restarted[k]) for k in reversed(range(len(restarted)))]
        (found,) = {future.result(timeout=60) for future in asked}
    return found


def test_each_start_has_a_name_of_its_own_and_all_know_of_earlier_ones():
    store = dist.HashStore()
    first, again = met(store, [False, False, False])
    assert not again
    # a machine that was restarted by another one's failure, or has come later, counts none
    for restarted in [False, True, False], [True, False], [False, False, False, False]:
        name, again = met(store, restarted)
        assert again
        assert name != first
        first = name


def test_the_store_of_another_machine_knows_nothing_but_one_of_the_processes_does():
    for k in range(3):
        assert met(dist.HashStore(), [i == k for i in range(3)])[1]


def test_what_a_start_left_that_never_met_is_not_taken():
    store = dist.HashStore()
    store.set(_KEY, "old")
    store.set("old/1", json.dumps({"of": "another", "restarted": False}))
    store.set("old/confirmed", json.dumps({"again": False, "of": ["another"]}))
    name, again = met(store, [False, False])
    assert name != "old"
    assert again


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stays_alone_says_so(rank):
    store = dist.HashStore()
    store.set_timeout(datetime.timedelta(seconds=0.2))
    if rank == 1:
        store.set(_KEY, "old")
    with pytest.raises(RuntimeError):
        meet(store, rank, 2, False)


def test_without_torchrun_nothing_is_restarted(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not processes.restarted()
