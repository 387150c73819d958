"""The pairs that a rater is judged on, where both directions are mixed."""

from collections import Counter

import numpy as np

from quadmix.raters.compose import Composition
from quadmix.raters.table import MONO, Pairs, Texts
from quadmix.raters.validation import held_pairs

LANGUAGES = ("en", "de", "fr")


def test_with_both_directions_originals_are_asked_in_every_language_and_natives_in_their_own() -> None:
    """Eight English originals with two translations each; eight German natives with an English one each."""
    rows = [(f"o{i}" if c == "en" else f"{c}/o{i}", "" if c == "en" else f"o{i}", c, f"d{i}")
            for i in range(8) for c in LANGUAGES]  # fmt: skip
    rows += [(f"n{i}", "", "de", f"n{i}") for i in range(8)]
    rows += [(f"en/n{i}", f"n{i}", "en", f"n{i}") for i in range(8)]
    ids, origin, language, source = zip(*rows, strict=True)
    texts = Texts(ids=ids, origin=origin, language=language, source=source, text=ids)
    asked = [(f"o{i}", f"o{i + 1}") for i in range(7)] + [(f"en/n{i}", f"en/n{i + 1}") for i in range(7)]
    p = np.arange(1, 15) / 20
    labelled = Pairs(
        a=np.array([ids.index(a) for a, _ in asked], np.int32),
        b=np.array([ids.index(b) for _, b in asked], np.int32),
        p=p, weight=np.ones(14), kind=np.zeros(14, np.int8), held=np.ones(14, np.bool_),
    )  # fmt: skip
    how = Composition(direction="both", mono=1.0, cross=0.0, parallel=0.0, least=1)
    found = held_pairs(texts, labelled, how, LANGUAGES, seed=0)
    mono = found.take(found.kind == MONO)
    made = Counter(
        (*sorted((ids[a], ids[b])), round(float(q if ids[a] < ids[b] else 1 - q), 6))
        for a, b, q in zip(mono.a, mono.b, mono.p, strict=True)
    )
    expected = Counter[tuple[str, str, float]]()
    for i in range(7):
        for prefix in ("", "de/", "fr/"):
            expected[f"{prefix}o{i}", f"{prefix}o{i + 1}", round(float(p[i]), 6)] = 1
        expected[f"n{i}", f"n{i + 1}", round(float(p[7 + i]), 6)] = 1
    assert made == expected
    assert mono.held.all()
