"""Scripts that are written without spaces between words, as a character class.

Thai, Lao, Myanmar, Khmer, Han, kana and Bopomofo. Hangul is written with spaces; Tibetan separates syllables.
"""

import re

LETTERS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
)
SIGNS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"  # Han, rare
    "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f"  # kana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
)
UNSPACED = LETTERS + SIGNS
"""The insides of a regular expression's [...]: scripts whose words are many letters, those whose words are
one or two signs, and both."""
_ANY, _LETTER, _SIGN = (re.compile(f"[{inside}]") for inside in (UNSPACED, LETTERS, SIGNS))


def unspaced(text: str) -> tuple[str, str]:
    """Return the letters of Thai, Lao, Myanmar and Khmer in the text, and the signs of Han, kana and
    Bopomofo, each in their order and without what stands between."""
    if text.isascii():
        return "", ""
    return "".join(_LETTER.findall(text)), "".join(_SIGN.findall(text))


def gap(before: str) -> str:
    """Return what goes between a prompt and what continues it: nothing after white space, or where the last
    letter or digit of the prompt is in a script without spaces, else a space."""
    if not before or before[-1].isspace():
        return ""
    last = next((c for c in reversed(before) if c.isalnum() or _ANY.match(c)), "")
    return "" if _ANY.match(last) else " "
