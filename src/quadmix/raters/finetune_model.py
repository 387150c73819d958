"""An encoder with one linear output per text: read, run, and saved as a card that scores documents.

In: a placed embedding card. Out: a `Ranker`, texts -> scores, larger = better; a folder with `card.yaml`
(family frozen-head), `head.safetensors`, `base.yaml` and the encoder with its tokenizer in `base/`.

The score is a linear function of the first token's last hidden state (cls) or of the mean over tokens, not
normalised: `...ForSequenceClassification` of XLM-RoBERTa or ModernBERT puts a further layer between, so that
the family `sequence` cannot hold it. The head has no bias: losses of pairs see differences of scores alone.
A document of several windows scores their mean, weighed by tokens.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.batches import CPU_TOKENS, PAD_TO
from quadmix.annotate.models.devices import (
    choose_device,
    choose_dtype,
    import_torch,
    import_transformers,
    torch_threads,
)
from quadmix.annotate.models.embedding import pool
from quadmix.annotate.models.pretrained import (
    check_window,
    longest_input,
    pad_id,
    quiet,
    read_config,
    read_model,
    read_tokenizer,
)
from quadmix.annotate.models.rater import check_text_alone, prepare_text
from quadmix.annotate.models.windows import window_tokeniser
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import copy_file, replacing
from quadmix.io.hashing import sha256_file
from quadmix.recipe.cards import CardOutput, ModelCard, save_card
from quadmix.rng import stream

Pooling = Literal["cls", "mean"]
HEAD, BASE = "head.safetensors", "base"
MAX_WINDOWS = 8
AT_ONCE = 1_000  # texts that are tokenised in one call
_TOKENIZER = ("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """ids: (N,) int32 the token ids of D texts, one text after the other, special tokens included, each
    text cut to the window. start: (D + 1,) int64 where each begins. cut: (D,) bool, was the text longer?"""

    ids: NDArray[np.int32]
    start: NDArray[np.int64]
    cut: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(D,) tokens of each text; 0: it has none, or was not asked for."""
        return np.diff(self.start)

    def batch(self, rows: Sequence[int], pad: int, to: int) -> NDArray[np.int64]:
        """Return (2, B, T) int64, ids and mask, padded on the right to a multiple of `to` tokens."""
        longest = -(-int(self.lengths[list(rows)].max()) // to) * to
        made = np.zeros((2, len(rows), longest), np.int64)
        made[0] = pad
        for place, row in enumerate(rows):
            piece = self.ids[self.start[row] : self.start[row + 1]]
            made[0, place, : len(piece)] = piece
            made[1, place, : len(piece)] = 1
        return made


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranker:
    """encoder: float32 weights on `device`; head: Linear(H, 1) without bias. half: is it computed in
    bfloat16 (autocast)? batch_tokens: padded tokens of one forward pass at most."""

    placed: Placed
    encoder: Any
    head: Any
    tokenizer: Any
    pad: int
    limit: int | None
    device: Any
    half: bool
    batch_tokens: int
    threads: int

    def named(self) -> dict[str, Any]:
        """Return all trained parameters by name: `encoder.*`, `head.weight`."""
        return {f"encoder.{n}": p for n, p in self.encoder.named_parameters()} | {
            "head.weight": self.head.weight
        }

    def scores(self, tokens: Tokens, rows: Sequence[int]) -> Any:
        """Return the scores (B,) float32 of texts, as a tensor on the device, in one forward pass."""
        torch = import_torch("fine-tuning")
        made = tokens.batch(rows, self.pad, PAD_TO.get(self.device.type, 1))
        ids, mask = torch.from_numpy(made).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head(pool(hidden, mask, self.placed.card.input.pooling))[:, 0]


def read_ranker(placed: Placed, settings: Settings, *, pooling: Pooling, window: int, seed: int) -> Ranker:
    """Return the encoder of a placed embedding card with a new head, N(0, 0.02) drawn from the seed.

    Raises InputError for a card of another role, for code of a repository, for weights that are not
    safetensors, and for a window longer than the model's positions.
    """
    card = placed.card
    if card.role != "embedding" or card.remote_code:
        kind = "code of its repository" if card.remote_code else card.role
        raise InputError(
            f"card {card.name!r} is for {kind}, expected one for embedding without remote code; `quadmix "
            "raters list` names them"
        )
    if not list(placed.folder.glob("*.safetensors")):
        raise InputError(
            f"card {card.name!r}: {placed.folder} holds no *.safetensors; expected the weights in that form: "
            "convert them, or name another folder"
        )
    check_text_alone(card)
    how = card.input.model_copy(
        update={
            "pooling": pooling,
            "window": window,
            "aggregate": "length-mean",
            "max_windows": MAX_WINDOWS,
        }
    )
    placed = replace(placed, card=card.model_copy(update={"input": how}))
    torch, device = import_torch("fine-tuning"), choose_device(settings)
    config = read_config(placed)
    check_window(placed, config)
    encoder = read_model(placed, "AutoModel", unused="pooler.", use_safetensors=True).float()
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # a further layer on the first token, which nothing here reads
    tokenizer = read_tokenizer(placed)
    head = torch.nn.Linear(int(config.hidden_size), 1, bias=False)
    drawn = stream(seed, "finetune", "head").normal(0.0, 0.02, (1, head.in_features))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(drawn.astype(np.float32)))
    on_cpu = device.type == "cpu"
    return Ranker(
        placed=placed,
        encoder=encoder.to(device),
        head=head.to(device),
        tokenizer=tokenizer,
        pad=pad_id(encoder.config, tokenizer),
        limit=longest_input(config, tokenizer),
        device=device,
        half=choose_dtype(settings, device) == torch.bfloat16,
        batch_tokens=min(settings.batch_tokens, CPU_TOKENS * settings.threads)
        if on_cpu
        else settings.batch_tokens,
        threads=settings.threads,
    )


