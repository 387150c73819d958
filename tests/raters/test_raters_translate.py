"""Translations are made once, survive a kill, are counted, and are those of the model on each piece alone."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.devices import torch_threads
from quadmix.errors import InputError, IntegrityError, LeaseError, StoreError
from quadmix.io.lease import lease
from quadmix.raters.seq2seq import Seq2Seq, load_seq2seq, split_text
from quadmix.raters.table import Texts
from quadmix.raters.translate import (
    ApiTranslator,
    Count,
    NotTranslatedError,
    Refused,
    join_texts,
    pending_translations,
    translate_texts,
)


class Upper:
    """Translates into capitals with the language before them; remembers what it was asked."""

    languages = ("en", "de", "fr")

    def __init__(self, fails: Sequence[str] = (), stops_after: int = 10**9, version: int = 1) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.fails, self.stops_after, self.version = fails, stops_after, version

    def digest(self, source_language: str, target_language: str) -> str:
        return f"upper-{self.version}"

    def translate(self, texts: Sequence[str], source_language: str, target_language: str) -> list[str | None]:
        if len(self.asked) >= self.stops_after:
            raise StoreError("the endpoint does not answer")
        self.asked += [(source_language, target_language, text) for text in texts]
        return [None if text in self.fails else f"{target_language}:{text.upper()}" for text in texts]


def originals(*texts: str, language: str = "en") -> Texts:
    count = len(texts)
    return Texts(
        ids=tuple(f"o{i}" for i in range(count)), source=tuple(f"d{i}" for i in range(count)),
        origin=("",) * count, language=(language,) * count, text=texts,
    )  # fmt: skip


def test_every_original_is_translated_into_every_language_but_its_own(tmp_path: Path) -> None:
    german = Texts(ids=("x",), source=("d9",), origin=("",), language=("de",), text=("drei",))
    texts = join_texts(originals("one", "two"), german)
    found = translate_texts(texts, Upper(), ["fr", "de"], tmp_path)
    made = found.texts
    rows = zip(made.ids, made.source, made.origin, made.language, made.text, strict=True)
    assert list(rows) == [
        ("de/o0", "d0", "o0", "de", "de:ONE"), ("de/o1", "d1", "o1", "de", "de:TWO"),
        ("fr/o0", "d0", "o0", "fr", "fr:ONE"), ("fr/o1", "d1", "o1", "fr", "fr:TWO"),
        ("fr/x", "d9", "x", "fr", "fr:DREI"),
    ]  # fmt: skip
    assert found.counts == {"fr": Count(wanted=3, made=3), "de": Count(wanted=2, made=2)}
    again = translate_texts(join_texts(texts, found.texts), Upper(), ["fr", "de"], tmp_path)
    assert again.texts.ids == found.texts.ids  # translations are not translated


def test_failures_are_counted_per_language_and_asked_again(tmp_path: Path) -> None:
    texts = originals("one", "two", "three")
    found = translate_texts(texts, Upper(fails=["two"]), ["de", "fr"], tmp_path)
    assert found.counts["de"] == found.counts["fr"] == Count(wanted=3, made=2, failed=1)
    assert found.texts.origin == ("o0", "o2", "o0", "o2")
    second = Upper()
    found = translate_texts(texts, second, ["de", "fr"], tmp_path)
    assert second.asked == [("en", "de", "two"), ("en", "fr", "two")]
    assert found.counts["de"] == Count(wanted=3, known=2, made=1)


class Refusing(Upper):
    """Refuses the texts in `refuses`."""

    def __init__(self, *refuses: str) -> None:
        super().__init__()
        self.refuses = refuses

    def translate(
        self, texts: Sequence[str], source_language: str, target_language: str
    ) -> list[str | Refused | None]:
        made = super().translate(texts, source_language, target_language)
        return [Refused("too long") if t in self.refuses else m for t, m in zip(texts, made, strict=True)]


def test_what_is_refused_for_good_is_paid_once_until_its_file_is_removed(tmp_path: Path) -> None:
    texts = originals("one", "two", "three")
    found = translate_texts(texts, Refusing("one", "three"), ["de"], tmp_path)
    assert found.counts["de"] == Count(wanted=3, made=1, refused=2)
    (kept,) = tmp_path.glob("refused-*.jsonl")
    assert kept.read_text("utf-8").count("too long") == 2
    assert pending_translations(texts, Upper(), ["de"], tmp_path).missing == ()
    again = Upper()
    found = translate_texts(texts, again, ["de"], tmp_path)
    assert again.asked == []
    assert found.counts["de"] == Count(wanted=3, known=1, refused=2)
    kept.unlink()
    found = translate_texts(texts, again, ["de"], tmp_path)
    assert [text for *_, text in again.asked] == ["one", "three"]
    assert found.counts["de"] == Count(wanted=3, known=1, made=2)


def test_a_translator_that_refuses_everything_is_asked_again(tmp_path: Path) -> None:
    """Its settings may be wrong: nothing says that the texts are."""
    texts = originals("one", "two")
    found = translate_texts(texts, Refusing("one", "two"), ["de"], tmp_path)
    assert found.counts["de"] == Count(wanted=2, failed=2)
    assert translate_texts(texts, Upper(), ["de"], tmp_path).counts["de"] == Count(wanted=2, made=2)


def test_equal_texts_are_asked_once_and_another_translator_or_route_is_another_translation(
    tmp_path: Path,
) -> None:
    first = Upper()
    found = translate_texts(originals("same", "same", "other"), first, ["de"], tmp_path)
    assert [text for *_, text in first.asked] == ["same", "other"]
    assert found.counts["de"] == Count(wanted=3, made=3)
    other = Upper(version=2)
    translate_texts(originals("same"), other, ["de"], tmp_path)
    assert len(other.asked) == 1
    third = Upper()
    translate_texts(originals("same", language="fr"), third, ["de"], tmp_path)
    assert len(third.asked) == 1
    fourth = Upper()
    translate_texts(originals("other", "same"), fourth, ["de"], tmp_path)
    assert fourth.asked == []


def test_what_was_made_before_an_error_is_kept(tmp_path: Path) -> None:
    texts = originals(*(f"text {i}" for i in range(10)))
    with pytest.raises(StoreError, match="does not answer"):
        translate_texts(texts, Upper(stops_after=4), ["de"], tmp_path, batch=2)
    second, steps = Upper(), list[tuple[int, int]]()
    found = translate_texts(
        texts, second, ["de"], tmp_path, batch=2, progress=lambda d, t: steps.append((d, t))
    )
    assert len(second.asked) == 6
    assert found.counts["de"] == Count(wanted=10, known=4, made=6)
    assert steps[0] == (6, 10)
    assert steps[-1] == (10, 10)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_raters_translate import Upper, originals
from quadmix.raters.translate import translate_texts
class Killed(Upper):
    def translate(self, texts, source_language, target_language):
        if len(self.asked) >= 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().translate(texts, source_language, target_language)
translate_texts(originals(*(f"text {{i}}" for i in range(10))), Killed(), ["de"], Path({folder!r}), batch=2)
"""


