"""Keyed randomness has no state; JSON of travelling values is strict and loses nothing."""

import numpy as np
import pytest
from scipy.stats import kstest

from quadmix.codec import from_json, to_json
from quadmix.errors import InputError
from quadmix.rng import clock_times, derived_seed, doc_keys, keyed_uniform, stream
from quadmix.types import Loss, Theta, Trial

IDS = [f"doc-{i}" for i in range(20_000)]


def test_keyed_uniforms_are_uniform_and_uncorrelated_between_seeds() -> None:
    a, b = keyed_uniform(1, IDS), keyed_uniform(2, IDS)
    assert kstest(a, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert abs(np.corrcoef(a, keyed_uniform(1, IDS, "other"))[0, 1]) < 0.03
    assert 0 <= a.min() < a.max() < 1


def test_a_documents_uniform_depends_on_itself_alone() -> None:
    order = np.random.default_rng(0).permutation(len(IDS))
    np.testing.assert_array_equal(keyed_uniform(7, IDS)[order], keyed_uniform(7, [IDS[i] for i in order]))


def test_ids_that_are_no_valid_unicode_have_a_key_too() -> None:
    assert len(set(doc_keys(["a\ud800", "a\ud801", "a"]).tolist())) == 3


def test_streams_of_other_names_differ_and_of_equal_names_agree() -> None:
    assert stream(0, "a", 1).random() == stream(0, "a", 1).random()
    assert stream(0, "a", 1).random() != stream(0, "a", 2).random()
    assert derived_seed(0, "ab", "c") != derived_seed(0, "a", "bc")


def test_copies_stand_evenly_spread_through_the_epoch() -> None:
    copies = np.array([3, 0, 1, 2], dtype=np.int32)
    rows, times = clock_times(5, doc_keys(["a", "b", "c", "d"]), copies)
    assert rows.tolist() == [0, 0, 0, 2, 3, 3]
    np.testing.assert_allclose(np.diff(np.sort(times[:3])), 1 / 3)
    assert abs(abs(times[4] - times[5]) - 0.5) < 1e-12
    assert ((times >= 0) & (times < 1)).all()


def trial() -> Trial:
    theta = Theta(
        weights=np.array([[0.25, 0.75]]), steepness=np.array([3.0]), cutoff=np.array([0.1]),
        exponent=np.array([0.5]), floor=np.array([0.0]),
    )  # fmt: skip
    loss = Loss(bits_per_byte=1.5, stderr=0.1, rows=2, tokens=3, bytes=4)
    return Trial(
        trial_id="t", kind="prior", label="prior", theta=theta, seed=1, selected_tokens=5, unique_tokens=4,
        train_tokens=8, epochs=1.6, losses={"a": loss}, heldout={}, status="done",
        shares=(1.0,), curve=((1, 2.0),),
    )  # fmt: skip


def test_a_trial_survives_json() -> None:
    again = from_json(Trial, to_json(trial()))
    assert to_json(again) == to_json(trial())
    assert again.losses["a"] == trial().losses["a"]
    assert again.theta is not None
    np.testing.assert_array_equal(again.theta.weights, [[0.25, 0.75]])


def test_unknown_missing_and_wrong_fields_are_named() -> None:
    data = to_json(trial())
    with pytest.raises(InputError, match="unknown field 'surprise'"):
        from_json(Trial, {**data, "surprise": 1})
    with pytest.raises(InputError, match="lacks field 'seed'"):
        from_json(Trial, {k: v for k, v in data.items() if k != "seed"})
    with pytest.raises(InputError, match="expected one of 'done', 'failed'"):
        from_json(Trial, {**data, "status": "maybe"})


def test_nan_is_null_in_json_and_nan_again_afterwards() -> None:
    loss = Loss(bits_per_byte=float("nan"), stderr=0.0, rows=0, tokens=0, bytes=0)
    assert to_json(loss)["bits_per_byte"] is None
    assert np.isnan(from_json(Loss, to_json(loss)).bits_per_byte)
