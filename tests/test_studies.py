"""The studies' own arithmetic; the studies themselves are run by hand."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
import zstandard

ROOT = Path(__file__).parents[1]
for folder in ("studies", "tests/search", "tests/mixing"):
    sys.path.insert(0, str(ROOT / folder))

import common  # noqa: E402
import r2_surrogate as r2  # noqa: E402
import r3_likeness  # noqa: E402
import r4_criteria as r4  # noqa: E402
import r6_targets as r6  # noqa: E402
import r7_transfer as r7  # noqa: E402
import r8_ablations as r8  # noqa: E402
import shared  # noqa: E402
from mixing_tables import make_table, random_table  # noqa: E402
from search_world import make_trial, make_world  # noqa: E402

from quadmix.corpus.scan import open_corpus  # noqa: E402
from quadmix.corpus.targets import TargetText, read_target  # noqa: E402
from quadmix.corpus.tokenizer import train_tokenizer  # noqa: E402
from quadmix.mixing.prior import Prior, draw_theta, prior_mean  # noqa: E402
from quadmix.mixing.rank import rank_within_domain  # noqa: E402
from quadmix.pipeline.stages import target_halves  # noqa: E402
from quadmix.recipe import CorpusSection, check_recipe  # noqa: E402
from quadmix.search.propose import make_space  # noqa: E402
from quadmix.search.swarm import make_objective  # noqa: E402
from quadmix.search.table import SHARE, FeatureTable  # noqa: E402
from quadmix.types import Objective  # noqa: E402


def feature_table(count: int, seed: int = 0) -> FeatureTable:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.dirichlet(np.ones(4), count), rng.random((count, 3))], axis=1)
    return FeatureTable(
        values=values, names=tuple("abcdefg"), types=(SHARE,) * 4 + ("raw.weight.c",) * 3,
        domains=(0, 1, 2, 3, 0, 1, 2),
    )  # fmt: skip


def test_intervals_of_mean_and_spread_are_those_of_normal_theory():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    mean, spread = shared.mean_interval(values), shared.sd_interval(values)
    assert mean["mean"] == 2.5
    assert mean["high"] - 2.5 == pytest.approx(3.182446 * np.std(values, ddof=1) / 2, rel=1e-6)
    assert spread["sd"] == pytest.approx(1.290994, rel=1e-6)
    assert (spread["low"], spread["high"]) == pytest.approx((0.731331, 4.813523), rel=1e-5)
    assert np.isnan(shared.sd_interval(values[:1])["sd"])


def test_interval_of_a_spread_covers_the_true_one_19_times_in_20():
    draws = np.random.default_rng(1).normal(size=(2000, 8))
    found = [shared.sd_interval(d) for d in draws]
    assert np.mean([f["low"] <= 1 <= f["high"] for f in found]) == pytest.approx(0.95, abs=0.015)


def test_ratio_of_spreads_is_that_of_scaled_values():
    values = np.random.default_rng(0).normal(size=30)
    found = shared.ratio_of_spreads(3 * values, values)
    assert found["ratio"] == pytest.approx(3)
    assert found["low"] == pytest.approx(found["high"])
    gap = shared.ratio_of_spreads(np.append(values, np.nan), np.append(values, 1.0))
    assert gap["n"] == 30


def test_paired_facts_leave_out_pairs_that_lack_a_model():
    found = shared.paired_facts(np.array([1.0, 2.0, np.nan]), np.array([0.5, 1.0, 1.0]))
    assert (found["n"], found["mean"]) == (2, 0.75)
    assert shared.paired_facts(np.array([np.nan]), np.array([1.0])) == {"n": 0}


def test_common_random_numbers_take_off_what_seeds_do_to_all():
    rng = np.random.default_rng(0)
    block = 0.1 * rng.normal(size=(4, 1)) + 0.05 * rng.normal(size=60) + 0.01 * rng.normal(size=(4, 60))
    found = shared.common_numbers(block)
    assert found["common"]["sd"] == pytest.approx(0.01, rel=0.15)
    assert found["all"]["sd"] == pytest.approx(np.hypot(0.05, 0.01), rel=0.2)
    assert found["times"] == pytest.approx(26, rel=0.4)


def test_rank_correlation_of_a_constant_prediction_is_zero():
    truth = np.array([[1.0, 2.0, 3.0]] * 3)
    found = shared.spearman_rows(truth, np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]]))
    assert found.tolist() == [1.0, -1.0, 0.0]


def test_published_ranges_are_those_of_algorithm_1():
    prior = Prior(num_domains=3, num_criteria=2, exponent_max=0.05, cutoff_max=0.5, sparse=0.3)
    assert shared.published(prior) == Prior(num_domains=3, num_criteria=2)


def test_another_recipe_never_overwrites_the_study():
    options = shared.with_recipe(common.parser(""))
    assert shared.result_name("r2", options.parse_args([])) == "r2"
    assert shared.result_name("r2", options.parse_args(["--recipe", "my/own.yaml"])) == "r2-own"


def test_r2_scores_a_perfect_prediction_and_the_mean_of_subsets():
    truth = np.random.default_rng(0).normal(size=40)
    found = r2.scores(truth, np.stack([truth, -truth]))
    assert found["spearman"]["subsets"] == pytest.approx([1.0, -1.0])
    assert found["spearman"]["mean"] == pytest.approx(0.0)
    assert found["regret_at_1"]["subsets"] == pytest.approx([0.0, np.ptp(truth)])
    assert found["mae"]["subsets"][0] == 0.0
    assert found["mae"]["low"] <= found["mae"]["mean"] <= found["mae"]["high"]


def test_r2_ceiling_and_agreement_follow_from_noise_and_spread():
    rng = np.random.default_rng(0)
    true, noise = rng.normal(size=4000), 0.5
    first, second = (true + noise * rng.normal(size=4000) for _ in range(2))
    found = r2.agreement(first, second)
    assert found["noise"] == pytest.approx(noise, rel=0.05)
    assert found["ceiling"] == pytest.approx(np.corrcoef(true, first)[0, 1], abs=0.01)
    assert r2.ceiling(noise * rng.normal(size=4000), float(first.std())) == pytest.approx(
        found["ceiling"], abs=0.01
    )
    assert np.isnan(r2.ceiling(np.array([1.0, 2.0]), 1.0))


def test_r2_compares_methods_and_reports_those_that_cannot_fit():
    table = feature_table(110)
    losses = {"t": table.values[:, :4] @ np.array([1.0, 0.2, -0.4, 0.0])}
    methods = [r2.Method(kind=k, features="realised") for k in ("paper", "ridge", "svr-linear")]
    methods.append(r2.Method(kind="ridge", features="raw"))
    out = np.arange(110) < 30
    found = r2.compare(table, losses, Objective(weights={"t": 1.0}), out, [16, 80], 2, 0, methods)
    rows = {(r["surrogate"], r["features"], r["trials"]): r for r in found["rows"]}
    assert "at least 40 trials, there are 16" in rows["paper", "realised", 16]["cannot"]
    assert rows["ridge", "realised", 16]["subsets"] == 2
    assert rows["ridge", "realised", 80]["spearman"]["mean"] > 0.99  # the truth is linear in shares
    assert rows["svr-linear", "realised", 80]["spearman"]["mean"] > 0.98
    assert rows["paper", "realised", 80]["spearman"]["mean"] > 0.5
    assert abs(rows["ridge", "raw", 80]["spearman"]["mean"]) < 0.6  # which θ itself does not tell here
    assert set(found["parity"]) == {"measured", *(f"{m.kind}, {m.features}, 80" for m in methods)}


def test_r2_auto_is_the_run_s_own_surrogate():
    table = feature_table(40)
    y = table.values[:, 0] ** 2 + table.values[:, 1]
    found = r2.fit_and_predict(r2.Method(kind="auto", features="realised"),
                               table.rows(np.arange(30)).columns(raw=False), y[:30],
                               table.rows(np.arange(30, 40)).columns(raw=False))  # fmt: skip
    assert shared.spearman_rows(found[None], y[None, 30:])[0] > 0.8


def test_r4_subsets_are_singles_pairs_the_best_three_and_all():
    found = r4.subsets(("a", "b", "c", "d"), np.array([0.1, 0.4, 0.2, 0.3]))
    assert len(found) == 4 + 6 + 1 + 1
    assert found[-2:] == [("b", "c", "d"), ("a", "b", "c", "d")]
    assert r4.subsets(("a", "b"), np.array([0.5, 0.5])) == [("a",), ("b",), ("a", "b")]


def test_r4_masked_weights_are_renormalised_and_even_where_nothing_is_left():
    theta = prior_mean(Prior(num_domains=2, num_criteria=3))
    theta = replace(theta, weights=np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]))
    found = r4.masked(theta, [1, 2])
    assert found.weights.ravel() == pytest.approx([0.0, 0.6, 0.4, 0.0, 0.5, 0.5])
    assert np.array_equal(found.cutoff, theta.cutoff)


def test_r4_literal_search_leaves_criteria_out_and_beats_the_prior_mean():
    world = make_world(criteria=3, noise=0.0)
    trials, context = world.swarm(48), world.context(48)
    space = make_space(context)
    losses = {t: np.array([o.losses[t].bits_per_byte for o in trials[:48]]) for t in world.weights}
    objective = make_objective(world.weights, losses)
    model = r4.learned(trials, context, space, objective)
    theta = context.fit(r4.literal(space, model, [0, 2], 300, 0))
    assert np.abs(theta.weights[:, 1]).max() == 0
    predicted = [float(model.predict(space.features([t]))[0].mean[0])
                 for t in (theta, context.fit(r4.masked(prior_mean(world.prior), [0, 2])))]  # fmt: skip
    assert predicted[0] < predicted[1]
    again = context.fit(r4.literal(space, model, [0, 2], 300, 0))
    assert np.array_equal(again.weights, theta.weights)


def test_r4_means_by_number_of_criteria_are_paired_by_seed():
    found = r4.by_count({"a": [1.0, 2.0], "b": [3.0, 4.0], "a+b": [1.5, 2.5], "c": [9.0]})
    assert [(row["criteria"], row["subsets"], row["mean"]) for row in found] == [(1, 2, 2.5), (2, 1, 2.0)]
    assert found[1]["minus_one"]["mean"] == -0.5
    assert found[1]["minus_one"]["low"] == -0.5  # both seeds agree


def test_r4_summary_names_the_best_single_and_holds_it_against_all():
    losses = {"a": 1.0, "b": 1.2, "a+b": 0.9, "top:a": 1.05}
    trials = [
        make_trial(f"{label}-{s}", {"t": loss + 0.01 * s + 0.001 * ((i + s) % 3)}, label=label, seed=s)
        for s in range(4)
        for i, (label, loss) in enumerate(losses.items())
    ]
    theta = prior_mean(Prior(num_domains=2, num_criteria=2))
    thetas = dict.fromkeys(("a", "b", "a+b"), theta)
    promised = {"a": 1.0, "b": 1.1, "a+b": 0.8}
    found = r4.summary(trials, Objective(weights={"t": 1.0}), ("a", "b"), promised, thetas,
                       {"a": 2.0, "b": 1.8, "a+b": 2.1})  # fmt: skip
    assert found["best_single"] == "a"
    assert [(r["from"], r["to"], r["spearman"], r["subsets"]) for r in found["rank_correlations"]] == [
        ("predicted", "proxies", -1.0, 3),
        ("predicted", "measured", 1.0, 3),
        ("proxies", "measured", -1.0, 3),
    ]  # fmt: skip
    against = {d["label"]: d for d in found["singles_minus_all"]}
    assert set(against) == {"a", "b"}
    assert against["a"]["low"] > 0
    assert [r["criteria"] for r in found["rows"]] == [["a"], ["b"], ["a", "b"], []]


def test_r6_answers_keep_their_question_and_its_side_of_the_split():
    posts = [{"site": "s", "kind": "question", "question_id": str(i), "title": f"Q{i}", "text": "why?"}
             for i in range(200)]  # fmt: skip
    posts += [{"site": "s", "kind": "answer", "question_id": str(i % 220), "title": None, "text": "x" * 150}
              for i in range(440)]  # fmt: skip
    posts.append({"site": "s", "kind": "answer", "question_id": "1", "title": None, "text": "short"})
    rows = r6.answer_rows(posts)
    assert len(rows) == 440
    assert rows[3]["prompt"] == "Q3\nwhy?"
    assert rows[210]["prompt"] == ""  # its question is not in the file
    learn, judge = r6.split_answers(rows, 0)
    assert len(learn) + len(judge) == 440
    assert not {r["question"] for r in learn} & {r["question"] for r in judge}
    assert 0.5 < len(learn) / 440 < 0.7
    target = r6.answers_target(learn, 50, 0)
    assert (len(target.answers), target.rows_in, target.score_prompt) == (50, len(learn), False)


def test_r6_finds_answers_that_stand_in_the_corpus(tmp_path):
    words = " ".join(f"word{i}" for i in range(40))
    (tmp_path / "pool.jsonl").write_text(
        f'{{"id": "a", "text": "before {words} after"}}\n{{"id": "b", "text": "something else"}}\n'
    )
    corpus = open_corpus(CorpusSection(paths=[str(tmp_path / "pool.jsonl")]), str(tmp_path / "run"),
                         mapper=lambda function, tasks: list(map(function, tasks)))  # fmt: skip
    texts = ["It is: " + words[20:200], "nothing of the kind, " * 10, "word1 word2 word3"]
    assert r6.overlaps(texts, corpus).tolist() == [True, False, False]


def test_r6_benchmark_scores_question_and_right_answer(tmp_path):
    row = b'{"split": "%s", "query": "Is it?", "choices": ["no", "yes"], "gold": 1}\n'
    data = b"".join(row % s for s in (b"train", b"train", b"validation"))
    (tmp_path / "boolq.jsonl.zst").write_bytes(zstandard.compress(data))
    found = r6.benchmark(tmp_path, "boolq", "validation", 10, 0)
    assert (found.prompts, found.answers, found.score_prompt) == (("Is it?",), ("yes",), True)


def test_r6_judges_share_no_passage_with_a_row_that_steers_it_or_the_run(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_bytes(zstandard.compress(b"".join(orjson.dumps(r) + b"\n" for r in rows)))

    def passage(name):
        return " ".join(f"{name}x{i}" for i in range(14))

    def question(text, split):
        return {"query": text, "choices": ["no", "yes"], "gold": 1, "split": split}

    for task in r6.TASKS:
        rows = [question(passage(f"{task}{i}"), "validation" if i % 2 else "train") for i in range(40)]
        write(f"{task}.jsonl.zst", rows)
    asked = [question(f"{passage('boolq0')} is it {i}?", "validation") for i in range(3)]
    own = [question(passage(f"boolq{i}"), "validation" if i % 2 else "train") for i in range(40)]
    write("boolq.jsonl.zst", own + asked)
    posts = [{"site": "s", "kind": "answer", "question_id": str(i), "title": None,
              "text": f"{passage(f'answer{i}')} {passage(f'more{i}')}"} for i in range(60)]  # fmt: skip
    write("posts.jsonl.zst", posts)
    (tmp_path / "pool.jsonl").write_text('{"id": "a", "text": "nothing of all that"}\n')
    (tmp_path / "tokenizer.json").write_text(train_tokenizer([passage("a")] * 10, 300))
    corpus = open_corpus(CorpusSection(paths=[str(tmp_path / "pool.jsonl")]), str(tmp_path / "run"),
                         mapper=lambda function, tasks: list(map(function, tasks)))  # fmt: skip
    model = SimpleNamespace(model=SimpleNamespace(context=64))
    steered = TargetText(name="boolq", prompts=("", ""), answers=(f"a {passage('boolq1')}",) * 2,
                         score_prompt=True, weight=1.0, rows_in=2)  # fmt: skip
    study = SimpleNamespace(
        recipe=SimpleNamespace(seed=0, proxy=model), corpus=corpus, targets=[steered],
        job=SimpleNamespace(path=lambda *parts: tmp_path.joinpath(*parts)),
    )  # fmt: skip
    args = argparse.Namespace(benchmarks=tmp_path, answers=tmp_path / "posts.jsonl.zst", limit=100)
    facts = r6._encode(study, args)
    assert facts["judging_rows_left_out"] == {**dict.fromkeys((*r6.TASKS, "answers"), 0), "boolq": 4}
    judging = {task: facts["rows"]["judge"][task] for task in r6.TASKS}
    assert judging == {**dict.fromkeys(r6.TASKS, 20), "boolq": 19}
    assert facts["rows"]["learn"]["boolq"] == 20


def test_r6_verdicts_compare_signs_and_say_which_are_decided():
    losses = {"theta-benchmarks": (1.0, 2.0), "theta-answers": (1.1, 1.9), "random": (1.3, 2.3)}
    trials = [
        make_trial(f"{label}-{s}", {"q": q + 0.02 * s + 0.001 * ((i + s) % 3), "answers": a + 0.02 * s},
                   label=label, seed=s)
        for s in range(4)
        for i, (label, (q, a)) in enumerate(losses.items())
    ]  # fmt: skip
    objectives = {"benchmarks": Objective(weights={"q": 1.0}), "answers": Objective(weights={"answers": 1.0})}
    found = r6.verdicts(trials, objectives, {"q": [1.2, 1.1], "answers": [1.9, 1.8]})
    assert [(t["same_sign"], t["decided"]) for t in found["tasks"]] == [(True, True), (False, True)]
    assert (found["signs_that_agree"], found["decided"], found["decided_that_agree"]) == (1, 2, 1)
    assert found["families"]["answers"]["difference"]["difference"] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("reading", "flat", "step", "near", "height"),
    [("log", 0.32, 0.30, 0.46, 1.18), ("linear", 0.09, 0.80, 0.54, 1.37)],
)
def test_r8_curves_of_both_readings_of_the_prior(reading, flat, step, near, height):
    prior = Prior(num_domains=26, num_criteria=3, steepness=reading)
    found = r8.curve_facts(draw_theta(np.random.default_rng(0), prior, 400))
    assert (found["flat"], found["step"], found["near_the_top"]) == pytest.approx(
        (flat, step, near), abs=0.015
    )
    assert found["mean_height"] == pytest.approx(height, abs=0.01)


def test_r8_estimated_ranks_from_all_documents_are_those_of_the_paper():
    table = random_table(3, ties=True)
    merged = table.scores[:, 0].astype(np.float64)
    exact = rank_within_domain(merged, table.tokens, table.domain, mode="paper")
    assert np.array_equal(r8.estimated_ranks(merged, table, np.arange(len(table))), exact.high)


def test_r8_estimated_ranks_know_only_the_reference():
    table = make_table([10, 30, 20, 40], [0, 0, 0, 0], [1, 2, 3, 4])
    merged = table.scores[:, 0].astype(np.float64)
    ranks = r8.estimated_ranks(merged, table, np.array([1, 3]))
    assert ranks.tolist() == pytest.approx([0.0, 30 / 70, 30 / 70, 1.0])


def test_r8_reference_takes_so_many_of_each_domain_and_all_of_small_ones():
    table = random_table(0, documents=400, domains=5)
    rows = r8.reference(table, 60, 0, "a")
    counts = np.bincount(table.domain, minlength=5)
    assert np.bincount(table.domain[rows], minlength=5).tolist() == np.minimum(counts, 60).tolist()
    assert np.array_equal(rows, r8.reference(table, 60, 0, "a"))
    assert not np.array_equal(rows, r8.reference(table, 60, 0, "b"))


def test_r8_a_larger_reference_estimates_ranks_better():
    table = random_table(1, documents=6000, domains=2)
    merged = table.scores[:, 0].astype(np.float64)
    exact = rank_within_domain(merged, table.tokens, table.domain, mode="paper").high

    def error(size):
        found = [r8.estimated_ranks(merged, table, r8.reference(table, size, 0, str(k))) for k in range(8)]
        return np.mean([np.abs(ranks - exact).mean() for ranks in found])

    assert error(800) < 0.5 * error(50)


def test_r8_tied_domain_vanishes_under_paper_ranks_alone():
    # domain 0: the best three tenths are tied; domain 1: all scores differ
    table = make_table([10] * 20, [0] * 10 + [1] * 10, [0] * 3 + list(range(1, 8)) + list(range(10)))
    merged = table.scores[:, 0].astype(np.float64)

    def found(mode):
        ranks = rank_within_domain(merged, table.tokens, table.domain, mode=mode, keys=table.keys)
        return r8.window_shares(ranks, table, 0.2).tolist()

    assert found("paper") == pytest.approx([0.0, 0.2])
    assert found("interval") == pytest.approx([0.2, 0.2])
    assert found("hash-tiebreak") == pytest.approx([0.2, 0.2])


def test_r8_rounded_scores_make_paper_ranks_miss_the_cutoff():
    table = random_table(5, documents=3000, domains=6)
    rows = {(r["mode"], r["cutoff"]): r for r in r8.rounded_facts(table, table.scores[:, 0])}
    assert rows["interval", 0.05]["relative_error"] < 1e-9
    assert rows["paper", 0.02]["vanished"] > 0
    assert rows["paper", 0.05]["relative_error"] > rows["hash-tiebreak", 0.05]["relative_error"]


def test_r8_refuses_a_part_that_it_does_not_have(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["r8_ablations.py", "--only", "prior,nosie"])
    with pytest.raises(SystemExit, match="'nosie', expected some of prior, rank, percentile, noise"):
        r8.main()


def test_moved_share_is_half_the_change_of_all_shares():
    table = make_table([10, 10, 10, 10], [0, 0, 1, 1], [1, 2, 3, 4])
    one, other = np.array([1, 1, 0, 0], np.int32), np.array([1, 0, 1, 0], np.int32)
    assert shared.shares(table, other).tolist() == [0.5, 0.5]
    found = shared.moved_share(table, [one, None], [other, one])
    assert (found["mean"], found["n"]) == (0.5, 1)


def test_every_study_explains_itself():
    for module in (r2, r4, r6, r8):
        text = str(module.__doc__)
        assert "Cost:" in text, module.__name__
        assert isinstance(common.parser(text), argparse.ArgumentParser)


def test_likeness_learns_from_what_dsir_reads_and_from_no_row_that_judges(tmp_path):
    rows = [{"question": f"what is {i}", "answer": f"it is {i}", "split": "train"} for i in range(40)]
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    recipe = check_recipe(
        {
            "name": "x", "seed": 3, "corpus": {"paths": [str(tmp_path / "c.jsonl")]},
            "annotate": {"criteria": [{"name": "rules", "kind": "heuristic"}]}, "budget": {"share": 0.1},
            "targets": [{"name": "t", "path": str(tmp_path / "t.jsonl"), "split": "train",
                         "prompt": "question", "answer": "answer", "loss": "all", "limit": 30}],
        }
    )  # fmt: skip
    made = r3_likeness.with_likeness(recipe, tmp_path / "new" / "rows.jsonl")
    assert [c.name for c in made.annotate.criteria] == ["rules", "likeness"]
    texts = [orjson.loads(line)["text"] for line in (tmp_path / "new/rows.jsonl").read_bytes().splitlines()]
    halves = target_halves([read_target(recipe.targets[0], seed=3)], True, 3)
    judging = set(halves["judges"][0].texts())
    assert len(judging) == 15
    every = read_target(recipe.targets[0].model_copy(update={"limit": 100}), seed=3).texts()
    assert len(every) == 40
    assert set(texts) == set(every) - judging


def test_pairs_are_taken_by_seed_where_each_label_lost_another_one():
    made = {("a", 0): 1.0, ("a", 1): 2.0, ("a", 2): 3.0, ("b", 1): 1.5, ("b", 2): 2.4, ("b", 3): 9.0}
    trials = [make_trial(f"{k}-{s}", {"t": v}, label=k, seed=s) for (k, s), v in made.items()]
    losses = common.target_losses(trials, "t")
    found = common.pair_interval(losses["a"], losses["b"])
    assert found["pairs"] == 2
    assert found["difference"] == pytest.approx(0.55)
    assert found["high"] - 0.55 == pytest.approx(12.7062 * 0.05, rel=1e-4)  # t of one degree; sd 0.0707 / √2
    assert common.pair_interval(losses["a"], {0: 1.0}) is None


def test_differences_are_as_noisy_as_the_pair_itself_and_not_as_all_others():
    noise = {"c": (0.0, 0.0, 0.0), "calm": (0.01, -0.01, 0.0), "wild": (0.5, -0.4, -0.1)}
    trials = [
        make_trial(f"{k}-{s}", {"t": 2.0 + n}, label=k, seed=s)
        for k, row in noise.items()
        for s, n in enumerate(row)
    ]
    found = {d["label"]: d for d in common.differences(trials, Objective(weights={"t": 1.0}), "c")}
    for label in ("calm", "wild"):
        own = np.array(noise[label])
        half = 4.302653 * own.std(ddof=1) / 3**0.5  # Student's t, two degrees of freedom
        assert found[label]["high"] - found[label]["low"] == pytest.approx(2 * half, rel=1e-5)


def test_batches_that_were_aimed_are_no_part_of_the_design():
    trials = [make_trial(str(i), {"t": 1.0}, label=label) for i, label in
              enumerate(["design-0001", "batch-2", "recipe:prior-mean", "batch-3", "repeat"])]  # fmt: skip
    assert [t.label for t in shared.unaimed(trials)] == ["design-0001", "recipe:prior-mean", "repeat"]


def test_r8_interval_of_frozen_references_is_over_the_references():
    losses = {"exact": np.zeros(4), "385 own": np.full(4, 9.0)}
    for arm, shift in zip(("385 frozen", "385 frozen 2", "385 frozen 3"), (0.1, 0.2, 0.3), strict=True):
        losses[arm] = np.array([shift, shift, shift, np.nan])
    found = r8.over_references(losses, 385)
    assert found["mean"] == pytest.approx(0.2)
    assert found["high"] - found["mean"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)


def test_r7_asks_for_sizes_before_it_trains(monkeypatch):
    monkeypatch.setattr(r7, "opened", lambda *_: pytest.fail("opened"))
    for sizes in ("0.3M,5M", "1M,70M"):
        monkeypatch.setattr("sys.argv", ["r7", "--sizes", sizes])
        with pytest.raises(SystemExit, match="1M among them"):
            r7.main()


def test_r7_takes_one_number_of_seeds_or_one_per_size():
    assert r7.seeds_of(["0.3M", "5M"], "9") == {"0.3M": 4, "5M": 3}, "at most those of the size"
    assert r7.seeds_of(["0.3M", "1M", "5M"], "3,3,2") == {"0.3M": 3, "1M": 3, "5M": 2}
    for wrong in ("3,2", "0", "x"):
        with pytest.raises(SystemExit, match="one for each of"):
            r7.seeds_of(["0.3M", "1M", "5M"], wrong)


def test_r7_refuses_rates_that_are_no_factors(monkeypatch, capsys):
    assert r7.rates_of("0.5,2") == [0.5, 2.0]
    for wrong in ("x", "0", "nan"):
        monkeypatch.setattr("sys.argv", ["r7", "--rates", wrong])
        with pytest.raises(SystemExit):
            r7.main()
        assert f"argument --rates: invalid rates_of value: '{wrong}'" in capsys.readouterr().err
