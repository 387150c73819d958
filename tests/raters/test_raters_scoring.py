"""What `quadmix rater score` says of long documents, and of languages that a rater was not trained on."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from quadmix.annotate.models.base import Outputs
from quadmix.annotate.models.rated import HashedScorer, RaterFacts
from quadmix.raters import scored, scoring
from quadmix.raters.hashed import Fitted, HashedRater, save_hashed
from quadmix.raters.scored import load_rater_model
from quadmix.raters.scoring import Columns, score_files
from quadmix.recipe.cards import CardInput


@pytest.mark.parametrize(
    ("said", "unseen"), [(("en", "de"), {"fr": 2, "sw": 1}), (("*",), {}), (("en", "de", "fr", "sw"), {})]
)
def test_a_fine_tuned_rater_names_the_languages_that_its_card_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: tuple[str, ...], unseen: dict[str, int]
) -> None:
    codes = ["en", "deu", "fr", "sw", "fr"]
    rows = [{"id": str(i), "text": "some words", "lang": code} for i, code in enumerate(codes)]
    documents = tmp_path / "documents.jsonl"
    documents.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    card = SimpleNamespace(
        name="tuned",
        family="frozen-head",
        languages=said,
        reads_language=False,
        reads_domains=(),
        input=CardInput(),
        trained_languages=(),
    )
    rater: Any = SimpleNamespace(
        asked=SimpleNamespace(placed=SimpleNamespace(card=card, base=None), settings=None),
        card=SimpleNamespace(digest="none"),
        score=lambda texts, rows: Outputs(values=np.zeros(len(texts), np.float32), missing={}),
    )  # fmt: skip
    monkeypatch.setattr(scoring, "encoder_reader", lambda placed: None)
    monkeypatch.setattr(scored, "load_model", lambda *_: None)
    columns = Columns(language="lang")
    found = score_files(rater, [str(documents)], tmp_path / "scores.parquet", columns)
    assert found.unseen == unseen


def test_what_a_table_says_of_a_document_is_of_the_windows_that_its_score_is_made_of(tmp_path: Path) -> None:
    """Windows of 200 characters, as the rater's own; the least and the spread by hand."""
    rng = np.random.default_rng(0)
    facts = RaterFacts(kind="hashed", languages=["en"], window=200, max_windows=4, features=1 << 12)
    weights = rng.normal(size=1 << 12).astype(np.float32)
    none = np.empty(0, np.float32)
    scorer = HashedScorer(facts=facts, weights=weights, statistic_weights=none, means=none, scales=none)
    save_hashed(
        tmp_path, HashedRater(scorer=scorer, chosen=Fitted(penalty=1, loss=1, accuracy=1, iterations=1)),
        name="ours",
    )  # fmt: skip
    long = "".join(rng.choice(list("abcde fghij "), 600))
    documents = tmp_path / "documents.jsonl"
    documents.write_text(
        "\n".join(json.dumps({"id": t[:3], "text": t}) for t in (long, "short", " ")), "utf-8"
    )
    rater = load_rater_model(tmp_path / "card.yaml")
    found = score_files(rater, [str(documents)], tmp_path / "scores.parquet", Columns(in_language="en"))
    assert (found.windows.size, found.windows.unit, found.windows.most) == (200, "characters", 4)
    each = scorer.scores([long[:200], long[200:400], long[400:]])
    first, second, blank = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert first["windows"] == 3
    told = [first[name] for name in ("score", "first", "least", "spread")]
    assert told == pytest.approx([each.mean(), each[0], each.min(), each.std()], rel=1e-6)
    assert (second["windows"], second["spread"], second["first"]) == (1, 0, second["score"])
    assert (blank["windows"], blank["score"], blank["first"]) == (0, None, None)
    assert found.missing == {"empty_text": 1}
