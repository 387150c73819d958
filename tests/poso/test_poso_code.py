"""The personalisation code: rows of its tables, unknown groups, what is refused."""

import numpy as np
import pytest
import torch

from quadmix.errors import InputError
from quadmix.poso import PersonalizationCode, log2_edges


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def a_code(unknown_p: float = 0.0) -> PersonalizationCode:
    return PersonalizationCode(
        categorical={"language": 3, "type": 2}, buckets={"labels": log2_edges()}, dim=4, unknown_p=unknown_p
    )


def test_log2_edges_make_the_twelve_buckets_of_the_specification() -> None:
    """0, 1, 2, 3-4, 5-8, 9-16, ..., 257-512, 513 and more: 1 + ceil(log2 n) for n >= 1, at most 11."""
    code = a_code()
    values = list(range(1100))
    rows = code.rows("labels", torch.tensor(values)).tolist()
    wanted = [1 + (0 if n == 0 else min(11, 1 + int(np.ceil(np.log2(n))))) for n in values]
    assert rows == wanted
    assert max(rows) == 12 == code.tables["of_labels"].num_embeddings - 1
    with pytest.raises(InputError, match="top is 500, expected a power of two"):
        log2_edges(500)


def test_vectors_of_all_features_stand_side_by_side() -> None:
    code = a_code()
    found = code({"type": torch.tensor([2]), "labels": torch.tensor([7.0]), "language": torch.tensor([3])})
    tables = [code.tables[f"of_{name}"].weight for name in ("language", "type", "labels")]
    assert found.shape == (1, 12) == (1, code.pc_dim)
    assert torch.equal(found[0], torch.cat([tables[0][3], tables[1][2], tables[2][5]]))


def test_unknown_values_have_row_zero_and_are_finite() -> None:
    code = a_code()
    assert code.rows("labels", torch.tensor([float("nan"), float("inf"), -1.0])).tolist() == [0, 12, 1]
    unknown = {name: torch.tensor([0]) for name in ("language", "type")}
    found = code({**unknown, "labels": torch.tensor([float("nan")])})
    assert torch.isfinite(found).all()


def test_buckets_do_not_move_in_half_precision() -> None:
    """513 is not a bfloat16; edges in a buffer would be rounded with the module."""
    code = a_code().bfloat16()
    assert code.rows("labels", torch.tensor([512, 513])).tolist() == [11, 12]


def test_unknown_group_is_trained_by_withheld_codes() -> None:
    """A share of the rows of each feature is told to be unknown, drawn alone; none outside training."""
    code = a_code(unknown_p=0.25)
    rows = 20_000
    given = {
        "language": torch.full((rows,), 2), "type": torch.full((rows,), 1),
        "labels": torch.full((rows,), 100),
    }  # fmt: skip
    found = code(given)
    unknown = torch.cat([table.weight[0] for table in code.tables.values()])
    withheld = (found == unknown).unflatten(1, (3, 4)).all(dim=2).float()
    assert withheld.mean(dim=0).tolist() == pytest.approx([0.25] * 3, abs=0.01)
    assert (withheld[:, 0] * withheld[:, 1]).mean().item() == pytest.approx(0.0625, abs=0.008)
    found.sum().backward()
    assert all(table.weight.grad[0].abs().sum() > 0 for table in code.tables.values())
    assert not (code.eval()(given) == unknown).unflatten(1, (3, 4)).all(dim=2).any()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"language": torch.tensor([1, 4])}, r"'language' of the code is 4 in row 1, expected 0 .* to 3"),
        ({"language": torch.tensor([-1, 0])}, r"'language' of the code is -1 in row 0"),
        ({"language": torch.tensor([1.0, 2.0])}, r"is torch\.float32, expected integers"),
        (
            {"language": torch.tensor([[1], [2]])},
            r"'language' of the code has shape \(2, 1\), expected \(B,\)",
        ),
        ({"language": torch.tensor([1])}, r"different lengths \(language: 1, type: 2, labels: 2\)"),
        ({"langauge": torch.tensor([1, 1])}, "the code has 'langauge', expected language, type, labels"),
    ],
)
def test_wrong_codes_are_named(change: dict, what: str) -> None:
    given = {name: torch.tensor([1, 1]) for name in ("language", "type", "labels")}
    with pytest.raises(InputError, match=what):
        a_code()({**given, **change})


def test_missing_feature_is_named_with_what_says_unknown() -> None:
    with pytest.raises(InputError, match=r"the code lacks 'type'; expected .* with 0 \(category\) or NaN"):
        a_code()({"language": torch.tensor([1]), "labels": torch.tensor([1])})


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, "needs at least one feature"),
        ({"categorical": {"a": 0}}, "number of categories of 'a' is 0, expected at least 1"),
        ({"categorical": {"a.b": 1}}, r"a feature of the code is called 'a\.b'"),
        (
            {"categorical": {"a": 1}, "buckets": {"a": [1]}},
            "'a' is among the categories and among the buckets",
        ),
        ({"buckets": {"a": []}}, r"edges of 'a' are \[\], expected finite numbers that ascend"),
        ({"buckets": {"a": [1, 1]}}, r"edges of 'a' are \[1\.0, 1\.0\]"),
        ({"buckets": {"a": [1, float("nan")]}}, "edges of 'a' are"),
        ({"categorical": {"a": 1}, "dim": 0}, "dim of a code is 0"),
        ({"categorical": {"a": 1}, "unknown_p": 1.0}, r"unknown_p is 1\.0"),
    ],
)
def test_settings_of_a_code_are_checked(settings: dict, what: str) -> None:
    with pytest.raises(InputError, match=what):
        PersonalizationCode(**settings)
