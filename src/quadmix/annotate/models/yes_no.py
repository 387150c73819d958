"""A language model is asked about a text: the probability that it answers yes (Ask-LLM, Sachdeva et al. 2024,
arXiv 2402.09668).

In: a folder with an encoder-decoder (flan-t5) or a decoder of transformers, and a card with the prompt and
the spellings of yes and no. Out: (D, 1) the probability of yes, from one forward pass per text: of the
decoder's first step, or of the prompt's last token. Nothing is generated.

The paper takes the softmax probability of "yes" among all words (card: output.among: vocabulary). Among the
answers it is P(yes) / (P(yes) + P(no)), which a model that likes to begin otherwise does not lower. P(yes)
sums over the spellings; of each the first token counts, in both ways it can follow the prompt, with a blank
before it or without.

Blanks before a text are left out, and the text is cut until the prompt fits the window; the question around
it never is. Words of a text that spell a special token of the model (`</s>`, `<s>` in old HTML) are broken by
a blank, since the model would read the end of its input there. A text that argues with the question is not
recognised: the score is the model's opinion.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.batches import Forward, TokenModel
from quadmix.annotate.models.devices import choose_device, choose_dtype, import_torch, settle
from quadmix.annotate.models.pretrained import (
    check_window,
    longest_input,
    pad_id,
    read_config,
    read_model,
    read_tokenizer,
)
from quadmix.annotate.models.windows import CHARS_PER_TOKEN, MARGIN, Frame, special_tokens
from quadmix.errors import InputError

HOLE = "{text}"
LEAST = 8  # tokens of a text that must fit beside the prompt
_ENDINGS = ("ForConditionalGeneration", "ForCausalLM", "LMHeadModel")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """The question around a text, and how it becomes tokens. window: tokens at most, None: any number.
    special: finds the special tokens that a text must not contain, None if there are none."""

    before: str
    after: str
    backend: Any
    frame: Frame
    window: int | None
    special: re.Pattern[str] | None

    def tokenise(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """Return per text one window, the prompt with as much of the text as fits; none if nothing does."""
        # blanks before the first word would fill the window, and words beyond it be lost
        texts = [text.lstrip() for text in texts]
        texts = [self.special.sub(_broken, text) if self.special else text for text in texts]
        return [[row] if row else [] for row in self._fitted(self._starts(texts))]

    def _starts(self, texts: Sequence[str]) -> list[str]:
        """Cut long texts roughly before anything is tokenised; where that leaves too few tokens, do not."""
        if self.window is None:
            return list(texts)
        starts = [text[: (self.window + MARGIN) * CHARS_PER_TOKEN] for text in texts]
        cut = [i for i, start in enumerate(starts) if len(start) < len(texts[i])]
        made = self.backend.encode_batch([starts[i] for i in cut], add_special_tokens=False)
        for i, encoded in zip(cut, made, strict=True):
            if len(encoded.ids) < self.window + MARGIN:
                starts[i] = texts[i]
        return starts

    def _fitted(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the prompts' tokens, the texts cut, last tokens first, until each prompt fits."""
        texts, rows = list(texts), [list[int]() for _ in texts]
        left = [i for i, text in enumerate(texts) if text.strip()]
        while left:
            prompts = [self.before + texts[i] + self.after for i in left]
            again: list[int] = []
            made = self.backend.encode_batch(prompts, add_special_tokens=False)
            for i, encoded in zip(left, made, strict=True):
                over = self._over(encoded)
                if over <= 0:
                    rows[i] = [*self.frame.before, *encoded.ids, *self.frame.after]
                    continue
                texts[i] = texts[i][: self._cut(encoded, len(texts[i]), over)]
                if texts[i].strip():
                    again.append(i)
            left = again
        return rows

    def _over(self, encoded: Any) -> int:
        return 0 if self.window is None else len(encoded.ids) + self.frame.tokens - self.window

    def _cut(self, encoded: Any, chars: int, over: int) -> int:
        """Return how many characters to keep so that `over` of the text's last tokens go, fewer than now."""
        first, last = len(self.before), len(self.before) + chars
        inside = [start for start, end in encoded.offsets if first <= start and end <= last and start < end]
        kept = inside[-over] - first if over <= len(inside) else 0
        return min(kept, chars - 1)


