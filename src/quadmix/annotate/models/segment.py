"""Text as the pieces of a tokenizer, joined by blanks: what some fastText models were trained on.

In: a folder with a tokenizer.json. Out: a function text -> one line. The steps are those of Ultra-FineWeb
(arXiv 2505.05427, `fasttext_preprocess` in its repository): at most one empty line, lower case, no
diacritics, every token on its own, and line ends and tabs written as \\n, \\r and \\t.
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from quadmix.errors import InputError, MissingExtraError

_EMPTY_LINES = re.compile(r"\n{3,}")
_BLANKS = re.compile(r" +")


def segmenter(folder: Path) -> Callable[[str], str]:
    """Return the function that makes one line of a text; InputError if there is no such tokenizer."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", "annotate", "a model over pieces of a tokenizer") from error
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{file} does not exist; expected the tokenizer that the model's text is split with")
    tokenizer = Tokenizer.from_file(str(file))
    pieces: dict[int, str] = {}

    def line(text: str) -> str:
        text = _EMPTY_LINES.sub("\n\n", text.encode("utf-8", "replace").decode()).lower()
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) != "Mn")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for number in ids:
            if number not in pieces:
                pieces[number] = tokenizer.decode([number], skip_special_tokens=False)
        text = " ".join(pieces[number] for number in ids)
        text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return _BLANKS.sub(" ", text).strip()

    return line
