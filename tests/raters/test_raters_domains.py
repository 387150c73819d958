"""Heads whose code has the domain: what they compute, learn, and are told of texts from any side."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from parallel_world import make_world, write_settings
from rater_world import direction_world
from scipy.stats import norm
from tiny_encoders import save_encoder
from typer.testing import CliRunner

from quadmix.annotate.models.load import load_model
from quadmix.annotate.models.prepare import model_annotator, model_columns, place_models
from quadmix.annotate.models.rater import ModelAnnotator
from quadmix.annotate.models.rater_head import head_of, head_tensors
from quadmix.cli.main import app
from quadmix.errors import InputError, RecipeError
from quadmix.raters.dense import DenseTraining, rater_scores, train_dense, train_head
from quadmix.raters.documents import read_texts_section
from quadmix.raters.domains import text_domains
from quadmix.raters.heads import Head, HeadKind, moments
from quadmix.raters.scored import load_rater_model
from quadmix.raters.table import read_texts
from quadmix.recipe import AnnotateSection, load_card, load_rater
from quadmix.recipe.rating import TextsSection

CODED: list[HeadKind] = ["concat", "poso", "poso-znorm"]
TRAINING = DenseTraining(head="poso", hidden=32, batch=256, epochs=10, lr=2e-2, patience=None)


@pytest.fixture
def data():
    """60 vectors, languages 0 (unknown) to 3, domains 0 (unknown) to 2."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 6)).astype(np.float32) * 3 + 1
    return vectors, np.arange(60) % 4, np.arange(60) // 4 % 3


def a_head(kind: HeadKind, data) -> Head:
    torch.manual_seed(0)
    found = moments(*data[:2], 3, by_language="znorm" in kind)
    return Head(kind, found, np.array([0, 1, 7, 300]), hidden=8, dropout=0.1, domains=2)


@pytest.mark.parametrize("kind", CODED)
def test_tables_have_an_axis_of_domains_and_compute_what_the_module_computes(kind: HeadKind, data) -> None:
    vectors, languages, domains = data
    head = a_head(kind, data)
    with torch.no_grad():
        found = head(*map(torch.from_numpy, data)).numpy()
    weights = head.weights(["a", "b", "c"], ["news", "law"])
    table = weights.code if kind == "concat" else weights.gate
    assert table is not None
    assert table.shape[:2] == (4, 3)
    np.testing.assert_allclose(weights.scores(vectors, languages, domains), found, atol=2e-6)
    other = weights.scores(vectors, languages, (domains + 1) % 3)
    assert np.abs(other - found).min() > 1e-5, "every domain, the unknown one too, has a row of its own"
    nowhere = weights.scores(vectors, languages, np.zeros(60, np.int64))
    np.testing.assert_array_equal(weights.scores(vectors, languages), nowhere)
    assert weights.domain_rows(["law", "news", "sports", ""]).tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize("kind", ["plain", "znorm"])
def test_heads_without_a_code_read_no_domain(kind: HeadKind, data) -> None:
    assert a_head(kind, data).weights(["a", "b", "c"], ["news", "law"]).domains == ()


def test_code_is_language_domain_and_tier_side_by_side_under_equation_11(data) -> None:
    vectors, _, _ = data
    head = a_head("poso", data)
    named = {name: p.detach().double().numpy() for name, p in head.named_parameters()}
    tables = [named[f"codes.tables.of_{feature}.weight"] for feature in ("language", "domain", "tier")]
    code = np.concatenate([tables[0][3], tables[1][2], tables[2][11]])
    x = (vectors[7] - vectors.mean(axis=0)) / vectors.std(axis=0)
    z = named["hidden.weight"] @ x + named["hidden.bias"]
    inner = np.maximum(named["gate.first.weight"] @ code + named["gate.first.bias"], 0)
    gate = 2 / (1 + np.exp(-(named["gate.second.weight"] @ inner + named["gate.second.bias"])))
    wanted = named["out.weight"][0] @ (gate * z * norm.cdf(z)) + named["out.bias"][0]
    given = torch.from_numpy(vectors[7:8]), torch.tensor([3]), torch.tensor([2])
    assert head(*given).item() == pytest.approx(wanted, abs=1e-5)


def test_masking_the_domain_compares_it_with_the_unknown_one(data) -> None:
    given = tuple(map(torch.from_numpy, data))
    head = a_head("poso", data)
    shown, masked = head.last(*given), head.last(given[0], given[1], torch.zeros(60, dtype=torch.int64))
    wanted = ((shown - masked).abs().sum() / shown.abs().sum()).item()
    assert wanted > 0.02
    assert head.sensitivity(*given, of="domain") == pytest.approx(wanted, rel=1e-5)
    assert head.sensitivity(*given) != pytest.approx(wanted, rel=1e-2)


