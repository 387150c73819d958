"""R6, two kinds of target: do benchmark questions and answers to instructions want different data?

The paper (§4.4, Table 3, Fig. 5) finds θ* once for OpenHermes answers and once for the train splits of five
benchmarks, with a surrogate per benchmark: the benchmarks' θ* is predicted better on all five, and is better
on four (not on HellaSwag). Here the saved proxies of the run's swarm are measured on two families of targets
without any retraining:
- `benchmarks`: the train splits of arc_easy, arc_challenge, csqa, openbookqa and boolq, question and right
  answer scored, equal weights;
- `answers`: Stack Exchange answers after their questions, the answers scored.
Only proxies of the first design are used: later batches were aimed at the run's target, which belongs to one
of the families. The search then proposes a θ* for each family, and both are trained beside the run's θ*, the
prior mean and random documents: 1M models, five seeds, judged on the validation splits and on answers to
other questions, without the rows that share 13 words in a row, or all words, with a learning row or with one
that steered the run's own search (several BoolQ questions ask about one passage). Intervals are over seeds,
for these questions.

Circularity, as in the paper (DCLM's classifier was trained on OpenHermes): the run's criterion `answers`
learned what is good from this very file, judging answers included. Three in four of these answers also stand
in the pool (its `qa_forum`); those are no targets here: an answer that shares 13 words in a row with any
document of the corpus is left out. Questions that overlap are counted, not left out.

Cost: scoring the swarm again about 10 minutes, two proposals about 5, 25 models of 1M parameters and 500k
tokens about 5, on two idle cores.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, Choice, Study, by_theta, differences, opened, parser, save, train
from numpy.typing import NDArray
from r4_criteria import learned
from shared import pool_part, result_name, unaimed, with_recipe

from quadmix.annotate.overlap import ngram_hashes
from quadmix.codec import to_json
from quadmix.corpus.read import read_documents
from quadmix.corpus.targets import TargetText, read_target
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.evaluate.sampling import random_copies
from quadmix.io.atomic import read_json, read_value, value_digest, write_json
from quadmix.io.rows import read_records
from quadmix.pipeline.contamination import clean_judges
from quadmix.pipeline.folder import library_versions
from quadmix.pipeline.place import training_place
from quadmix.pipeline.stages import target_halves
from quadmix.pipeline.swarming import search_context
from quadmix.pipeline.training import proxy_setting
from quadmix.proxy.rescore import rescore
from quadmix.proxy.targets import encode_targets, target_digests
from quadmix.recipe import LADDER, ModelSection, TargetSection
from quadmix.rng import derived_seed, keyed_uniform
from quadmix.search.confirm import CONTROL, measure
from quadmix.search.diagnostics import OBJECTIVE
from quadmix.search.propose import SearchContext, make_space, propose
from quadmix.search.swarm import make_objective
from quadmix.types import Corpus, Objective, Proposal, Theta, Trial

TASKS = ("arc_easy", "arc_challenge", "csqa", "openbookqa", "boolq")
ANSWERS = "answers"
FAMILIES = {"benchmarks": TASKS, ANSWERS: (ANSWERS,)}
DATA = HERE / "../../shared/data"
LEARN = 0.6  # share of the questions whose answers steer the search; the others judge
TOKENS = 500_000
SEEDS = 5
_SHORT = 100  # characters; shorter answers say little, and no overlap of 13 words can be found in many


def main() -> None:
    options = with_recipe(parser(str(__doc__)))
    options.add_argument(
        "--benchmarks", type=Path, default=DATA / "benchmarks", help="folder of the five sets"
    )
    options.add_argument("--answers", type=Path, default=DATA / "quality/stackexchange_posts.jsonl.zst")
    options.add_argument("--limit", type=int, default=500, help="rows of a target")
    options.add_argument("--tokens", type=int, default=TOKENS)
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--size", default="1M", choices=list(LADDER), help="model that is trained")
    args = options.parse_args()
    with opened(args.overrides, args.recipe) as study:
        save(result_name("r6_targets", args), _result(study, args), study)


def _result(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    facts = _encode(study, args)
    scored = _rescored(study)
    context = search_context(study.job, study.mix, planned=sum(t.kind == "prior" for t in scored))
    stars = {family: _proposal(study, scored, context, family) for family in FAMILIES}
    part = pool_part(study, args.tokens)
    thetas = {f"theta-{family}": _theta(p) for family, p in stars.items()}
    thetas |= {"quadmix": study.confirmation.theta, CONTROL: _named(study.proposal, CONTROL)}
    choices = {label: by_theta(part, theta) for label, theta in thetas.items()}
    choices["random"] = Choice(
        part=part,
        copies=lambda s: random_copies(
            part.table, part.budget, seed=derived_seed(study.recipe.seed, "baseline", s)
        ),
    )
    training = study.recipe.evaluate.training.model_copy(update={"tokens": args.tokens})
    section = ModelSection.model_validate(LADDER[args.size])
    trials = train(
        study, "r6", choices, section, training, seeds=args.seeds, judges="studies/r6/targets-judge"
    )
    predicted = _predicted(scored, context, [_theta(stars[ANSWERS]), _theta(stars["benchmarks"])])
    objectives = {family: stars[family].objective for family in FAMILIES}
    return {
        "size": args.size, "tokens": trials[0].train_tokens, "seeds": args.seeds, "targets": facts,
        "seed": study.recipe.seed, "scored_again": sum(t.status == "done" for t in scored),
        "shares": {f: to_json(stars[f].candidates[0].shares) for f in FAMILIES},
        "weights": {f: _theta(stars[f]).weights.mean(axis=0).tolist() for f in FAMILIES},
        "criteria": [c.name for c in study.mix.whole.table.criteria],
        "surrogates": {f: surrogate_rows(p) for f, p in stars.items()},
        **verdicts(trials, objectives, predicted),
    }  # fmt: skip


def _encode(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    """Encode the learning and the judging part of both families beside the run; return what they hold."""
    seed = study.recipe.seed
    learn = [benchmark(args.benchmarks, t, "train", args.limit, seed) for t in TASKS]
    judge = [benchmark(args.benchmarks, t, "validation", args.limit, seed) for t in TASKS]
    rows = answer_rows(read_records(str(args.answers)))
    texts = {ANSWERS: [r["answer"] for r in rows]}
    for part, targets in (("train", learn), ("validation", judge)):
        texts |= {f"{t.name}, {part}": t.texts() for t in targets}
    seen = _in_pool(study, texts)
    free = [r for r, known in zip(rows, seen[ANSWERS], strict=True) if not known]
    for targets, part in zip((learn, judge), split_answers(free, seed), strict=True):
        targets.append(answers_target(part, args.limit, seed))
    steered = target_halves(study.targets, True, seed)["targets"]
    judge, shared = clean_judges([*learn, *steered], judge)
    folder, tokenizer = study.job.path("studies", "r6"), Tokenizer.load(str(study.job.path("tokenizer.json")))
    context = study.recipe.proxy.model.context
    for name, targets in (("learn", learn), ("judge", judge)):
        encode_targets(targets, tokenizer, context, str(folder / f"targets-{name}"))
    return {
        "rows": {
            "learn": {t.name: len(t.answers) for t in learn},
            "judge": {t.name: len(t.answers) for t in judge},
        },
        "judging_rows_left_out": {t.name: shared.get(t.name, 0) for t in learn},
        "texts": {name: len(own) for name, own in texts.items()},
        "in_the_pool": {name: sum(own) for name, own in seen.items()},
        "answers_free": len(free), "questions_free": len({r["question"] for r in free}),
    }  # fmt: skip


def benchmark(folder: Path, task: str, split: str, limit: int, seed: int) -> TargetText:
    """Return questions with their right answers, all of it scored."""
    section = TargetSection(
        name=task, path=str(folder / f"{task}.jsonl.zst"), split=split, prompt="query", choices="choices",
        gold="gold", loss="all", limit=limit,
    )  # fmt: skip
    return read_target(section, seed=seed)


def answer_rows(posts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the answers of a file of posts as question (its key), prompt (its text) and answer."""
    asked = {
        _key(p): f"{p['title'] or ''}\n{p['text'] or ''}".strip() for p in posts if p["kind"] == "question"
    }
    return [
        {"question": _key(p), "prompt": asked.get(_key(p), ""), "answer": p["text"].strip()}
        for p in posts
        if p["kind"] == "answer" and len((p["text"] or "").strip()) >= _SHORT
    ]


