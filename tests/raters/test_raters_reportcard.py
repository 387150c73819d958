"""The report card: each number by hand or by another tool, its intervals by how often they hold."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binomtest, spearmanr, t

from quadmix.codec import from_json, to_json
from quadmix.errors import InputError
from quadmix.raters.measures import bootstrap, calibration_error, deming, pair_accuracy, regression
from quadmix.raters.reportcard import ReportCard, card_lines, report_card
from quadmix.raters.table import CROSS, MONO, PARALLEL, Pairs, Ratings, Texts
from quadmix.rng import stream

GERMAN, SWAHILI = 1.0, -3.0  # what the scores of a language are off by


def build_pairs(rows: list[tuple[int, int, float, int, bool]]) -> Pairs:
    a, b, p, kind, held = (np.array(x) for x in zip(*rows, strict=True))
    return Pairs(
        a=a.astype(np.int32), b=b.astype(np.int32), p=p.astype(np.float64), weight=np.ones(len(rows)),
        kind=kind.astype(np.int8), held=held.astype(np.bool_),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Sources in English with translations into German and Swahili; the first 100 sources are training."""

    texts: Texts
    pairs: Pairs
    scores: np.ndarray
    ratings: Ratings
    quality: np.ndarray


def make_world(seed: int = 0, sources: int = 250, noise: float = 0.4) -> World:
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=sources)
    rows = [
        (f"{lang}{i:03d}", f"s{i:03d}", "" if lang == "en" else f"en{i:03d}", lang)
        for lang in ("en", "de", "sw")
        for i in range(sources)
    ]
    ids, source, origin, language = zip(*rows, strict=True)
    texts = Texts(ids=ids, source=source, origin=origin, language=language, text=ids)
    offset = np.repeat([0.0, GERMAN, SWAHILI], sources)
    scores = np.tile(quality, 3) + offset + noise * rng.normal(size=3 * sources)
    values = np.full((3 * sources, 2), np.nan, np.float32)
    values[:sources] = quality[:, None] + 0.5 * rng.normal(size=(sources, 2))
    values[200, 1] = np.nan
    pairs: list[tuple[int, int, float, int, bool]] = []
    for low, high, held in ((0, 100, False), (100, sources, True)):
        for _ in range(1200 if held else 300):
            i, j = rng.choice(np.arange(low, high), 2, replace=False)
            first, second = rng.integers(3, size=2)
            if not held and 2 in (first, second):
                continue  # Swahili is never seen in training
            p = float(np.round(expit(quality[i] - quality[j]) * 4) / 4)
            kind = MONO if first == second else CROSS
            pairs.append((int(first * sources + i), int(second * sources + j), p, kind, held))
    pairs += [(i, sources + i, 0.5, PARALLEL, i >= 100) for i in range(130)]
    return World(
        texts=texts, pairs=build_pairs(pairs), scores=scores, quality=quality,
        ratings=Ratings(names=("edu", "dclm"), values=values),
    )  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def card(world: World) -> ReportCard:
    human = {f"de{i:03d}": float(world.quality[i] > 0) for i in range(90, 250)} | {"zz": 1.0}
    return report_card(world.texts, world.pairs, world.scores, ratings=world.ratings, human=human)


def test_accuracy_counts_the_held_pairs_that_are_decided(world: World, card: ReportCard) -> None:
    """One pair after the other."""
    w = world
    for one in card.languages:
        right: dict[int, list[float]] = {MONO: [], CROSS: []}
        for a, b, p, kind, held in zip(
            w.pairs.a, w.pairs.b, w.pairs.p, w.pairs.kind, w.pairs.held, strict=True
        ):
            if held and p != 0.5 and one.language in (w.texts.language[a], w.texts.language[b]):
                right[int(kind)].append(float((w.scores[a] > w.scores[b]) == (p > 0.5)))
        assert (one.accuracy.value, one.accuracy.n) == (pytest.approx(np.mean(right[MONO])), len(right[MONO]))
        assert (one.cross.value, one.cross.n) == (pytest.approx(np.mean(right[CROSS])), len(right[CROSS]))
        assert one.accuracy.low < one.accuracy.value < one.accuracy.high
        assert sum(level.pairs for level in one.levels) == one.accuracy.n
        counted = sum(level.pairs * level.accuracy for level in one.levels) / one.accuracy.n
        assert counted == pytest.approx(one.accuracy.value)
        assert [(level.low, level.high) for level in one.levels] == [(0.2, 0.3), (0.4, 0.5)]
    assert card.accuracy.n == sum(one.accuracy.n for one in card.languages)
    assert 2 * card.cross.n == sum(one.cross.n for one in card.languages)