def load_yes_no(placed: Placed, settings: Settings) -> TokenModel:
    """Return the model; InputError if the folder holds no language model, or the card's prompt or answers do
    not fit it (a prompt longer than the window, yes and no that begin with one token)."""
    device = choose_device(settings)
    config = read_config(placed)
    seq2seq = bool(getattr(config, "is_encoder_decoder", False))
    _check_architecture(placed, config, seq2seq)
    check_window(placed, config)
    tokenizer = read_tokenizer(placed)
    prompt = make_prompt(placed, tokenizer, seq2seq=seq2seq, limit=longest_input(config, tokenizer))
    yes, no = (answer_tokens(placed, prompt, tokenizer, key, seq2seq=seq2seq) for key in ("yes", "no"))
    if both := sorted(set(yes) & set(no)):
        raise InputError(
            f"card {placed.card.name!r}: a spelling of yes and one of no begin with the same token "
            f"{tokenizer.convert_ids_to_tokens(both[0])!r}; change `answers`, or end the prompt otherwise"
        )
    model = read_model(placed, "AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM")
    settle(model, settings, last=_own_head(model, settings))
    among = None if placed.card.output.among == "vocabulary" else [*yes, *no]
    logits = _first_step(model, config) if seq2seq else _last_step(model)
    return TokenModel(
        card=placed.card, tokenise=prompt.tokenise, forward=_forward(logits, yes, among), width=1,
        device=device, settings=settings, pad=pad_id(config, tokenizer),
    )  # fmt: skip


def make_prompt(placed: Placed, tokenizer: Any, *, seq2seq: bool, limit: int | None) -> Prompt:
    """Return the card's prompt for a tokenizer; limit: the model's tokens, where the card has no window."""
    card = placed.card
    before, found, after = (card.prompt or "").partition(HOLE)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not found or HOLE in after:
        raise InputError(f"card {card.name!r}: prompt needs {HOLE} once, got {card.prompt!r}")
    if card.input.aggregate != "first":
        raise InputError(
            f"card {card.name!r}: input.aggregate is {card.input.aggregate!r}, expected first: a model that "
            "is asked reads one window"
        )
    if backend is None:
        raise InputError(
            f"card {card.name!r}: the tokenizer in {placed.folder} has no tokenizer.json; save it as a fast "
            "one with transformers"
        )
    frame = special_tokens(tokenizer) if card.input.special_tokens else Frame()
    if not seq2seq:  # what answers is the token after the prompt, not after an end of the text
        frame = Frame(before=frame.before)
    backend.no_truncation()
    backend.no_padding()
    prompt = Prompt(
        before=before, after=after, backend=backend, frame=frame, window=card.input.window or limit,
        special=_special_pattern(tokenizer),
    )  # fmt: skip
    alone = len(_encode(backend, before + after)) + frame.tokens
    if prompt.window is not None and alone + LEAST > prompt.window:
        raise InputError(
            f"card {card.name!r}: the prompt alone has {alone} tokens, the window {prompt.window}, and at "
            f"least {LEAST} must be left for the text; raise input.window or shorten the prompt"
        )
    return prompt


