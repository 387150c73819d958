"""A bad document costs its own answer alone: what fails on a batch is asked document by document."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from quadmix.errors import QuadmixError

NOT_THE_DOCUMENT = (QuadmixError, MemoryError, OSError)  # what the same call may do another time
R = TypeVar("R")


def ask_batch(
    ask: Callable[[Sequence[str], pa.RecordBatch], R],
    join: Callable[[list[R | None], Counter[str]], R],
    texts: Sequence[str],
    rows: pa.RecordBatch,
) -> R:
    """Return ask(texts, rows); where that fails, `join` of one answer per document, None where it failed.

    join also gets the reasons, failed_<error> -> documents: an error's message may quote the document. What
    fails on every document of a batch is broken, and its error is raised.
    """
    try:
        return ask(texts, rows)
    except NOT_THE_DOCUMENT:
        raise
    except Exception:  # annotators may raise anything
        answers, failed = list[R | None](), Counter[str]()
        for i, text in enumerate(texts):
            try:
                answers.append(ask([text], rows.slice(i, 1)))
            except NOT_THE_DOCUMENT:
                raise
            except Exception as error:
                answers.append(None)
                failed[f"failed_{type(error).__name__}"] += 1
        if failed.total() == len(texts) > 1:
            raise
        return join(answers, failed)