def test_file_of_a_head_keeps_its_domains_and_a_wrong_number_of_them_is_named(data) -> None:
    vectors, languages, domains = data
    weights = a_head("poso", data).weights(["a", "b", "c"], ["news", "law"])
    tensors = head_tensors(weights)
    back = head_of(tensors, weights.languages, weights.domains, where="file")
    np.testing.assert_array_equal(
        back.scores(vectors, languages, domains), weights.scores(vectors, languages, domains)
    )
    with pytest.raises(InputError, match=r"'gate' has shape \(4, 3, 8\), expected \(4, 2, 8\)"):
        head_of(tensors, weights.languages, ["news"], where="file")
    with pytest.raises(InputError, match=r"expected \(4, 8\) for 3 languages and 0 domains"):
        head_of(tensors, weights.languages, where="file")


# Training


def accuracy(head: Any, world: Any, told: list[str] | None, *, of: str | None = None) -> float:
    """Share of held pairs that a head orders as labelled; of: pairs of one domain alone."""
    vectors, texts, pairs, domains = world
    held = pairs.take(pairs.held)
    if of:
        held = held.take(np.array([domains[i] == of for i in held.a]))
    scores = head.scores(vectors, texts.language, told)
    return float(((scores[held.a] > scores[held.b]) == (held.p > 0.5)).mean())


@pytest.mark.parametrize("kind", ["concat", "poso"])
def test_a_direction_that_the_domain_turns_is_learnt_with_the_domain_and_lost_without(
    kind: HeadKind,
) -> None:
    """Half of the domains prefer what the other half refuses, and nothing in a text says its domain: without
    the code no head can be right in more than one half; with it POSO must order nearly all held pairs."""
    world = direction_world(seed=1)
    vectors, texts, pairs, domains = world
    training = replace(TRAINING, head=kind)
    without = train_head(vectors, texts, pairs, training)
    told = train_head(vectors, texts, pairs, training, domains)
    assert abs(accuracy(without, world, None) - 0.5) < 0.1
    assert accuracy(told, world, domains) > 0.9
    assert min(accuracy(told, world, domains, of=name) for name in set(domains)) > 0.85
    swapped = {"d0": "d1", "d1": "d0", "d2": "d3", "d3": "d2"}
    assert accuracy(told, world, [swapped[d] for d in domains]) < 0.15, "told the other direction"
    dealt = [str(d) for d in np.random.default_rng(0).permutation(domains)]
    placebo = train_head(vectors, texts, pairs, training, dealt)
    assert abs(accuracy(placebo, world, dealt) - 0.5) < 0.1


def test_domains_and_languages_are_withheld_independently_and_row_0_is_trained(monkeypatch) -> None:
    vectors, texts, pairs, domains = direction_world(seed=2)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = Head.forward

    def listened(self: Head, x, languages, placed=None, kept=None):
        if kept is not None:
            seen.append((languages, placed))
        return forward(self, x, languages, placed, kept)

    monkeypatch.setattr(Head, "forward", listened)
    training = replace(TRAINING, epochs=6, unknown=0.3)
    head = train_head(vectors, texts, pairs, training, domains).head
    language, domain = (torch.cat(column) == 0 for column in zip(*seen, strict=True))
    assert len(language) > 3_000
    assert language.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert domain.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (language & domain).float().mean().item() == pytest.approx(0.09, abs=0.02)
    never = train_head(vectors, texts, pairs, replace(training, unknown=0.0), domains).head
    rows = [h.codes.tables["of_domain"].weight[0].detach() for h in (head, never)]
    assert (rows[0] - rows[1]).abs().max() > 0.01, "it starts alike, and is trained where it is read alone"


def test_a_code_without_domains_is_trained_as_before_and_one_without_any_is_refused() -> None:
    """A head of the same seed gets the same bits whether domains are there and not read, or are not there."""
    vectors, texts, pairs, domains = direction_world(seed=3)
    plain = replace(TRAINING, head="plain", epochs=2)
    one, other = (train_dense(vectors, texts, pairs, plain, domains=d).weights for d in (None, domains))
    assert one.domains == other.domains == ()
    np.testing.assert_array_equal(one.scores(vectors, np.zeros(len(texts), np.int64)),
                                  other.scores(vectors, np.zeros(len(texts), np.int64)))  # fmt: skip
    with pytest.raises(InputError, match=r"none of \d+ training texts has one; name the column"):
        train_dense(vectors, texts, pairs, TRAINING, domains=[""] * len(texts))


