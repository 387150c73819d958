"""How well the raters that need no download tell good text from bad, on labelled text, beside its length.

Run: python benchmarks/raters.py FOLDER [--folds 2] [--draws 1000] [--only SET ...] [--no-fasttext]

FOLDER holds the labelled sets as .jsonl.zst (dclm_human, wiki_quality, ...). Documents fall into folds by a
hash of their group (article, topic, question; where a set has none, the text itself), so that no group stands
on both sides. With two folds each half is judged by raters trained on the other half. Strata (site, language)
are judged one by one and averaged by their size, so that no rater gains by telling sites apart.

Metric: AUC for labels 0/1, Spearman for grades, share of pairs in the right order for pairs. Length counts in
its better direction. Intervals: 95 %, bootstrap over groups within fold and stratum. `+` or `-` behind a
number: the interval of its difference to length, on the same draws, lies above or below zero.
Graded sets give `linear` and fastText the upper third of the training labels as good and the lower third as
bad, or, where grades are few, everything above and below the cut that halves them best.
Prints a markdown table; the last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.heuristic import heuristic_scores
from quadmix.annotate.trained import Examples, auc, spearman, train_linear, train_regression
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.rows import read_records
from quadmix.rng import keyed_uniform, stream

Scores = NDArray[np.float64]
Scorer = Callable[[list[str]], Scores]
RATERS = ("heuristic", "linear", "regression", "fastText")
LEAST_CELL = 20
NO_ROWS = pa.RecordBatch.from_pydict({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A labelled text. group: what stands on one side of the split. tested: does it count when judged?"""

    text: str
    label: float
    length: float
    group: str
    stratum: str = ""
    tested: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two texts of which the first is better."""

    better: str
    worse: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """rows are trained on and, where there are no pairs, judged."""

    name: str
    metric: str
    rows: list[Row]
    pairs: list[Pair] = field(default_factory=list[Pair])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fold and stratum that is judged: (n,) truth, lengths and scores; (n, 2) of both sides for pairs."""

    truth: Scores
    groups: NDArray[np.int64]
    scores: dict[str, Scores]


# The sets


def rows_of(records: Sequence[dict[str, Any]], group: Sequence[str] = (), stratum: str = "") -> list[Row]:
    return [
        Row(
            text=r["text"],
            label=float(r["label"]),
            length=float(len(r["text"])),
            group="/".join(str(r[g]) for g in group) if group else r["text"],
            stratum=str(r[stratum]) if stratum else "",
        )
        for r in records
        if r["text"].strip()
    ]


def agreed(records: Sequence[dict[str, Any]]) -> list[Row]:
    kept = [r for r in records if r["text"].strip()]
    return [
        Row(text=r.text, label=r.label, length=r.length, group=r.group, tested=bool(k["annotators_agree"]))
        for r, k in zip(rows_of(kept), kept, strict=True)
    ]


def wiki(records: Sequence[dict[str, Any]], chars: int) -> list[Row]:
    """The file holds at most 5,000 characters of an article; its length is that of the whole article, unless
    the texts are cut so that it cannot be seen."""
    return [
        Row(
            text=r["text"][:chars],
            label=float(r["label"]),
            length=float(r["chars_full"] if chars >= 5_000 else len(r["text"][:chars])),
            group=r["text"],
        )
        for r in records
    ]


def web_lines(records: Sequence[dict[str, Any]]) -> list[Row]:
    joined = [
        {**r, "text": "\n".join(map(str.strip, r["lines"])), "label": r["clean_share"]} for r in records
    ]
    return rows_of(joined, stratum="lang")


def argument_pairs(records: Sequence[dict[str, Any]]) -> list[Pair]:
    out: list[Pair] = []
    for r in records:
        texts = (r["text_a"], r["text_b"]) if r["better"] == "a" else (r["text_b"], r["text_a"])
        out.append(Pair(better=texts[0], worse=texts[1], group=topic(r)))
    return out


