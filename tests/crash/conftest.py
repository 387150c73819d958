"""Fixtures of the crash tests: one lab for all of them."""

from collections.abc import Iterator

import pytest
from crash_cases import Lab, laboratory


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made
