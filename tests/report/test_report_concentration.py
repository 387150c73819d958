"""Sources and repeated texts on the page: numbers of the files, nothing where there are none."""

import dataclasses
import re
from pathlib import Path

import pytest
from facts_fixture import add_facts
from report_fixture import ATTACK, make_run

from quadmix.io.atomic import read_value, write_json
from quadmix.report import concentration
from quadmix.report.load import RunFiles, load_run
from quadmix.report.plots import Picture
from quadmix.types import DatasetManifest
from quadmix.types.facts import DuplicateFacts, SourceFacts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_facts(make_run(tmp_path_factory.mktemp("sources"), documents=600))


def shown(files: RunFiles) -> tuple[str, dict[str, Picture]]:
    gallery: list[Picture] = []
    html = concentration.concentration(files, gallery)
    plain = re.sub(r"<details>.*?</details>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", plain)), {p.name: p for p in gallery}


def changed(files: RunFiles, **facts: object) -> RunFiles:
    return dataclasses.replace(files, records=dataclasses.replace(files.records, **facts))  # pyright: ignore[reportArgumentType]


def test_sources_are_those_of_the_file_with_shares_of_all_tokens(folder: Path):
    files = load_run(folder)
    said, pictures = shown(files)
    facts, manifest = files.records.sources, read_value(folder / "dataset/manifest.json", DatasetManifest)
    assert facts is not None
    rows = pictures["source-shares"].rows
    assert [r[0] for r in rows] == [s.source for s in facts.top]
    assert sum(float(str(r[6])) for r in rows) == pytest.approx(1)
    first = facts.top[0]
    assert rows[0][7] == pytest.approx(first.tokens_out / manifest.ledger.tokens_out)
    assert rows[0][8] == pytest.approx(float(str(rows[0][7])) / float(str(rows[0][6])))
    assert f"30 {sum(d.documents_in for d in manifest.domains):,} {manifest.ledger.tokens_in:,}" in said
    assert "0.710" in said
    assert "0.420" in said
    assert said.count(".example") == 20
    assert pictures["source-shares"].source == ("dataset/sources.json",)


@pytest.mark.parametrize(
    ("sources", "words"),
    [(1.0, "every document is a source of its own"), (0.9, "nearly every document is a source"), (0.5, "")],
)
def test_where_every_document_is_its_own_source_the_page_says_that_this_tells_nothing(
    folder: Path, sources: float, words: str
):
    files = load_run(folder)
    facts = files.records.sources
    assert facts is not None
    before = dataclasses.replace(facts.before, sources=int(sources * facts.before.documents))
    told = changed(files, sources=dataclasses.replace(facts, before=before))
    said, pictures = shown(told)
    if words:
        assert f"By the column url {words}" in said
        assert "corpus.columns.source" in said
        assert "equally large sources" not in said
        html = concentration.concentration(told, [])
        fold = html.index("<details><summary>The largest sources all the same")
        assert fold < html.index(".example")
        assert fold < html.index("<figure>")
    else:
        assert "of its own" not in said
        assert "equally large sources" in said
    assert "source-shares" in pictures


def test_addresses_are_told_apart_on_the_axis(folder: Path):
    """Twenty pages of one site, which differ at their ends alone."""
    files = load_run(folder)
    facts = files.records.sources
    assert facts is not None
    names = [f"https://en.wikipedia.org/wiki/List_of_all_things/{i:02}" for i in range(len(facts.top))]
    top = tuple(dataclasses.replace(s, source=n) for s, n in zip(facts.top, names, strict=True))
    svg = concentration.source_shares(dataclasses.replace(facts, top=top)).svg.decode()
    labels = re.findall(r">(https://[^<]*)</text>", svg)
    assert len(labels) == len(set(labels)) == 20


def test_documents_without_a_source_are_said(folder: Path):
    files = load_run(folder)
    facts = files.records.sources
    assert facts is not None
    unnamed = dataclasses.replace(facts.unnamed, documents_in=12, tokens_out=facts.after.tokens)
    said, _ = shown(changed(files, sources=dataclasses.replace(facts, unnamed=unnamed)))
    assert "12 documents name no source and are left out: 50.0 % of the dataset's tokens" in said.replace(
        "&#x27;", "'"
    )


def test_the_parts_of_the_tokens_add_up(folder: Path):
    files = load_run(folder)
    facts = files.records.duplicates
    assert facts is not None
    parts = concentration.token_parts(facts)
    assert sum(tokens for _, tokens in parts) == facts.tokens_out
    assert all(tokens >= 0 for _, tokens in parts)
    said, pictures = shown(files)
    assert [r[:2] for r in pictures["repeated-tokens"].rows] == parts
    assert f"5 of the {facts.documents:,} chosen documents share their text" in said
    assert f"without copies {facts.repeated_tokens:,}" in said
    beyond = facts.group_tokens_out - (facts.group_tokens - facts.repeated_tokens)
    assert f"with copies {beyond:,} {100 * beyond / facts.tokens_out:.2f} %" in said
    assert "www-a, b, c 3 7 40 280" in said
    inside, outside = concentration.amplification(facts)
    assert inside == pytest.approx(facts.group_tokens_out / facts.group_tokens)
    rest = facts.unique_tokens - facts.group_tokens
    assert outside == pytest.approx((facts.tokens_out - facts.group_tokens_out) / rest)


def test_without_repeats_there_is_no_table_of_groups(folder: Path):
    files = load_run(folder)
    none = DuplicateFacts(
        plan="p", reason="", documents=5, texts=5, unique_tokens=50, tokens_out=70, text_tokens=50
    )
    said, pictures = shown(changed(files, duplicates=none))
    assert "No two of the 5 chosen documents have the same text" in said
    assert [r[1] for r in pictures["repeated-tokens"].rows] == [50, 0, 0, 20]


def test_what_is_missing_is_said_with_its_remedy(folder: Path, tmp_path: Path):
    old = load_run(make_run(tmp_path / "old", documents=300))
    said, pictures = shown(old)
    assert said.count("version of quadmix that did not count it") == 2
    assert pictures == {}
    facts = load_run(folder).records.sources
    assert facts is not None
    lacking = dataclasses.replace(facts, reason="name one in corpus.columns.source", top=())
    assert "name one in corpus.columns.source" in shown(changed(load_run(folder), sources=lacking))[0]
    empty = dataclasses.replace(facts, top=())
    assert "'url' is empty in every document" in shown(changed(old, sources=empty))[0].replace("&#x27;", "'")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert "no dataset has been written" in shown(load_run(nothing))[0]


def test_names_from_the_web_are_text(tmp_path: Path):
    files = load_run(add_facts(make_run(tmp_path, documents=300, nasty=True), nasty=True))
    gallery: list[Picture] = []
    html = concentration.concentration(files, gallery)
    assert ATTACK[:9] not in html
    assert "&lt;script&gt;alert(1)" in html
    assert b"<script" not in gallery[0].svg
    assert "\x1b" not in html
    assert "⟨U+202E⟩" in html


def test_a_file_of_another_version_is_refused_by_name(folder: Path, tmp_path: Path):
    facts = read_value(folder / "dataset/sources.json", SourceFacts)
    write_json(tmp_path / "dataset/sources.json", {"column": facts.column})
    with pytest.raises(Exception, match=r"sources\.json lacks field"):
        load_run(tmp_path)
