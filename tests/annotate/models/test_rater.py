"""From a model's outputs to scores and labels: the rules on a card, and documents that may not be judged."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from quadmix.annotate.models import load, rater
from quadmix.annotate.models.base import Outputs, Placed, Settings
from quadmix.annotate.models.languages import language_code
from quadmix.annotate.models.rater import (
    Asked,
    ModelAnnotator,
    ModelLabeller,
    asked_digest,
    embedder,
    prepare_text,
    to_numbers,
)
from quadmix.errors import InputError, QuadmixError
from quadmix.recipe import ModelCard, load_card

SETTINGS = Settings(device="cpu")
MODELS = count()
TOPICS: dict[str, object] = {
    "role": "domain",
    "direction": "none",
    "output": {"kind": "classes", "labels": ["Art", "Law"]},
}


def card(**changes: object) -> ModelCard:
    data = {
        "name": "m", "family": "sequence", "role": "quality", "model": "m", "licence": "none",
        "source": "here", "description": "a test", "output": {"kind": "number"},
    }  # fmt: skip
    return ModelCard.model_validate(data | changes)


@dataclass
class Fixed:
    """Gives the row of each text; the double stands for a loaded model, whose families have tests of their
    own."""

    card: ModelCard
    rows: dict[str, list[float]]
    calls: list[list[str]] = field(default_factory=list)

    def outputs(self, texts: Sequence[str]) -> Outputs:
        self.calls.append(list(texts))
        values = np.array([self.rows[t] for t in texts], np.float32)
        lost = int(np.isnan(values).any(axis=1).sum())
        return Outputs(values=values, missing={"out_of_memory": lost} if lost else {})


def loaded(monkeypatch: pytest.MonkeyPatch, model: Fixed, language: str | None = None) -> Asked:
    placed = Placed(card=model.card, folder=Path("/nowhere"), digest=f"d{next(MODELS)}")
    monkeypatch.setitem(load._LOADED, (placed.digest, SETTINGS), model)
    return Asked(placed=placed, settings=SETTINGS, language=language)


def rows(documents: int, **columns: list[object]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"text": [""] * documents, **columns})


def test_dclm_turns_the_probability_round_where_the_other_label_is_on_top() -> None:
    dclm = load_card("dclm-fasttext")
    values = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    assert dclm.output.labels == ("__label__hq", "__label__cc")
    np.testing.assert_allclose(to_numbers(dclm, values), [0.9, 0.2, 0.5], rtol=1e-6)
    swapped = dclm.model_copy(
        update={"output": dclm.output.model_copy(update={"labels": ("__label__cc", "__label__hq")})}
    )
    np.testing.assert_allclose(to_numbers(swapped, values), [0.1, 0.8, 0.5], rtol=1e-6)


def test_classes_become_the_mean_of_their_values() -> None:
    graded = card(output={"kind": "classes", "labels": ["Low", "High"], "values": {"Low": 0.0, "High": 2.0}})
    np.testing.assert_allclose(to_numbers(graded, np.array([[0.25, 0.75]], np.float32)), [1.5])
    assert to_numbers(graded, np.array([[0.25, 0.75]], np.float32), "Low")[0] == np.float32(0.25)


def test_numbers_are_chosen_by_name_clamped_and_transformed() -> None:
    four = card(output={"kind": "number", "labels": ["style", "facts"], "clamp": [0, 5]})
    values = np.array([[1.0, 7.0], [-2.0, 3.0]], np.float32)
    assert to_numbers(four, values, "facts").tolist() == [5.0, 3.0]
    assert to_numbers(four, values, "style").tolist() == [1.0, 0.0]
    logit = card(output={"kind": "number", "transform": "sigmoid"})
    assert to_numbers(logit, np.array([[0.0]], np.float32)).tolist() == [0.5]


def test_a_model_of_several_outputs_needs_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    four = card(output={"kind": "number", "labels": ["style", "facts"]})
    asked = loaded(monkeypatch, Fixed(four, {}))
    with pytest.raises(InputError, match="output is None, expected one of style, facts"):
        ModelAnnotator.make("q", asked)
    with pytest.raises(InputError, match="output is 'beauty'"):
        ModelAnnotator.make("q", asked, "beauty")


def test_two_criteria_of_one_model_run_it_once_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    four = card(output={"kind": "number", "labels": ["style", "facts"]})
    model = Fixed(four, {"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    asked = loaded(monkeypatch, model)
    style, facts = (ModelAnnotator.make(n, asked, n) for n in ("style", "facts"))
    assert style.score(["a", "b"], rows(2)).values.tolist() == [1, 3]
    assert facts.score(["a", "b"], rows(2)).values.tolist() == [2, 4]
    assert style.score(["c"], rows(1)).values.tolist() == [5]
    assert model.calls == [["a", "b"], ["c"]]
    assert style.card.digest != facts.card.digest


def test_what_cannot_be_judged_is_missing_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    english = card(languages=["en"])
    model = Fixed(english, {"good": [1.0], "lost": [np.nan], "far": [np.inf]})
    asked = loaded(monkeypatch, model, language="lang")
    texts = ["good", "", " \n", "good", "good", "good", "lost", "far"]
    columns: list[object] = ["en", "en", "en", "deu", None, "eng_Latn", "en-US", "en"]
    scored = ModelAnnotator.make("q", asked).score(texts, rows(8, lang=columns))
    assert np.flatnonzero(~np.isnan(scored.values)).tolist() == [0, 5]
    assert scored.missing == {
        "empty_text": 2, "language_outside_card": 1, "language_unknown": 1, "not_finite": 1,
        "out_of_memory": 1,
    }  # fmt: skip
    assert sum(scored.missing.values()) == int(np.isnan(scored.values).sum())


def test_without_a_language_column_the_card_says_what_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = loaded(monkeypatch, Fixed(card(languages=["en", "de"]), {}))
    (warning,) = ModelAnnotator.make("q", asked).card.warnings
    assert "en, de" in warning
    assert "annotate.language" in warning
    assert ModelAnnotator.make("q", loaded(monkeypatch, Fixed(card(), {}))).card.warnings == ()


@pytest.mark.parametrize(
    ("tag", "code"),
    [("en", "en"), ("EN-us", "en"), ("eng_Latn", "en"), ("deu", "de"), ("cmn_Hani", "zh"), ("zh-Hant", "zh"),
     ("english", ""), ("", ""), ("??", "")],
)  # fmt: skip
def test_languages_are_read_as_the_field_writes_them(tag: str, code: str) -> None:
    assert language_code(tag) == code


def test_a_document_is_never_a_template() -> None:
    page = card(input={"template": "{url}\n\n{text}", "chars": 12})
    assert prepare_text(page, "{url} {0} {text.__class__} more", {"url": "u"}) == "u\n\n{url} {0} {t"
    line = card(input={"one_line": True, "lower": True})
    assert prepare_text(line, "  One\r\ntwo three\n", {}) == "one two three"


def test_a_template_reads_the_users_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    page = card(input={"template": "{url} {text}"})
    model = Fixed(page, {"u1 a": [1.0], " b": [2.0]})
    asked = loaded(monkeypatch, model)
    assert asked.columns == ("url",)
    scored = ModelAnnotator.make("q", asked).score(["a", "b"], rows(2, url=["u1", None]))
    assert scored.values.tolist() == [1.0, 2.0]


def test_labels_are_the_most_probable_class_or_other_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = card(role="domain", direction="none", output={"kind": "classes", "labels": ["Art", "Law"]})
    model = Fixed(topics, {"a": [0.9, 0.1], "b": [0.45, 0.55], "c": [np.nan, np.nan]})
    labeller = ModelLabeller.make(loaded(monkeypatch, model), 0.6)
    found = labeller.label(["a", "b", "c", ""], rows(4))
    assert found.labels == ["Art", "other", "unknown", "unknown"]
    assert found.missing == {"below_confidence": 1, "empty_text": 1, "out_of_memory": 1}


def test_a_domain_card_is_no_criterion_and_the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = card(role="domain", direction="none", output={"kind": "classes", "labels": ["Art", "Law"]})
    with pytest.raises(InputError, match="is for domain, expected one for quality"):
        ModelAnnotator.make("q", loaded(monkeypatch, Fixed(topics, {})))
    with pytest.raises(InputError, match="expected classes of domains"):
        ModelLabeller.make(loaded(monkeypatch, Fixed(card(), {})), 0.0)


def test_models_that_take_turns_run_once_per_batch_each(monkeypatch: pytest.MonkeyPatch) -> None:
    four = card(output={"kind": "number", "labels": ["style", "facts"]})
    one, two = Fixed(four, {"a": [1, 2], "b": [3, 4]}), Fixed(four, {"a": [5, 6], "b": [7, 8]})
    first, second = loaded(monkeypatch, one), loaded(monkeypatch, two)
    order = [(first, "style"), (second, "style"), (first, "facts"), (second, "facts")]
    raters = [ModelAnnotator.make("q", asked, output) for asked, output in order]
    for text, numbers in (("a", [1, 5, 2, 6]), ("b", [3, 7, 4, 8]), ("a", [1, 5, 2, 6])):
        assert [float(r.score([text], rows(1)).values[0]) for r in raters] == numbers
    assert one.calls == two.calls == [["a"], ["b"], ["a"]]


def test_outputs_are_kept_for_the_batch_at_hand_of_a_few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rater, "_LAST", {})
    models = [Fixed(card(), {"a": [1], "b": [2]}) for _ in range(rater.KEPT + 3)]
    raters = [ModelAnnotator.make("q", loaded(monkeypatch, m)) for m in models]
    for one in raters:
        one.score(["a"], rows(1))
    assert len(rater._LAST) == rater.KEPT
    raters[-1].score(["b"], rows(1))
    assert [inputs for inputs, _ in rater._LAST.values()] == [["b"]]


def test_languages_of_a_card_are_compared_as_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Fixed(card(languages=["eng_Latn", "no", "ms"]), {"x": [1.0]})
    asked = loaded(monkeypatch, model, language="lang")
    columns: list[object] = ["en", "nb", "nno_Latn", "no", "zsm", "id", "da"]
    scored = ModelAnnotator.make("q", asked).score(["x"] * 7, rows(7, lang=columns))
    assert np.flatnonzero(np.isnan(scored.values)).tolist() == [5, 6]
    assert scored.missing == {"language_outside_card": 2}


@pytest.mark.parametrize("tag", ["English", "xx", ""])
def test_a_card_whose_language_is_no_code_is_refused(monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    told = f"card 'm': languages names '{tag}', expected codes such as en"
    with pytest.raises(InputError, match=told):
        ModelAnnotator.make("q", loaded(monkeypatch, Fixed(card(languages=["de", tag]), {})))
    with pytest.raises(InputError, match=told):
        ModelLabeller.make(loaded(monkeypatch, Fixed(card(languages=[tag], **TOPICS), {})), 0.0)


def test_an_embedding_that_reads_columns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: dict[str, object] = {"family": "embedding", "role": "embedding", "direction": "none"}
    hinted = card(input={"template": "{domain_hint}: {text}"}, **kind)
    with pytest.raises(InputError, match=r"card 'm': input\.template names 'domain_hint', expected \{text\}"):
        embedder(loaded(monkeypatch, Fixed(hinted, {})))
    plain = card(input={"template": "query: {text}"}, **kind)
    embed = embedder(loaded(monkeypatch, Fixed(plain, {"query: a": [1.0, 0.0]})))
    assert embed(["a"]).tolist() == [[1.0, 0.0]]


def digest(**settings: Any) -> str:
    placed = Placed(card=card(), folder=Path("/nowhere"), digest="d")
    return asked_digest(Asked(placed=placed, settings=Settings(**settings)))


def test_the_digest_names_device_and_number_format_as_they_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = digest()
    assert here == digest(device="cpu", precision="float32")
    assert here != digest(precision="bfloat16")
    with pytest.raises(InputError, match="device is cuda, but this process sees"):
        digest(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert digest() == digest(device="cuda", precision="bfloat16")
    assert len({here, digest(), digest(precision="float32")}) == 3


def test_a_model_without_torch_has_a_digest_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    placed = Placed(card=card(family="ngram"), folder=Path("/nowhere"), digest="d")
    cpu, cuda = (
        asked_digest(Asked(placed=placed, settings=Settings(device=device))) for device in ("cpu", "cuda")
    )
    assert cpu == cuda


@dataclass
class Failing(Fixed):
    """Fails on a batch with a text that it has no row for, or always, as a broken library would."""

    error: Exception | None = None

    def outputs(self, texts: Sequence[str]) -> Outputs:
        if self.error:
            raise self.error
        return Fixed.outputs(self, texts)


def test_a_document_that_a_labeller_fails_on_costs_its_own_label_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Failing(card(**TOPICS), {"a": [0.9, 0.1], "b": [0.1, 0.9]})
    labeller = ModelLabeller.make(loaded(monkeypatch, model), 0.0)
    found = labeller.label(["a", "bad", "", "b"], rows(4))
    assert found.labels == ["Art", "unknown", "unknown", "Law"]
    assert found.missing == {"empty_text": 1, "failed_KeyError": 1}
    with pytest.raises(KeyError):
        labeller.label(["bad", "worse"], rows(2))


@pytest.mark.parametrize("error", [QuadmixError("q"), MemoryError(), OSError("gone")])
def test_what_is_no_fault_of_a_document_stops_a_labeller(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    model = Failing(card(**TOPICS), {"a": [0.9, 0.1]}, error=error)
    with pytest.raises(type(error)):
        ModelLabeller.make(loaded(monkeypatch, model), 0.0).label(["a"], rows(1))
