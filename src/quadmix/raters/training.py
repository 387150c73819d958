"""The step `train`: from pairs to a rater with its card, and to the report of what it is worth.

In: the settings, and what `pairs` left in the rater's folder. Out: model/ (card.yaml and the files of its
family) and report.json. The held-out pairs decide nothing (`tiers`), and the rater that is reported on is the
saved one, read back and scored as `quadmix run` would.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.io.atomic import read_value, value_digest, write_json, write_table, write_text
from quadmix.io.lease import lease
from quadmix.raters.audit import BiasAudit, bias_audit, describe
from quadmix.raters.compared import Tell
from quadmix.raters.coverage import Known
from quadmix.raters.domains import check_code, text_domains, with_domains
from quadmix.raters.excerpts import unit_spans
from quadmix.raters.human import human_labels, with_labels
from quadmix.raters.making import RESOLVED
from quadmix.raters.offsets import Offsets, align, fit_offsets, unseen_texts
from quadmix.raters.reportcard import ReportCard, report_card
from quadmix.raters.scored import OFFSETS, REFERENCE, load_rater_model, score_texts, write_reference
from quadmix.raters.table import PAIRS, RATINGS, TEXTS, Texts, read_pairs, read_ratings, read_texts
from quadmix.raters.tiers import EMBEDDINGS, MODEL, Trained, encoder_digest, known_scripts, train_tier
from quadmix.recipe import RaterRecipe, dump_recipe
from quadmix.types import Floats

REPORT, SCORES = "report.json", "scores.parquet"
VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterReport:
    """report.json. request: digest of settings and pairs. chosen: what was chosen on validation pairs.
    unread: texts that the encoder could not read, by reason; pairs: used for training. audit: of held-out
    texts, None where they are too few to cut. offsets: by which a threshold over languages can be corrected,
    fitted on held-out texts, None without parallel texts. scripts: what the encoder's tokenizer does not know
    of each language, None for character n-grams. files: digest of card and files of the rater alone, the same
    on every device; "" in reports that were written without it."""

    request: str
    name: str
    encoder: str
    head: str
    digest: str
    seed: int
    chosen: dict[str, float]
    pairs: int
    unread: dict[str, int]
    card: ReportCard
    audit: BiasAudit | None
    offsets: Offsets | None
    seconds: float
    scripts: Known | None = None
    files: str = ""
    warnings: tuple[str, ...] = ()
    version: int = VERSION


def train_rater(
    recipe: RaterRecipe, folder: Path, pairs_digest: str, tell: Tell | None = None
) -> RaterReport:
    """Train the rater, or return the report of the one that is there from the same settings and pairs.

    pairs_digest: of `making.PairsMade`. Raises InputError for pairs or an encoder that cannot be used.
    """
    pairs_digest = with_domains(with_labels(pairs_digest, recipe.texts), recipe, folder)
    request = value_digest(
        {
            "version": VERSION,
            "pairs": pairs_digest,
            "encoder": encoder_digest(recipe),
            "settings": recipe.model_dump(
                mode="json",
                include={"name", "seed", "encoder", "head"},
                exclude={"encoder": recipe.encoder.without_effect()},
            ),
        }
    )
    with lease(folder):
        known = (folder / REPORT).is_file()
        if known and (folder / MODEL / "card.yaml").is_file():
            found = read_value(folder / REPORT, RaterReport)
            if found.request == request and found.files in ("", _files(folder)):
                return found
        texts = read_texts(folder / TEXTS)
        pairs = read_pairs(folder / PAIRS, texts)
        started = time.monotonic()
        if recipe.encoder.kind == "frozen":
            check_code(recipe)  # what is refused leaves the rater that is there
        scripts = known_scripts(recipe, texts, pairs)
        # before the rater: a call killed below must leave nothing that tells of another one than model/ holds
        for path in (folder / REPORT, folder / MODEL / OFFSETS, folder / MODEL / REFERENCE):
            path.unlink(missing_ok=True)
        if known:
            shutil.rmtree(folder / MODEL, ignore_errors=True)  # of other settings
        made = train_tier(recipe, folder, texts, pairs, tell, vectors=folder / EMBEDDINGS)
        annotator = load_rater_model(folder / MODEL / "card.yaml", recipe.run.device)
        scores = score_texts(annotator, texts, tell) if made.scores is None else made.scores
        _write_scores(folder / SCORES, texts, scores)
        write_reference(folder / MODEL, recipe.transfer.source, texts, scores)
        report = replace(_report(recipe, folder, texts, made, scores), scripts=scripts)
        if report.offsets is not None:
            write_json(folder / MODEL / OFFSETS, report.offsets)
        digest = load_rater_model(folder / MODEL / "card.yaml", recipe.run.device).card.digest
        seconds = time.monotonic() - started
        report = replace(report, request=request, digest=digest, files=_files(folder), seconds=seconds)
        write_text(folder / RESOLVED, dump_recipe(recipe))
        write_json(folder / REPORT, report)
        return report


def _files(folder: Path) -> str:
    return load_rater_model(folder / MODEL / "card.yaml", "cpu").asked.placed.digest


def _report(recipe: RaterRecipe, folder: Path, texts: Texts, made: Trained, scores: Floats) -> RaterReport:
    ratings, known = read_ratings(folder / RATINGS, texts), np.isfinite(scores)
    pairs = read_pairs(folder / PAIRS, texts)
    pairs = pairs.take(pairs.held | (known[pairs.a] & known[pairs.b]))  # nothing was learnt from the others
    card = report_card(
        texts, pairs, scores, ratings=ratings, human=human_labels(recipe.texts, texts),
        anchor=recipe.transfer.source, seed=recipe.seed,
    )  # fmt: skip
    judged = unseen_texts(texts, pairs) & known
    offsets = _offsets(recipe, texts, scores, judged)
    return RaterReport(
        request="", name=recipe.name, encoder=recipe.encoder.kind, head=recipe.head, digest="",
        seed=recipe.seed, chosen=made.chosen, pairs=int((~made.pairs.held).sum()), unread=made.unread,
        card=card, audit=_audit(folder, texts, scores, np.flatnonzero(judged).tolist()), seconds=0.0,
        offsets=offsets if isinstance(offsets, Offsets) else None,
        warnings=(offsets,) if isinstance(offsets, str) else (),
    )  # fmt: skip


def _audit(folder: Path, texts: Texts, scores: Floats, rows: Sequence[int]) -> BiasAudit | None:
    part = texts.take(rows)
    if len(part) < 100:
        return None
    tokens = np.array([max(len(unit_spans(text)), 1) for text in part.text], np.int64)
    known = text_domains(folder, part)
    domain = [name or "not said" for name in known] if any(known) else None
    return bias_audit(scores[list(rows)], tokens, part.language, part.ids, describe(part.text), domain=domain)


def _offsets(recipe: RaterRecipe, texts: Texts, scores: Floats, judged: NDArray[np.bool_]) -> Offsets | str:
    """Return the offsets, or why there are none. judged: (D,) the texts that they are fitted on."""
    try:
        return fit_offsets(align(texts, scores, judged), reference=recipe.transfer.source)
    except InputError as error:
        return str(error)


def _write_scores(path: Path, texts: Texts, scores: Floats) -> None:
    columns = {"ids": pa.array(list(texts.ids), pa.string()), "score": pa.array(scores, from_pandas=True)}
    write_table(path, pa.table(columns))
