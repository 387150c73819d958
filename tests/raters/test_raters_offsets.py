"""Offsets between languages: which texts are parallel, least squares, standard errors, refusals."""

import numpy as np
import pytest

from quadmix.codec import from_json, to_json
from quadmix.errors import InputError, ScoreError
from quadmix.raters.offsets import Aligned, Offsets, align, fit_offsets, unseen_texts
from quadmix.raters.table import Pairs, Texts


def make_texts(rows: list[tuple[str, str, str, str]]) -> Texts:
    """rows: (id, source, origin, language)."""
    ids, source, origin, language = zip(*rows, strict=True)
    return Texts(ids=ids, source=source, origin=origin, language=language, text=ids)


def make_pairs(rows: list[tuple[int, int, bool]]) -> Pairs:
    a, b, held = (np.array(x) for x in zip(*rows, strict=True))
    n = len(rows)
    return Pairs(
        a=a.astype(np.int32), b=b.astype(np.int32), held=held.astype(np.bool_), p=np.full(n, 0.75),
        weight=np.ones(n), kind=np.zeros(n, np.int8),
    )  # fmt: skip


def test_parallel_are_an_original_and_its_translations_not_all_excerpts_of_a_document() -> None:
    texts = make_texts(
        [
            ("e1", "S", "", "en"), ("e2", "S", "", "en"), ("d1", "S", "e1", "de"), ("d2", "S", "e2", "de"),
            ("f2", "S", "e2", "fr"), ("g2", "S", "e2", "fr"),
            ("u", "T", "", "en"), ("v", "T", "", "de"),
            ("w", "U", "", "en"), ("x", "U", "", "en"), ("y", "U", "", "de"),
            ("z", "V", "", "en"),
        ]
    )  # fmt: skip
    found = align(texts, np.arange(12.0))
    assert found.languages == ("de", "en", "fr")
    assert found.sources == ("S", "S", "T")
    nan = np.nan
    np.testing.assert_array_equal(found.scores, [[2, 0, nan], [3, 1, 4.5], [7, 6, nan]])
    part = align(texts, np.arange(12.0), np.array([i in (0, 2, 6) for i in range(12)]))
    np.testing.assert_array_equal(part.scores, [[2, 0]])
    scores = np.arange(12.0)
    scores[3] = nan
    with pytest.raises(ScoreError, match="the score of text 'd2' is nan"):
        align(texts, scores)


def world(seed: int, groups: int = 60, missing: float = 0.3) -> Aligned:
    rng = np.random.default_rng(seed)
    offsets = np.array([0.7, -0.4, 0.0, 2.0])
    noise = np.array([0.2, 0.5, 0.3, 1.0])
    scores = 3 * rng.normal(size=(groups, 1)) + offsets + noise * rng.normal(size=(groups, 4))
    scores[rng.random(scores.shape) < missing] = np.nan
    kept = (~np.isnan(scores)).sum(axis=1) > 1
    names = tuple(f"s{i:03d}" for i in np.flatnonzero(kept))
    return Aligned(languages=("aa", "bb", "en", "zz"), sources=names, scores=scores[kept])


