"""Probe pairs: a rater that points the wrong way is caught, one that counts characters is unclear."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quadmix.annotate import trained as trained_module
from quadmix.annotate.annotator import AnnotatorCard, ColumnAnnotator, Scored
from quadmix.annotate.heuristic import HeuristicAnnotator, heuristic_scores
from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.rater import Asked, ModelAnnotator
from quadmix.annotate.models.train_fasttext import FastTextTraining, train_fasttext
from quadmix.annotate.probe_texts import PAIRS
from quadmix.annotate.probes import probe, probe_lines, probe_warnings, wilson
from quadmix.annotate.trained import Examples, train_linear
from quadmix.recipe.cards import CardInput

GOOD = {pair.good for pair in PAIRS}


@dataclass(frozen=True)
class Made:
    """An annotator made of a function of the text."""

    card: AnnotatorCard
    function: Callable[[str], float]

    def score(self, texts: Sequence[str], rows: pa.RecordBatch) -> Scored:
        assert rows.num_rows == len(texts)
        assert rows.column("text").to_pylist() == list(texts)
        return Scored(values=np.array([self.function(t) for t in texts], np.float32))


def made(function: Callable[[str], float], direction: str = "higher") -> Made:
    way = {"higher": "higher", "lower": "lower"}.get(direction, "none")
    return Made(AnnotatorCard(name="m", kind="model", direction=way, description="", digest=""), function)  # type: ignore[arg-type]


def test_pairs_are_sixteen_distinct_and_balanced_in_length() -> None:
    assert len(PAIRS) == len({p.name for p in PAIRS}) == 16
    assert len({t for p in PAIRS for t in (p.good, p.bad)}) == 32
    assert sum(len(p.good) > len(p.bad) for p in PAIRS) == 8


def test_the_heuristic_ranks_the_pairs_the_right_way_round() -> None:
    found = probe(HeuristicAnnotator.make("rules"))
    assert found.verdict == "right"
    assert found.share >= 0.9
    assert found.low > 0.7
    assert probe_warnings(found) == []
    assert "rules: right, " in probe_lines(found)[0]


def test_an_inverted_annotator_is_caught() -> None:
    """The direction is `lower`, the numbers say higher is better."""
    found = probe(HeuristicAnnotator.make("rules", "lower"))
    assert found.verdict == "wrong"
    assert found.high < 0.3
    assert len(found.failed) >= 14
    assert "declared the wrong way round, or its labels are swapped" in probe_warnings(found)[0]
    right = probe(made(lambda t: -float(heuristic_scores([t])[0]), "lower"))
    assert right.verdict == "right"


@pytest.mark.parametrize("function", [len, lambda t: -len(t), lambda t: 0.0])
def test_length_and_constants_are_no_better_than_chance(function: Callable[[str], float]) -> None:
    found = probe(made(function))
    assert found.share == 0.5
    assert found.verdict == "unclear"
    assert "no better than chance" in probe_warnings(found)[0]


def test_a_trained_annotator_with_swapped_sets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_module, "QUALITY_FEATURES", 1 << 12)
    rng = np.random.default_rng(0)
    words = " ".join(p.good for p in PAIRS).split(), " ".join(p.bad for p in PAIRS).split()
    texts = [" ".join(rng.choice(words[i % 2], size=60)) for i in range(60)]
    labels = np.array([1.0 - i % 2 for i in range(60)])

    def trained(labels: np.ndarray) -> str:
        examples = Examples(texts=texts, labels=labels, groups=np.zeros(60, np.int64))
        return probe(train_linear("t", examples, direction="higher", pool=0)).verdict

    assert trained(labels) == "right"
    assert trained(1.0 - labels) == "wrong"


def test_columns_and_directionless_annotators_are_not_probed() -> None:
    found = probe(ColumnAnnotator.make("edu", "edu", "higher"))
    assert (found.verdict, found.pairs) == ("not probed", 0)
    assert probe_lines(found) == ["edu: not probed (a column of the user's: it cannot score other text)"]
    assert probe_warnings(found) == []
    assert probe(made(len, "none")).reason == "it declares no direction"


def test_pairs_without_a_score_are_left_out_and_too_few_say_nothing() -> None:
    some = probe(made(lambda t: float("nan") if t == PAIRS[0].good else float(t in GOOD)))
    assert (some.pairs, some.share, some.verdict) == (15, 1.0, "right")
    none = probe(made(lambda t: float("nan")))
    assert none.verdict == "not probed"
    assert "scored 0 of 16 pairs" in none.reason


def test_a_model_gets_the_columns_it_reads_and_one_of_other_languages_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    training = FastTextTraining(dim=10, bucket=900_000, heldout=0.4)
    texts = [p.good for p in PAIRS] * 3, [p.bad for p in PAIRS] * 3
    card = train_fasttext(*texts, tmp_path / "m", name="m", training=training)
    reading = CardInput(template="{url} {text}", one_line=True)

    def model(languages: tuple[str, ...], column: str | None) -> ModelAnnotator:
        changed = card.model_copy(update={"input": reading, "languages": languages})
        placed = Placed(card=changed, folder=tmp_path / "m", digest=str(languages))
        return ModelAnnotator.make("m", Asked(placed=placed, settings=Settings(), language=column))

    found = probe(model(("en", "da"), "lang"))
    assert (found.pairs, found.verdict) == (16, "right")
    other = probe(model(("da",), None))
    assert (other.verdict, other.reason) == ("not probed", "its languages are da, and the pairs are English")


def test_wilson_is_that_of_scipy() -> None:
    from scipy.stats import binomtest

    for successes in (0, 3, 4, 8, 16):
        expected = binomtest(successes, 16).proportion_ci(0.95, "wilson")
        assert wilson(successes, 16) == pytest.approx((expected.low, expected.high), abs=1e-6)
