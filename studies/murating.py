"""What the three kinds of pairs do: one scale for all languages, or one per language.

Trains the rater of recipes/rater.yaml with monolingual pairs alone, with cross-lingual ones beside them, and
with parallel ones too, several seeds each (a seed is another split, other excerpts, other pairs), and judges
all on held-out documents that stand in every language. Prints the tables of docs/murating.md and writes
studies/results/murating.json. What is trained is kept in runs/murating; the same command goes on.
"""

import argparse
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE
from scipy.stats import rankdata
from scipy.stats import t as student

from quadmix.io.atomic import write_json
from quadmix.io.rows import read_records
from quadmix.pipeline.folder import library_versions
from quadmix.raters.audit import bias_audit, describe
from quadmix.raters.excerpts import unit_spans
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.offsets import align, unseen_texts
from quadmix.raters.scored import load_rater_model, score_texts
from quadmix.raters.table import PAIRS, RATINGS, TEXTS, Texts, read_pairs, read_ratings, read_texts
from quadmix.raters.tiers import MODEL
from quadmix.raters.training import train_rater
from quadmix.recipe import RaterRecipe, load_rater
from quadmix.types import Floats

ARMS = {
    "monolingual alone": ["transfer.cross=0", "transfer.parallel=0"],
    "and cross-lingual": ["transfer.parallel=0"],
    "and parallel, λ 0.25": ["transfer.weight=0.25"],
    "and parallel, λ 1": [],
}
DANISH = "../../shared/data/quality/fineweb_c_danish.jsonl.zst"
KINDS = {  # name of the file -> what it holds
    "ntrex_docs": "news",
    "tico19_docs": "medicine",
    "african_storybook": "children's stories",
    "tldr_parallel": "help pages",
}
TOP = 0.1
NAMES = {"within languages": "within", "pooled": "pooled", "parallel MSE / variance": "parallel"}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--recipe", type=Path, default=HERE / "../recipes/rater.yaml")
    options.add_argument("--danish", type=Path, default=HERE / DANISH, help="documents with human labels")
    options.add_argument("--folder", default="runs/murating")
    args = options.parse_args()
    human = read_records(str(args.danish))
    found: dict[str, list[dict[str, Any]]] = {}
    for arm, overrides in ARMS.items():
        found[arm] = [judged(args, arm, overrides, seed, human) for seed in range(args.seeds)]
    made = {
        "command": f"python studies/murating.py --seeds {args.seeds}", "arms": found,
        "libraries": library_versions(), "python": platform.python_version(),
    }  # fmt: skip
    write_json(HERE / "results/murating.json", made)
    print("\n".join(lines(found)))


def judged(
    args: argparse.Namespace, arm: str, overrides: list[str], seed: int, human: list[dict[str, Any]]
) -> dict[str, Any]:
    """Train one rater, or load it, and return its numbers on held-out texts."""
    name = f"{list(ARMS).index(arm)}-{seed}"
    own = [f"name={name}", f"seed={seed}", f"folder={args.folder}", *overrides]
    recipe = load_rater(str(args.recipe), own)
    folder = rater_folder(recipe)
    print(f"{arm}, seed {seed}", flush=True)
    report = train_rater(recipe, folder, make_pairs(recipe, folder).digest)
    texts = read_texts(folder / TEXTS)
    pairs = read_pairs(folder / PAIRS, texts)
    ratings = read_ratings(folder / RATINGS, texts).values.astype(np.float64)
    rater = load_rater_model(folder / MODEL / "card.yaml")
    rows = everywhere(texts, unseen_texts(texts, pairs))
    part, place = texts.take(rows), {id_: row for row, id_ in enumerate(texts.ids)}
    scores = score_texts(rater, part)
    known = ratings[~np.isnan(ratings).any(axis=1)]
    z = (ratings - known.mean(axis=0)) / known.std(axis=0)
    quality = np.array([z[place[o or i]].mean() for i, o in zip(part.ids, part.origin, strict=True)])
    groups = {
        "trained": set(part.language) - set(recipe.transfer.without),
        "unseen": set(recipe.transfer.without),
    }
    danish = Texts(
        ids=tuple(r["id"] for r in human), source=tuple(r["id"] for r in human), origin=("",) * len(human),
        language=("da",) * len(human), text=tuple(r["text"] for r in human),
    )  # fmt: skip
    labels = np.array([float(r["label"]) for r in human])
    accuracy = {one.language: one.accuracy.value for one in report.card.languages}
    unseen = texts.take(
        [r for r in np.flatnonzero(unseen_texts(texts, pairs)) if texts.language[r] in groups["trained"]]
    )
    return {
        "seed": seed,
        "kept": kept(unseen, score_texts(rater, unseen), kinds_of(recipe)),
        "pairs": report.pairs,
        "sources": len(set(part.source)),
        "texts": len(part),
        "groups": {
            name: {
                **scale(part, scores, quality, codes),
                "accuracy": float(np.mean([accuracy[code] for code in codes])),
            }
            for name, codes in groups.items()
        },
        "accuracy": accuracy,
        "one_cut": one_cut(part, scores),
        "danish": spearman(score_texts(rater, danish), labels),
        "danish_length": spearman(np.array([len(t) for t in danish.text], float), labels),
        "danish_documents": len(human),
    }


