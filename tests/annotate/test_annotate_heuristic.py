"""The heuristic score: in [0, 1], ordered as the published rules order, no mere length, fast on bad input."""

import time

import numpy as np
import pytest
from annotate_world import article, menu
from hypothesis import given
from hypothesis import strategies as st

from quadmix.annotate.heuristic import RAMPS, heuristic_scores, heuristic_signals

GOOD = article(np.random.default_rng(5), 24)


def score(text: str) -> float:
    return float(heuristic_scores([text])[0])


DAMAGE = {
    "every line twice": "\n".join(line for line in GOOD.split("\n") for _ in range(2)),
    "one sentence over and over": (GOOD.split(".")[0] + ". ") * 40,
    "one word per line": GOOD.replace(" ", "\n"),
    "bulleted": "\n".join("- " + p for p in GOOD.replace("\n", " ").split(", ")),
    "no full stops": GOOD.replace(".", ""),
    "cut lines": GOOD.replace(".\n", "...\n"),
    "no function words": " ".join(
        w for w in GOOD.split(" ") if w.lower() not in {"the", "of", "and", "that", "to"}
    ),
    "half numbers": " ".join(w + " 12,4" for w in GOOD.split(" ")),
    "hashtags": GOOD.replace(" the ", " #the "),
    "code": GOOD.replace(",", "{").replace(".", "}"),
    "notices": GOOD
    + "\nPlease enable javascript. Privacy policy. All rights reserved. Click here to sign up.",
    "glued words": GOOD.replace(" the ", "the")
    .replace(" of ", "of")
    .replace(" to ", "to")
    .replace(" is ", "is"),
    "twenty words": " ".join(GOOD.split(" ")[:20]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_kind_of_damage_the_rules_name_lowers_the_score(kind: str) -> None:
    assert score(DAMAGE[kind]) < score(GOOD) - 0.02


def test_clean_prose_is_high_and_a_menu_is_near_zero() -> None:
    rng = np.random.default_rng(0)
    assert score(GOOD) > 0.3
    assert max(heuristic_scores([menu(rng) for _ in range(20)])) < 0.02


def test_prose_gains_nothing_by_being_longer() -> None:
    rng = np.random.default_rng(1)
    short, long = (heuristic_scores([article(rng, n) for _ in range(20)]) for n in (24, 120))
    assert long.mean() < short.mean() + 0.01
    assert score(menu(rng, 2000)) < score(article(rng, 6))


@given(st.lists(st.text(max_size=400), min_size=1, max_size=5))
def test_any_text_scores_in_the_unit_interval_whatever_stands_beside_it(texts: list[str]) -> None:
    scores = heuristic_scores(texts)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.tolist() == [score(t) for t in texts]


def test_signals_are_the_shares_they_are_called() -> None:
    signals = heuristic_signals("- The cat\n- The cat\nto be or not to be, that is the end.\nwell...")
    assert list(signals) == [r.name for r in RAMPS]
    assert signals["bullet_lines"] == 0.5
    assert signals["ellipsis_lines"] == 0.25
    assert signals["sentence_lines"] == 0.25
    assert signals["short_lines"] == 0.75
    assert signals["stop_words"] == pytest.approx(7 / 17)
    assert signals["alphabetic_words"] == pytest.approx(15 / 17)
    assert signals["duplicate_lines"] == pytest.approx(9 / (9 + 9 + 36 + 7))


@pytest.mark.parametrize("text", ["a" * 5_000_000, "a " * 2_500_000, "\n" * 5_000_000, ".\n" * 2_500_000])
def test_five_megabytes_of_one_character_cost_no_more_than_an_article(text: str) -> None:
    start = time.perf_counter()
    assert score(text) < 0.1
    assert time.perf_counter() - start < 2.0
