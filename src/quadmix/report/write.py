"""The page itself: sections put together, set into the frame, written atomically.

The frame's policy allows no style attributes and no inline handlers. That is why figures are images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quadmix.io.atomic import write_bytes, write_json, write_text
from quadmix.report import (
    better,
    concentration,
    health,
    languages,
    numbers,
    search_facts,
    searching,
    sections,
    viewer,
)
from quadmix.report.documents import viewer_data
from quadmix.report.frame import Frame, render_frame
from quadmix.report.html import Html, join
from quadmix.report.load import RunFiles, load_run
from quadmix.report.plots import Picture
from quadmix.report.text import clean_json, csv_text, esc
from quadmix.report.verdict import Verdict, judge
from quadmix.types import to_json

NAVIGATION = (
    ("verdict", "Verdict"), ("baselines", "Baselines"), ("domains", "Domains"), ("sampling", "Sampling"),
    ("criteria", "Criteria"), ("weights", "Weights"), ("sources", "Sources"), ("languages", "Languages"),
    ("documents", "Documents"), ("search", "Search"), ("surrogate", "Surrogate"), ("drivers", "Drivers"),
    ("swarm", "Swarm"), ("health", "Health"), ("run", "Run"),
)  # fmt: skip
PAGE_BYTES = 14_500_000  # of body and documents; the texts are cut to what figures and numbers leave


def write_report(
    run_folder: str | Path, *, redact: bool | None = None, dress: Callable[[str], str] = str
) -> Path:
    """Write figures/, report.json and report.html into the run folder; return the page's path.

    redact: leave the texts of the sampled documents out; ids and numbers stay. None = as the run's recipe
    says (report.redact_samples). dress: what a watch adds to the page before it is written.
    """
    files = load_run(run_folder)
    if redact is None:
        redact = files.recipe is not None and files.recipe.report.redact_samples
    result = judge(files)
    gallery: list[Picture] = []
    body = _body(files, result, gallery, redact)
    for picture in gallery:
        stem = files.folder / "figures" / picture.name
        write_bytes(stem.with_suffix(".svg"), picture.svg)
        write_bytes(stem.with_suffix(".png"), picture.png)
        write_text(stem.with_suffix(".csv"), csv_text(picture.columns, picture.rows))
    write_json(files.folder / "report.json", _facts(files, result, gallery, redact))
    page = files.folder / "report.html"
    write_text(
        page, dress(_page(files, result, body, redact))
    )  # last: its presence means that all of it is there
    return page


def _facts(files: RunFiles, result: Verdict, gallery: list[Picture], redact: bool) -> dict[str, Any]:
    facts = {
        "run": files.folder.name, "version": 1, **to_json(result),
        "confirmation": search_facts.confirmation_numbers(files), "search": search_facts.numbers(files),
        "comparison": numbers.comparison_numbers(files.comparison),
        "domains": numbers.domain_numbers(files), "ledger": numbers.ledger_numbers(files),
        "health": numbers.health_numbers(files),
        "figures": [p.name for p in gallery],
        "samples": {"documents": len(files.samples), "redacted": redact},
    }  # fmt: skip
    return clean_json(facts)


def _body(files: RunFiles, result: Verdict, gallery: list[Picture], redact: bool) -> Html:
    head = Html(
        f'<header id="verdict" class="{result.outcome.replace(" ", "-")}"><h1>{esc(result.sentence)}</h1>'
        f"{sections.strip(result)}{better.refusal(files)}</header>"
    )
    return join(
        head,
        better.baselines(files, gallery),
        sections.domains(files, gallery),
        sections.curves(files, gallery),
        sections.criteria(files, gallery),
        sections.weights(files, gallery),
        concentration.concentration(files, gallery),
        languages.languages(files, gallery),
        viewer.documents(files, redact=redact),
        searching.search(files, gallery),
        searching.surrogate(files, gallery),
        searching.drivers(files, gallery),
        searching.swarm(files, gallery),
        health.health(files, gallery),
        sections.run(files, result),
    )


def _page(files: RunFiles, result: Verdict, body: Html, redact: bool) -> str:
    name = files.folder.resolve().name
    frame = Frame(
        name=name, title=f"{name} · quadmix report", description=result.sentence, links=NAVIGATION,
        scripts=("why.js", "page.js"),
    )  # fmt: skip
    data, texts = viewer_data(files, redact=redact, room=PAGE_BYTES - len(body.encode()))
    return render_frame(frame, join(body, texts), data)
