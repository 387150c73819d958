"""Pairs of context and continuation as token ids, split as lm-evaluation-harness splits them.

White space at the end of a context moves to the continuation; both are encoded together, and the continuation
is what follows as many tokens as the context has alone (`TemplateLM._encode_pair`). An empty context is the
tokenizer's bos (or eos) token. So the context of all options of an item is the same row of ids, whatever a
tokenizer merges at the seam, and can be computed once.

A pair that is longer than the model's context loses the beginning of its prompt, as there; how many tokens is
said. A continuation that does not fit with one token before it is never cut: it cannot be scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quadmix.errors import InputError
from quadmix.evaluate.mubench.model import CausalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Token ids of one pair. cut: tokens that the context lost. fits: can the continuation be scored?"""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    cut: int = 0
    fits: bool = True


def encode_pairs(
    model: CausalModel, texts: Sequence[tuple[str, str]], where: Callable[[int], str]
) -> list[Pair]:
    """Return every (context, continuation) as token ids.

    where: names pair i in an error. Raises InputError for a continuation without a token of its own, or an
    empty context where the tokenizer has no bos or eos token.
    """
    moved = [_moved(context, continuation) for context, continuation in texts]
    contexts = list(dict.fromkeys(context for context, _ in moved if context))
    heads = dict(zip(contexts, model.encode(contexts), strict=True))
    wholes = iter(model.encode([context + rest for context, rest in moved if context]))
    alone = iter(model.encode([rest for context, rest in moved if not context], special=False))
    out: list[Pair] = []
    for index, (context, continuation) in enumerate(moved):
        if context:
            head = heads[context]
            tail = next(wholes)[len(head) :]
        else:
            head, tail = _without_context(model, next(alone), where(index))
        if not tail or not head:
            raise InputError(
                f"{where(index)}: {continuation[:60]!r} has no token of its own after its prompt with this "
                "tokenizer, so that nothing can be scored; leave the item out in every language"
            )
        out.append(fitted(head, tail, model.facts.context))
    return out


def fitted(head: Sequence[int], tail: Sequence[int], context: int) -> Pair:
    """Return the pair within a context of so many tokens (the last token of the pair is never read)."""
    spare = context + 1 - len(tail)
    if spare < 1:
        return Pair(context=tuple(head), continuation=tuple(tail), fits=False)
    cut = max(0, len(head) - spare)
    return Pair(context=tuple(head[cut:]), continuation=tuple(tail), cut=cut)


def _moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _without_context(model: CausalModel, ids: list[int], where: str) -> tuple[list[int], list[int]]:
    if model.prefix is None:
        raise InputError(
            f"{where}: it has no context, and the tokenizer of model {model.facts.name!r} has no bos or eos "
            "token that could stand for one; give it one (bos_token in tokenizer_config.json)"
        )
    return (ids[:1], ids[1:]) if ids[:1] == [model.prefix] else ([model.prefix], ids)
