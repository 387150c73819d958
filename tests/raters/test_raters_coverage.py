"""An encoder that does not know a script is found by counting, refused in training and named in scoring."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import transformers
from annotate.models.encoder_world import card, placed, save_tokenizer
from parallel_world import make_world, write_settings
from tiny_encoders import save_encoder
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE, Unigram
from typer.testing import CliRunner, Result

from quadmix.cli.main import app
from quadmix.errors import InputError
from quadmix.raters.coverage import Coverage, Known, Reader, encoder_reader

BYTES = [f"<0x{i:02X}>" for i in range(256)]


def reader(folder: Path, core: Any = None, **special: str) -> Reader:
    """The reader of a tokenizer saved as the hub has it; left out, the WordPiece of the other tests."""
    if core is None:
        save_tokenizer(folder)
    else:
        transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)
    found = encoder_reader(placed(folder, card("embedding", output={"kind": "vector"})))
    assert found is not None
    return found


def test_signs_under_unknown_tokens_are_counted_not_tokens_alone(tmp_path: Path) -> None:
    found = reader(tmp_path)
    assert found.kind == "unknown token"
    # "bal" is a word, "abc" three pieces; the others are one unknown token each
    assert found.read(["bal ⵣⵣⵣⵣⵣ, abc देश bal"]) == Coverage(texts=1, tokens=8, unknown=2, signs=17, lost=8)
    assert found.read(["bal", "   ", "ⵣ"]) == Coverage(texts=3, tokens=2, unknown=1, signs=4, lost=1)
    assert found.read(["bal ⵣⵣⵣⵣⵣ, abc देश bal"]).share == pytest.approx(8 / 17)


def test_runs_of_unknown_signs_are_one_token_but_all_of_them_count(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("a", -3.0), ("b", -3.0)]
    core = Tokenizer(Unigram(pieces, 0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    found = reader(tmp_path, core, unk_token="<unk>")
    assert found.kind == "unknown token"
    assert found.read(["ab ⵣⵣⵣⵣ a"]) == Coverage(texts=1, tokens=7, unknown=1, signs=7, lost=4)


def test_signs_that_fall_to_bytes_are_lost(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), *((b, -10.0) for b in BYTES), ("▁", -2.0), ("a", -3.0), ("b", -3.0)]
    core = Tokenizer(Unigram(pieces, 0, byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    found = reader(tmp_path, core, unk_token="<unk>")
    assert found.kind == "byte fallback"
    # two signs of three bytes each
    assert found.read(["ab ⵣⵣ a"]) == Coverage(texts=1, tokens=12, unknown=6, signs=5, lost=2)


def test_a_tokenizer_of_bytes_knows_every_sign_and_the_report_says_what_that_means(tmp_path: Path) -> None:
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found = reader(tmp_path, core)
    assert found.kind == "bytes"
    counts = found.read(["ab ⵣ e\u0301"])  # five letters; the accent is part of its letter
    assert counts == Coverage(texts=1, tokens=9, unknown=0, signs=4, lost=0)
    (line,) = Known(kind=found.kind, languages={"xx": counts}).lines()
    assert "made of bytes" in line


def test_signs_that_leave_no_token_are_lost_too(tmp_path: Path) -> None:
    core = Tokenizer(BPE({"a": 0, "b": 1}, []))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    found = reader(tmp_path, core)
    assert found.kind == "left out"
    assert found.read(["ab ⵣⵣ b"]) == Coverage(texts=1, tokens=3, unknown=0, signs=5, lost=2)


def test_counts_say_who_is_worst_and_warn_above_a_twentieth() -> None:
    few, many = (Coverage(texts=9, tokens=100, unknown=n, signs=200, lost=n) for n in (10, 11))
    lines = Known(kind="unknown token", languages={"de": few, "am": many}).lines()
    assert lines[1].split()[0] == "am"
    assert "5.5% (11 of 200 letters, digits and marks, 11 of 100 tokens; 9 texts)" in lines[1]
    assert [line for line in lines if line.startswith("warning")] == [lines[3]]
    assert lines[3].startswith("warning: am: 5.5%")


# In training and scoring


def cli(*words: str) -> Result:
    return CliRunner().invoke(app, ["rater", *words])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus.jsonl with a language in Greek letters, which the encoder of encoder.yaml has never seen."""
    folder = tmp_path_factory.mktemp("scripts")
    corpus = make_world(folder, 70)
    rows = [orjson.loads(line) for line in corpus.read_bytes().splitlines()]
    greek = {ord("a") + i: chr(0x3B1 + i % 25) for i in range(26)}
    rows += [
        {"id": f"xg{r['id']}", "lang": "xg", "same": r["same"], "text": r["text"].translate(greek)}
        for r in rows
        if r["lang"] == "en"
    ]
    corpus.write_bytes(b"\n".join(orjson.dumps(r) for r in rows) + b"\n")
    write_settings(folder, corpus)
    save_encoder(folder / "encoder")
    (folder / "encoder.yaml").write_text(
        f"name: tiny\nfamily: embedding\nrole: embedding\nmodel: {folder / 'encoder'}\n"
        "licence: none\nsource: made here\ndescription: random\n"
        "input: {pooling: mean}\noutput: {kind: vector}\n",
        "utf-8",
    )
    return folder


