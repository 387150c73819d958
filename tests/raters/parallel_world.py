"""A small parallel corpus made on the spot: English documents of known quality, and two made-up languages.

Good documents have rare words, bad ones repeat a few; a translation maps every word to another one of that
language, so that the quality of a text can be seen in all languages.
"""

from pathlib import Path

import numpy as np
import orjson
from typer.testing import CliRunner, Result

from quadmix.cli.main import app

GOOD = ["theory", "evidence", "measured", "growth", "river", "climate", "energy", "history", "method"]
BAD = ["click", "buy", "now", "free", "win", "cheap", "offer", "sale", "best", "deal", "hurry", "wow"]
PLAIN = ["the", "a", "of", "and", "in", "to", "is", "was", "with", "for", "on", "by", "it", "as"]
LANGUAGES = {"xa": "ka{}o", "xb": "{}ish"}  # how a word is translated


def translate(text: str, language: str) -> str:
    return " ".join(w if w == "." else LANGUAGES[language].format(w[::-1]) for w in text.split())


def make_world(folder: Path, documents: int = 60, *, seed: int = 1) -> Path:
    """Write corpus.jsonl: rows of id, lang, same, text, two ratings (the second is missing now and then)."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(documents):
        quality = i / documents
        words: list[str] = []
        for k in range(90):
            kind = rng.random()
            source = PLAIN if kind < 0.5 else GOOD if rng.random() < quality else BAD
            words.append(str(rng.choice(source)))
            if k % 9 == 8:
                words.append(".")
        text = " ".join(words)
        edu, web = quality + rng.normal(0, 0.1), quality + rng.normal(0, 0.1)
        english = {"edu": edu, "web": None if i % 20 == 3 else web}
        rows.append({"id": f"d{i}", "lang": "en", "same": f"s{i}", "text": text, **english})
        for code in LANGUAGES:
            rows.append({"id": f"{code}{i}", "lang": code, "same": f"s{i}", "text": translate(text, code)})
    path = folder / "corpus.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(r) for r in rows) + b"\n")
    return path


SETTINGS = """
name: small
folder: {folder}
texts: {{paths: [{corpus}], language: lang, same: same}}
raters:
  - {{name: edu, kind: column, column: edu}}
  - {{name: web, kind: column, column: web}}
  - {{name: rules, kind: heuristic}}
pairs: {{count: 80, shortest: 20, longest: 40, holdout: 0.2}}
transfer: {{source: en, reuse: true}}
"""


def write_settings(folder: Path, corpus: Path, extra: str = "") -> Path:
    path = folder / "rater.yaml"
    path.write_text(SETTINGS.format(folder=folder / "raters", corpus=corpus) + extra, "utf-8")
    return path


def cli(*words: str) -> Result:
    """Call `quadmix rater`."""
    return CliRunner().invoke(app, ["rater", *words])
