"""The report of a run that is still at work: written again whenever the files of its folder changed.

In: a run folder, polled by the times and sizes of its files. Out: report.html, replaced as a whole each time.
While the run is not finished the page says which stage is at work, as progress.json has it, and its script
(`watch.js`) loads it again. A file that cannot be read is said and tried again; the page stays as it was.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from quadmix.errors import InputError, MissingExtraError, QuadmixError
from quadmix.io.atomic import read_json, write_text
from quadmix.io.signals import terminable
from quadmix.report.frame import add_script
from quadmix.report.html import Html
from quadmix.report.text import clean, count, esc
from quadmix.report.write import write_report

State = Literal["working", "waiting", "finished"]
Stamp = dict[str, tuple[int, int]]
STALE_SECONDS = 60.0  # a lease without sign of life for longer is nobody's, see `io.lease`
SHARE = 0.1  # of the time that may go into rendering: the run needs the machine itself
_OWN = {"report.html", "report.json", "progress.json", "lease.json"}
_SKIPPED = {"figures", "spills", "weights", "tensorboard", "wandb"}
# what a file with another content than expected raises inside the page, besides our own errors
_BROKEN = (QuadmixError, OSError, ValueError, LookupError, TypeError, AttributeError)
_MAIN = '<main id="main">\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the watch tells and how it waits. every: seconds between two looks. redact: as in `write_report`.
    say: told in words what was written or could not be. changed: called after each new page."""

    every: float = 5.0
    redact: bool | None = None
    say: Callable[[str], None] = print
    changed: Callable[[], None] | None = None
    pause: Callable[[float], None] = time.sleep


@dataclass(slots=True, kw_only=True)
class _Page:
    """The page as it was rendered, of which files, what its box says (None: it has none), and what was told
    of it last.

    took: seconds of the last rendering. rest_until: not rendered again before this time of the monotonic
    clock.
    """

    path: Path
    plain: str = ""
    words: str | None = None
    seen: Stamp | None = None
    said: str = ""
    took: float = 0.0
    rest_until: float = 0.0

    def rendered(self, plain: str, began: float) -> None:
        self.plain, self.took = plain, time.monotonic() - began
        self.rest_until = began + self.took / SHARE

    def dressed(self, words: str | None, every: float) -> str:
        """Return the page with that box; a newer one cannot be there before files were looked at again, may
        be rendered again and have been."""
        self.words = words
        if words is None:
            return self.plain
        wait = max(every, self.rest_until - time.monotonic()) + self.took
        return dress(self.plain, banner(words, wait, datetime.now(UTC)))

    def show(self, words: str | None, every: float) -> None:
        """Put the page on disk if its box says something else now."""
        if self.plain and words != self.words:
            write_text(self.path, self.dressed(words, every))


def watch(run_folder: str | Path, how: Watched) -> Path:
    """Keep report.html of a run folder up to date until the run has finished; return the page's path.

    Ends by itself once the stage `report` is done and no process works on the folder. Ctrl-C and SIGTERM end
    it at any time, as KeyboardInterrupt; the page then no longer loads itself again.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise InputError(f"run folder {str(folder)!r} does not exist; `quadmix run RECIPE` makes one")
    page = _Page(path=folder / "report.html")
    with terminable():
        try:
            while True:
                state = run_state(folder)
                if _renew(page, folder, state, how) and state == "finished":
                    return page.path
                page.show(state_words(folder, state), how.every)
                how.pause(how.every)
        finally:
            page.show(None, how.every)


def _renew(page: _Page, folder: Path, state: State, how: Watched) -> bool:
    """Render the page if files have changed and it may be rendered now; return whether that was done."""
    now = stamp(folder)
    if state != "finished" and (now == page.seen or time.monotonic() < page.rest_until):
        return False
    began = time.monotonic()

    def dressed(plain: str) -> str:
        page.rendered(plain, began)
        return page.dressed(None if state == "finished" else state_words(folder, state), how.every)

    try:
        write_report(folder, redact=how.redact, dress=dressed)
    except MissingExtraError:
        raise
    except _BROKEN as error:
        text = f"not written, trying again: {clean(str(error)) or type(error).__name__}"
        if text != page.said:
            how.say(text)
        page.seen, page.said = None, text
        return False
    page.seen, page.said = now, ""
    if how.changed is not None:
        how.changed()
    how.say(f"{page.path} written; {state_words(folder, state)}")
    return True


# --------------------------------------------------------------------------- what the folder says
def stamp(folder: Path) -> Stamp:
    """Return when the files that a page is made of were written, and their sizes."""
    found: Stamp = {}
    for home, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f not in _SKIPPED]
        for name in names:
            small = name.endswith((".json", ".yaml")) or name == "samples.parquet"
            if not small or name.startswith(".tmp-") or name in _OWN:
                continue
            path = os.path.join(home, name)
            try:
                facts = os.stat(path)
            except FileNotFoundError:
                continue  # it was replaced or removed meanwhile
            found[path] = (facts.st_mtime_ns, facts.st_size)
    return found


def run_state(folder: Path) -> State:
    """Return whether a process works on the folder; finished: none does, and the run's report is there."""
    lease = _read(folder / "lease.json")
    beat = lease.get("heartbeat")
    if isinstance(beat, int | float) and time.time() - beat <= STALE_SECONDS:
        return "working"
    return "finished" if (folder / "stages" / "report.json").is_file() else "waiting"


def _read(path: Path) -> dict[str, Any]:
    """Return a small JSON object, empty where it is not there or cannot be read just now."""
    try:
        data = read_json(path)
    except (OSError, QuadmixError):
        return {}
    return data if isinstance(data, dict) else {}


def state_words(folder: Path, state: State) -> str:
    """Say which stage is at work, how far it is and how long the run still takes."""
    if state == "finished":
        return "the run is finished"
    if state == "waiting":
        return "no process works on this run at present"
    progress = _read(folder / "progress.json")
    if not progress.get("stage"):
        return "the run has begun"
    text = f"at work: {progress['stage']}"
    done, total, unit = (progress.get(name) for name in ("done", "total", "unit"))
    if isinstance(done, int) and isinstance(total, int) and total:
        text += f", {count(done)} of {count(total)} {unit}"
    left = progress.get("eta_s")
    text += (
        f", about {_clock(left)} left in all" if isinstance(left, int | float) else ", time left not known"
    )
    return clean(text)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


# --------------------------------------------------------------------------- the page
def banner(words: str, wait: float, written: datetime) -> Html:
    """Return the box that a page of an unfinished run begins with. wait: seconds until a newer page can be
    expected. written: now, in UTC."""
    stamped = f'<time datetime="{written:%Y-%m-%dT%H:%M:%SZ}">{written:%Y-%m-%d %H:%M:%S} UTC</time>'
    return Html(
        f'<div class="refused" id="watch" role="note" data-wait="{max(2, round(wait))}" '
        f'data-written="{written.timestamp():.0f}"><p><strong>{esc(words[:1].upper() + words[1:])}.</strong> '
        f'Written at {stamped}. <span id="watch-said"></span> <button id="reload" type="button" hidden>Reload'
        "</button></p><noscript><p>Load the page again to see what is new.</p></noscript></div>\n"
    )


def dress(page: str, box: Html) -> str:
    """Return the page with the box at its top and the script that loads it again."""
    head, main, body = page.partition(_MAIN)
    if not main:
        raise InputError("report.html does not begin as a page of quadmix does; write it again")
    return add_script(f"{head}{main}{box}{body}", "watch.js")