def tokenise(ranker: Ranker, texts: Sequence[str], used: NDArray[np.bool_]) -> Tokens:
    """Return the tokens of the first window of each text that is used (D,); the others have none."""
    card = ranker.placed.card
    two = card.input.model_copy(update={"max_windows": 2})  # the second says that the text goes on
    run = window_tokeniser(ranker.tokenizer, two, limit=ranker.limit)
    lengths, cut = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    parts: list[NDArray[np.int32]] = []
    rows: list[int] = np.flatnonzero(used).tolist()
    for at in range(0, len(rows), AT_ONCE):
        some = rows[at : at + AT_ONCE]
        for row, windows in zip(some, run([prepare_text(card, texts[i], {}) for i in some]), strict=True):
            if windows:
                parts.append(np.array(windows[0], np.int32))
                lengths[row] = len(windows[0])
                cut[row] = len(windows) > 1
    ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return Tokens(ids=ids, start=np.append(0, np.cumsum(lengths)), cut=cut)


def text_batches(ranker: Ranker, tokens: Tokens, rows: Sequence[int]) -> Generator[list[int]]:
    """Yield texts of similar length, as many as the padded tokens of a forward pass allow."""
    order = sorted(rows, key=lambda row: (-int(tokens.lengths[row]), row))
    at = 0
    while at < len(order):
        some = max(1, ranker.batch_tokens // int(tokens.lengths[order[at]]))
        yield order[at : at + some]
        at += some


def score_texts(ranker: Ranker, tokens: Tokens, rows: Sequence[int]) -> Numbers:
    """Return (D,) float32 scores, larger = better, of some texts with tokens; NaN for the others."""
    torch = import_torch("fine-tuning")
    values = np.full(len(tokens.lengths), np.nan, np.float32)
    was = ranker.encoder.training
    ranker.encoder.eval()
    with torch_threads(ranker.threads), torch.inference_mode():
        for some in text_batches(ranker, tokens, rows):
            values[some] = ranker.scores(tokens, some).cpu().numpy()
    ranker.encoder.train(was)
    return values


def save_ranker(
    ranker: Ranker, target: Path, name: str, *, languages: Sequence[str] = (), trained_on: Sequence[str] = ()
) -> ModelCard:
    """Write the folder that `fetch.place` and `frozen-head` read (see the module) and return its card.

    languages: of the training texts. They do not stand in the card's `languages`, which a text must be in to
    be scored: those stay the encoder's, since scores carry over to others.
    """
    source, folder = ranker.placed, target / BASE
    with quiet(import_transformers("fine-tuning")):
        ranker.encoder.save_pretrained(folder)
    for pattern in _TOKENIZER:
        for file in sorted(source.folder.glob(pattern)):
            copy_file(file, folder / file.name)
    _save_head(target / HEAD, ranker.head.weight)
    files = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
    base = source.card.model_copy(
        update={
            "name": f"{name}-encoder",
            "model": BASE,
            "revision": None,
            "files": files,
            "golden": None,
            "description": f"{source.card.name}, fine-tuned as the encoder of {name}",
        }
    )
    save_card(target / "base.yaml", base)
    card = ModelCard(
        name=name, family="frozen-head", role="quality", model=".", head=HEAD, base="base.yaml",
        files={HEAD: sha256_file(target / HEAD)}, languages=base.languages, direction="higher",
        licence=f"that of the texts and labels, and of {source.card.name} ({source.card.licence})",
        source="trained with quadmix; see metrics.json",
        description=f"pairwise rater: {source.card.name}, fine-tuned on pairs of texts",
        input=base.input, output=CardOutput(kind="number"), trained_on=tuple(trained_on),
        trained_languages=tuple(languages),
    )  # fmt: skip
    save_card(target / "card.yaml", card)
    return card


def _save_head(path: Path, weight: Any) -> None:
    torch = import_torch("fine-tuning")
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "saving a head") from error
    tensors = {"weight": weight.detach().cpu().contiguous(), "bias": torch.zeros(1)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", "reads": "windows"})
