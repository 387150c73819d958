"""n-gram models: the library's own perplexity for one sentence, lines weighed by tokens, nothing made up."""

import builtins
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.ngram import NgramModel, load_ngram, normalise_line
from quadmix.errors import InputError, MissingExtraError
from quadmix.recipe.cards import ModelCard

# log10 of P and of the back-off weight; bigrams of the words a, b, 00
ARPA = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.5\t<unk>\t0
0\t<s>\t-0.3
-0.8\t</s>\t0
-0.6\ta\t-0.2
-0.9\tb\t-0.1
-1.1\t00\t0

\\2-grams:
-0.2\t<s> a
-0.4\ta b
-0.5\tb </s>
-0.7\tb 00

\\end\\
"""
WITHOUT_UNKNOWN = ARPA.replace("ngram 1=6", "ngram 1=5").replace("-1.5\t<unk>\t0\n", "")


def placed(folder: Path, text: str = ARPA, **given: Any) -> Placed:
    (folder / "model.arpa").write_text(text, encoding="utf-8")
    card = ModelCard.model_validate(
        {
            "name": "wiki", "family": "ngram", "role": "quality", "model": "model.arpa", "licence": "none",
            "files": {"model.arpa": None}, "source": "made for the test", "description": "bigrams",
            "direction": "lower", "output": {"kind": "perplexity"}, "input": given,
        }
    )  # fmt: skip
    return Placed(card=card, folder=folder, digest="x")


def loaded(folder: Path, text: str = ARPA, **given: Any) -> NgramModel:
    pytest.importorskip("kenlm")
    return load_ngram(placed(folder, text, **given), Settings())


def test_one_sentence_has_the_perplexity_of_the_library_and_of_paper_and_pencil(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    library = kenlm.Model(str(placed(tmp_path).folder / "model.arpa"))
    texts = ["a b", "b b a", "never seen a", "a", "a   b"]
    values = loaded(tmp_path).outputs(texts).values
    assert values.dtype == np.float32
    assert values[:, 0] == pytest.approx([library.perplexity(t) for t in texts], rel=1e-6)
    assert values[0, 0] == pytest.approx(10 ** ((0.2 + 0.4 + 0.5) / 3), rel=1e-6)


def test_every_line_is_a_sentence_and_lines_weigh_by_their_tokens(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    library = kenlm.Model(str(placed(tmp_path).folder / "model.arpa"))
    found = loaded(tmp_path).outputs(["a b\n\n  \nb 00 a a\n"]).values[0, 0]
    assert found == pytest.approx(10 ** (-(library.score("a b") + library.score("b 00 a a")) / (3 + 5)))


def test_text_without_a_word_and_numbers_beyond_float32_have_a_reason(tmp_path: Path) -> None:
    model = loaded(tmp_path, WITHOUT_UNKNOWN)  # KenLM then gives an unknown word 10 ** -100
    given = model.outputs(["a b", " \n\t", "x y z", "a \x00b", "\ud800"])
    assert np.isnan(given.values[:, 0]).tolist() == [False, True, True, False, True]
    assert given.missing == {"no_tokens": 1, "not_finite": 2}
    assert given.values[3] == given.values[0]  # the library itself stops at a NUL
    assert model.outputs([]).values.shape == (0, 1)


def test_normalisation_is_ccnets_and_only_where_the_card_says_so(tmp_path: Path) -> None:
    assert normalise_line("  Él—“12”\t…（Ａ） ") == 'el - "00"...(ａ)'
    assert normalise_line("Café №５ – ok！") == "cafe №0 - ok!"
    raw = "A b\nB 47"
    with_it, without = (
        loaded(tmp_path, normalise=how).outputs([raw, "a b\nb 00"]).values[:, 0] for how in ("ccnet", "none")
    )
    assert with_it[0] == with_it[1] == without[1]
    assert without[0] > without[1]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for broken in ("hello", ARPA[: ARPA.index("a b")]):
        with pytest.raises(InputError, match=r"KenLM cannot read .*model\.arpa"):
            loaded(tmp_path, broken)
    with pytest.raises(InputError, match="are sentence pieces"):
        loaded(tmp_path, ARPA.replace("\t00\t", "\t▁\t").replace("b 00", "b ▁"))
    found = placed(tmp_path)
    bare = Placed(card=found.card.model_copy(update={"files": {}}), folder=tmp_path, digest="x")
    with pytest.raises(InputError, match="`files` names none"):
        load_ngram(bare, Settings())
    (tmp_path / "model.arpa").unlink()
    with pytest.raises(InputError, match="No such file"):
        load_ngram(found, Settings())


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_kenlm(name: str, *rest: Any, **more: Any) -> Any:
        if name == "kenlm":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_kenlm)
    with pytest.raises(MissingExtraError, match=r"quadmix\[ngram\]"):
        load_ngram(placed(tmp_path), Settings())


def test_a_card_of_an_ngram_model_loads_by_its_family(tmp_path: Path) -> None:
    pytest.importorskip("kenlm")
    from quadmix.annotate.models.load import load_model

    model = load_model(placed(tmp_path), Settings())
    assert math.isfinite(model.outputs(["a b"]).values[0, 0])
