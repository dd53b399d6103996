"""How the processes of a run find one another, each time that torchrun starts them."""

from __future__ import annotations

import functools
import json
import os
import time
import uuid
from typing import Any, NamedTuple

import torch.distributed as dist

#: the key under which the first process announces a start
_KEY = "imgops start"
#: seconds between two looks at the store
_PAUSE = 0.05


class Start(NamedTuple):
    """A start of the processes, as this one sees it.

    Attributes:
        store: what they share; it holds nothing of an earlier start.
        rank, processes: the number of this process, and how many there are.
        again: whether there was an earlier start; the same in all of them.
    """

    store: Any
    rank: int
    processes: int
    again: bool


def by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@functools.cache
def start() -> Start:
    """Meet the other processes, once in each.

    Raises:
        RuntimeError: they cannot be reached.
    """
    store, rank, count = next(dist.rendezvous("env://"))
    name, again = meet(store, rank, count, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0)
    return Start(dist.PrefixStore(name, store), rank, count, again)


def meet(store: Any, rank: int, count: int, restarted: bool) -> tuple[str, bool]:
    """Agree on a name that no earlier start had, and on whether there was an earlier one.

    torchrun may keep its store when it starts the processes again, with what those wrote that have ended. Its count of
    restarts cannot tell the starts apart: each machine has its own, which leaves out starts that another machine made
    necessary. So the first process announces a name of its own making, the others answer to it, and it confirms their
    answers; an announcement that has stayed from an earlier start confirms other ones.

    Args:
        store: a store of torch.distributed.
        rank, count: the number of this process, and how many there are.
        restarted: what torchrun says to this process alone.

    Raises:
        RuntimeError: the others have not come within the time limit of the store.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        again = restarted or store.check([_KEY])
        store.set(_KEY, own)
        answers = [json.loads(store.get(f"{own}/{other}")) for other in range(1, count)]
        again = again or any(answer["restarted"] for answer in answers)
        store.set(f"{own}/confirmed", json.dumps({"again": again, "of": [answer["of"] for answer in answers]}))
        return own, again
    deadline, answered = time.monotonic() + store.timeout.total_seconds(), ""
    while time.monotonic() < deadline:
        name = store.get(_KEY).decode()
        if name != answered:
            store.set(f"{name}/{rank}", json.dumps({"of": own, "restarted": restarted}))
            answered = name
        if store.check([f"{name}/confirmed"]):
            confirmed = json.loads(store.get(f"{name}/confirmed"))
            if own in confirmed["of"]:
                return name, confirmed["again"]
        # not store.wait, which warns each time
        time.sleep(_PAUSE)
    raise RuntimeError("the first of the processes cannot be reached")
