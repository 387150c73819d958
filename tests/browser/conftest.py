"""The report in a real Chromium: pages as visitors see them, with everything a page does written down."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from browser.chromium import NAMES, chromium_path
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from quadmix.report import write_report

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
from facts_fixture import add_facts
from report_fixture import make_run

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@dataclass
class Visit:
    """An open page and what it did beyond showing itself."""

    page: Page
    file: Path
    requests: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def harm(self) -> list[str]:
        """Return everything that a page of inert data must not do; empty if all is well."""
        own = self.file.as_uri()
        asked = [u for u in self.requests if u.split("#")[0] != own and not u.startswith("data:image/svg")]
        violations = self.page.evaluate("window.violations")
        ran = self.page.evaluate("window.pwned ? ['script ran'] : []")
        return [*asked, *self.events, *violations, *ran]

    def found(self) -> str:
        return self.page.inner_text("#found")

    def shown(self) -> list[str]:
        """Return the first lines of the listed documents."""
        return [line.strip() for line in self.page.locator("#docs .preview").all_inner_texts()]

    def fragment(self) -> str:
        return self.page.evaluate("location.hash")


@dataclass
class Visitor:
    """Opens pages of one kind of visitor: colour scheme and window."""

    context: BrowserContext

    def open(self, file: Path, fragment: str = "") -> Visit:
        page = self.context.new_page()
        visit = Visit(page=page, file=file)
        page.on("request", lambda r: visit.requests.append(r.url))
        page.on("console", lambda m: visit.events.append(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda e: visit.events.append(f"error: {e}"))
        page.on("popup", lambda p: visit.events.append(f"popup: {p.url}"))
        page.on("download", lambda d: visit.events.append(f"download: {d.url}"))

        def dialog(d) -> None:
            visit.events.append(f"dialog: {d.message}")
            d.dismiss()

        page.on("dialog", dialog)
        page.add_init_script(WATCH)
        page.goto(file.as_uri() + fragment)
        return visit


@pytest.fixture
def visitor(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Parametrise indirectly with options of a browser context; light, 1280 x 900 otherwise."""
    options = {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}}
    context = browser.new_context(**options | getattr(request, "param", {}))
    context.set_default_timeout(60_000)
    yield Visitor(context)
    context.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder with its report. QUADMIX_BROWSER_RUN: another, for test_browser_access."""
    if own := os.environ.get("QUADMIX_BROWSER_RUN"):
        return Path(own)
    folder = make_run(tmp_path_factory.mktemp("browser") / "run", documents=1500)
    write_report(add_facts(folder))
    return folder
