"""The sections about the data and the run, in the order of the questions a reader has.

Each function takes the loaded run and the gallery, to which it adds the pictures it shows, and returns
HTML; a section whose stage has written nothing says so.
"""

from collections.abc import Sequence

import numpy as np

from quadmix.report import figures
from quadmix.report.criteria_domains import by_domain
from quadmix.report.criterion_cards import CARDS, STAGE, cards_table
from quadmix.report.html import (
    Gallery,
    Html,
    absent,
    details,
    items,
    join,
    not_run,
    note,
    origin,
    section,
    show,
    table,
    tag,
)
from quadmix.report.load import RunFiles
from quadmix.report.origins import DATASET, IDENTITY, RECIPE, SELECTION, STAGES
from quadmix.report.selection import Table
from quadmix.report.text import count, esc, label_name, num, percent, sig
from quadmix.report.verdict import WARNINGS, Fact, Verdict
from quadmix.types import DatasetManifest

SYMBOLS = {"good": "✓", "bad": "✕", "warn": "!", "plain": "", "absent": "–"}


def strip(result: Verdict) -> Html:
    """The tiles under the sentence; a symbol beside the colour says good, bad or absent."""
    tiles = "".join(
        f'<div class="tile {fact.tone}">'
        f'<dt><b aria-hidden="true">{SYMBOLS[fact.tone]}</b> {esc(fact.name)}</dt>'
        f'<dd class="value">{esc(fact.value)}</dd><dd>{_noted(fact)}</dd>{_from(fact.source)}</div>'
        for fact in result.facts
    )
    broken = Html("")
    if result.broken:
        broken = Html(f'<div class="broken" role="note"><h3>Broken promises</h3>{items(result.broken)}</div>')
    beaten = note(result.beaten) if result.beaten else Html("")
    judged = Html(f'<p class="origin">{origin(result.source)}</p>') if result.source else Html("")
    return join(judged, beaten, Html(f'<dl class="strip">{tiles}</dl>'), broken)


def _noted(fact: Fact) -> Html:
    """Return the tile's note, a link where there is more to see."""
    return Html(f'<a href="#{fact.link}">{esc(fact.note)}</a>' if fact.link else esc(fact.note))


def _from(source: Sequence[str]) -> Html:
    return Html(f"<dd>{origin(source)}</dd>") if source else Html("")


# --------------------------------------------------------------------------- what changed?
def domains(files: RunFiles, gallery: Gallery) -> Html:
    """Tokens per domain before and after."""
    if files.dataset is None or not files.dataset.domains:
        return absent("domains", "What changed per domain?", "no dataset has been written")
    return section(
        "domains",
        "What changed per domain?",
        show(gallery, figures.domain_tokens(files.dataset)),
        _domain_table(files.dataset, _epochs(files, files.dataset)),
        source=(),
    )


def _epochs(files: RunFiles, dataset: DatasetManifest) -> float:
    """Passes of the final training over the dataset: its length over the dataset's tokens."""
    asked = files.recipe.budget.train_tokens if files.recipe else None
    return asked / dataset.ledger.tokens_out if asked and dataset.ledger.tokens_out else 1.0


def _domain_table(dataset: DatasetManifest, epochs: float) -> Html:
    rows = [
        [
            d.domain, count(d.documents_in), count(d.tokens_in), percent(before), count(d.documents_out),
            count(d.unique_tokens), count(d.tokens_out), percent(after), f"{num(ratio, 2)}×",
            num(epochs * d.tokens_out / d.unique_tokens if d.unique_tokens else None, 2),
        ]
        for d, before, after, ratio in figures.domain_rows(dataset)
    ]  # fmt: skip
    headers = ["domain", "documents in", "tokens in", "share", "documents out", "unique tokens", "tokens out",
               "share", "ratio", "epochs"]  # fmt: skip
    caption = (
        "Tokens per domain; epochs = times a chosen token is seen on average "
        f"in a training of {num(epochs, 2)} passes over the dataset"
    )
    return table(headers, rows, caption=caption, source=DATASET)


def curves(files: RunFiles, gallery: Gallery) -> Html:
    """Sampling curve per domain, expected against drawn."""
    title = "How is each domain sampled?"
    if files.table is None or not len(files.table.tokens):
        return absent("sampling", title, "no selection has been made")
    picture = figures.sampling_curves(files.table, files.theta, files.theta_file)
    parts = [show(gallery, picture), _theta_table(files), _sample(files.table)]
    return section("sampling", title, *parts, source=SELECTION if files.table.sampled else ())


def _sample(known: Table) -> Html:
    """Say of how many documents the pictures of a large run are."""
    if not known.sampled:
        return Html("")
    return note(
        f"Drawn from a sample of {count(len(known.tokens))} of the {count(known.documents)} selectable "
        "documents, chosen by a hash of their ids; counts per domain are of all documents."
    )


