"""A translation model on this machine: NLLB, M2M100, mBART, MADLAD, Marian, ... through transformers.

In: a folder or hub id, and how the model names languages. Out: a `Translator`. Files are placed and read
under the project's rules for models: safetensors alone, no code of the repository.

Such models read sentences or short paragraphs, so a text is parted at line ends and behind sentences, pieces
of up to `piece_tokens` are translated, and put together with the breaks of the source. A batch is the pieces
of one text, so that its translation does not depend on the texts beside it. A piece that the model does not
end within `new_tokens`, or leaves empty, makes the text fail: half a translation carries no label.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.devices import choose_device, import_torch, settle, torch_threads
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.pretrained import read_model, read_tokenizer
from quadmix.errors import InputError
from quadmix.io.atomic import value_digest
from quadmix.recipe.cards import CardOutput, ModelCard

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|(?<=[।۔؟።])\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seq2Seq:
    """How a model is asked.

    codes: our language codes -> the model's (de -> deu_Latn for NLLB, de_DE for mBART, de for M2M100; for
    `prefix` any text). how: `bos`: the decoder is made to begin with the target's token, and the tokenizer is
    told the source language; `prefix`: `template` with {source}, {target} and {text} is what the model reads
    (MADLAD: "<2{target}> {text}"); `none`: the model knows one route. beams: 1 is greedy. piece_tokens,
    new_tokens: of a piece and of its translation at most.
    """

    codes: Mapping[str, str]
    how: Literal["bos", "prefix", "none"] = "bos"
    template: str = "{text}"
    beams: int = 1
    piece_tokens: int = 128
    new_tokens: int = 256

    def __post_init__(self) -> None:
        if min(self.beams, self.piece_tokens, self.new_tokens) < 1:
            raise InputError(
                f"seq2seq translator: beams is {self.beams}, piece_tokens {self.piece_tokens}, new_tokens "
                f"{self.new_tokens}; expected 1 or more"
            )
        if self.how == "prefix" and "{text}" not in self.template:
            raise InputError(f"seq2seq translator: template is {self.template!r}, expected {{text}} in it")


@dataclass(frozen=True, slots=True, eq=False)
class Seq2SeqTranslator:
    """A loaded translation model, see `translate.Translator`."""

    languages: tuple[str, ...]
    _placed: Placed
    _how: Seq2Seq
    _settings: Settings
    _model: Any
    _tokenizer: Any

    def digest(self, source_language: str, target_language: str) -> str:
        """Return the digest of the model's files and of how it is asked about this route."""
        codes = {code: self._how.codes[code] for code in (source_language, target_language)}
        how = replace(self._how, codes=codes)
        return f"seq2seq-{value_digest([self._placed.digest, how, self._settings.precision])}"

    def translate(self, texts: Sequence[str], source_language: str, target_language: str) -> list[str | None]:
        """See `translate.Translator`."""
        source, target = self._how.codes[source_language], self._how.codes[target_language]
        if self._how.how == "bos" and hasattr(self._tokenizer, "src_lang"):
            self._tokenizer.src_lang = source
        begin = _bos(self._tokenizer, target) if self._how.how == "bos" else None
        with torch_threads(self._settings.threads):
            return [self._one(text, (source, target), begin) for text in texts]

    def _one(self, text: str, route: tuple[str, str], begin: int | None) -> str | None:
        parts = split_text(text, self._count, self._how.piece_tokens)
        made = self._generate([piece for piece, _ in parts if piece.strip()], route, begin)
        if made is None:
            return None
        answers = iter(made)
        return "".join((next(answers) if piece.strip() else piece) + gap for piece, gap in parts)

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _generate(self, pieces: Sequence[str], route: tuple[str, str], begin: int | None) -> list[str] | None:
        if not pieces:
            return []
        torch = import_torch("a translation model")
        if self._how.how == "prefix":
            pieces = [self._how.template.format(source=route[0], target=route[1], text=p) for p in pieces]
        given = self._tokenizer(
            list(pieces), padding=True, return_tensors="pt", return_token_type_ids=False, verbose=False
        ).to(choose_device(self._settings))
        forced = {} if begin is None else {"forced_bos_token_id": begin}
        with torch.inference_mode():
            ids = self._model.generate(
                **given, num_beams=self._how.beams, do_sample=False, max_new_tokens=self._how.new_tokens,
                **forced,
            )  # fmt: skip
        end = self._tokenizer.eos_token_id
        # the first token is the decoder's start; some models force an end onto the last one that is allowed
        new = ids[:, 1 : self._how.new_tokens]
        if not bool((new == end).any(dim=1).all()):
            return None
        made = [text.strip() for text in self._tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return made if all(made) else None


def load_seq2seq(
    model: str,
    how: Seq2Seq,
    *,
    settings: Settings | None = None,
    files: Mapping[str, str | None] | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Seq2SeqTranslator:
    """Load a translation model from a local folder, or from the hub by its id.

    files: file -> sha256 (None: not pinned) of what is needed beyond *.json, *.safetensors, *.model, *.txt,
    such as source.spm and target.spm of Marian. Raises InputError for a folder without safetensors, missing
    weights, or a language code that the tokenizer does not have; StoreError and MissingExtraError as
    `fetch.place`.
    """
    settings = settings or Settings()
    placed = place_seq2seq(model, files=files, revision=revision, offline=offline)
    if not any(placed.folder.glob("*.safetensors")):
        raise InputError(
            f"translation model {model!r}: {placed.folder} has no *.safetensors, and other weights are not "
            "read; convert them (transformers: save_pretrained), or name a model that has them"
        )
    tokenizer = read_tokenizer(placed)
    if how.how == "bos":
        for code in how.codes.values():
            _bos(tokenizer, code)
    loaded = read_model(placed, "AutoModelForSeq2SeqLM", use_safetensors=True)
    return Seq2SeqTranslator(tuple(how.codes), placed, how, settings, settle(loaded, settings), tokenizer)


def place_seq2seq(
    model: str,
    *,
    files: Mapping[str, str | None] | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Placed:
    """Return the files of a translation model, found and hashed; arguments and errors as `load_seq2seq`."""
    card = ModelCard(
        # a card says what a family reads and gives; here it only finds and checks files
        name="translator", family="embedding", role="embedding", model=model, revision=revision,
        files=dict(files or {}), licence="see the model", source=model, description="a translation model",
        output=CardOutput(kind="vector"),
    )  # fmt: skip
    return place(card, path=model if Path(model).exists() else None, offline=offline)


def _bos(tokenizer: Any, code: str) -> int:
    """Return the id of a language's token; InputError if the tokenizer has none."""
    table: Mapping[str, int] = getattr(tokenizer, "lang_code_to_id", None) or {}
    found = table[code] if code in table else tokenizer.convert_tokens_to_ids(code)
    if found is None or found == tokenizer.unk_token_id:
        raise InputError(
            f"translation model: its tokenizer has no token for language code {code!r}; see its "
            "tokenizer_config.json for the spelling, or set how to prefix or none"
        )
    return int(found)


def split_text(text: str, count: Any, most: int) -> list[tuple[str, str]]:
    """Part a text into (piece, gap behind it) whose concatenation is the text.

    count: text -> its tokens. Pieces are whole lines where they fit, else as many sentences as fit, else
    halves of a sentence, parted at the blank nearest to its middle.
    """
    lines = re.split(r"(\s*\n\s*)", text)
    pieces: list[tuple[str, str]] = []
    for line, gap in zip(lines[::2], [*lines[1::2], ""], strict=True):
        parts = _pack(line, count, most)
        pieces += [*parts[:-1], (parts[-1][0], parts[-1][1] + gap)]
    return pieces


def _pack(line: str, count: Any, most: int) -> list[tuple[str, str]]:
    if count(line) <= most:
        return [(line, "")]
    ends = [match.span() for match in _SENTENCE.finditer(line) if 0 < match.start() < len(line)]
    packed: list[tuple[str, str]] = []
    start, held = 0, None
    for here, after in [*ends, (len(line), len(line))]:
        if held is not None and count(line[start:here]) > most:
            packed.append((line[start : held[0]], line[held[0] : held[1]]))
            start = held[1]
        held = (here, after)
    packed.append((line[start:], ""))
    return [part for piece, gap in packed for part in _halves(piece, gap, count, most)]


def _halves(piece: str, gap: str, count: Any, most: int) -> list[tuple[str, str]]:
    if count(piece) <= most or len(piece) < 2:
        return [(piece, gap)]
    blanks = [
        match.span() for match in re.finditer(r"\s+", piece) if 0 < match.start() < match.end() < len(piece)
    ]
    middle = len(piece) // 2
    start, end = min(blanks, key=lambda span: abs(span[0] - middle), default=(middle, middle))
    return [
        *_halves(piece[:start], piece[start:end], count, most),
        *_halves(piece[end:], gap, count, most),
    ]