def test_domains_of_held_texts_alone_are_not_trained_and_read_as_unknown() -> None:
    vectors, texts, pairs, domains = direction_world(seed=4)
    held = {int(i) for i in (*pairs.a[pairs.held], *pairs.b[pairs.held])}
    told = ["rare" if i in held and i % 2 else domains[i] for i in range(len(domains))]
    weights = train_dense(vectors, texts, pairs, replace(TRAINING, epochs=1), domains=told).weights
    assert weights.domains == ("d0", "d1", "d2", "d3")
    given = weights, vectors[:9], texts.language[:9]
    np.testing.assert_array_equal(rater_scores(*given, ["rare"] * 9), rater_scores(*given, [""] * 9))
    assert not np.array_equal(rater_scores(*given, ["d0"] * 9), rater_scores(*given, [""] * 9))


# From settings to scores


@pytest.fixture(scope="module")
def rater(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A POSO rater over a tiny encoder, told the domains even and odd; corpus.jsonl has them as `topic`."""
    folder = tmp_path_factory.mktemp("domains")
    rows = [orjson.loads(line) for line in make_world(folder, 60).read_bytes().splitlines()]
    for row in rows:
        number = int(row["same"][1:])
        row["topic"] = None if number % 10 == 0 else "odd" if number % 2 else "even"
    corpus = folder / "corpus.jsonl"
    corpus.write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
    save_encoder(folder / "encoder")
    (folder / "encoder.yaml").write_text(
        f"name: tiny\nfamily: embedding\nrole: embedding\nmodel: {folder / 'encoder'}\n"
        "licence: none\nsource: made here\ndescription: random\n"
        "input: {pooling: mean}\noutput: {kind: vector}\n",
        "utf-8",
    )
    extra = (
        f"encoder: {{kind: frozen, model: {folder / 'encoder.yaml'}, code: [language, domain], epochs: 2}}"
    )
    write_settings(folder, corpus, f"{extra}\nhead: poso\n")
    settings = str(folder / "rater.yaml")
    done = CliRunner().invoke(app, ["rater", "train", settings, "--set", "texts.domain=topic"])
    assert done.exit_code == 0, done.output
    return folder


def card_of(rater: Path) -> str:
    return str(rater / "raters/small/model/card.yaml")


def test_card_says_which_domains_are_read_and_scores_follow_them(rater: Path) -> None:
    card = load_card(card_of(rater))
    assert card.reads_domains == ("even", "odd")
    assert "reads the domain: even, odd" in card.description
    texts = read_texts(rater / "raters/small/texts.parquet")
    told = text_domains(rater / "raters/small", texts)
    assert set(told) == {"even", "odd", ""}, "an empty column is no domain of that name"
    model = load_rater_model(card_of(rater))
    some = list(range(0, len(texts), 7))
    stored = {r["ids"]: r["score"] for r in pq.read_table(rater / "raters/small/scores.parquet").to_pylist()}
    rows = pa.RecordBatch.from_pydict(
        {"language": [texts.language[i] for i in some], "domain": [told[i] or None for i in some]}
    )
    found = model.score([texts.text[i] for i in some], rows).values
    assert found.tolist() == pytest.approx([stored[texts.ids[i]] for i in some], abs=1e-4)
    wrong = card.model_copy(update={"reads_domains": ("even",)})
    with pytest.raises(InputError, match=r"trained with the domains \['even', 'odd'\]; correct the card"):
        load_model(replace(model.asked.placed, card=wrong, digest="wrong"), model.asked.settings)


def test_rater_score_reads_the_column_and_counts_what_is_unknown(rater: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.jsonl" for name in ("even", "odd", "sports", "none")}
    text = json.loads((rater / "corpus.jsonl").read_text("utf-8").splitlines()[8])["text"]
    for name, path in files.items():
        row = {"id": name, "text": text, "lang": "en", "topic": None if name == "none" else name}
        path.write_bytes(orjson.dumps(row))
    own = ["--out", str(tmp_path / "s.parquet"), "--language", "lang"]
    told = [*map(str, files.values()), *own, "--domain", "topic"]
    done = CliRunner().invoke(app, ["rater", "score", card_of(rater), *told])
    assert done.exit_code == 0, done.output
    assert (
        "domain 'sports': 1 documents; the rater was never trained on it, it counts as unknown" in done.output
    )
    assert "1 documents say no domain" in done.output
    scores = {r["id"]: r["score"] for r in pq.read_table(tmp_path / "s.parquet").to_pylist()}
    assert len({scores["even"], scores["odd"], scores["none"]}) == 3
    assert scores["sports"] == scores["none"]
    facts = json.loads((tmp_path / "s.parquet.json").read_text("utf-8"))
    assert facts["domains"] == {"": 1, "even": 1, "odd": 1, "sports": 1}
    assert facts["unseen_domains"] == {"": 1, "sports": 1}
    lacking = CliRunner().invoke(app, ["rater", "score", card_of(rater), str(files["odd"]), *own])
    assert "name its column with --domain" in str(lacking.exception)
    other = CliRunner().invoke(
        app, ["rater", "score", card_of(rater), str(files["odd"]), *own, "--domain", "nope"]
    )
    assert "has no column 'nope' (--domain)" in str(other.exception)


def test_a_run_takes_the_domain_from_a_column_or_refuses_before_it_reads(rater: Path) -> None:
    def section(**more: Any) -> AnnotateSection:
        criterion = {"name": "ours", "kind": "model", "model": card_of(rater), **more.pop("criterion", {})}
        return AnnotateSection(criteria=[criterion], language="lang", device="cpu", **more)  # type: ignore

    def made(own: AnnotateSection):
        return model_annotator(own.criteria[0], own, place_models(own))

    named = made(section(criterion={"domain": "topic"}))
    assert named.asked.columns == ("lang", "topic")
    shared = section(domain={"kind": "column", "column": "cell"})
    assert made(shared).asked.domain == "cell", "left out, the column of annotate.domain"
    assert ("the model of 'ours'", "cell") in model_columns(shared, place_models(shared))
    assert made(shared).card.digest != named.card.digest
    both = section(domain={"kind": "column", "column": "cell"}, criterion={"domain": "topic"})
    assert made(both).asked.domain == "topic", "the criterion's own key comes first"
    with pytest.raises(InputError, match=r"reads the domain of a text \(even, odd\), but no column says it"):
        made(section())
    card = named.asked.placed.card.model_copy(update={"reads_domains": ()})
    silent = replace(named.asked, placed=replace(named.asked.placed, card=card))
    with pytest.raises(InputError, match="reads no domain; take the key `domain` off"):
        ModelAnnotator.make("ours", silent)
    texts = ["of the method", "click buy now"]
    rows = pa.RecordBatch.from_pydict({"lang": ["en", "en"], "topic": ["odd", None]})
    given = named.score(texts, rows).values
    direct = load_rater_model(card_of(rater), "cpu").score(
        texts, pa.RecordBatch.from_pydict({"language": ["en", "en"], "domain": ["odd", ""]})
    )
    np.testing.assert_array_equal(given, direct.values)


def test_settings_that_name_the_domain_and_cannot_have_it_are_refused(rater: Path) -> None:
    def load(*overrides: str):
        return load_rater(str(rater / "rater.yaml"), overrides)

    with pytest.raises(RecipeError, match=r"texts\.domain names no column"):
        load()
    with pytest.raises(RecipeError, match="no head that reads a code"):
        load("texts.domain=topic", "encoder.kind=hashed")
    with pytest.raises(RecipeError, match=r"expected \[language\] or \[language, domain\]"):
        load("texts.domain=topic", "encoder.code=[domain]")
    refused = CliRunner().invoke(
        app, ["rater", "train", str(rater / "rater.yaml"), "--set", "texts.domain=topic",
              "--set", "head=znorm"],
    )  # fmt: skip
    assert "head 'znorm' has no code; set head: concat, poso" in str(refused.exception)


def test_another_column_of_domains_is_another_rater(rater: Path) -> None:
    """The pairs are the same whichever column says the domains; the rater is not."""
    before = json.loads((rater / "raters/small/report.json").read_text("utf-8"))["request"]
    done = CliRunner().invoke(
        app, ["rater", "train", str(rater / "rater.yaml"), "--set", "texts.domain=lang", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["request"] != before
    assert load_card(card_of(rater)).reads_domains == ("en",), "the domain of a document is its original's"
    again = CliRunner().invoke(
        app, ["rater", "train", str(rater / "rater.yaml"), "--set", "texts.domain=topic", "--json"]
    )
    assert json.loads(again.stdout)["request"] == before


def test_a_document_whose_column_is_empty_has_no_domain(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "lang": "en", "text": f"text {i}", "topic": topic}
        for i, topic in enumerate(["news", None, " ", " law ", 3])
    ]
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
    section = TextsSection(paths=[str(path)], language="lang", domain="topic")
    assert set(read_texts_section(section, "en", [], seed=0).domains.values()) == {"news", "law", "3"}
