"""Two selections as one page: what moved between domains, who is kept by one alone, and why.

In: a `Diff` and the folders of its runs. Out: one self-contained HTML file under the same locks as the
report, and on request its figures as files beside it. Everything shown is a number of the `Diff` or of the θ
of its runs; the texts of its documents come as data and are inserted as text.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from quadmix.io.atomic import write_bytes, write_text
from quadmix.report import diff_figures
from quadmix.report.diff_cards import Curves, cards_data, read_curves
from quadmix.report.frame import Frame, render_frame
from quadmix.report.html import Html, figure, items, join, note, section, table
from quadmix.report.origins import IDENTITY, SELECTION
from quadmix.report.plots import Picture
from quadmix.report.sections import strip
from quadmix.report.text import MINUS, clean, count, csv_text, esc, num, percent, short, sig
from quadmix.report.verdict import Fact, Tone, Verdict
from quadmix.types.diffing import Diff, DomainMove, ScoreShift

NAVIGATION = (
    ("verdict", "Verdict"), ("domains", "Domains"), ("flow", "Kept and dropped"), ("scores", "Scores"),
    ("theta", "Parameters"), ("documents", "Documents"), ("runs", "The runs"),
)  # fmt: skip
FATES = {"kept": "kept", "not drawn": "not drawn", "excluded": "excluded", "absent": "not in the pool"}
VIEWER = Html(
    '<form class="filters" id="filters" role="search" aria-label="Filter documents">'
    '<label>Selected by <select id="f-only"><option value="">A or B</option><option value="A">A only</option>'
    '<option value="B">B only</option></select></label>'
    '<label>Domain <select id="f-domain"><option value="">all</option></select></label>'
    '<label class="wide">Text or id <input id="f-text" type="search" autocomplete="off"></label></form>'
    '<p id="found" role="status" aria-live="polite"></p><div id="docs"></div>'
    '<button id="more" type="button" hidden>Show more</button>'
    "<noscript><p>The list needs JavaScript.</p></noscript>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The names of A and B, what stands before the files of each in a link from the page, and their θ."""

    names: tuple[str, str]
    places: tuple[str, str]
    curves: tuple[Curves, Curves] = (Curves(), Curves())

    def source(self, *files: str) -> tuple[str, ...]:
        """Return these files of both runs."""
        return tuple(f"{place}/{file}" for place in self.places for file in files)


def write_diff(
    diff: Diff, runs: tuple[str | Path, str | Path], page: str | Path, *, figures: bool = False
) -> Path:
    """Write the page, and with `figures` figures/diff-*.svg, .png and .csv beside it; return its path."""
    path = Path(page)
    text, gallery = render_diff(diff, _sides(runs, path), figures=figures)
    for picture in gallery if figures else ():
        stem = path.parent / "figures" / picture.name
        write_bytes(stem.with_suffix(".svg"), picture.svg)
        write_bytes(stem.with_suffix(".png"), picture.png)
        write_text(stem.with_suffix(".csv"), csv_text(picture.columns, picture.rows))
    write_text(path, text)
    return path


def _sides(runs: tuple[str | Path, str | Path], page: Path) -> Sides:
    a, b = (Path(run).resolve() for run in runs)
    names = (a.name, b.name) if a.name != b.name else tuple("/".join(p.parts[-2:]) for p in (a, b))
    places = tuple(Path(os.path.relpath(p, page.resolve().parent)).as_posix() for p in (a, b))
    return Sides(
        names=(names[0], names[1]), places=(places[0], places[1]), curves=(read_curves(a), read_curves(b))
    )


def render_diff(diff: Diff, sides: Sides, *, figures: bool) -> tuple[str, list[Picture]]:
    """Return the page's HTML and its pictures. figures: whether the pictures are files beside the page."""
    gallery: list[Picture] = []

    def show(picture: Picture | None) -> Html:
        if picture is None:
            return Html("")
        gallery.append(picture)
        return figure(picture, linked=figures)

    result = _verdict(diff, sides)
    source = sides.source(*SELECTION)
    body = join(
        Html(f'<header id="verdict"><h1>{esc(result.sentence)}</h1>{strip(result)}</header>'),
        _domains(diff, sides, show(diff_figures.domain_moves(diff, source))),
        _flow(diff, sides, show(diff_figures.flow(diff, source))),
        _scores(diff, sides, show(diff_figures.score_shifts(diff, source))),
        _theta(diff, sides),
        _documents(diff, sides),
        _runs(diff, sides),
    )
    frame = Frame(
        name=f"{sides.names[0]} → {sides.names[1]}",
        title=f"{sides.names[0]} → {sides.names[1]} · quadmix diff",
        description=result.sentence,
        links=NAVIGATION,
        styles=("page.css", "diff.css"),
        scripts=("why.js", "diff.js"),
    )
    return render_frame(frame, body, cards_data(diff.documents, sides.curves)), gallery