def _theta_table(files: RunFiles) -> Html:
    theta, known = files.theta, files.table
    if known is None or theta is None or not figures.fits(known, theta):
        return Html("")
    rows: list[list[str]] = []
    for place, name in enumerate(known.domains):
        mine = known.domain == place
        numbers = (theta.cutoff, theta.steepness, theta.exponent, theta.floor, theta.scale)
        means = [float(v[mine].mean()) if mine.any() else np.nan for v in (known.expected, known.copies)]
        edge = sig(figures.edge_of(known, place))
        rows.append([name, *(sig(float(p[place])) for p in numbers), edge, *(num(v) for v in means)])
    headers = ["domain", "cutoff ω", "steepness λ", "exponent η", "floor ε", "scale", "observed edge",
               "expected", "drawn"]  # fmt: skip
    stored = "" if files.theta_file == figures.APPLIED else " before its cutoffs were scaled to the budget"
    caption = (
        f"Parameters of θ*{stored or ' as applied'}; the observed edge: worst rank with at least a quarter "
        "of the largest expected copies; mean expected and drawn copies per document"
    )
    return table(headers, rows, caption=caption, source=(files.theta_file, *SELECTION))


def criteria(files: RunFiles, gallery: Gallery) -> Html:
    """Histograms of the criteria before and after, with quantiles."""
    title = "How did the quality scores move?"
    made = cards_table(files)
    if files.table is None or not len(files.table.tokens):
        return section("criteria", title, not_run("no selection has been made"), made, source=())
    rows = [
        [name, direction, *(sig(float(v)) for v in before), *(sig(float(v)) for v in after)]
        for name, direction, before, after in figures.quantile_rows(files.table)
    ]
    headers = ["criterion", "direction", "pool 10 %", "median", "90 %", "dataset 10 %", "median", "90 %"]
    caption = "Quantiles over tokens, copies counted"
    quantiles = table(headers, rows, caption=caption, words=2, source=SELECTION)
    picture = show(gallery, figures.criterion_histograms(files.table))
    parts = [made, picture, quantiles, by_domain(files.table, gallery), _sample(files.table)]
    return section("criteria", title, *parts, source=SELECTION if files.table.sampled else ())


def weights(files: RunFiles, gallery: Gallery) -> Html:
    """Weights of the merged score and agreement of the criteria."""
    title = "What does quality mean in each domain?"
    if files.table is None or not len(files.table.tokens):
        return absent("weights", title, "no selection has been made")
    parts: list[Html] = []
    if files.theta is not None and figures.fits(files.table, files.theta):
        known = files.table
        parts.append(
            show(
                gallery, figures.weights_heat(files.theta, known.domains, known.criteria, (files.theta_file,))
            )
        )
    if len(files.table.criteria) > 1:
        parts += [show(gallery, figures.agreement(files.table)), _sample(files.table)]
    else:
        parts.append(note("One criterion: there is nothing to weigh against each other."))
    return section("weights", title, *parts, source=SELECTION if files.table.sampled else ())


# --------------------------------------------------------------------------- documents and run
def run(files: RunFiles, result: Verdict) -> Html:
    """Stages, warnings, ledger, identity and the recipe."""
    stages = [[s.stage, num(s.seconds, 1), count(len(s.warnings))] for s in files.stages]
    total = sum(s.seconds for s in files.stages)
    parts = [
        table(
            ["stage", "seconds", "warnings"],
            stages,
            caption=f"Stages, {num(total, 1)} s in all",
            source=STAGES,
        )
        if stages
        else not_run("no stage has finished"),
        Html(f'<h3 id="{WARNINGS}">Warnings</h3>'),
        items(result.warnings) if result.warnings else note("None."),
        tag("h3", "Ledger"),
        _ledger(files.dataset) if files.dataset else not_run("no dataset has been written"),
    ]
    facts = [
        [f"{s.stage}.{key}", _brief(value)]
        for s in files.stages
        for key, value in s.facts.items()
        if (s.stage, key) != (STAGE, CARDS)  # they are a table of the section Criteria
    ]
    if facts:
        listed = table(["fact", "value"], facts, caption="Facts", words=2, source=STAGES)
        parts.append(details("Facts of the stages", listed))
    if files.identity:
        rows = [[key, _brief(value)] for key, value in sorted(files.identity.items())]
        listed = table(["field", "value"], rows, caption="Identity", words=2, source=IDENTITY)
        parts.append(details("Identity", listed))
    if files.recipe_text:
        parts.append(details("Recipe with every default", tag("pre", files.recipe_text)))
    own = STAGES if files.stages else ()
    own += DATASET if files.dataset else ()
    own += RECIPE if files.recipe_text else ()
    return section("run", "The run", *parts, source=own)


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:299] + "…"


def _ledger(dataset: DatasetManifest) -> Html:
    ledger = dataset.ledger
    rows = [["rows in", count(ledger.rows_in)], ["selected", count(ledger.selected)]]
    rows += [[f"dropped: {reason}", count(n)] for reason, n in ledger.dropped.items()]
    rows += [[f"quarantined: {reason}", count(n)] for reason, n in ledger.quarantined.items()]
    rows += [
        ["copies written", count(ledger.copies)],
        ["tokens in", count(ledger.tokens_in)],
        ["unique tokens", count(ledger.unique_tokens)],
        ["tokens out", count(ledger.tokens_out)],
        ["token budget", count(dataset.token_budget)],
        ["shards", count(len(dataset.shards))],
    ]
    label = label_name(dataset.theta_label)
    digest = note(f"Dataset digest {dataset.digest}; θ: {label}; seed {dataset.seed}.")
    caption = "Rows in = selected + dropped + quarantined"
    return join(table(["what", "number"], rows, caption=caption, source=DATASET), digest)