def test_after_a_kill_the_same_call_goes_on_and_a_torn_line_is_counted(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (part,) = tmp_path.glob("translations-*.jsonl")
    data = part.read_bytes()
    part.write_bytes(data[:-9])  # as if the kill had come inside the last write
    second = Upper()
    texts = originals(*(f"text {i}" for i in range(10)))
    found = translate_texts(texts, second, ["de"], tmp_path, batch=2)
    assert len(second.asked) == 5
    assert found.torn == 1
    assert found.texts.text == tuple(f"de:TEXT {i}" for i in range(10))
    assert found.counts["de"] == Count(wanted=10, known=5, made=5)
    third = translate_texts(texts, Upper(stops_after=0), ["de"], tmp_path)
    assert third.texts.text == found.texts.text  # the torn line swallowed nothing written after it


def test_one_writer_unknown_languages_and_miscounting_translators_are_refused(tmp_path: Path) -> None:
    with lease(tmp_path), pytest.raises(LeaseError, match="in use"):
        translate_texts(originals("a"), Upper(), ["de"], tmp_path)
    with pytest.raises(InputError, match="does not know language 'ja'; it knows de, en, fr"):
        translate_texts(originals("a"), Upper(), ["de", "ja"], tmp_path)

    class Short(Upper):
        def translate(self, texts: Sequence[str], *route: str) -> list[str | None]:
            return ["x"]

    with pytest.raises(IntegrityError, match="gave 1 translations of 2 texts"):
        translate_texts(originals("a", "b"), Short(), ["de"], tmp_path)
    with pytest.raises(IntegrityError, match="text id 'o0' stands in both"):
        join_texts(originals("a"), originals("b"))


def test_a_chat_model_is_asked_per_text_and_its_answer_must_keep_the_form(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(messages: list[dict[str, str]]) -> str:
        (message,) = messages
        asked.append(message["content"])
        text = message["content"].rpartition("<text>\n")[2].removesuffix("\n</text>")
        if text == "refused":
            raise NotTranslatedError("too long")
        if text == "cut":
            return "<translation>Anfan"
        if text == "empty":
            return "<translation>\n</translation>"
        if text == "chat":
            return "Sure, here is the translation!"
        if text == "down":
            raise StoreError("the endpoint does not answer")
        return f"Here: <translation>\n{text[::-1]}\n</translation>"

    for workers in (1, 3):
        translator = ApiTranslator(ask=ask, model="m", languages=("en", "de", "tlh"), workers=workers)
        texts = ["abc", "refused", "cut", "chat", "empty", "{braces}\nline"]
        formless = Refused("no translation between <translation> and </translation>")
        expected = ["cba", Refused("too long"), formless, formless, formless, "enil\n}secarb{"]
        assert list(translator.translate(texts, "en", "tlh")) == expected
    assert "from English into tlh" in asked[0]
    named = ApiTranslator(ask=ask, model="m", languages=("eng", "zho", "pt-BR"))
    list(named.translate(["abc"], "eng", "zho"))
    assert "from English into Chinese" in asked[-1]
    list(named.translate(["abc"], "zho", "pt-BR"))
    assert "from Chinese into Portuguese (pt-BR)" in asked[-1]
    fewer, other = (ApiTranslator(ask=ask, model=m, languages=("eng", "zho")) for m in ("m", "n"))
    assert fewer.digest("eng", "zho") == named.digest("eng", "zho") != named.digest("zho", "eng")
    assert other.digest("eng", "zho") != fewer.digest("eng", "zho")
    for workers in (1, 3):
        translator = ApiTranslator(ask=ask, model="m", languages=("en", "tlh"), workers=workers)
        folder = tmp_path / str(workers)
        with pytest.raises(StoreError, match="does not answer"):
            translate_texts(originals("abc", "down", "def"), translator, ["tlh"], folder)
        found = translate_texts(originals("abc", "def"), translator, ["tlh"], folder)
        assert found.counts["tlh"] == Count(wanted=2, known=2), "what was answered beside the failure is kept"


# A small model of the kind of mBART: random weights, an end that comes now and then

WORDS = [f"{a}{b}" for a in "bdgkmnprst" for b in "aeiou"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "de_DE", "fr_XX"]
CPU = Settings(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mt")
    vocabulary = {w: i for i, w in enumerate([*SPECIAL, *WORDS, "."])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["de_DE", "fr_XX"],
    ).save_pretrained(path)  # fmt: skip
    torch.manual_seed(4)
    config = transformers.MBartConfig(
        vocab_size=len(vocabulary), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
        decoder_start_token_id=2, dropout=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.MBartForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0.0, 0.5 if "embed" in name or "shared" in name else 0.3)
        model.final_logits_bias[:, 2] = 1.7
        model.final_logits_bias[:, :2] = -100.0
    model.save_pretrained(path)
    return path


@lru_cache
def loaded(folder: Path) -> tuple[Any, Any]:
    model: Any = transformers.MBartForConditionalGeneration.from_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder), model.eval()


def greedy(folder: Path, text: str, begin: str | None, most: int) -> str | None:
    """Return the model's translation step by step, without its `generate`; None without an end in time,
    or with nothing before it."""
    tokenizer, model = loaded(folder)
    given = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    ids = [2] if begin is None else [2, tokenizer.convert_tokens_to_ids(begin)]
    with torch.inference_mode(), torch_threads(1):
        while len(ids) < most:
            scores = model(**given, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(int(scores.argmax()))
            if ids[-1] == 2:
                return tokenizer.decode(ids, skip_special_tokens=True) or None
    return None


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, int(rng.integers(1, 12)))) for _ in range(count)]