def test_a_difference_of_nothing_is_half_right_and_ties_of_the_label_are_left_out() -> None:
    texts = Texts(
        ids=tuple("abcd"), source=tuple("abcd"), origin=("",) * 4, language=("en",) * 4, text=("",) * 4
    )
    pairs = build_pairs([(0, 1, 1.0, MONO, True), (1, 2, 0.8, MONO, True), (2, 3, 0.2, MONO, True),
                         (0, 3, 0.5, MONO, True), (3, 0, 0.0, MONO, True)])  # fmt: skip
    found = report_card(texts, pairs, np.array([2.0, 2.0, 1.0, 0.0]), trained=["en"]).languages[0]
    assert found.accuracy.value == (0.5 + 1 + 0 + 1) / 4
    assert [(x.low, x.pairs, x.accuracy) for x in found.levels] == [(0.2, 2, 0.5), (0.4, 2, 0.75)]


def test_calibration_error_by_hand_and_whichever_side_is_named_first() -> None:
    d, p = np.array([0.0, 2.0, 2.05, -0.5]), np.array([0.8, 1.0, 0.5, 0.25])
    # σ: .5 in bin 0 against .5; .8808 and .8859 in bin 7 against 1 and .5; .6225 in bin 2 against .75
    expected = (abs(expit(2.0) + expit(2.05) - 1.5) + abs(expit(0.5) - 0.75)) / 4
    assert calibration_error(d, p) == pytest.approx(expected, abs=1e-12)
    assert calibration_error(-d, 1 - p) == pytest.approx(expected, abs=1e-12)
    rng = np.random.default_rng(0)
    true = rng.normal(size=200_000)
    labels = (rng.random(200_000) < expit(true)).astype(float)
    assert calibration_error(true, labels) < 0.005
    assert calibration_error(3 * true, labels) > 0.1


def slow_interval(right: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """All pairs of pairs that share a source, and the roots of |p - mean| = t √(p (1 - p) / n)."""
    error = right - right.mean()
    variance = sum(
        error[i] * error[j] for i in range(len(a)) for j in range(len(a)) if {a[i], b[i]} & {a[j], b[j]}
    )
    n = len(a) * (error @ error) / max(variance, error @ error)
    z = t.ppf(0.975, len({*a, *b}) - 1)

    def off(p: float) -> float:
        return abs(p - right.mean()) - z * np.sqrt(p * (1 - p) / n)

    m = right.mean()
    return brentq(off, 1e-12, m), brentq(off, m, 1 - 1e-12)


def test_the_interval_adds_up_all_pairs_that_share_a_source() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        a, b = rng.integers(12, size=(2, 40))  # some of a document with itself, some pairs twice
        right = (rng.normal(size=12)[a] + rng.normal(size=40) > -0.5).astype(float)
        found = pair_accuracy(right, a, b)
        assert (found.low, found.high) == pytest.approx(slow_interval(right, a, b), abs=1e-6)


def test_of_pairs_that_share_nothing_it_is_wilsons() -> None:
    right = np.repeat([1.0, 0.0], [1500, 500])
    found = pair_accuracy(right, np.arange(2000), np.arange(2000, 4000))
    wilson = binomtest(1500, 2000).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=1e-4)
    shared = pair_accuracy(np.ones(45), *np.triu_indices(10, 1))  # 45 pairs of 10 sources tell less than 45
    assert shared.low == pytest.approx(10 / (10 + 2.262157**2), abs=1e-6)  # Wilson, n = 10, t(9)
    assert pair_accuracy(np.zeros(45), *np.triu_indices(10, 1)).high == pytest.approx(1 - shared.low)
    perfect = pair_accuracy(np.ones(8), np.arange(8), np.arange(8, 16))
    assert perfect.low == pytest.approx(1 / (1 + t.ppf(0.975, 15) ** 2 / 8))
    assert perfect.high == 1
    assert np.isnan(pair_accuracy(np.ones(1), np.zeros(1, int), np.zeros(1, int)).low)
    assert np.isnan(pair_accuracy(np.zeros(0), np.zeros(0, int), np.zeros(0, int)).value)


