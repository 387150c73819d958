"""Small pieces of HTML: every string that enters is escaped here, every fragment is marked `Html`."""

import base64
from collections.abc import Sequence
from typing import NewType
from urllib.parse import quote

from quadmix.report.plots import Picture
from quadmix.report.text import count, esc, sig

Html = NewType("Html", str)
Gallery = list[Picture]
ROWS = 200


def join(*parts: Html) -> Html:
    """Put fragments one after another."""
    return Html("\n".join(p for p in parts if p))


def tag(name: str, text: object, css: str = "") -> Html:
    """Return an element with escaped text."""
    start = f'{name} class="{css}"' if css else name
    return Html(f"<{start}>{esc(text)}</{name}>")


def note(text: str, css: str = "") -> Html:
    """Return a paragraph."""
    return tag("p", text, css)


def items(texts: Sequence[str]) -> Html:
    """Return a list."""
    return Html(f"<ul>{''.join(tag('li', t) for t in texts)}</ul>") if texts else Html("")


def origin(source: Sequence[str]) -> Html:
    """Return the footnote that every number has: the files of the run folder it was read or counted from."""
    links = ", ".join(f'<a href="{esc(quote(path))}">{esc(path)}</a>' for path in source)
    return Html(f'<span class="from">from {links}</span>') if source else Html("")


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    caption: str,
    source: Sequence[str],
    words: int = 1,
    csv: bool = False,
) -> Html:
    """Return a table that scrolls sideways on small screens; the first `words` columns are text.

    source: the files of the run folder, relative to it, from which its numbers come. csv: all rows are in a
    CSV file beside it; other long tables name their source instead.
    """
    head = "".join(f'<th scope="col"{_numeric(i, words)}>{esc(h)}</th>' for i, h in enumerate(headers))
    body = "".join(f"<tr>{_cells(row, words)}</tr>" for row in rows[:ROWS])
    where = "all are in the CSV" if csv else f"all come from {' and '.join(source)}"
    rest = f" The first {ROWS} of {count(len(rows))} rows; {where}." if len(rows) > ROWS else ""
    return Html(
        f'<div class="scroll" tabindex="0" role="group" aria-label="{esc(caption)}"><table>'
        f"<caption>{esc(caption)}.{esc(rest)} {origin(source)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _numeric(column: int, words: int) -> str:
    return "" if column < words else ' class="n"'


def _cells(row: Sequence[object], words: int) -> str:
    first = f'<th scope="row">{esc(row[0])}</th>' if row else ""
    return first + "".join(f"<td{_numeric(i, words)}>{esc(c)}</td>" for i, c in enumerate(row) if i)


def details(summary: str, *body: Html) -> Html:
    """Return a closed fold."""
    return Html(f"<details><summary>{esc(summary)}</summary>{join(*body)}</details>")


def figure(picture: Picture, *, linked: bool = True) -> Html:
    """Return the figure as an image (so that the page needs no inline styles) with its data behind it.

    linked: to its files beside the page.
    """
    data = base64.b64encode(picture.svg).decode()
    kinds = ("svg", "png", "csv") if linked else ()
    links = " · ".join(f'<a href="figures/{picture.name}.{kind}">{kind.upper()}</a>' for kind in kinds)
    rows = [[_plain(c) for c in row] for row in picture.rows]
    words = next((i for i, c in enumerate(picture.rows[0]) if not isinstance(c, str)), 1) if rows else 1
    data_table = table(
        picture.columns, rows, caption=picture.name, words=words, source=picture.source, csv=linked
    )
    return Html(
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{esc(picture.alt)}">'
        f"<figcaption>{esc(picture.caption)} <span>{links}</span> {origin(picture.source)}</figcaption>"
        f"{details('Data of this figure', data_table)}</figure>"
    )


def show(gallery: Gallery, picture: Picture | None) -> Html:
    """Add a picture to the gallery and return its HTML."""
    if picture is None:
        return Html("")
    gallery.append(picture)
    return figure(picture)


def _plain(cell: object) -> str:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return count(cell)
    return sig(cell, 5) if isinstance(cell, float) else str(cell)


def section(anchor: str, title: str, *body: Html, source: Sequence[str]) -> Html:
    """Return a section with a heading that the navigation links to.

    source: the files from which the numbers in its running text come.
    """
    footnote = f'<p class="origin">Text of this section {origin(source)}.</p>' if source else ""
    return Html(
        f'<section id="{anchor}" aria-labelledby="{anchor}-h"><h2 id="{anchor}-h">{esc(title)}</h2>'
        f"{join(*body)}{footnote}</section>"
    )


def not_run(what: str) -> Html:
    """Return the line that stands in for a stage without files."""
    return note(f"Not run: {what}.", "absent")


def absent(anchor: str, title: str, what: str) -> Html:
    """Return the section of a stage that has written nothing yet."""
    return section(anchor, title, not_run(what), source=())