def test_translations_are_the_models_own_on_each_text_alone(folder: Path) -> None:
    how = Seq2Seq(codes={"en": "fr_XX", "de": "de_DE", "fr": "fr_XX"}, new_tokens=12)
    translator = load_seq2seq(str(folder), how, settings=CPU)
    texts = sentences(12)
    for target, begin in (("de", "de_DE"), ("fr", "fr_XX")):
        expected = [greedy(folder, text, begin, 12) for text in texts]
        assert translator.translate(texts, "en", target) == expected
    assert None in expected  # an end that does not come
    both = [translator.translate(texts, "en", target) for target in ("de", "fr")]
    assert both[0] != both[1]
    assert sum(text is not None for text in (*both[0], *both[1])) > 6
    assert translator.translate(texts[::-1], "en", "de") == both[0][::-1]  # neighbours change nothing


def test_lines_and_sentences_are_translated_piece_by_piece_and_put_together(folder: Path) -> None:
    how = Seq2Seq(codes={"en": "de_DE", "fr": "fr_XX"}, new_tokens=12, piece_tokens=6)
    translator = load_seq2seq(str(folder), how, settings=CPU)
    short = [s for s in sentences(40, seed=2) if len(s.split()) < 6]
    pieces = [s for s in short if greedy(folder, s, "fr_XX", 12)][:3]
    text = f"{pieces[0]}\n\n  {pieces[1]}\n{pieces[2]}\n"
    answers = [greedy(folder, piece, "fr_XX", 12) for piece in pieces]
    assert translator.translate([text, " \n"], "en", "fr") == [
        f"{answers[0]}\n\n  {answers[1]}\n{answers[2]}\n",
        " \n",
    ]


