"""The frame of a page of its own: head, policy, navigation, data and script around a body.

The policy allows the one script and the one style by their SHA-256 and images from data: URIs, nothing else:
no network, no inline handlers, no style attributes.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from quadmix.errors import InputError
from quadmix.report.html import Html
from quadmix.report.text import clean, esc, json_block

_POLICY, _END = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; script-src ',
    "</body></html>\n",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands around the body. links: (anchor, title) of the sections. styles, scripts: names of files in
    this package, put one after another."""

    name: str
    title: str
    description: str
    links: Sequence[tuple[str, str]]
    styles: Sequence[str] = ("page.css",)
    scripts: Sequence[str] = ()


def render_frame(frame: Frame, body: Html, data: Any) -> str:
    """Return the whole page; data: what the script reads from the block `data`."""
    style, script = ("\n".join(map(_asset, names)) for names in (frame.styles, frame.scripts))
    policy = (
        f"'{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<a href="#{anchor}">{esc(title)}</a>' for anchor, title in frame.links)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'{_POLICY}{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">\n'
        f'<meta name="description" content="{esc(clean(frame.description))}">\n'
        f"<title>{esc(frame.title)}</title>\n<style>{style}</style></head>\n<body>\n"
        '<a class="skip" href="#main">Skip to content</a>\n'
        f'<nav aria-label="Sections"><div><span>{esc(frame.name)}</span>{links}</div></nav>\n'
        f'<main id="main">\n{body}\n</main>\n{json_block("data", data)}\n'
        f"<script>{script}</script>\n{_END}"
    )


def add_script(page: str, name: str) -> str:
    """Return a page of `render_frame` with one more script of this package, which runs last; the policy
    allows it by its hash. InputError if the text is not such a page."""
    head, policy, rest = page.partition(_POLICY)
    if not policy or not page.endswith(_END):
        raise InputError("report.html does not begin as a page of quadmix does; write it again")
    script = _asset(name)
    body = rest.removesuffix(_END)
    return f"{head}{policy}'{_hash(script)}' {body}<script>{script}</script>\n{_END}"


def _asset(name: str) -> str:
    return resources.files("quadmix.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
