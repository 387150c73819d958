"""A small pool of made-up articles and menus, and a run folder annotated by the functions under test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from quadmix.annotate import AnnotatedSplit, AnnotationManifest, OverlapIndex, annotate_split, annotate_tasks
from quadmix.annotate.prepare import AnnotatorSet, prepare_annotators
from quadmix.annotate.run import finish_annotations
from quadmix.corpus.scan import open_corpus
from quadmix.corpus.tokenizer import train_tokenizer
from quadmix.io.atomic import write_text
from quadmix.recipe import AnnotateSection, CorpusSection
from quadmix.types import Corpus

NOUNS = [
    "river",
    "mountain",
    "engine",
    "garden",
    "library",
    "teacher",
    "winter",
    "market",
    "signal",
    "harvest",
]
VERBS = ["shapes", "carries", "explains", "changes", "supports", "follows", "reveals", "protects"]
CLAUSES = ["the N V a N", "every N of the N V it", "to V with a N", "that N have to V", "and the N V the N",
           "one N V another N of this N", "where N and N V", "as if the N V to N"]  # fmt: skip
MENU = ["Home", "Login", "Contact us", "Click here", "Cart (0)", "Privacy policy", "Share", "Next >>"]


def article(rng: np.random.Generator, sentences: int = 12) -> str:
    """Prose of function words, nouns and verbs in which hardly any run of words comes twice."""
    parts = [
        " ".join(str(rng.choice(CLAUSES)) for _ in range(3)).capitalize() + "." for _ in range(sentences)
    ]
    words = "\n".join(" ".join(parts[i : i + 3]) for i in range(0, sentences, 3)).replace(".", " .")
    fill = {"N": NOUNS, "n": NOUNS, "V": VERBS, "v": VERBS}
    lines = [
        [str(rng.choice(fill[w])) if w in fill else w for w in line.split(" ")] for line in words.split("\n")
    ]
    return "\n".join(" ".join(line).replace(" .", ".") for line in lines)


def menu(rng: np.random.Generator, lines: int = 30) -> str:
    return "\n".join(str(rng.choice(MENU)) + f" {rng.integers(50)}" for _ in range(lines))


def pool_rows(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Half articles, half menus, with an `edu` number, a nested score and a domain."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        good = i % 2 == 0
        rows.append(
            {
                "id": f"doc-{i}",
                "text": article(rng) if good else menu(rng),
                "edu": float(rng.normal() + 2 * good),
                "meta": {"score": i, "n": 7 + i},
                "kind": ["science", "shop", "tiny"][2 if i < 2 else i % 2],
            }
        )
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in rows))
    return str(path)


def small_corpus(
    folder: Path, rows: Sequence[dict[str, Any]], split_bytes: int = 6_000, **columns: str
) -> Corpus:
    """Write two files of rows, open them as the corpus of a run folder, with a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(rows) // 2
    paths = [write_rows(folder / "a.jsonl", rows[:half]), write_rows(folder / "b.jsonl", rows[half:])]
    section = CorpusSection.model_validate({"paths": paths, "columns": columns, "split_bytes": split_bytes})
    corpus = open_corpus(section, str(folder), mapper=lambda function, tasks: [function(t) for t in tasks])
    if not (folder / "tokenizer.json").exists():
        write_text(folder / "tokenizer.json", train_tokenizer([r["text"] for r in rows[:20]], 512))
    return corpus


def section_of(*criteria: dict[str, Any], **settings: Any) -> AnnotateSection:
    domain = {"min_documents": 1, "min_token_share": 0.0, **settings.pop("domain", {})}
    return AnnotateSection.model_validate({"criteria": list(criteria), "domain": domain, **settings})


def annotate_all(
    folder: Path, corpus: Corpus, section: AnnotateSection, overlap: OverlapIndex | None = None
) -> tuple[AnnotatorSet, list[AnnotatedSplit], AnnotationManifest]:
    annotators = prepare_annotators(section, corpus, folder, seed=0)
    results = [annotate_split(t) for t in annotate_tasks(corpus, annotators, folder, overlap=overlap)]
    return annotators, results, finish_annotations(corpus, annotators, folder, results, overlap=overlap)
