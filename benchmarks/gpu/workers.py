"""Work spread over processes that share a GPU, of which any may die without taking the others along."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from typing import Any


def one_line(error: Exception) -> str:
    """An exception in a line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def gpu_is_lost() -> bool:
    """Whether an error has left this process without the GPU that it used: then nothing runs there any more."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except Exception:
        return True
    return False


def _serve(
    channel: Connection, function: Callable[[Any], dict[str, Any]], initializer: Callable[[], None] | None
) -> None:
    if initializer is not None:
        initializer()
    while True:
        try:
            item = channel.recv()
        except EOFError:
            return
        try:
            result = function(item)
        except Exception as error:
            result = {"error": one_line(error)}
        lost = "error" in result and gpu_is_lost()
        channel.send((result, lost))
        if lost:
            return


class _Worker:
    """A process, and the item that it has."""

    def __init__(self, function: Callable[[Any], dict[str, Any]], initializer: Callable[[], None] | None) -> None:
        context = get_context("spawn")
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, initializer), daemon=True)
        self.process.start()
        # our copy of the process's end: while one is open, the channel does not end with the process
        theirs.close()
        self.item: Any = None

    def give(self, item: Any) -> None:
        self.item = item
        # where it is dead already the result says so
        with contextlib.suppress(BrokenPipeError):
            self.channel.send(item)

    def result(self) -> tuple[dict[str, Any], bool]:
        """The result of the item, and whether the process has become useless."""
        try:
            return self.channel.recv()
        except (EOFError, ConnectionResetError):
            return {"error": "the process died"}, True

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.channel.close()


def spread(
    function: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    processes: int,
    seconds: float,
    initializer: Callable[[], None] | None = None,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(item, ``function(item)``) of each item, as they end, until the time is out.

    An item that raises, or whose process dies, has {"error": a line} for its result; the rest goes on, in a new process
    where the old one is dead or has lost its GPU. One that hangs keeps its process until the time is out. No process is
    left when the iterator ends or is closed.

    Args:
        function: one that other processes can import; gives what can be pickled.
        items: what it takes.
        processes: how many at most.
        seconds: after these what has not ended is left out.
        initializer: called in each process, before the first item.
    """
    end = time.monotonic() + seconds
    waiting = list(reversed(items))
    workers: dict[Connection, _Worker] = {}
    try:
        while workers or waiting:
            while waiting and len(workers) < processes:
                worker = _Worker(function, initializer)
                workers[worker.channel] = worker
                worker.give(waiting.pop())
            left = end - time.monotonic()
            ready = connection.wait(list(workers), max(0.0, left)) if left > 0 else []
            if not ready:
                return
            for channel in ready:
                worker = workers[channel]  # type: ignore[index]
                result, useless = worker.result()
                yield worker.item, result
                if useless or not waiting:
                    del workers[worker.channel]
                    worker.kill()
                else:
                    worker.give(waiting.pop())
    finally:
        for worker in workers.values():
            worker.kill()
