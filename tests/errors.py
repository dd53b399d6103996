"""What a caller sees of a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def raises_in_one_line(error: type[Exception], match: str, call: Callable[[], Any]) -> None:
    """The call raises this error, and its message is one line."""
    with pytest.raises(error, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
