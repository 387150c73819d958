"""Languages on the page: only where there are several, with scores and cuts per language."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from facts_fixture import add_facts
from report_fixture import ATTACK, make_run

from quadmix.report import languages
from quadmix.report.load import RunFiles, load_run
from quadmix.report.plots import Picture
from quadmix.types.facts import LanguageFacts


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    return load_run(add_facts(make_run(tmp_path_factory.mktemp("languages"), documents=600)))


def facts_of(files: RunFiles) -> LanguageFacts:
    assert files.records.languages is not None
    return files.records.languages


def shown(files: RunFiles) -> tuple[str, dict[str, Picture]]:
    gallery: list[Picture] = []
    html = languages.languages(files, gallery)
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html)), {p.name: p for p in gallery}


def changed(files: RunFiles, facts: LanguageFacts | None) -> RunFiles:
    return dataclasses.replace(files, records=dataclasses.replace(files.records, languages=facts))


def test_tokens_scores_and_cuts_are_those_of_the_file(files: RunFiles):
    facts = facts_of(files)
    said, pictures = shown(files)
    shares = pictures["language-shares"].rows
    total = sum(r.tokens_in for r in facts.languages)
    assert [r[0] for r in shares] == ["en", "de", "日本語", ""]
    assert [r[6] for r in shares] == pytest.approx([r.tokens_in / total for r in facts.languages])
    scores = {(r[0], r[1]): r[3] for r in pictures["language-scores"].rows}
    assert scores["日本語", "heuristic"] == pytest.approx(0.85)
    assert np.isnan(float(str(scores["", "heuristic"])))
    german = facts.languages[1]
    cuts = [f"{100 * w / german.selectable_tokens:.1f} %" for w in german.within]
    chosen = f"{100 * german.unique_tokens / german.selectable_tokens:.1f} %"
    assert f"de {german.selectable_tokens:,} {' '.join(cuts)} {chosen}" in said
    assert "best 5 % best 10 % best 20 % best 50 %" in said
    cell = facts.cells[0]
    assert f"en {cell.domain} {cell.tokens_in:,} {cell.tokens_out:,}" in said
    assert "(none given)" in said
    assert {p.source for p in pictures.values()} == {("dataset/languages.json",)}


def test_one_language_or_none_is_one_line(files: RunFiles):
    facts = facts_of(files)
    one = dataclasses.replace(facts, languages=facts.languages[:1], cells=())
    said, pictures = shown(changed(files, one))
    assert "One language: the column language holds 'en' in every document" in said.replace("&#x27;", "'")
    assert pictures == {}
    assert "did not count it" in shown(changed(files, None))[0]
    reason = dataclasses.replace(facts, reason="name one in corpus.columns.language")
    assert "name one in corpus.columns.language" in shown(changed(files, reason))[0]


def test_scores_that_are_no_ranks_are_drawn_on_both_sides_of_zero(files: RunFiles):
    facts = facts_of(files)
    rows = tuple(dataclasses.replace(r, mean=(-2.5, 0.0, 1.0)) for r in facts.languages)
    _, pictures = shown(changed(files, dataclasses.replace(facts, languages=rows)))
    assert {r[3] for r in pictures["language-scores"].rows} == {-2.5, 0.0, 1.0}


def test_names_of_languages_are_text(tmp_path: Path):
    nasty = load_run(add_facts(make_run(tmp_path, documents=300, nasty=True), nasty=True))
    gallery: list[Picture] = []
    html = languages.languages(nasty, gallery)
    assert ATTACK[:9] not in html
    assert all(b"<script" not in p.svg for p in gallery)
