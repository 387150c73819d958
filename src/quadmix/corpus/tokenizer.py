"""The one tokenizer of a run: byte-level BPE trained on the pool, or the user's own tokenizer.json.

Token counts, budgets and the proxies' pool all use it; its digest is part of the run's identity.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from quadmix.errors import InputError, MissingExtraError

END_OF_DOCUMENT = "<|endoftext|>"
_PIECE = 20_000  # a longer stretch is cut, because one 5 MB word makes BPE merging quadratic


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> str:
    """Train a byte-level BPE with `vocab_size` entries and return it as the text of a tokenizer.json."""
    tokenizers = _library()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (piece for text in texts for piece in _pieces(text))
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer.to_str(pretty=False)


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """A loaded tokenizer; `digest` names it, `end_of_document` separates documents in the pool."""

    backend: Any
    digest: str
    vocab_size: int
    end_of_document: int

    @staticmethod
    def load(path: str | Path, end_of_document: str | None = None) -> "Tokenizer":
        """Load a tokenizer.json; it must have an end-of-document token (None: one of the usual names)."""
        file = Path(path)
        if not file.is_file():
            raise InputError(f"tokenizer {str(path)!r} does not exist; leave tokenizer.path out to train one")
        text = file.read_text(encoding="utf-8")
        try:
            backend = _library().Tokenizer.from_str(text)
        except Exception as error:  # the Rust library raises bare Exception for malformed files
            raise InputError(f"tokenizer {str(path)!r} is not a tokenizer.json: {error}") from error
        usual = (END_OF_DOCUMENT, "</s>", "<eos>", "<|end_of_text|>", "[SEP]")
        candidates = usual if end_of_document is None else (end_of_document,)
        end = next((i for t in candidates if (i := backend.token_to_id(t)) is not None), None)
        if end is None:
            raise InputError(
                f"tokenizer {str(path)!r} has no end-of-document token, one of {', '.join(candidates)}"
            )
        backend.no_padding()
        backend.no_truncation()
        entries = 1 + max(backend.get_vocab(with_added_tokens=True).values())  # ids may have gaps
        return Tokenizer(backend, xxhash.xxh3_128_hexdigest(text.encode()), entries, int(end))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""
        pieces = [_pieces(text) for text in texts]
        flat = self.backend.encode_batch_fast([p for ps in pieces for p in ps], add_special_tokens=False)
        ids = iter(flat)
        return [[i for _ in ps for i in next(ids).ids] for ps in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self.backend.decode(list(ids), skip_special_tokens=False)


def _pieces(text: str) -> list[str]:
    if len(text) <= _PIECE:
        return [text]
    return [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "proxy", "counting tokens") from error
    return tokenizers
