"""The page itself: sections put together, locked by a Content-Security-Policy, written atomically.

The policy allows the one script and the one style by their SHA-256 and images from data: URIs, nothing
else: no network, no inline handlers, no style attributes. That is why figures are images.
"""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from quadmix.io.atomic import write_bytes, write_json, write_text
from quadmix.report import better, search_facts, searching, sections
from quadmix.report.documents import viewer_data
from quadmix.report.html import Html, join
from quadmix.report.load import RunFiles, load_run
from quadmix.report.plots import Picture
from quadmix.report.text import clean, clean_json, csv_text, esc, json_block
from quadmix.report.verdict import Verdict, judge
from quadmix.types import to_json

NAVIGATION = (
    ("verdict", "Verdict"), ("baselines", "Baselines"), ("domains", "Domains"), ("sampling", "Sampling"),
    ("criteria", "Criteria"), ("weights", "Weights"), ("search", "Search"), ("surrogate", "Surrogate"),
    ("drivers", "Drivers"), ("swarm", "Swarm"), ("documents", "Documents"), ("run", "Run"),
)  # fmt: skip


def write_report(run_folder: str | Path) -> Path:
    """Write figures/, report.json and report.html into the run folder; return the page's path."""
    files = load_run(run_folder)
    result = judge(files)
    gallery: list[Picture] = []
    body = _body(files, result, gallery)
    for picture in gallery:
        stem = files.folder / "figures" / picture.name
        write_bytes(stem.with_suffix(".svg"), picture.svg)
        write_bytes(stem.with_suffix(".png"), picture.png)
        write_text(stem.with_suffix(".csv"), csv_text(picture.columns, picture.rows))
    write_json(files.folder / "report.json", _facts(files, result, gallery))
    page = files.folder / "report.html"
    write_text(page, _page(files, result, body))  # last: its presence means that all of it is there
    return page


def _facts(files: RunFiles, result: Verdict, gallery: list[Picture]) -> dict[str, Any]:
    facts = {
        "run": files.folder.name, "version": 1, **to_json(result),
        "confirmation": search_facts.confirmation_numbers(files), "search": search_facts.numbers(files),
        "figures": [p.name for p in gallery],
    }  # fmt: skip
    return clean_json(facts)


def _body(files: RunFiles, result: Verdict, gallery: list[Picture]) -> Html:
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
        searching.search(files, gallery),
        searching.surrogate(files, gallery),
        searching.drivers(files, gallery),
        searching.swarm(files, gallery),
        sections.documents(files),
        sections.run(files, result),
    )


def _asset(name: str) -> str:
    return resources.files("quadmix.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _page(files: RunFiles, result: Verdict, body: Html) -> str:
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    name = esc(files.folder.resolve().name)
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in NAVIGATION)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">\n'
        f'<meta name="description" content="{esc(clean(result.sentence))}">\n'
        f"<title>{name} · quadmix report</title>\n<style>{style}</style></head>\n<body>\n"
        '<a class="skip" href="#main">Skip to content</a>\n'
        f'<nav aria-label="Sections"><div><span>{name}</span>{links}</div></nav>\n'
        f'<main id="main">\n{body}\n</main>\n{json_block("data", viewer_data(files))}\n'
        f"<script>{script}</script>\n</body></html>\n"
    )
