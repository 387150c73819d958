"""Group sizes that do not depend on how many jobs there are."""

import pytest

from quadmix.pipeline.place import grouped_by


@pytest.mark.parametrize(
    ("group", "seeds", "expected"), [(8, 3, 3), (8, 5, 5), (8, 2, 4), (64, 5, 30), (4, 5, 4), (1, 3, 1)]
)
def test_groups_of_whole_seeds_fit_into_the_memory(group: int, seeds: int, expected: int) -> None:
    assert grouped_by(group, seeds) == expected
