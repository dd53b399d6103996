"""Nothing public is lost, and what is new is recorded: every name, parameter, default, command and option."""

from __future__ import annotations

from tests.public_surface import RECORD, surface


def test_the_record_is_the_surface():
    recorded, here = set(RECORD.read_text().splitlines()), set(surface())
    lost, new = sorted(recorded - here), sorted(here - recorded)
    assert not lost, "people call these; only a change that is meant is recorded, by python -m tests.public_surface"
    assert not new, "python -m tests.public_surface records these"
