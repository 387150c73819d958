"""The study of language shares at toy size: its text, its draws, its numbers, and that it goes on."""

import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import zstandard

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "studies"))

import common  # noqa: E402
import language_pages as pages  # noqa: E402
import language_ratio as study  # noqa: E402
import language_texts as texts  # noqa: E402

from quadmix.io.atomic import read_json  # noqa: E402
from quadmix.rng import stream  # noqa: E402

SYLLABLES = {"eng": "ba de fi go lu", "zho": "水 火 木 金 土"}


def sentence(language: str, seed: int, words: int = 12) -> str:
    rng, parts = stream(seed, language), SYLLABLES[language].split()
    spoken = ["".join(rng.choice(parts, 2)) for _ in range(words)]
    return " ".join(spoken) if language == "eng" else "".join(spoken)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(b"".join(orjson.dumps(row) + b"\n" for row in rows)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("languages")
    many = home / "multilingual"
    web = [
        {"id": f"w{i}", "text": " ".join(sentence("eng", 40 * i + k) for k in range(9))} for i in range(90)
    ]
    write(home / "corpus" / "web.jsonl.zst", web)
    own = [{"id": f"z{i}", "iso3": "zho", "text": sentence("zho", i, 150)} for i in range(40)]
    write(many / "web_registers.jsonl.zst", [*own, {"id": "f", "iso3": "fra", "text": "autre"}])
    for name, lines in (("ntrex_docs", 4), ("tico19_docs", 5)):
        rows = [
            {"id": f"{name}{i}{code}", "iso3": code, "lang": code, "parallel_id": f"{name}{i}",
             "text": "\n".join(sentence(code, 900 + 10 * i + k) for k in range(lines))}
            for i in range(12) for code in ("eng", "zho")
        ]  # fmt: skip
        rows[-1]["text"] += "\none line more"
        write(many / f"{name}.jsonl.zst", rows)
    rows = [
        {"id": f"s{i}{lang}", "lang": lang, "iso3": lang[:3], "parallel_id": f"{i:02}",
         "text": sentence(lang[:3], 5_000 + i)}
        for i in range(24) for lang in ("eng_Latn", "zho_Hans", "zho_Hant")
    ]  # fmt: skip
    write(many / "sib200.jsonl.zst", rows)
    return home


def words(data: Path, folder: Path) -> list[str]:
    return [
        "--data", str(data), "--folder", str(folder), "--size", "tiny", "--tokens", "4096", "--context", "32",
        "--vocab", "300", "--seeds", "2", "--ratios", "1,0.5", "--shares", "0,0.1", "--workers", "1",
        "--device", "cpu", "--apart",
    ]  # fmt: skip


def test_parallel_text_pairs_lines_and_leaves_out_what_does_not_pair(data: Path) -> None:
    material = texts.read_material(data, "zho")
    assert len(material.training["parallel"]) == 22  # one document of each set has a line too many
    for text in material.training["parallel"]:
        lines = text.split("\n")
        scripts = [line.isascii() for line in lines]
        assert len(lines) in (8, 10)
        assert scripts == [scripts[0], not scripts[0]] * (len(lines) // 2)
    apart = material.training["apart"]
    assert {line for text in apart for line in text.split("\n")} == {
        line for text in material.training["parallel"] for line in text.split("\n")
    }
    assert len(apart) == 44
    assert all(len({line.isascii() for line in text.split("\n")}) == 1 for text in apart)
    sizes = [
        sum(len(t.encode()) for t in (*material.training[n], *material.heldout[n])) for n in texts.DOMAINS[:2]
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    assert not set(material.heldout["second"]) & set(material.training["second"])
    assert len(material.sentences) == 24


def test_items_are_the_same_in_both_languages_and_join_to_their_sentences(data: Path) -> None:
    sentences = texts.read_material(data, "zho").sentences
    first, second = (texts.choice_items(sentences, which) for which in range(2))
    assert first.gold == second.gold
    tails = [[texts.cut(pair[which])[1] for pair in sentences] for which in range(2)]
    for i, (a, b) in enumerate(zip(first.continuations, second.continuations, strict=True)):
        assert [tails[0].index(x) for x in a] == [tails[1].index(x) for x in b]
        assert first.contexts[i][0] + a[first.gold[i]] == sentences[i][0]
        assert second.contexts[i][0] + b[second.gold[i]] == sentences[i][1]
        assert len(set(a)) == texts.OPTIONS


def test_consistency_is_split_into_right_and_wrong() -> None:
    gold = np.array([0, 1, 2, 3])
    found = texts.consistency(np.array([0, 1, 0, 0]), np.array([0, 2, 0, 3]), gold)
    assert (found["acc_english"], found["acc_second"]) == (0.5, 0.5)
    assert (found["mlc"], found["mlc_right"], found["mlc_wrong"]) == (0.5, 0.25, 0.25)
    # shares of places: 3/4, 1/4, 0, 0 and 1/2, 0, 1/4, 1/4
    assert found["kappa"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))


def test_differences_are_of_the_same_seed_and_skip_models_that_failed() -> None:
    cells = {
        "a": {"m": [1.0, 2.0, 4.0]}, "b": {"m": [3.0, None, 5.0]}, "none": {"m": [0.0, 1.0, 1.0]},
    }  # fmt: skip
    found = pages.contrast([("a", "none"), ("b", "none")], cells)
    assert found["a"]["m"]["pairs"] == 3
    assert found["a"]["m"]["difference"] == pytest.approx(5 / 3)
    assert found["b"]["m"]["difference"] == pytest.approx(3.5)
    # means over cells: seed 0 (1 + 3)/2, seed 2 (3 + 4)/2; half width t(.975, 1) |3.5 - 2|/2
    assert found["all"]["m"]["difference"] == pytest.approx(2.75)
    assert found["all"]["m"]["high"] - 2.75 == pytest.approx(12.7062 * 0.75, rel=1e-4)


def test_the_study_runs_goes_on_and_draws_what_its_cells_say(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["studies/language_ratio.py"])
    monkeypatch.setattr(study, "PICTURE", tmp_path / "page.svg")
    study.main(words(data, tmp_path / "runs"))
    said = capsys.readouterr()
    assert said.err.count(": done") == 12
    found = read_json(tmp_path / "results" / "language_ratio.json")
    assert set(found["cells"]) == {
        "100-000", "100-100", "100-100a", "050-000", "050-100", "050-100a",
    }  # fmt: skip
    assert {name: set(rows) for name, rows in found["contrasts"].items()} == {
        "parallel": {"100-100", "050-100", "all"}, "apart": {"100-100a", "050-100a", "all"},
        "pairing": {"100-100", "050-100", "all"},
    }  # fmt: skip
    cell = found["cells"]["050-100"]
    assert len(cell["mlc"]) == 2
    for k in range(2):
        assert cell["mlc"][k] == pytest.approx(cell["mlc_right"][k] + cell["mlc_wrong"][k])
    assert set(found["nulls"]) == {"shortest", "longest", "untrained"}
    # a model that never saw the second language is worse at it than one that did
    assert min(found["cells"]["100-000"]["bpb_second"]) > max(found["cells"]["050-000"]["bpb_second"])
    home = tmp_path / "runs" / "zho-tiny-32-300"
    world = study.make_world(study.options().parse_args(words(data, tmp_path / "runs")))
    for name, shares in (
        ("050-100", (0.45, 0.45, 0.1, 0)),
        ("050-100a", (0.45, 0.45, 0, 0.1)),
        ("100-000", (1, 0, 0, 0)),
    ):
        trial = read_json(home / "trials" / f"{name}-1.json")
        assert trial["shares"] == pytest.approx(shares, abs=0.04)
        assert trial["selected_tokens"] == pytest.approx(4096, rel=0.1)
    assert world.pool.manifest.source == read_json(home / "pool" / "manifest.json")["source"]
    before = {p.name: p.stat().st_mtime_ns for p in (home / "trials").glob("*.json")}
    (tmp_path / "page.svg").unlink()
    study.main([*words(data, tmp_path / "runs"), "--show"])
    assert capsys.readouterr().out in said.out
    assert b"languages apart" in (tmp_path / "page.svg").read_bytes()
    study.main(words(data, tmp_path / "runs"))
    assert {p.name: p.stat().st_mtime_ns for p in (home / "trials").glob("*.json")} == before
    assert read_json(tmp_path / "results" / "language_ratio.json")["cells"] == found["cells"]