def test_intervals_of_accuracy_hold_where_pairs_share_documents() -> None:
    rng = np.random.default_rng(2)
    q = rng.normal(size=(400_000, 2))
    s = q + 0.5 * rng.normal(size=q.shape)
    truth = np.mean((q[:, 0] > q[:, 1]) == (s[:, 0] > s[:, 1]))
    held = 0
    for _ in range(500):
        q = rng.normal(size=60)
        s = q + 0.5 * rng.normal(size=60)
        pairs = np.concatenate([rng.permutation(60) for _ in range(4)]).reshape(-1, 2)
        a, b = pairs[pairs[:, 0] != pairs[:, 1]].T
        found = pair_accuracy(((q[a] > q[b]) == (s[a] > s[b])).astype(float), a, b)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 500 <= 0.98  # 95 % within 3 standard errors


def test_parallel_scores_show_offset_scale_and_noise(world: World, card: ReportCard) -> None:
    english, german, swahili = world.scores.reshape(3, 250)[:, 100:]  # the unseen sources
    spread = np.var([english, german, swahili])
    for name, scores in (("de", german), ("sw", swahili)):
        found = next(one.parallel for one in card.languages if one.language == name)
        assert found is not None
        assert found.mse.n == 150
        assert found.mse.value == pytest.approx(np.mean((scores - english) ** 2) / spread)
        assert found.offset.value == pytest.approx(np.mean(scores - english))
        assert found.regression.value == pytest.approx(np.polyfit(english, scores, 1)[0])
        direction = np.linalg.svd(np.stack([english - english.mean(), scores - scores.mean()]))[0][:, 0]
        assert found.slope.value == pytest.approx(direction[1] / direction[0])
        t_half = t.ppf(0.975, 149) * np.std(scores - english, ddof=1) / np.sqrt(150)
        assert found.offset.low == pytest.approx(found.offset.value - t_half, abs=0.03)
        assert found.offset.high == pytest.approx(found.offset.value + t_half, abs=0.03)
        assert found.slope.low < 1 < found.slope.high
        assert found.regression.high < 1  # noise in English: 1 / (1 + .16) = .86, whatever the scale
    assert next(one.parallel for one in card.languages if one.language == "en") is None


def test_slopes_see_a_stretched_scale() -> None:
    rng = np.random.default_rng(3)
    quality = rng.normal(size=50_000)
    x, y = quality + 0.5 * rng.normal(size=50_000), 2 * quality + 0.5 * rng.normal(size=50_000)
    assert deming(x, y) == pytest.approx(2, abs=0.03)
    assert deming(y, x) == pytest.approx(1 / deming(x, y))
    assert deming(x, -y) == pytest.approx(-deming(x, y))
    assert regression(x, y) == pytest.approx(2 / 1.25, abs=0.03)
    assert np.isnan(regression(np.ones(4), np.arange(4.0)))
    assert np.isnan(deming(np.ones(4), np.arange(4.0)))


