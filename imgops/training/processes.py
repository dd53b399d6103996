"""The processes of a run, as torchrun starts them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ._start import by_torchrun, start

#: how long the processes wait for one another where the GPU is not concerned
_PATIENCE = timedelta(hours=12)
#: the number of the process groups that this process has had
_GROUPS = itertools.count()


class Processes:
    """The processes that train together, and what they exchange; alone, nothing.

    Args:
        rank: the number of this one, from 0.
        count: how many there are.
        control: the process group, on the CPU, over which they agree and wait for one another, for hours if need be;
            None for one process.
    """

    def __init__(self, rank: int = 0, count: int = 1, control: Any = None) -> None:
        self.rank, self.count, self.control = rank, count, control

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and reports."""
        return self.rank == 0

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, of one dtype on one device, by their means over the processes."""
        if self.count == 1 or not tensors:
            return
        # one exchange of all is faster than one of each
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def means(self, values: Sequence[float]) -> list[float]:
        """The means of numbers over the processes."""
        if self.count == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed, group=self.control)
        return [float(value) for value in summed / self.count]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether one of the processes raises it; each has to ask."""
        if self.count == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self.control)
        return tuple(map(bool, raised.tolist()))

    def wait(self) -> None:
        """Wait until all have come here, for hours if need be: where one of them works long, the exchanges that follow
        would give up after minutes."""
        if self.count > 1:
            dist.barrier(group=self.control)

    def share_(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's values."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def share(self, value: Any) -> Any:
        """The first process's value, in all of them; any object that can be pickled."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0, group=self.control)
        return values[0]


def asked_for() -> int:
    """How many processes the launcher started, as torchrun says it; 1 without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes and reports, before the processes are connected."""
    return asked_for() == 1 or int(os.environ.get("RANK", "0")) == 0


def restarted() -> bool:
    """Whether torchrun started the processes again, after one of them failed or a machine came; all must ask."""
    return by_torchrun() and start().again


def device_of_process(device: str) -> str:
    """The device of this process: where several train on GPUs, the GPU of its number on its machine.

    A GPU that ``device`` names is then not meant: it is that of the process which wrote the settings of a run.
    """
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device.startswith("cuda") and asked_for() > 1 else device


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes of this run, connected: by NCCL where they train on GPUs, else by Gloo.

    A process group that exists already is used as it is.

    Args:
        device: where this process trains.

    Raises:
        RuntimeError: the others cannot be reached.
    """
    if asked_for() == 1:
        yield Processes()
        return
    cuda = device.startswith("cuda")
    own = not dist.is_initialized()
    if own:
        if cuda:
            torch.cuda.set_device(device)
        store, rank, count, _ = start()
        # the store keeps the addresses of an earlier group
        store = dist.PrefixStore(f"group {next(_GROUPS)}", store)
        dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=count)
    try:
        # what only the CPU needs to know must not wait for the GPU
        # nor end while the first process reads all of the data
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield Processes(dist.get_rank(), dist.get_world_size(), control)
    finally:
        if own:
            dist.destroy_process_group()
