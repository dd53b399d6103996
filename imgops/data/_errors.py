"""Messages about files that cannot be used: one short line, whatever the decoder raised, also from worker processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

#: longest message in characters, and the fewest of them that are left to the reason
_LINE, _REASON = 200, 60
#: how a message ends in the text that PyTorch's data loader makes of a worker's traceback
_FROM_WORKER = re.compile(r"^Caught .*^[\w.]*DataError: (?P<message>[^\n]*)\s*\Z", re.DOTALL | re.MULTILINE)


class DataError(ValueError):
    """The data cannot be used; the message is one line that names the file.

    Characters that cannot be printed, as in names of files, are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        # the data loader creates a worker's error anew from the text of its traceback
        if found := _FROM_WORKER.match(message):
            message = found["message"]
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The text as one line that any terminal can show: characters that cannot be printed become escapes."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@contextmanager
def decoding(name: str, what: str = "picture") -> Iterator[None]:
    """Turn whatever a decoder raises into a :class:`DataError`.

    Args:
        name: the file's name, with which the message begins.
        what: the kind of file, for the message.

    Raises:
        DataError: names the file and, shortened to fit the line, the decoder's reason.
    """
    with _naming(f"{name}: damaged or truncated {what}"):
        try:
            yield
        except Image.UnidentifiedImageError:
            raise DataError(f"{name}: not a {what} that Pillow can read") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{name}: this {what} is too large ({error})"[:_LINE]) from None
        except MemoryError:
            raise DataError(f"{name}: this {what} takes more memory than there is") from None


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever the file system or a zip raises into a :class:`DataError`, as :func:`decoding` does."""
    with _naming(f"{name}: cannot be read"):
        yield


@contextmanager
def _naming(begin: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        # types are not listed, as on damaged bytes a decoder may raise any exception
        lines = str(error).strip().splitlines()
        reason, room = lines[0] if lines else type(error).__name__, max(_LINE - len(begin) - len(" ()"), _REASON)
        raise DataError(f"{begin} ({reason if len(reason) <= room else reason[: room - 3] + '...'})") from None
