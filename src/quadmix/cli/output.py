"""What commands share: how a run folder is named, how a result is printed, progress of a long reading."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
RunFolder = Annotated[Path, typer.Argument(help="run folder, for example runs/demo")]


def print_result(value: Any, lines: list[str], as_json: bool) -> None:
    """Print a result on stdout, as lines or as one JSON object."""
    if as_json:
        import orjson

        text = orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()
        typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))
        return
    for line in lines:
        echo(line)


def echo(text: str, *, err: bool = False) -> None:
    """Print text that may quote the data: escapes and direction marks, which a terminal obeys, spelt out."""
    if not text.isprintable():
        from quadmix.report.text import clean

        text = clean(text)
    typer.echo(text, err=err)


@contextmanager
def bytes_watched(name: str, *, after: float = 5.0) -> Generator[Callable[[int, int], None]]:
    """Yield a callback (bytes done, bytes in all) that shows progress with ETA on stderr, after `after` s."""
    from quadmix.pipeline.progress import Progress, StageProgress

    started, progress = time.monotonic(), Progress({name: 1.0})
    step: StageProgress | None = None
    with ExitStack() as stack:

        def watch(done: int, total: int) -> None:
            nonlocal step
            if step is None and time.monotonic() - started < after:
                return
            step = step or stack.enter_context(progress.stage(name, total, "bytes"))
            step.advance(done - step.done)

        yield watch


@contextmanager
def steps_watched(*, every: float = 10.0) -> Generator[Callable[[str, int, int], None]]:
    """Yield a callback (step, done, total) that writes plain lines with time left to stderr.

    A line is written when a step begins to last, every `every` seconds, and when it ends after that.
    """
    step, began, last, first = "", 0.0, 0.0, 0

    def watch(what: str, done: int, total: int) -> None:
        nonlocal step, began, last, first
        now = time.monotonic()
        if what != step:
            step, began, last, first = what, now, now, done
        ended = done >= total and last > began
        if now - last < every and not ended:
            return
        last = now
        worked, left = done - first, total - done
        rest = f", about {_clock((now - began) / worked * left)} left" if worked > 0 and left > 0 else ""
        share = f" ({done / total:.0%})" if total else ""
        echo(f"{what}: {done:,}/{total:,}{share}, {_clock(now - began)} elapsed{rest}", err=True)

    yield watch


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