# --------------------------------------------------------------------------- the verdict
def _verdict(diff: Diff, sides: Sides) -> Verdict:
    if not diff.only_a_count and not diff.only_b_count:
        copies = f"other copies of {count(diff.other_copies)}" if diff.other_copies else "the same copies"
        sentence = f"A and B select the same {count(diff.both)} documents with {copies}"
    else:
        sentence = (
            f"B leaves out {count(diff.only_a_count)} of the {count(diff.documents_a)} documents that A "
            f"selects and takes {count(diff.only_b_count)} others"
        )
    sentence += f": Jaccard {num(diff.jaccard, 3)} of documents, {num(diff.token_jaccard, 3)} of tokens."
    warnings = () if diff.same_scale else ("A and B normalise differently",)
    source = sides.source(*SELECTION)
    return Verdict(
        sentence=sentence, outcome="unknown", facts=tuple(_facts(diff, source)), warnings=warnings, broken=(),
        source=source,
    )  # fmt: skip


def _facts(diff: Diff, source: tuple[str, ...]) -> list[Fact]:
    def fact(name: str, value: str, text: str, tone: Tone = "plain") -> Fact:
        return Fact(name=name, value=clean(value), note=clean(text), tone=tone, data={}, source=source)

    tokens = (sum(d.tokens_a for d in diff.domains), sum(d.tokens_b for d in diff.domains))
    largest = next(iter(diff_figures.moved(diff)), None)
    facts = [
        fact("Documents of A", count(diff.documents_a), f"{short(tokens[0])} tokens, copies counted"),
        fact("Documents of B", count(diff.documents_b), f"{short(tokens[1])} tokens, copies counted"),
        fact("In both", count(diff.both), f"{count(diff.other_copies)} of them with other copies"),
        fact("In neither", count(diff.neither), "documents of the pools that no run selects"),
        fact("Jaccard of documents", num(diff.jaccard, 3), "shared over all that either selects"),
        fact("Jaccard of tokens", num(diff.token_jaccard, 3), "weighted by tokens and copies"),
    ]
    if largest is not None:
        facts.append(fact("Largest move", f"{_points(largest)} points", f"of tokens: {largest.domain}"))
    scale = ("one map", "equal normalised scores mean the same") if diff.same_scale else (
        "two maps", "A and B normalise differently: compare scores with care"
    )  # fmt: skip
    return [*facts, fact("Normalised with", *scale, "plain" if diff.same_scale else "warn")]


# --------------------------------------------------------------------------- sections
def _domains(diff: Diff, sides: Sides, picture: Html) -> Html:
    rows = [
        [d.domain, count(d.tokens_a), count(d.tokens_b), _signed(d), percent(d.share_a), percent(d.share_b),
         _points(d)]
        for d in diff_figures.moved(diff)
    ]  # fmt: skip
    headers = ["domain", "tokens A", "tokens B", "B minus A", "share A", "share B", "change, points"]
    caption = "Selected tokens per domain, copies counted; the domain whose share changed most first"
    listed = table(headers, rows, caption=caption, source=sides.source(*SELECTION))
    return section("domains", "What moved between domains?", picture, listed, source=())


def _points(move: DomainMove) -> str:
    change = 100 * (move.share_b - move.share_a)
    return num(change, 1, sign=True) if change else "0"


def _signed(move: DomainMove) -> str:
    change = move.tokens_b - move.tokens_a
    return f"{change:+,}".replace("-", MINUS) if change else "0"


def _flow(diff: Diff, sides: Sides, picture: Html) -> Html:
    total = sum(f.documents for f in diff.flow) or 1
    ordered = sorted(
        diff.flow, key=lambda f: (diff_figures.STATES.index(f.a), diff_figures.STATES.index(f.b))
    )
    rows = [
        [FATES[f.a], FATES[f.b], count(f.documents), percent(f.documents / total, 2), count(f.tokens)]
        for f in ordered
    ]
    headers = ["in A", "in B", "documents", "of the pools", "tokens"]
    caption = "Every document of the pools by its fate in A and in B; tokens once per document"
    listed = table(headers, rows, caption=caption, words=2, source=sides.source(*SELECTION))
    about = note(
        "Not drawn: it could have been chosen, and its draw gave no copy. Excluded: held out, or shares "
        "text with a target or benchmark. Where both pools have a document its tokens are those that A "
        "counts."
    )
    return section("flow", "Who is kept, who is dropped?", picture, about, listed, source=())


