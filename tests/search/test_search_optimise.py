"""CMA-ES finds known minima, stays where it is told to, and keeps its runs apart."""

import numpy as np
import pytest

from quadmix.engine.threads import one_thread
from quadmix.search.optimise import Effort, minimise

QUICK = Effort(steps=80, population=12)


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


def bowl(centre, scale=1.0):
    return lambda points: scale * ((points - centre) ** 2 * np.linspace(1, 4, len(centre))).sum(axis=1)


def single(function):
    return lambda points, runs: function(points)


@pytest.mark.parametrize(("size", "steps"), [(10, 120), (60, 200)])
def test_it_finds_the_minimum_of_a_quadratic_inside_the_box(size, steps):
    """10 coordinates have a full covariance, 60 a diagonal one."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(0.2, 0.8, size)
    starts = rng.random((2, size))
    found, values = minimise(single(bowl(centre)), starts, seed=1, effort=Effort(steps=steps))
    np.testing.assert_allclose(found, np.tile(centre, (2, 1)), atol=0.05)
    np.testing.assert_allclose(values, bowl(centre)(found))
    assert (values < 1e-3 * bowl(centre)(starts)).all()


def test_a_minimum_outside_the_box_is_met_at_its_edge():
    centre = np.array([1.4, -0.3, 0.5, 0.5])
    found, _ = minimise(single(bowl(centre)), np.full((1, 4), 0.5), seed=2, effort=QUICK)
    np.testing.assert_allclose(found[0], [1.0, 0.0, 0.5, 0.5], atol=0.02)


def test_every_point_that_is_asked_about_lies_in_the_box_and_the_trust_region():
    starts = np.array([[0.1, 0.5, 0.95], [0.5, 0.5, 0.5]])
    seen = []

    def spy(points, runs):
        seen.append((points.copy(), np.array(runs)))
        return bowl(np.array([1.0, 0.0, 0.0]))(points)

    effort = Effort(steps=30, population=8, reach=0.15)
    found, _ = minimise(spy, starts, seed=3, effort=effort)
    for points, runs in seen:
        assert points.min() >= 0
        assert points.max() <= 1
        assert (np.abs(points - starts[runs]) <= 0.15 + 1e-12).all()
    np.testing.assert_allclose(found, [[0.25, 0.35, 0.8], [0.65, 0.35, 0.35]], atol=0.01)
    assert len(seen) == 31
    assert all(len(points) == 16 for points, _ in seen[1:])


def test_the_result_is_never_worse_than_the_start():
    centre = np.full(3, 0.5)
    found, values = minimise(single(bowl(centre)), centre[None], seed=4, effort=Effort(steps=2, population=4))
    np.testing.assert_array_equal(found[0], centre)
    assert values[0] == 0


def test_equal_seeds_give_equal_bits_and_others_do_not():
    starts = np.random.default_rng(5).random((2, 5))
    runs = [minimise(single(bowl(np.full(5, 0.4))), starts, seed=s, effort=QUICK)[0] for s in (6, 6, 7)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_runs_in_lockstep_find_the_minima_of_their_own_functions(scale):
    """One of them on quite another scale, and with its minimum in a corner."""
    centres = np.array([[0.2, 0.8, 0.5, 0.3], [1.0, 1.0, 0.0, 0.6], [0.6, 0.1, 0.9, 0.9]])
    scales = (1.0, scale, 1.0)

    def acquisition(points, runs):
        return np.array([bowl(centres[r], scales[r])(p[None])[0] for p, r in zip(points, runs, strict=True)])

    found, values = minimise(acquisition, np.full((3, 4), 0.5), seed=8, effort=QUICK)
    np.testing.assert_allclose(found, centres, atol=0.03)
    np.testing.assert_allclose(values, acquisition(found, [0, 1, 2]))


def test_a_region_that_is_barred_does_not_end_the_search_early():
    """Points that break a constraint get values far above the spread of the others (`adaptive.barred`): what
    is gained beside them still counts, and the minimum is found as well as without them."""
    centre = np.full(60, 0.6)
    centre[0] = 0.75
    start = np.full((1, 60), 0.2)
    start[0, 0] = 0.75
    free = single(bowl(centre, 0.02))  # losses differ by hundredths

    def acquisition(points, runs):
        return np.where(points[:, 0] > 0.8, 1e3, free(points, runs))

    (_, without), (_, with_bar) = (
        minimise(f, np.repeat(start, 3, axis=0), seed=10) for f in (free, acquisition)
    )
    assert without.max() < 0.01 * free(start, [0])[0]
    assert with_bar.max() < 0.02 * free(start, [0])[0]


def test_a_search_that_gains_nothing_more_ends_early():
    asked = []

    def acquisition(points, runs):
        asked.append(len(points))
        return bowl(np.full(2, 0.4))(points)

    minimise(acquisition, np.full((1, 2), 0.5), seed=11, effort=Effort(steps=500, population=8))
    assert len(asked) < 150


def test_a_run_does_not_depend_on_the_others_beside_it():
    centres = np.array([[0.2, 0.8, 0.0], [0.9, 1.0, 0.1]])

    def acquisition(points, runs):
        return np.array([bowl(centres[r], 100.0**r)(p[None])[0] for p, r in zip(points, runs, strict=True)])

    starts, effort = np.full((2, 3), 0.5), Effort(steps=25, population=12)  # too short to end early
    both, _ = minimise(acquisition, starts, seed=9, effort=effort)
    alone, _ = minimise(acquisition, starts[:1], seed=9, effort=effort)
    np.testing.assert_array_equal(both[0], alone[0])
