"""Nothing public is lost: every name, parameter, default, command and option of the record is there."""

from __future__ import annotations

from tests.public_surface import RECORD, surface


def test_no_name_parameter_or_option_is_lost():
    lost = set(RECORD.read_text().splitlines()) - set(surface())
    assert not lost, "what people call; python -m tests.public_surface records a change that is meant"