def topic(record: dict[str, Any]) -> str:
    return str(record["topic"]).split("_")[0]  # both stances of a topic stand on one side


def labelled_sets(folder: Path) -> dict[str, Callable[[], LabelledSet]]:
    def read(name: str) -> list[dict[str, Any]]:
        return read_records(str(folder / f"{name}.jsonl.zst"))

    def arguments() -> list[Row]:
        return rows_of([{**r, "topic": topic(r)} for r in read("argument_rank")], ("topic",))

    def answers() -> list[Row]:
        kept = [r for r in read("stackexchange_posts") if r["kind"] == "answer"]
        return rows_of(kept, ("site", "question_id"), "site")

    sets: dict[str, tuple[str, Callable[[], list[Row]]]] = {
        "dclm_human": ("AUC", lambda: rows_of(read("dclm_human"))),
        "dclm_human, raters agree": ("AUC", lambda: agreed(read("dclm_human"))),
        "mail_spam": ("AUC", lambda: rows_of(read("mail_spam"))),
        "wiki_quality": ("Spearman", lambda: wiki(read("wiki_quality"), 5_000)),
        "wiki_quality, 1,000 characters": ("Spearman", lambda: wiki(read("wiki_quality"), 1_000)),
        "llm_edu_scores": ("Spearman", lambda: rows_of(read("llm_edu_scores"))),
        "fineweb_c_danish": ("Spearman", lambda: rows_of(read("fineweb_c_danish"))),
        "web_line_quality, clean share": ("Spearman", lambda: web_lines(read("web_line_quality"))),
        "onestop_levels": ("Spearman", lambda: rows_of(read("onestop_levels"), ("article",))),
        "stackexchange answers": ("Spearman", answers),
        "argument_rank": ("Spearman", arguments),
        "argument_pairs": ("pairs", arguments),
        "translation_da": ("Spearman", lambda: rows_of(read("translation_da"), ("source_text",), "pair")),
    }

    def made(name: str, metric: str, rows: Callable[[], list[Row]]) -> Callable[[], LabelledSet]:
        pairs = argument_pairs if metric == "pairs" else None
        return lambda: LabelledSet(
            name=name, metric=metric, rows=rows(), pairs=pairs(read(name)) if pairs else []
        )

    return {name: made(name, metric, rows) for name, (metric, rows) in sets.items()}


# The raters


