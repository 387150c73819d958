"""What `quadmix rater score` says of the languages that a rater was not trained on."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quadmix.annotate.models.base import Outputs
from quadmix.raters import scoring
from quadmix.raters.scoring import Columns, score_files


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
        name="tuned", family="frozen-head", languages=said, reads_language=False, reads_domains=()
    )
    rater: Any = SimpleNamespace(
        asked=SimpleNamespace(placed=SimpleNamespace(card=card)), card=SimpleNamespace(digest="none"),
        score=lambda texts, rows: Outputs(values=np.zeros(len(texts), np.float32), missing={}),
    )  # fmt: skip
    monkeypatch.setattr(scoring, "encoder_reader", lambda placed: None)
    columns = Columns(language="lang")
    found = score_files(rater, [str(documents)], tmp_path / "scores.parquet", columns)
    assert found.unseen == unseen