def count(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("a b c", ["a b c"]),
        ("a b.\n\nc d.\n", ["a b.", "c d.", ""]),
        ("a b. c d. e f. g", ["a b. c d.", "e f. g"]),  # as many sentences as fit
        ("a b c d e f g h", ["a b c d", "e f g h"]),  # no sentence: halves
        ("a. b c d e f. g", ["a.", "b c d", "e f.", "g"]),
    ],
)
def test_texts_are_parted_at_lines_then_sentences_then_blanks(text: str, pieces: list[str]) -> None:
    parts = split_text(text, count, 4)
    assert [piece for piece, _ in parts] == pieces
    assert "".join(piece + gap for piece, gap in parts) == text


def test_no_text_is_lost_in_parting() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        text = "".join(rng.choice(list("ab.!? \n。"), int(rng.integers(0, 60))))
        parts = split_text(text, len, 7)
        assert "".join(piece + gap for piece, gap in parts) == text
        assert all(len(piece) <= 7 for piece, _ in parts)


def test_models_are_refused_without_safetensors_or_a_token_for_the_language(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="has no token for language code 'xx_XX'"):
        load_seq2seq(str(folder), Seq2Seq(codes={"en": "de_DE", "xx": "xx_XX"}), settings=CPU)
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read")
    with pytest.raises(InputError, match=r"has no \*\.safetensors, and other weights are not read"):
        load_seq2seq(str(tmp_path), Seq2Seq(codes={"en": "de_DE"}), settings=CPU)
    with pytest.raises(InputError, match=r"expected \{text\} in it"):
        Seq2Seq(codes={}, how="prefix", template="<2de>")


def test_the_digest_follows_weights_and_settings_and_a_prefix_reaches_the_model(folder: Path) -> None:
    codes = {"en": "ba", "de": "da"}
    translator = load_seq2seq(str(folder), Seq2Seq(codes=codes, how="none"), settings=CPU)
    more = Seq2Seq(codes={**codes, "fr": "ka"}, how="none")
    assert load_seq2seq(str(folder), more, settings=CPU).digest("en", "de") == translator.digest("en", "de")
    how = Seq2Seq(codes=codes, how="prefix", template="{target} {text}", new_tokens=12)
    prefixed = load_seq2seq(str(folder), how, settings=CPU)
    assert prefixed.digest("en", "de") != translator.digest("en", "de")
    texts = sentences(6, seed=3)
    answers = [greedy(folder, f"da {t}", None, 12) for t in texts]
    assert any(answers)
    assert prefixed.translate(texts, "en", "de") == answers
