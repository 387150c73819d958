"""Small worlds of texts and pairs with a known latent quality, for the tests of raters."""

import numpy as np

from quadmix.raters.table import CROSS, MONO, PARALLEL, Pairs, Texts


def vector_texts(documents: int, languages: int) -> Texts:
    """Every document in every language: row d * languages + l."""
    ids = [f"d{d}-l{lang}" for d in range(documents) for lang in range(languages)]
    return Texts(
        ids=tuple(ids),
        source=tuple(i.split("-")[0] for i in ids),
        origin=("",) * len(ids),
        language=tuple(i.split("-")[1] for i in ids),
        text=tuple(ids),
    )


def votes(ratings: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Share of raters (columns) that put `left` above `right`, ties 0.5."""
    return np.where(
        ratings[left] > ratings[right], 1.0, np.where(ratings[left] < ratings[right], 0.0, 0.5)
    ).mean(axis=1)


def world_pairs(ratings: np.ndarray, languages: int, counts: tuple[int, int, int], seed: int) -> Pairs:
    """Return counts = (mono, cross, parallel) pairs of documents rated by `ratings` (documents, raters); a
    document is held out by its number, so no pair straddles the split."""
    rng = np.random.default_rng(seed)
    documents = len(ratings)
    held_documents = np.arange(documents) % 5 == 0
    parts = []
    for kind, count in zip((MONO, CROSS, PARALLEL), counts, strict=True):
        for held in (False, True):
            own = np.flatnonzero(held_documents == held)
            n = max(1, count // 8) if held and count else count
            left = rng.choice(own, n)
            right = left if kind == PARALLEL else rng.choice(own, n)
            first = rng.integers(languages, size=n)
            second = first if kind == MONO else (first + rng.integers(1, languages, size=n)) % languages
            keep = (left != right) | (kind == PARALLEL)
            a, b = (left * languages + first)[keep], (right * languages + second)[keep]
            p = np.full(len(a), 0.5) if kind == PARALLEL else votes(ratings, left, right)[keep]
            weight = np.full(len(a), 2.0 if kind == PARALLEL else 1.0)
            parts.append((a, b, p, weight, np.full(len(a), kind), np.full(len(a), held)))
    a, b, p, weight, kind, held = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(
        a=a.astype(np.int32), b=b.astype(np.int32), p=p, weight=weight, kind=kind.astype(np.int8), held=held
    )


def turned(pairs: Pairs) -> Pairs:
    """The same pairs with a and b exchanged."""
    return Pairs(a=pairs.b, b=pairs.a, p=1.0 - pairs.p, weight=pairs.weight, kind=pairs.kind, held=pairs.held)


def shifted_vectors(quality: np.ndarray, languages: int, seed: int) -> np.ndarray:
    """Return (documents * languages, 20) float32: quality mixed with eleven other traits of a document and
    shifted by language, noise per text, and eight numbers that say the language."""
    rng = np.random.default_rng(seed)
    documents = len(quality)
    traits = np.column_stack([quality, rng.normal(size=(documents, 11))])
    mixing = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    shift, names = rng.normal(size=(languages, 12)), rng.normal(size=(languages, 8))
    content = (traits @ mixing)[:, None, :] + shift[None] + 0.25 * rng.normal(size=(documents, languages, 12))
    told = np.broadcast_to(names, (documents, languages, 8)) + 0.1 * rng.normal(
        size=(documents, languages, 8)
    )
    return np.concatenate([content, told], axis=2).reshape(documents * languages, 20).astype(np.float32)


def direction_world(
    *, seed: int, texts: int = 600, pairs: int = 1000
) -> tuple[np.ndarray, Texts, Pairs, list[str]]:
    """Return vectors (D, 8), texts of two languages, monolingual pairs inside a domain, domains (D,).

    A text is better the larger the sum of its first four numbers is in d0 and d2, the smaller in d1 and d3;
    vectors are drawn alike in all four, so that nothing but the code says which. A third of the texts is
    held.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(texts, 8)).astype(np.float32)
    domain, language = rng.integers(4, size=texts), rng.integers(2, size=texts)
    quality = np.where(domain % 2 == 0, 1.0, -1.0) * vectors[:, :4].sum(axis=1)
    held, found = np.arange(texts) % 3 == 0, list[tuple[int, int]]()
    while len(found) < pairs:
        one, two = rng.integers(texts, size=2).tolist()
        group = (domain[one], language[one], held[one]) == (domain[two], language[two], held[two])
        if one != two and group:
            found.append((one, two))
    a, b = np.array(found, np.int32).T
    ids = tuple(f"t{i}" for i in range(texts))
    made = Texts(
        ids=ids, source=ids, origin=("",) * texts, language=tuple(f"l{i}" for i in language), text=ids
    )
    labelled = Pairs(
        a=a, b=b, p=(quality[a] > quality[b]).astype(float), weight=np.ones(pairs),
        kind=np.full(pairs, MONO, np.int8), held=held[a],
    )  # fmt: skip
    return vectors, made, labelled, [f"d{i}" for i in domain]