def answer_tokens(placed: Placed, prompt: Prompt, tokenizer: Any, key: str, *, seq2seq: bool) -> list[int]:
    """Return the tokens with which a spelling of the answer `key` begins where the model answers.

    An encoder-decoder answers on a new page. A decoder goes on after the prompt, where a word may be another
    token than alone ("yes" after a line end, " yes" after a colon).
    """
    lead = "" if seq2seq else prompt.after
    known, found = _encode(prompt.backend, lead), list[int]()
    for spelling in placed.card.answers[key]:
        for form in (spelling, f" {spelling}"):
            ids = _encode(prompt.backend, lead + form)
            first = ids[len(known)] if ids[: len(known)] == known and len(ids) > len(known) else None
            if first is None or first in found or first == tokenizer.unk_token_id:
                continue
            if tokenizer.decode([first]).strip():  # a blank of its own begins both answers
                found.append(first)
    if not found:
        raise InputError(
            f"card {placed.card.name!r}: no spelling of {key} ({', '.join(placed.card.answers[key])}) can "
            f"follow the prompt as tokens of its own; the prompt ends with {prompt.after[-20:]!r}: leave out "
            "a blank at its end, else change `answers`"
        )
    return found


def _encode(backend: Any, text: str) -> list[int]:
    return list(backend.encode(text, add_special_tokens=False).ids)


def _special_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    names = sorted(
        {str(t) for t in added.values() if t.special and len(str(t)) > 1}, key=lambda n: (-len(n), n)
    )
    return re.compile("|".join(map(re.escape, names))) if names else None


def _broken(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"


def _check_architecture(placed: Placed, config: Any, seq2seq: bool) -> None:
    known: list[str] = list(getattr(config, "architectures", None) or [])
    if known and not any(name.endswith(_ENDINGS) for name in known):
        raise InputError(
            f"card {placed.card.name!r}: {placed.folder} holds a {', '.join(known)}, the family yes-no needs "
            f"a language model (...{', ...'.join(_ENDINGS)})"
        )
    if seq2seq and getattr(config, "decoder_start_token_id", None) is None:
        raise InputError(
            f"card {placed.card.name!r}: {placed.folder}/config.json names no decoder_start_token_id, with "
            "which the decoder's first step begins; add the one that the model was trained with"
        )


def _own_head(model: Any, settings: Settings) -> Any:
    """Return the layer that makes the logits, a copy if its weights are the embedding's too: it stays in
    float32 while these do not."""
    torch = import_torch("a model of texts")
    head = model.get_output_embeddings()
    half = choose_dtype(settings, choose_device(settings)) != torch.float32
    if head is not None and half and head.weight is model.get_input_embeddings().weight:
        head = copy.deepcopy(head)
        model.set_output_embeddings(head)
    return head


def _first_step(model: Any, config: Any) -> Forward:
    start = int(config.decoder_start_token_id)

    def step(ids: Any, mask: Any) -> Any:
        begin = ids.new_full((len(ids), 1), start)
        made = model(input_ids=ids, attention_mask=mask, decoder_input_ids=begin, use_cache=False)
        return made.logits[:, 0]

    return step


def _last_step(model: Any) -> Forward:
    """Return the step to the logits after the last token of each row; the padding stands right of it, where a
    decoder does not look, and positions count from the left."""
    last: list[Any] = []

    def pick(_layer: Any, inputs: Any) -> Any:
        # the layer of the vocabulary sees one token per row; all of them would fill the memory
        hidden, *rest = inputs
        return (hidden[range(len(hidden)), last.pop()][:, None], *rest)

    model.get_output_embeddings().register_forward_pre_hook(pick, prepend=True)

    def step(ids: Any, mask: Any) -> Any:
        last[:] = [mask.sum(dim=1) - 1]
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]

    return step


def _forward(step: Forward, yes: list[int], among: list[int] | None) -> Forward:
    def forward(ids: Any, mask: Any) -> Any:
        logits = step(ids, mask).float()
        rivals = logits if among is None else logits[:, among]
        share = (logits[:, yes].logsumexp(dim=-1) - rivals.logsumexp(dim=-1)).exp()
        share[logits.isnan().any(dim=-1)] = float("nan")
        return share[:, None]

    return forward