def one_cut(texts: Texts, scores: Floats) -> dict[str, dict[str, float]]:
    """Return language -> what one cut over all of them keeps of it, mean and sd of its scores; the texts
    are the same in every language."""
    language, cut = np.array(texts.language), np.quantile(scores, 1 - TOP)
    own = {code: scores[language == code] for code in sorted(set(texts.language))}
    return {
        code: {"kept": float((s > cut).mean()), "mean": float(s.mean()), "sd": float(s.std())}
        for code, s in own.items()
    }


def kinds_of(recipe: RaterRecipe) -> dict[str, str]:
    """Return source -> kind of text, by the file that holds it."""
    return {
        str(row[recipe.texts.same]): KINDS[Path(path).name.partition(".")[0]]
        for path in recipe.texts.paths
        for row in read_records(path)
    }


def kept(texts: Texts, scores: Floats, kinds: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return what a cut within each language keeps of a kind of text, and of thirds by narrative marks, all
    over the share that it keeps of every language: 1 = the cut takes no notice. texts: held-out ones, also
    such as are not there in every language."""
    tokens = np.array([max(len(unit_spans(text)), 1) for text in texts.text], np.int64)
    domain = [kinds[source] for source in texts.source]
    audit = bias_audit(
        scores, tokens, texts.language, texts.ids, describe(texts.text), domain=domain, share=TOP
    )
    return {
        kind: {s.group: s.ratio for s in audit.by_language if s.kind == kind and not s.language}
        for kind in ("domain", "narrative")
    }


def everywhere(texts: Texts, unseen: Any) -> list[int]:
    """Return the rows of unseen texts whose original has a version in every language."""
    count = len(set(texts.language))
    versions: dict[str, list[int]] = {}
    for row in np.flatnonzero(unseen).tolist():
        versions.setdefault(texts.origin[row] or texts.ids[row], []).append(row)
    return sorted(row for rows in versions.values() if len(rows) == count for row in rows)


def scale(texts: Texts, scores: Floats, quality: Floats, codes: set[str]) -> dict[str, float]:
    """Return what says whether the languages share one scale, over the texts in some of them."""
    language = np.array(texts.language)
    rows = np.flatnonzero(np.isin(language, sorted(codes)))
    own, mine = language[rows], scores[rows]
    within = [spearman(mine[own == c], quality[rows][own == c]) for c in sorted(codes)]
    cut = np.quantile(mine, 1 - TOP)
    kept = [float((mine[own == c] > cut).mean()) for c in sorted(codes)]
    table = align(texts.take(rows.tolist()), mine, np.ones(len(rows), bool)).scores
    parallel = 2 * float(np.nanvar(table, axis=1, ddof=1).mean()) / float(mine.var())
    return {
        "within": float(np.mean(within)), "pooled": spearman(mine, quality[rows]), "parallel": parallel,
        "least": min(kept), "most": max(kept), "languages": float(len(codes)),
    }  # fmt: skip


def spearman(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def lines(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the tables of docs/murating.md."""
    out: list[str] = []
    for group in ("trained", "unseen"):
        out += ["", f"{group} languages", ""]
        out += [
            "| pairs | within | pooled | parallel MSE / variance | kept by one cut |",
            "|---|---|---|---|---|",
        ]
        for arm, runs in found.items():
            cells = [
                mean([r["groups"][group][key] for r in runs]) for key in ("within", "pooled", "parallel")
            ]
            least, most = (np.mean([r["groups"][group][key] for r in runs]) for key in ("least", "most"))
            out.append(f"| {arm} | {' | '.join(cells)} | {least:.1%} to {most:.1%} |")
    out += [
        "",
        "| pairs | accuracy, trained | accuracy, unseen | Danish, human labels |",
        "|---|---|---|---|",
    ]
    unseen = {"swe", "tha", "tur", "ukr"}
    for arm, runs in found.items():
        parts = [
            mean(
                [float(np.mean([v for c, v in r["accuracy"].items() if (c in unseen) == new])) for r in runs]
            )
            for new in (False, True)
        ]
        out.append(f"| {arm} | {' | '.join(parts)} | {mean([r['danish'] for r in runs])} |")
    out += ["", "| one cut over all languages, λ 1 | kept | sd of the scores |", "|---|---|---|"]
    last = [*found.values()][-1]
    for code in sorted(last[0]["one_cut"], key=lambda c: np.mean([r["one_cut"][c]["kept"] for r in last])):
        cells = [mean([r["one_cut"][code][key] for r in last]) for key in ("kept", "sd")]
        out.append(f"| {code} | {' | '.join(cells)} |")
    for kind in ("domain", "narrative"):
        groups = sorted({g for runs in found.values() for r in runs for g in r["kept"][kind]})
        out += ["", f"| pairs | {' | '.join(groups)} |", "|---" * (len(groups) + 1) + "|"]
        for arm, runs in found.items():
            cells = [mean([r["kept"][kind].get(g, float("nan")) for r in runs]) for g in groups]
            out.append(f"| {arm} | {' | '.join(cells)} |")
    first = next(iter(found.values()))[0]
    return [
        *out,
        "",
        f"length alone, Danish: {first['danish_length']:.3f} ({first['danish_documents']} documents)",
    ]


def mean(values: list[float]) -> str:
    """Return the mean over seeds with the half width of its 95 % t interval."""
    n = len(values)
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")
    return f"{np.mean(values):.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