def frozen(world: Path, *more: str) -> list[str]:
    chosen = ("encoder.kind=frozen", f"encoder.model={world / 'encoder.yaml'}", "encoder.epochs=1", *more)
    return [str(world / "rater.yaml"), *(word for one in chosen for word in ("--set", one))]


def test_a_script_that_the_encoder_does_not_know_is_refused_before_anything_is_encoded(world: Path) -> None:
    for command in ("train", "compare-heads"):
        done = cli(command, *frozen(world))
        assert isinstance(done.exception, InputError)
        said = str(done.exception)
        assert "its tokenizer does not know 'xg': 100.0%" in said
        assert "'xa'" not in said
        assert "expected at most 30% (encoder.max_unknown)" in said
        assert "transfer.without" in said
        assert "encoder.max_unknown: 1" in said
        assert not (world / "raters/small/embeddings").exists()


def test_kept_out_of_training_or_accepted_it_is_reported_with_counts(world: Path, tmp_path: Path) -> None:
    for name, remedy in (("out", "transfer.without=[xg]"), ("taken", "encoder.max_unknown=1")):
        done = cli("train", *frozen(world, f"name={name}", remedy))
        assert done.exit_code == 0, done.output
        assert "warning: xg: 100.0% of it is not known" in done.output
        found = json.loads((world / f"raters/{name}/report.json").read_text("utf-8"))["scripts"]
        assert found["kind"] == "unknown token"
        counts = found["languages"]
        assert counts["xg"]["lost"] == counts["xg"]["signs"] > 0
        assert counts["en"]["lost"] == counts["xa"]["lost"] == 0 < counts["en"]["signs"]
    card_, out = str(world / "raters/out/model/card.yaml"), tmp_path / "s.parquet"
    done = cli("score", card_, str(world / "corpus.jsonl"), "--out", str(out), "--language", "lang")
    assert done.exit_code == 0, done.output
    assert "warning: xg: 100.0% of it is not known" in done.output
    assert "warning: xa: 100.0%" not in done.output
    origin = json.loads((tmp_path / "s.parquet.json").read_text("utf-8"))["scripts"]["languages"]
    assert {code: one["texts"] for code, one in origin.items()} == dict.fromkeys(("en", "xa", "xb", "xg"), 64)


def test_another_bound_does_not_train_the_same_rater_anew(world: Path) -> None:
    first = cli("train", *frozen(world, "name=out", "transfer.without=[xg]"), "--json")
    stamp = (world / "raters/out/model/card.yaml").stat().st_mtime_ns
    cli("train", *frozen(world, "name=out", "transfer.without=[xg]", "encoder.max_unknown=0.5"), "--json")
    assert (world / "raters/out/model/card.yaml").stat().st_mtime_ns == stamp
    assert first.exit_code == 0