def _key(post: Mapping[str, Any]) -> str:
    return f"{post['site']}/{post['question_id']}"


def split_answers(
    rows: Sequence[dict[str, str]], seed: int
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return what the search learns from and what judges; all answers to one question stay together."""
    learn = keyed_uniform(seed, [r["question"] for r in rows], "r6") < LEARN
    return ([r for r, own in zip(rows, learn, strict=True) if own],
            [r for r, own in zip(rows, learn, strict=True) if not own])  # fmt: skip


def answers_target(rows: Sequence[dict[str, str]], limit: int, seed: int) -> TargetText:
    """Return at most `limit` answers, drawn by a hash of their text; the answer alone is scored."""
    order = np.argsort(keyed_uniform(seed, [r["answer"] for r in rows], "r6-limit"), kind="stable")[:limit]
    chosen = [rows[i] for i in sorted(order.tolist())]
    return TargetText(
        name=ANSWERS, prompts=tuple(r["prompt"] for r in chosen), answers=tuple(r["answer"] for r in chosen),
        score_prompt=False, weight=1.0, rows_in=len(rows),
    )  # fmt: skip


def _in_pool(study: Study, texts: Mapping[str, list[str]]) -> dict[str, list[bool]]:
    """Return which texts share 13 words in a row with a document of the corpus; kept beside the run."""
    file, key = study.job.path("studies", "r6", "in-pool.json"), value_digest([study.corpus.digest, texts])
    if file.exists() and (kept := read_json(file))["key"] == key:
        return kept["seen"]
    print("R6: looking for the targets in the corpus", file=sys.stderr)
    found = iter(overlaps([text for own in texts.values() for text in own], study.corpus).tolist())
    seen = {name: [next(found) for _ in own] for name, own in texts.items()}
    write_json(file, {"key": key, "seen": seen})
    return seen


def overlaps(texts: Sequence[str], corpus: Corpus) -> NDArray[np.bool_]:
    """Return (D,) which texts share 13 words in a row with any document of a corpus."""
    own = [ngram_hashes([text]) for text in texts]
    every = np.unique(np.concatenate(own)) if own else np.empty(0, np.uint64)
    found = np.zeros(len(every), dtype=bool)
    for split in corpus.splits:
        for batch in read_documents(corpus, split, columns=()):
            there = ngram_hashes(batch.text)
            place = np.searchsorted(every, there)
            inside = place < len(every)
            inside[inside] = every[place[inside]] == there[inside]
            found[place[inside]] = True
    return np.array([bool(found[np.searchsorted(every, hashes)].any()) for hashes in own], dtype=bool)


def _rescored(study: Study) -> list[Trial]:
    """Return the swarm's trials with losses on the learning targets; kept beside the run."""
    targets, weights = study.job.path("studies", "r6", "targets-learn"), study.job.path("trials", "weights")
    wanted = [t for t in unaimed(study.swarm) if t.kind in ("prior", "repeat") and t.status == "done"]
    file = study.job.path("studies", "r6", "rescored.json")
    key = value_digest([[t.trial_id for t in wanted], [t.job for t in wanted], target_digests(targets)])
    if file.exists() and read_json(file.with_suffix(".key.json")) == key:
        return list(read_value(file, tuple[Trial, ...]))
    setting = replace(proxy_setting(study.job, study.mix, study.pool), targets=str(targets))
    with study.job.progress.stage("score again", len(wanted), "models") as step:
        scored = rescore(
            wanted,
            weights,
            setting,
            place=training_place(study.recipe.run),
            on_done=lambda n: step.advance(n),
        )
    refused = [t for t in scored if t.status != "done"]
    if len(refused) == len(scored):
        why = refused[0].reason if refused else "the swarm has no finished trial"
        raise SystemExit(
            f"no saved proxy could be measured again ({why}); the recipe needs proxy.save_weights"
        )
    for trial in refused:
        print(f"warning: {trial.trial_id}: {trial.reason}", file=sys.stderr)
    write_json(file, scored)
    write_json(file.with_suffix(".key.json"), key)
    return scored


def _proposal(study: Study, scored: Sequence[Trial], context: SearchContext, family: str) -> Proposal:
    """Return what the run's own search proposes for one family, with equal weights; kept beside the run."""
    own = replace(context, target_weights=dict.fromkeys(FAMILIES[family], 1.0), ceilings=None)
    section = study.recipe.search
    file = study.job.path("studies", "r6", f"proposal-{family}.json")
    key = value_digest(
        [list(scored), dict(own.target_weights), section.model_dump(mode="json"), library_versions()]
    )
    if file.exists() and read_json(file.with_suffix(".key.json")) == key:
        return read_value(file, Proposal)
    with study.job.progress.stage(f"search {family}", 1, "proposal"):
        proposal = propose(scored, own, section)
    write_json(file, proposal)
    write_json(file.with_suffix(".key.json"), key)
    return proposal


def _theta(proposal: Proposal) -> Theta:
    theta = proposal.candidates[0].theta
    assert theta is not None  # a search over θ proposes one
    return theta


def _named(proposal: Proposal, name: str) -> Theta:
    theta = next(c.theta for c in proposal.candidates if c.name == name)
    assert theta is not None
    return theta


def _predicted(
    scored: Sequence[Trial], context: SearchContext, thetas: Sequence[Theta]
) -> dict[str, list[float]]:
    """Return per task the predicted losses of the θ, by one surrogate per task on all of them."""
    tasks = [*TASKS, ANSWERS]
    done = [t for t in scored if t.kind == "prior" and t.status == "done"]
    losses = {t: np.array([d.losses[t].bits_per_byte for d in done]) for t in tasks}
    own, space = replace(context, ceilings=None), make_space(context)
    model = learned(scored, own, space, make_objective(dict.fromkeys(tasks, 1.0), losses))
    _, found = model.predict(space.features([context.fit(theta) for theta in thetas]))
    return {task: values.tolist() for task, values in found.items()}


def surrogate_rows(proposal: Proposal) -> list[dict[str, Any]]:
    """Return out-of-fold quality per task: of the surrogate used, and of the published one."""
    kinds = (proposal.surrogate, "paper")
    return [
        {k: v for k, v in to_json(r).items() if k not in ("parity", "members")}
        for r in proposal.diagnostics
        if r.surrogate in kinds and (r.target != OBJECTIVE or len(proposal.objective.weights) > 1)
    ]


def verdicts(
    trials: Sequence[Trial], objectives: Mapping[str, Objective], predicted: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Return measured losses per task and family, and whether predicted and measured differences agree.

    predicted: task -> losses of (θ* of answers, θ* of benchmarks). Differences are answers' minus benchmarks'
    θ*, with 95 % intervals over seeds; `decided`: the measured one excludes 0.
    """
    tasks: list[dict[str, Any]] = []
    for task, (answers, benchmarks) in predicted.items():
        found = _pair(trials, Objective(weights={task: 1.0}))
        tasks.append(
            {
                "task": task, "predicted": answers - benchmarks, "measured": to_json(found),
                "same_sign": bool((answers - benchmarks) * found["difference"] > 0),
                "decided": bool(found["low"] > 0 or found["high"] < 0),
                "losses": _means(trials, Objective(weights={task: 1.0})),
            }
        )  # fmt: skip
    families = {
        family: {"difference": _pair(trials, o), "losses": _means(trials, o), "objective": o.weights}
        for family, o in objectives.items()
    }
    return {
        "tasks": tasks, "families": families,
        "signs_that_agree": sum(t["same_sign"] for t in tasks),
        "decided": sum(t["decided"] for t in tasks),
        "decided_that_agree": sum(t["decided"] and t["same_sign"] for t in tasks),
    }  # fmt: skip


def _pair(trials: Sequence[Trial], objective: Objective) -> dict[str, Any]:
    plain = replace(objective, ceilings={}, relative=())
    return next(d for d in differences(trials, plain, "theta-benchmarks") if d["label"] == "theta-answers")


def _means(trials: Sequence[Trial], objective: Objective) -> list[dict[str, Any]]:
    kept = ("label", "mean", "low", "high", "values")
    return [{k: v for k, v in to_json(m).items() if k in kept} for m in measure(trials, objective)]


if __name__ == "__main__":
    main()