def good_and_bad(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the texts above and below: thirds of the labels, or halves where the thirds leave too little."""
    labels = np.array([r.label for r in rows])
    low, high = np.quantile(labels, [1 / 3, 2 / 3])
    if low == high or min((labels <= low).sum(), (labels >= high).sum()) < len(labels) / 6:
        cuts = np.unique(labels)[1:]
        high = cuts[np.argmin([abs((labels >= c).mean() - 0.5) for c in cuts])]
        low = np.nextafter(high, -np.inf)
    good = dict.fromkeys(r.text for r in rows if r.label >= high)
    bad = dict.fromkeys(r.text for r in rows if r.label <= low)
    return [t for t in good if t not in bad], [t for t in bad if t not in good]


def heuristic(rows: Sequence[Row]) -> Scorer:
    return lambda texts: heuristic_scores(texts).astype(np.float64)


def linear(rows: Sequence[Row]) -> Scorer:
    good, bad = good_and_bad(rows)
    labels = np.repeat([1.0, 0.0], [len(good), len(bad)])
    examples = Examples(texts=good + bad, labels=labels, groups=np.zeros(len(labels), np.int64))
    made = train_linear("linear", examples, direction="higher", pool=0)
    return lambda texts: made.score(texts, NO_ROWS).values.astype(np.float64)


def regression(rows: Sequence[Row]) -> Scorer:
    strata = {s: i for i, s in enumerate(sorted({r.stratum for r in rows}))}
    examples = Examples(
        texts=[r.text for r in rows],
        labels=np.array([r.label for r in rows]),
        groups=np.array([strata[r.stratum] for r in rows]),
    )
    made = train_regression("regression", examples, direction="higher")
    return lambda texts: made.score(texts, NO_ROWS).values.astype(np.float64)


def fast_text(rows: Sequence[Row]) -> Scorer:
    """Trained as users do, with settings for small sets: more epochs, a larger step, a smaller table."""
    from quadmix.annotate.models.base import Placed, Settings
    from quadmix.annotate.models.fasttext import load_fasttext
    from quadmix.annotate.models.rater import prepare_text, to_numbers
    from quadmix.annotate.models.train_fasttext import FastTextTraining, train_fasttext

    good, bad = good_and_bad(rows)
    heldout = 0.1 if min(len(good), len(bad)) > 150 else 0.25  # at least a few of each for its own metrics
    training = FastTextTraining(lr=0.5, dim=32, epochs=25, bucket=300_000, heldout=heldout)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        card = train_fasttext(good, bad, place, name="fasttext", training=training)
        model = load_fasttext(Placed(card=card, folder=place, digest=""), Settings())

    def score(texts: list[str]) -> Scores:
        values = model.outputs([prepare_text(card, text, {}) for text in texts]).values
        return to_numbers(card, values).astype(np.float64)

    return score


TRAINERS: dict[str, Callable[[Sequence[Row]], Scorer]] = {
    "heuristic": heuristic,
    "linear": linear,
    "regression": regression,
    "fastText": fast_text,
}


# Judging


def fold_of(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    return (keyed_uniform(0, list(groups), "raters") * folds).astype(np.int64)


def numbered(groups: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]


def cells_of(given: LabelledSet, folds: int, raters: Sequence[str]) -> tuple[list[Cell], dict[str, str]]:
    """Train on all folds but one and judge that one, in turn; returns what could not be trained as well."""
    cells: list[Cell] = []
    failed: dict[str, str] = {}
    inside = fold_of([r.group for r in given.rows], folds)
    for fold in range(folds):
        train = [r for r, f in zip(given.rows, inside.tolist(), strict=True) if f != fold]
        scorers: dict[str, Scorer] = {}
        for name in raters:
            try:
                scorers[name] = TRAINERS[name](train)
            except (InputError, MissingExtraError) as error:
                failed[name] = str(error)
        if given.pairs:
            cells.append(pair_cell(given.pairs, fold, folds, scorers))
            continue
        test = [r for r, f in zip(given.rows, inside.tolist(), strict=True) if f == fold and r.tested]
        cells += row_cells(test, scorers)
    return cells, failed


def row_cells(test: Sequence[Row], scorers: dict[str, Scorer]) -> list[Cell]:
    cells: list[Cell] = []
    for stratum in sorted({r.stratum for r in test}):
        rows = [r for r in test if r.stratum == stratum]
        if len(rows) < LEAST_CELL:
            continue
        texts = [r.text for r in rows]
        scores = {name: score(texts) for name, score in scorers.items()}
        scores["length"] = np.array([r.length for r in rows])
        truth = np.array([r.label for r in rows])
        cells.append(Cell(truth=truth, groups=numbered([r.group for r in rows]), scores=scores))
    return cells


def pair_cell(pairs: Sequence[Pair], fold: int, folds: int, scorers: dict[str, Scorer]) -> Cell:
    inside = fold_of([p.group for p in pairs], folds)
    test = [p for p, f in zip(pairs, inside.tolist(), strict=True) if f == fold]
    texts = sorted({t for p in test for t in (p.better, p.worse)})
    place = {t: i for i, t in enumerate(texts)}
    sides = np.array([[place[p.better], place[p.worse]] for p in test])
    scores = {name: score(texts)[sides] for name, score in scorers.items()}
    scores["length"] = np.array([float(len(t)) for t in texts])[sides]
    return Cell(truth=np.ones(len(test)), groups=numbered([p.group for p in test]), scores=scores)


def measure(metric: str, truth: Scores, scores: Scores, either_way: bool) -> float:
    """Return the metric of finite scores; either_way: in the better direction, as length is judged."""
    known = np.isfinite(scores).reshape(len(scores), -1).all(axis=1)
    truth, scores = truth[known], scores[known]
    if metric == "AUC":
        value, middle = auc(truth, scores), 0.5
    elif metric == "pairs":
        gain = scores[:, 0] - scores[:, 1]
        value, middle = float((gain > 0).mean() + (gain == 0).mean() / 2), 0.5
    else:
        value, middle = spearman(truth, scores), 0.0
    return middle + abs(value - middle) if either_way else value


def pooled(metric: str, cells: Sequence[Cell], name: str, picks: Sequence[NDArray[np.int64]]) -> float:
    sizes = [len(p) for p in picks]
    values = [
        measure(metric, c.truth[p], c.scores[name][p], name == "length")
        for c, p in zip(cells, picks, strict=True)
    ]
    kept = ~np.isnan(values)
    return float(np.average(np.array(values)[kept], weights=np.array(sizes)[kept])) if kept.any() else np.nan


def judged(metric: str, cells: Sequence[Cell], draws: int) -> dict[str, dict[str, float]]:
    names = [n for n in ("length", *RATERS) if all(n in c.scores for c in cells)]
    whole = [np.arange(len(c.truth)) for c in cells]
    members = [_members(c.groups) for c in cells]
    rng = stream(0, "raters")
    drawn = {n: np.empty(draws) for n in names}
    for i in range(draws):
        picks = [np.concatenate([m[g] for g in rng.integers(len(m), size=len(m))]) for m in members]
        for name in names:
            drawn[name][i] = pooled(metric, cells, name, picks)
    out: dict[str, dict[str, float]] = {}
    for name in names:
        low, high = np.nanquantile(drawn[name], [0.025, 0.975])
        gain_low, gain_high = np.nanquantile(drawn[name] - drawn["length"], [0.025, 0.975])
        out[name] = {
            "value": pooled(metric, cells, name, whole),
            "low": float(low),
            "high": float(high),
            "gain_low": float(gain_low),
            "gain_high": float(gain_high),
            "unscored": float(sum((~np.isfinite(c.scores[name])).sum() for c in cells)),
        }
    return out


def _members(groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(groups))[:-1])


# Output


def shown(found: dict[str, float] | None, is_length: bool) -> str:
    if found is None:
        return "–"
    mark = "" if is_length else " +" if found["gain_low"] > 0 else " -" if found["gain_high"] < 0 else ""
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]{mark}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--no-fasttext", action="store_true")
    args = parser.parse_args()
    raters = [r for r in RATERS if r != "fastText" or not args.no_fasttext]
    print(f"| set | n | groups | metric | length | {' | '.join(raters)} |")
    print("|---" * (5 + len(raters)) + "|")
    results: dict[str, Any] = {}
    for name, make in labelled_sets(args.folder).items():
        if args.only and name not in args.only:
            continue
        start = time.perf_counter()
        given = make()
        cells, failed = cells_of(given, args.folds, raters)
        found = judged(given.metric, cells, args.draws)
        n, groups = sum(len(c.truth) for c in cells), sum(int(c.groups.max()) + 1 for c in cells)
        columns = [shown(found.get(r), r == "length") for r in ("length", *raters)]
        print(f"| {name} | {n:,} | {groups:,} | {given.metric} | {' | '.join(columns)} |", flush=True)
        seconds = round(time.perf_counter() - start, 1)
        results[name] = {"n": n, "groups": groups, "metric": given.metric, "raters": found, "failed": failed}
        results[name]["seconds"] = seconds
    print(json.dumps({"folds": args.folds, "draws": args.draws, "sets": results}))


if __name__ == "__main__":
    main()
