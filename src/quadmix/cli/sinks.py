"""What commands share that send a run's numbers to other tools: the option, the check before, the sending."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quadmix.cli.output import echo
from quadmix.errors import QuadmixError
from quadmix.urls import redact

if TYPE_CHECKING:
    from quadmix.pipeline.sinks import Target

Sinks = Annotated[
    list[str] | None,
    typer.Option(
        "--sink",
        metavar="KIND:PLACE",
        help="send the run's numbers as well: tensorboard:FOLDER, wandb:PROJECT, mlflow:URI; may be repeated",
    ),
]


def sink_targets(words: Sequence[str] | None, *, offline: bool = False) -> "list[Target]":
    """Check where to send to, before anything else is done."""
    if not words:
        return []
    from quadmix.pipeline.sinks import parse_sinks

    return parse_sinks(words, offline=offline)


def send(folder: Path, targets: "Sequence[Target]") -> None:
    """Send what the run folder says, and tell on stderr how much that was."""
    if not targets:
        return
    from quadmix.pipeline.sinks import feeding

    with feeding(folder, targets) as feed:
        count = feed.send()
    echo(f"sent {count:,} numbers to {', '.join(map(str, targets))}", err=True)


@contextmanager
def complaining() -> Generator[None]:
    """Tell an error on stderr and go on: what was to be done besides must not stop what is done."""
    try:
        yield
    except QuadmixError as error:
        echo(f"quadmix: {redact(str(error))}", err=True)