def dummies(aligned: Aligned) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The design matrix with a column per group and per language but English (the third)."""
    g, lang = np.nonzero(~np.isnan(aligned.scores))
    design = np.zeros((len(g), len(aligned.sources) + 4))
    design[np.arange(len(g)), g] = 1
    design[np.arange(len(g)), len(aligned.sources) + lang] = 1
    return np.delete(design, len(aligned.sources) + 2, axis=1), aligned.scores[g, lang], g


def test_offsets_are_least_squares_and_errors_the_cluster_sandwich() -> None:
    """Against the full regression with a dummy per group, where groups miss languages."""
    aligned = world(1)
    design, y, cluster = dummies(aligned)
    bread = np.linalg.inv(design.T @ design)
    expected = bread @ design.T @ y
    residual = y - design @ expected
    clusters = len(aligned.sources)
    parts = [design[cluster == c].T @ residual[cluster == c] for c in range(clusters)]
    covariance = bread @ sum(np.outer(u, u) for u in parts) @ bread * clusters / (clusters - 1)
    error = np.sqrt(np.diag(covariance))[-3:]
    found = fit_offsets(aligned)
    rest = [o for o in found.languages if o.language != "en"]
    np.testing.assert_allclose([o.value for o in rest], expected[-3:], atol=1e-10)
    np.testing.assert_allclose([o.stderr for o in rest], error, atol=1e-10)
    english = next(o for o in found.languages if o.language == "en")
    assert abs(english.value) < 1e-12
    assert english.stderr < 1e-9
    counts = (~np.isnan(aligned.scores)).sum(axis=0)
    assert [o.sources for o in found.languages] == counts.tolist()


def test_two_languages_give_the_paired_t_test() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(40, 2))
    found = fit_offsets(
        Aligned(languages=("de", "en"), sources=tuple(f"s{i}" for i in range(40)), scores=scores)
    )
    difference = scores[:, 0] - scores[:, 1]
    german = found.languages[0]
    assert german.value == pytest.approx(difference.mean())
    assert german.stderr == pytest.approx(difference.std(ddof=1) / np.sqrt(40))


def test_sources_that_stand_twice_speak_once() -> None:
    """Every group repeated under its source: the same offset and nearly the same error, not 1/√2 of it."""
    aligned = world(3, missing=0.0)
    twice = Aligned(
        languages=aligned.languages, sources=aligned.sources * 2, scores=np.vstack([aligned.scores] * 2)
    )
    for one, two in zip(fit_offsets(aligned).languages, fit_offsets(twice).languages, strict=True):
        assert two.value == pytest.approx(one.value, abs=1e-12)
        assert two.stderr == pytest.approx(one.stderr, abs=1e-12)
        assert two.sources == one.sources


def test_offsets_that_add_up_to_zero_differ_by_a_constant() -> None:
    aligned = world(4)
    english, free = fit_offsets(aligned), fit_offsets(aligned, reference="")
    shift = [a.value - b.value for a, b in zip(english.languages, free.languages, strict=True)]
    assert sum(o.value for o in free.languages) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(shift, shift[0], atol=1e-12)
    assert all(o.stderr > 0 for o in free.languages)


def test_standard_errors_are_as_large_as_the_estimates_scatter() -> None:
    found = [fit_offsets(world(seed)) for seed in range(200)]
    values = np.array([[o.value for o in f.languages] for f in found])
    errors = np.array([[o.stderr for o in f.languages] for f in found])
    others = [0, 1, 3]
    np.testing.assert_allclose(values.mean(axis=0)[others], [0.7, -0.4, 2.0], atol=0.05)
    ratio = np.sqrt((errors**2).mean(axis=0))[others] / values.std(axis=0)[others]
    assert (np.abs(ratio - 1) < 0.15).all()


def test_languages_without_a_probe_are_named() -> None:
    scores = np.full((60, 4), np.nan)
    scores[:20, :2] = 1.0  # aa with en
    scores[20:40, 2:] = 2.0  # cc with dd: nothing links them with English
    scores[40:45, [0, 1]] = 3.0
    aligned = Aligned(
        languages=("aa", "en", "cc", "dd"), sources=tuple(f"s{i:02d}" for i in range(60)), scores=scores
    )
    found = fit_offsets(aligned)
    assert [o.language for o in found.languages] == ["aa", "en"]
    assert found.left_out == {"cc": "no groups link it with en", "dd": "no groups link it with en"}
    with pytest.raises(InputError, match=r"offsets against 'cc' cannot be fitted \(20 parallel sources"):
        fit_offsets(aligned, reference="cc", least=22)
    with pytest.raises(InputError, match="offsets against 'fr' cannot be fitted"):
        fit_offsets(aligned, reference="fr")
    assert fit_offsets(aligned, least=22).left_out["dd"] == "20 parallel sources, expected at least 22"
    assert from_json(Offsets, to_json(found)) == found


def test_calibrated_scores_of_parallel_texts_agree_in_the_mean() -> None:
    aligned = world(5, missing=0.0)
    found = fit_offsets(aligned)
    offset = {o.language: o.value for o in found.languages}
    calibrated = aligned.scores - [offset[n] for n in aligned.languages]
    np.testing.assert_allclose(calibrated.mean(axis=0), aligned.scores[:, 2].mean(), atol=1e-12)


def test_texts_are_unseen_by_source_and_a_split_that_leaks_is_refused() -> None:
    texts = make_texts(
        [
            ("a", "S", "", "en"),
            ("b", "T", "", "en"),
            ("c", "T", "b", "de"),
            ("d", "U", "", "en"),
            ("e", "V", "", "en"),
        ]
    )
    pairs = make_pairs([(0, 1, False), (3, 4, True)])
    assert unseen_texts(texts, pairs).tolist() == [False, False, False, True, True]
    with pytest.raises(InputError, match=r"source 'T' \(text 'c'\) is in training pairs and in held ones"):
        unseen_texts(texts, make_pairs([(0, 1, False), (2, 4, True)]))
