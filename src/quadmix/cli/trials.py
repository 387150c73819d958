"""`quadmix trials`: the trials of a run as data; list, drop, restore, have made again."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from quadmix.cli.output import AsJson, RunFolder, print_result

app = typer.Typer(no_args_is_help=True, help="The trials of a run: list, drop, restore, train again.")

Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="trial ids; `quadmix trials list` shows them")
]


@app.command("list")
def list_(folder: RunFolder, json_: AsJson = False) -> None:
    """Every trial: id, kind, status, tokens selected, losses in bits per byte, reason."""
    from quadmix.codec import to_json
    from quadmix.pipeline.trials import list_trials

    trials = list_trials(folder)
    counts = {s: sum(t.status == s for t in trials) for s in ("done", "failed", "dropped")}
    lines = [*(t.render() for t in trials), ", ".join(f"{n} {s}" for s, n in counts.items())]
    print_result(to_json({"trials": trials, **counts}), lines, json_)


@app.command()
def drop(
    folder: RunFolder,
    ids: Ids,
    why: Annotated[str, typer.Option("--why", help="the reason; it stands beside the trial in the report")],
    json_: AsJson = False,
) -> None:
    """Take trials out of the search; their files stay, and `restore` brings them back."""
    from quadmix.pipeline.trials import drop_trials, next_step

    dropped = drop_trials(folder, ids, why)
    print_result({"dropped": dropped}, [f"dropped: {', '.join(dropped)}", next_step(folder)], json_)


@app.command()
def restore(folder: RunFolder, ids: Ids, json_: AsJson = False) -> None:
    """Take dropped trials back into the search."""
    from quadmix.pipeline.trials import next_step, restore_trials

    dropped = restore_trials(folder, ids)
    lines = [f"still dropped: {', '.join(dropped) or 'none'}", next_step(folder)]
    print_result({"dropped": dropped}, lines, json_)


@app.command()
def export(
    folder: RunFolder,
    out: Annotated[Path, typer.Option("--out", help="folder for the two CSV files")],
    format_: Annotated[
        Literal["olmix", "regmix"], typer.Option("--format", help="names of files and columns")
    ] = "olmix",
    json_: AsJson = False,
) -> None:
    """Write the trials as two CSV files, shares and losses: for Olmix, RegMix, `quadmix search --trials`."""
    from quadmix.cli.mixtures import export_trials

    lines = export_trials(folder, format_, out)
    print_result({"written": lines}, lines, json_)


@app.command()
def retry(
    folder: RunFolder,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="trial ids")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="all trials that failed")] = False,
    force: Annotated[bool, typer.Option("--force", help="also named trials that are good")] = False,
    json_: AsJson = False,
) -> None:
    """Remove the records of failed trials, so that the next `quadmix run` trains them again.

    The rest of their groups is trained with them, to the same losses. A trial that diverged diverges again
    as long as nothing else changes.
    """
    from quadmix.pipeline.trials import next_step, retry_trials

    removed = retry_trials(folder, ids or [], failed=failed, force=force)
    lines = (
        [f"to be trained again: {', '.join(removed)}", next_step(folder)] if removed else ["no trial failed"]
    )
    print_result({"removed": removed}, lines, json_)
