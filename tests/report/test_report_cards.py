"""What each criterion was made from stands on the page, beside what text length alone would do."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import make_run

from quadmix.annotate.trained import Examples, train_regression
from quadmix.io.atomic import read_json, write_json
from quadmix.report.criterion_cards import cards_table
from quadmix.report.load import load_run
from quadmix.report.write import write_report
from quadmix.types import to_json

CARDS: list[dict[str, Any]] = [
    {"name": "edu", "kind": "linear", "facts": {"good": 6298, "bad": 0, "bad_from_pool": 4315},
     "metrics": {"heldout_auc": 0.9917, "length_auc": 0.7866}},
    {"name": "fluency", "kind": "regression", "facts": {"labelled": 150, "sets": 2},
     "metrics": {"heldout_spearman": 0.2, "length_spearman": 0.25, "heldout_spearman:0": 0.9}},
    {"name": "heuristic", "kind": "heuristic", "facts": {}, "metrics": {}},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = make_run(tmp_path / "run", documents=300)
    put(run, cards=CARDS, length_bias={"edu": -0.332, "fluency": 0.79, "heuristic": None})
    return run


def put(run: Path, **facts: Any) -> None:
    path = run / "stages/annotate.json"
    stored = read_json(path)
    write_json(path, {**stored, "facts": {**stored["facts"], **facts}})


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))


def test_the_section_criteria_shows_every_card_and_what_length_alone_does(folder: Path) -> None:
    page = write_report(folder).read_text("utf-8")
    part = words(page[page.index('<section id="criteria"') : page.index('<section id="weights"')])
    assert "edu linear 6,298 good, 4,315 from the pool as bad AUC 0.992 AUC 0.787 −0.33" in part
    assert "fluency regression 150 labelled, 2 sets Spearman 0.200 Spearman 0.250 +0.79" in part
    assert "heuristic heuristic – – – –" in part
    assert "No better than length alone: fluency." in part
    assert "stages/annotate.json" in part
    facts = words(page[page.index("Facts of the stages") :])
    assert "annotate.cards" not in facts
    assert "annotate.length_bias" in facts


def test_cards_are_shown_before_there_is_a_selection_and_missing_ones_are_no_table(folder: Path) -> None:
    (folder / "selection/manifest.json").unlink()
    page = write_report(folder).read_text("utf-8")
    part = words(page[page.index('<section id="criteria"') : page.index('<section id="weights"')])
    assert "Not run: no selection has been made." in part
    assert "edu linear 6,298 good" in part
    for wrong in (None, [], {"a": 1}, [3], [{}]):
        put(folder, cards=wrong)
        assert cards_table(load_run(folder)) == ""


def test_the_card_of_a_criterion_trained_here_is_read(tmp_path: Path) -> None:
    """Labels that follow a word are learnt, and the length says nothing: as the annotators write the card."""
    texts = [f"text {'good' if i % 2 else 'bad'} number{i} " + "x " * (7 * i % 23) for i in range(200)]
    labels = np.arange(200) % 2 * 1.0
    examples = Examples(texts=texts, labels=labels, groups=np.zeros(200, dtype=np.int64))
    card = to_json(train_regression("edu", examples, direction="higher").card)
    run = make_run(tmp_path / "run", documents=300)
    put(run, cards=[card], length_bias={})
    said = words(cards_table(load_run(run)))
    held, length = (card["metrics"][n] for n in ("heldout_spearman", "length_spearman"))
    assert f"edu regression 200 labelled Spearman {held:.3f} Spearman {length:.3f} –" in said
    assert held > length
