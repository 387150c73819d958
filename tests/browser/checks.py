"""What every page is held to: seen by axe, reached by keyboard, readable in the dark; and the windows."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.conftest import Visit
from PIL import Image

WINDOWS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "zoom": {"viewport": {"width": 320, "height": 256}, "color_scheme": "dark"},  # 1280 x 1024 at 400 %
}
KINDS = [pytest.param(options, id=name) for name, options in WINDOWS.items()]
OPEN = """() => {
  for (const fold of document.querySelectorAll('details')) fold.open = true;
  return [...document.querySelectorAll('#docs details')].every((card) => card.querySelector('.why'));
}"""
CONTROLS = """[...document.querySelectorAll('a[href],button,input,select,summary,[tabindex]')]
  .filter((e) => e.checkVisibility() && !e.disabled).length"""
FOCUS = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  const box = e.getBoundingClientRect();
  return {tag: e.tagName, text: e.textContent.slice(0, 40), id: e.id, outline: style.outlineStyle !== 'none',
          seen: box.bottom > 0 && box.top < innerHeight && box.width > 0, card: !!e.closest('#docs')};
}"""


def violations(visit: Visit) -> list[tuple[str, str, list[str]]]:
    """Return what axe finds of serious and critical kind."""
    found = Axe().run(visit.page).response
    assert found["testEngine"]["name"] == "axe-core"
    return [
        (v["id"], v["impact"], [n["html"][:120] for n in v["nodes"][:3]])
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]


def walk(visit: Visit) -> list[dict]:
    """Go through every control with Tab; each is in sight with a visible outline. Return them in order."""
    seen = []
    for _ in range(visit.page.evaluate(CONTROLS)):
        visit.page.keyboard.press("Tab")
        seen.append(visit.page.evaluate(FOCUS))
    assert seen[0]["text"] == "Skip to content"
    assert [s for s in seen if not s["outline"] or not s["seen"]] == []
    return seen


def figures_fit_the_scheme(visit: Visit) -> None:
    """The ground of each figure is that of the page around it, and marks stand out from it."""
    dark = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    figures = visit.page.locator("figure img")
    assert figures.count() > 0
    for place in range(figures.count()):
        grey = lightness(figures.nth(place).screenshot())
        ground = grey[-8, -8]
        assert ground < 0.25 if dark else ground > 0.9
        assert np.abs(grey - ground).max() > 0.5


def lightness(shot: bytes) -> np.ndarray:
    """Return a picture as (height, width) values, 0 = black, 1 = white."""
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=np.float64) / 255


def sideways(visit: Visit) -> Sequence[int]:
    """Return the width of the page's content and of its window."""
    return visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
