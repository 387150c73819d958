"""Fixtures of the crash tests: one lab for all of them."""

import os
from collections.abc import Iterator

import pytest
from crash_cases import Lab, laboratory

# Dozens of kills and disk faults take minutes and both cores: `make crash` runs them, `make test` the others.
collect_ignore = [] if os.environ.get("QUADMIX_CRASH") else ["test_crash_moments.py", "test_crash_points.py"]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made