def test_raters_are_compared_on_the_text_or_its_original(world: World, card: ReportCard) -> None:
    scores = world.scores.reshape(3, 250)
    for one, mine in zip(card.languages, (1, 0, 2), strict=True):  # de, en, sw
        for n, agreement in enumerate(one.raters):
            rating = world.ratings.values[100:250, n]
            known = ~np.isnan(rating)
            expected = spearmanr(scores[mine, 100:][known], rating[known]).statistic
            assert agreement.spearman == pytest.approx(expected)
            assert agreement.texts == known.sum() == 150 - n
            assert agreement.rater == world.ratings.names[n]
    german = card.languages[0].human
    labels = (world.quality[100:] > 0).astype(float)
    assert german is not None
    assert german.value == pytest.approx(spearmanr(scores[1, 100:], labels).statistic)
    assert german.n == 150
    assert german.value - 0.15 < german.low < german.value < german.high < german.value + 0.15
    assert card.warnings == (
        "1 of 161 human labels name no text",
        "10 human labels are of texts in training pairs and were left out",
    )


def test_offsets_between_languages_show_in_the_pooled_correlation(world: World, card: ReportCard) -> None:
    raters, human = card.scales
    assert raters.reference == "mean of the raters"
    assert (raters.texts, human.texts) == (450, 150)
    assert raters.within > 0.85
    assert raters.pooled < 0.6
    level = world.scores - np.repeat([0, GERMAN, SWAHILI], 250)
    calibrated = report_card(world.texts, world.pairs, level, ratings=world.ratings).scales[0]
    assert calibrated.pooled == pytest.approx(calibrated.within, abs=0.02)
    assert calibrated.within == pytest.approx(raters.within)


def test_texts_of_training_sources_say_nothing(world: World) -> None:
    seen = np.tile(np.arange(250) < 100, 3)
    trained = {
        s for i in np.flatnonzero(~world.pairs.held) for s in (world.pairs.a[i] % 250, world.pairs.b[i] % 250)
    }
    assert trained == set(range(100))  # else the next line would not change judged texts alone
    other = np.where(seen, -world.scores, world.scores)
    one = report_card(world.texts, world.pairs, world.scores)
    assert to_json(report_card(world.texts, world.pairs, other)) == to_json(one)


