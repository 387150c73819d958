"""The pairs that a rater is judged on: every held pair in every language, and those of the other kinds.

In: texts, the labelled pairs of the validation part. Out: `Pairs`. In training each labelled pair is spent on
one language; here it is asked in all of them, those kept out of training too, because scoring costs little
and a language with few pairs says little.
"""

from collections.abc import Collection

import numpy as np

from quadmix.raters.compose import Composition, compose_pairs
from quadmix.raters.table import MONO, Pairs, Texts


def held_pairs(
    texts: Texts, labelled: Pairs, composition: Composition, languages: Collection[str], *, seed: int
) -> Pairs:
    """Return monolingual pairs of every held pair in every language, then cross-lingual and parallel ones.

    labelled: held pairs of rows of `texts`. Of pairs that are labelled by a translation (direction M), where
    a native text has one language, the monolingual pairs are those that `compose_pairs` makes.
    """
    composed = compose_pairs(texts, labelled, composition, languages=languages, seed=seed).pairs
    if composition.direction == "M":
        return composed
    translated = np.array([bool(origin) for origin in texts.origin])
    native = translated[labelled.a] | translated[labelled.b]
    asked = labelled.take(~native)
    sides = np.concatenate([labelled.a[native], labelled.b[native]]).tolist()
    natives = {texts.origin[row] or texts.ids[row] for row in sides}
    of_native = np.array([id_ in natives for id_ in texts.ids])
    versions: dict[str, dict[str, int]] = {}
    wanted = set(languages)
    for row, (id_, origin, code) in enumerate(zip(texts.ids, texts.origin, texts.language, strict=True)):
        if code in wanted:
            versions.setdefault(origin or id_, {})[code] = row
    a, b, p = list[int](), list[int](), list[float]()
    for left, right, label in zip(asked.a.tolist(), asked.b.tolist(), asked.p.tolist(), strict=True):
        ours, theirs = versions.get(texts.ids[left], {}), versions.get(texts.ids[right], {})
        for code in sorted(ours.keys() & theirs.keys()):
            a.append(ours[code])
            b.append(theirs[code])
            p.append(label)
    others = composed.take((composed.kind != MONO) | (of_native[composed.a] & of_native[composed.b]))
    return Pairs(
        a=np.concatenate([np.array(a, np.int32), others.a]),
        b=np.concatenate([np.array(b, np.int32), others.b]),
        p=np.concatenate([np.array(p, np.float64), others.p]),
        weight=np.concatenate([np.ones(len(a)), others.weight]),
        kind=np.concatenate([np.full(len(a), MONO, np.int8), others.kind]),
        held=np.ones(len(a) + len(others), np.bool_),
    )