def _scores(diff: Diff, sides: Sides, picture: Html) -> Html:
    title = "How did the scores of the selected tokens move?"
    if not diff.scores:
        return section("scores", title, note("A and B share no domain and criterion.", "absent"), source=())
    criteria = list(dict.fromkeys(s.criterion for s in diff.scores))
    cells = {(s.domain, s.criterion): s for s in diff.scores}
    names = [d.domain for d in diff_figures.moved(diff)]
    rows = [
        [d, *(_shift(cells.get((d, c))) for c in criteria)]
        for d in names
        if any((d, c) in cells for c in criteria)
    ]
    caption = "Mean normalised score, A → B (B minus A); smaller = better, – where one selects nothing scored"
    listed = table(["domain", *criteria], rows, caption=caption, source=sides.source(*SELECTION))
    parts = [picture, listed]
    if not diff.same_scale:
        text = "A and B normalise with different maps, so equal numbers do not mean equal quality."
        parts.insert(0, note(text, "absent"))
    return section("scores", title, *parts, source=())


def _shift(shift: ScoreShift | None) -> str:
    """Return both means and the change; of one that selects something alone, its mean."""
    if shift is None or (math.isnan(shift.mean_a) and math.isnan(shift.mean_b)):
        return "–"
    change = shift.mean_b - shift.mean_a
    said = "" if math.isnan(change) else f" ({num(change, 3, sign=True)})"
    return f"{num(shift.mean_a, 3)} → {num(shift.mean_b, 3)}{said}"


def _theta(diff: Diff, sides: Sides) -> Html:
    title = "Which parameters differ?"
    if not diff.theta:
        text = "No parameter of θ differs in a domain that both runs have, or a run has no θ."
        return section("theta", title, note(text, "absent"), source=sides.source("theta.json"))
    names = list(dict.fromkeys(c.parameter for c in diff.theta))
    cells = {(c.domain, c.parameter): f"{sig(c.a, 4)} → {sig(c.b, 4)}" for c in diff.theta}
    rows = [
        [domain, *(cells.get((domain, name), "same") for name in names)]
        for domain in dict.fromkeys(c.domain for c in diff.theta)
    ]
    caption = f"Parameters of θ that differ ({count(len(diff.theta))}), A → B"
    listed = table(["domain", *names], rows, caption=caption, source=sides.source("theta.json"))
    return section("theta", title, listed, source=())


def _documents(diff: Diff, sides: Sides) -> Html:
    title = "The documents that one alone selects"
    if not diff.documents:
        why = "none were sampled" if diff.only_a_count + diff.only_b_count else "there are none"
        return section("documents", title, note(f"No documents: {why}.", "absent"), source=())
    shown = {side: sum(d.only == side for d in diff.documents) for side in ("A", "B")}
    parts = [
        note(
            f"{count(shown['A'])} of the {count(diff.only_a_count)} documents only in A and "
            f"{count(shown['B'])} of the {count(diff.only_b_count)} only in B, at most {count(diff.sample)} "
            f"of each, chosen by a hash of seed {diff.seed} and id (not hand-picked). Open one to see its "
            "way to its copies in both runs."
        )
    ]
    if all(d.text is None and not d.note for d in diff.documents):
        parts.append(note("The texts were left out of this page on request (redact samples).", "redacted"))
    source = sides.source(*SELECTION, "annotations/manifest.json")
    source += tuple(f"{at}/{c.file}" for at, c in zip(sides.places, sides.curves, strict=True) if c.file)
    return section("documents", title, *parts, VIEWER, source=source)


def _runs(diff: Diff, sides: Sides) -> Html:
    letters = [f"{letter}: {name}" for letter, name in zip("AB", sides.names, strict=True)]
    parts, source = [items(letters)], sides.source(*IDENTITY)
    if diff.settings:
        rows = [[c.field, _brief(c.a), _brief(c.b)] for c in diff.settings]
        caption = f"Fields of the runs' identities that differ ({count(len(rows))})"
        parts.append(table(["field", "A", "B"], rows, caption=caption, words=3, source=source))
    else:
        parts.append(note("No field of the runs' identities differs.", "absent"))
    return section("runs", "The runs", *parts, source=source)


def _brief(text: str) -> str:
    return (text if len(text) <= 200 else text[:199] + "…") or "–"