def test_a_text_without_a_score_is_left_out_and_counted(world: World) -> None:
    """Every third held Swahili text: the card is that of a world in which they and their pairs are not there,
    not one in which they have a score that nobody gave them."""
    lost = np.zeros(750, np.bool_)
    lost[600:750:3] = True
    scores = np.where(lost, np.nan, world.scores)
    found = report_card(world.texts, world.pairs, scores, ratings=world.ratings)
    rows = np.flatnonzero(~lost)
    place = np.full(750, -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    kept = world.pairs.take(~lost[world.pairs.a] & ~lost[world.pairs.b])
    kept = dataclasses.replace(kept, a=place[kept.a], b=place[kept.b])
    ratings = Ratings(names=world.ratings.names, values=world.ratings.values[rows])
    without = report_card(world.texts.take(rows.tolist()), kept, world.scores[rows], ratings=ratings)
    assert [one.unread for one in found.languages] == [0, 0, 50]
    assert len(kept) < len(world.pairs)
    said = f"left out are 50 that would be judged, and {len(world.pairs) - len(kept)} held pairs"
    assert found.warnings == (f"50 of 750 texts have no score; {said}",)
    assert "50 of its 150 texts have no score and are left out" in found.languages[2].warnings
    assert "sw: 50 of its 150 texts" in "\n".join(card_lines(found))

    def numbers(card: ReportCard) -> str:
        own = [dataclasses.replace(one, warnings=(), unread=0) for one in card.languages]
        return to_json(dataclasses.replace(card, warnings=(), scales=(), languages=tuple(own)))

    assert numbers(found) == numbers(without)
    (one,), (two,) = found.scales, without.scales
    assert one.texts == two.texts == 400
    # the raters' own scales are standardised over all texts
    assert (one.within, one.pooled) == pytest.approx((two.within, two.pooled), abs=1e-3)


def test_neither_the_order_of_texts_and_pairs_nor_the_sides_of_a_pair_change_the_card(world: World) -> None:
    rng = np.random.default_rng(4)
    order, mixed = rng.permutation(750), rng.permutation(len(world.pairs))
    place = np.argsort(order)
    pairs = world.pairs.take(mixed)
    pairs = dataclasses.replace(
        pairs, a=place[pairs.b].astype(np.int32), b=place[pairs.a].astype(np.int32), p=1 - pairs.p
    )
    ratings = Ratings(names=world.ratings.names, values=world.ratings.values[order])
    first = report_card(world.texts, world.pairs, world.scores, ratings=world.ratings)
    second = report_card(world.texts.take(order.tolist()), pairs, world.scores[order], ratings=ratings)

    def numbers(value: object) -> list[float]:
        if isinstance(value, dict):
            return [x for k in sorted(value) for x in numbers(value[k])]
        if isinstance(value, list):
            return [x for v in value for x in numbers(v)]
        return [float(value)] if isinstance(value, float | int) else []

    np.testing.assert_allclose(numbers(to_json(first)), numbers(to_json(second)), atol=1e-9)
    assert len(numbers(to_json(first))) > 80


def test_what_should_not_be_trusted_is_said(card: ReportCard) -> None:
    assert [one.seen for one in card.languages] == [True, True, False]
    assert card.languages[1].warnings == ()
    assert card.languages[2].warnings[0] == "no training pair has a text in it: its scores are transfer alone"
    ids = tuple(f"{i:02d}" for i in range(24))
    texts = Texts(ids=ids, source=ids, origin=("",) * 24, language=("xx",) * 24, text=ids)
    coin = np.tile([1.0, 0.0, 0.0, 1.0], 6)
    pairs = build_pairs([(i, i + 1, 1.0, MONO, True) for i in range(0, 24, 2)])
    guess = report_card(texts, pairs, coin, trained=["xx"]).languages[0]
    assert guess.accuracy.value == 0.5
    assert guess.warnings[0] == "12 held pairs of 24 sources: too few for its accuracy to say much"
    assert guess.warnings[1].startswith("its accuracy 0.500 [")
    assert guess.warnings[2] == "no unseen text of it is parallel to one in en: its offset is unknown"
    with pytest.raises(InputError, match="say in `trained` which languages were seen"):
        report_card(texts, pairs, coin)
    with pytest.raises(InputError, match="expected 24 finite scores"):
        report_card(texts, pairs, coin[:5], trained=["xx"])


def test_the_card_is_json_and_lines(card: ReportCard) -> None:
    again = from_json(ReportCard, to_json(card))
    assert to_json(again) == to_json(card)
    assert again.languages[0] == card.languages[0]
    lines = card_lines(card)
    german = next(line for line in lines if line.startswith("de "))
    assert f"{card.languages[0].accuracy.value:.3f} [" in german
    assert f"edu {card.languages[0].raters[0].spearman:.2f}" in german
    assert "warning: sw: no training pair has a text in it: its scores are transfer alone" in lines
    assert any(line.startswith("warning: 1 of 161 human labels") for line in lines)


def test_the_bootstrap_draws_sources_and_not_rows() -> None:
    """A mean of rows that are all alike within a source: as wide as for one row of each source."""
    values = np.random.default_rng(5).normal(size=40)
    (one,) = bootstrap(
        lambda r: [float(values[r].mean())], np.arange(40), confidence=0.95, rng=stream(1, "x")
    )
    many = np.repeat(values, 9)
    (nine,) = bootstrap(
        lambda r: [float(many[r].mean())], np.repeat(np.arange(40), 9), confidence=0.95, rng=stream(1, "x")
    )
    assert (nine.low, nine.high) == pytest.approx((one.low, one.high))
    half = 1.96 * values.std() / np.sqrt(40)
    assert (one.low, one.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    (alone,) = bootstrap(lambda r: [1.0], np.zeros(5, int), confidence=0.95, rng=stream(1, "x"))
    assert alone.value == 1
    assert np.isnan(alone.low)
