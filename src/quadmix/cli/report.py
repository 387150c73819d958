"""The command `report`: the page of a run folder again, once or as often as its files change."""

from typing import TYPE_CHECKING, Annotated

import typer

from quadmix.cli.output import AsJson, RunFolder, echo, print_result
from quadmix.cli.sinks import Sinks, complaining, send, sink_targets

if TYPE_CHECKING:
    from quadmix.pipeline.sinks import Target

Redact = Annotated[
    bool | None,
    typer.Option(
        "--redact-samples", help="leave the texts of documents out of the page; left out: as the recipe says"
    ),
]


def report(
    folder: RunFolder,
    watch: Annotated[
        bool, typer.Option("--watch", help="write it again whenever files change, until the run is finished")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks of --watch")] = 5.0,
    redact_samples: Redact = None,
    sink: Sinks = None,
    offline: Annotated[bool, typer.Option("--offline", help="refuse sinks that use the network")] = False,
    json_: AsJson = False,
) -> None:
    """Write report.html of a run folder again, from its files alone.

    With --watch the page of a running job stays up to date, and the browser loads it again; Ctrl-C ends it.
    """
    targets = sink_targets(sink, offline=offline)
    if watch:
        _watch(folder, targets, every, redact_samples)
    else:
        from quadmix.report.write import write_report

        write_report(str(folder), redact=redact_samples)
        send(folder, targets)
    page = folder / "report.html"
    print_result({"report": str(page)}, [str(page)], json_)


def _watch(folder: RunFolder, targets: "list[Target]", every: float, redact: bool | None) -> None:
    from quadmix.pipeline.sinks import feeding
    from quadmix.report.watch import Watched, watch

    def say(text: str) -> None:
        echo(text, err=True)

    with feeding(folder, targets) as feed:

        def changed() -> None:
            with complaining():  # tried again when files change next
                feed.send()

        try:
            watch(str(folder), Watched(every=every, redact=redact, say=say, changed=changed))
        except KeyboardInterrupt:
            say("stopped watching; the run is not touched by that")
