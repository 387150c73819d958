"""`quadmix`: every command parses its options, makes one library call and prints the result.

Heavy rooms are imported inside the commands, so that `quadmix --help` stays fast.
Exit codes: 0 complete, 1 error, 2 usage or recipe, 3 quarantine over its limit, 4 interrupted.
"""

import errno
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from quadmix import __version__
from quadmix.cli import mixtures
from quadmix.cli.diff import diff
from quadmix.cli.export import export
from quadmix.cli.models import app as models_app
from quadmix.cli.mubench import app as mubench_app
from quadmix.cli.output import AsJson, RunFolder, bytes_watched, echo, print_result
from quadmix.cli.proposal import found_lines
from quadmix.cli.rater import app as rater_app
from quadmix.cli.raters import app as raters_app
from quadmix.cli.report import report
from quadmix.cli.sinks import Sinks, complaining, send, sink_targets
from quadmix.cli.trials import app as trials_app
from quadmix.errors import Interrupted, QuadmixError, RecipeError, RefusalError
from quadmix.recipe import Recipe, load_recipe
from quadmix.urls import redact

app = typer.Typer(
    name="quadmix",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Choose the pretraining data of a language model: from a pool of documents and a token budget to the "
        "dataset that trains the best model, with the proof.\n\n"
        "Start with `quadmix demo`; for your own data: `quadmix init`, `quadmix plan`, `quadmix run`.\n\n"
        "Exit codes: 0 complete, 1 error, 2 usage or recipe, 3 too many bad rows, 4 interrupted (run again)."
    ),
)

_DISK = {
    errno.ENOSPC: "the disk is full; free some space (nothing half-written is visible)",
    errno.EDQUOT: "the disk quota is used up; free some space (nothing half-written is visible)",
    errno.EROFS: "the file system is read-only; choose another place with --set run.folder=...",
    errno.EACCES: "no permission; choose another place with --set run.folder=... or change the rights",
}

RecipePath = Annotated[str, typer.Argument(help="recipe file (YAML); `quadmix init` writes one")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="override one recipe key; may be repeated"),
]
Workers = Annotated[int | None, typer.Option(help="worker processes; default: one per core")]
Accept = Annotated[
    bool, typer.Option("--accept-unconfirmed", help="write the dataset even if θ* did not beat the control")
]
Offline = Annotated[bool, typer.Option("--offline", help="refuse every address that would use the network")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress on stderr")]


@app.command()
def demo(
    folder: Annotated[str, typer.Option(help="where run folders are made")] = "runs",
    workers: Workers = None,
    overrides: Overrides = None,
    json_: AsJson = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """The whole method on a small real corpus inside the package: offline, CPU only, a few minutes."""
    recipe = Path(__file__).parent.parent / "data" / "demo" / "recipe.yaml"
    settings = [*(overrides or []), f"run.folder={folder}", "run.accept_unconfirmed=true"]
    _run(_load(str(recipe), settings, workers, offline=offline), "report", quiet, json_)


@app.command()
def init(
    paths: Annotated[list[str], typer.Argument(help="files, globs or folders with your documents")],
    out: Annotated[Path, typer.Option(help="recipe file to write")] = Path("recipe.yaml"),
    target: Annotated[
        list[str] | None, typer.Option(help="target file (JSONL or Parquet); may repeat")
    ] = None,
    name: Annotated[str, typer.Option(help="name of the run folder")] = "my-mixture",
) -> None:
    """Write a commented recipe for a corpus: finds columns, criteria and domains, prints the mapping."""
    from quadmix.pipeline.draft import write_draft

    for line in write_draft(paths, out, targets=target or [], name=name):
        typer.echo(line)


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="recipe file: what of it uses the network, are its models sound")
    ] = None,
    json_: AsJson = False,
) -> None:
    """What is installed, devices, precision, disk, and what would use the network; connects to nothing."""
    from quadmix.pipeline.doctor import UNSOUND, examine

    report = examine(_load(recipe, None, None) if recipe else None)
    print_result(report, [f"{k:24} {v}" for k, v in report.items()], json_)
    if any(UNSOUND in str(value) for value in report.values()):
        raise typer.Exit(1)


@app.command()
def plan(
    recipe: Annotated[
        str | None, typer.Argument(help="recipe file; left out: the presets, side by side")
    ] = None,
    overrides: Overrides = None,
    workers: Workers = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; the recipe's run.device")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="of measuring per kind of model")] = 15.0,
    json_: AsJson = False,
    offline: Offline = False,
) -> None:
    """Documents, tokens, time and memory per stage, what will be reused; measured here for about a minute.

    Without a recipe: what each preset would cost on this device.
    """
    if recipe is None:
        from quadmix.pipeline.presets import HEADER, plan_presets, to_rows

        plans = plan_presets({"workers": workers or 0, "device": device or "auto"}, seconds=seconds)
        print_result(to_rows(plans), [HEADER, *(p.line() for p in plans)], json_)
        return
    from quadmix.pipeline.plan import plan as make_plan

    chosen = [*(overrides or []), *([f"run.device={device}"] if device else [])]
    result = make_plan(_load(recipe, chosen, workers, offline=offline), seconds=seconds)
    print_result(result.to_json(), result.lines(), json_)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="a preset; left out: their names")] = None,
) -> None:
    """The presets of a recipe (`preset: laptop`), or what one of them sets. Costs: `quadmix plan`."""
    from quadmix.recipe import preset_names, preset_text

    typer.echo(preset_text(name) if name else "\n".join(preset_names()))


def _stage_command(name: str, last: str, text: str) -> None:
    def command(
        recipe: RecipePath,
        overrides: Overrides = None,
        workers: Workers = None,
        accept_unconfirmed: Accept = False,
        json_: AsJson = False,
        quiet: Quiet = False,
        offline: Offline = False,
        sink: Sinks = None,
    ) -> None:
        chosen = _load(recipe, overrides, workers, accept_unconfirmed, offline=offline)
        _run(chosen, last, quiet, json_, sink)

    app.command(name, help=text)(command)


_stage_command(
    "run",
    "report",
    "All stages, from files to dataset, comparison and report; the same command resumes after a stop.",
)
_stage_command(
    "annotate", "annotate", "Run up to the annotations: scores, domain and token count per document."
)


@app.command()
def search(
    recipe: Annotated[str | None, typer.Argument(help="recipe file (YAML); or give --trials")] = None,
    overrides: Overrides = None,
    workers: Workers = None,
    accept_unconfirmed: Accept = False,
    json_: AsJson = False,
    quiet: Quiet = False,
    offline: Offline = False,
    sink: Sinks = None,
    trials: mixtures.TrialFiles = None,
    target: mixtures.Targets = None,
    worst: mixtures.Worst = False,
    at_most: mixtures.AtMost = None,
    min_share: mixtures.MinShare = None,
    max_share: mixtures.MaxShare = None,
    fixed: mixtures.Fixed = None,
    tokens: mixtures.Tokens = None,
    budget: mixtures.Budget = None,
    repetition: mixtures.Repetition = None,
    current: mixtures.Current = None,
    higher_is_better: mixtures.Higher = None,
    surrogate: mixtures.Kind = None,
    seed: mixtures.Seed = None,
    out: mixtures.Out = None,
) -> None:
    """Run up to the confirmed θ*: swarm, surrogate, proposal, fresh proxies.

    Or, with --trials, go from the CSV files of any swarm to a mixture: no corpus, no GPU, no account.

    Olmix's files (ids in run_id or run, one column per domain or metric):

    quadmix search --trials ratios.csv metrics.csv --tokens tokens.csv --budget 1e12

    RegMix's files (ids in index, columns train_* and metric/*):

    quadmix search --trials train_mixture_1m.csv train_pile_loss_1m.csv --target the_pile_pile_cc_val_loss

    Metrics are losses: lower is better. Rows are matched by id. The proposal goes to proposal/shares.csv.
    """
    options = mixtures.MixtureOptions(
        targets=target or [], worst=worst, at_most=at_most or [], min_share=min_share or [],
        max_share=max_share or [], fixed=fixed or [], tokens=tokens, budget=budget, repetition=repetition,
        current=current, higher=higher_is_better or [], surrogate=surrogate, seed=seed, out=out,
    )  # fmt: skip
    mixtures.check_usage(recipe, trials, options, workers, accept_unconfirmed)
    if trials is None:
        chosen = _load(str(recipe), overrides, workers, accept_unconfirmed, offline=offline)
        _run(chosen, "confirm", quiet, json_, sink)
        return
    if sink:
        raise RecipeError("--sink goes with a recipe: a search of CSV files has no run folder to send")
    found = mixtures.search_mixtures(trials, options, overrides or [], quiet=quiet)
    print_result(found.to_json(), found_lines(found), json_)


_stage_command("materialise", "materialise", "Run up to the dataset on disk.")
_stage_command("evaluate", "evaluate", "Run up to the comparison with the baselines.")


@app.command()
def explain(
    folder: RunFolder,
    doc_id: str,
    recount: Annotated[
        bool | None,
        typer.Option(
            help="read all documents of its domain again, for the exact rank; left out: up to 5 million"
        ),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Why this document got this many copies, number by number."""
    from quadmix.codec import to_json
    from quadmix.materialise.explain import explain as explain_document

    result = explain_document(str(folder), doc_id, recount=recount)
    print_result(to_json(result), result.render().splitlines(), json_)


@app.command()
def verify(
    folder: RunFolder,
    published: Annotated[
        bool, typer.Option("--published", help="read the copy in the store as well (materialise.out)")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Recount and re-hash everything in a run folder against its manifests; exit 1 when a check fails."""
    from quadmix.codec import to_json
    from quadmix.materialise.verify import verify_run

    with bytes_watched("verify") as watch:
        result = verify_run(str(folder), published=published, watch=watch)
    lines = [f"{'ok  ' if c.ok else 'FAIL'} {c.name}: {c.detail}" for c in result.checks]
    lines += [f"stray {name} (ignored)" for name in result.stray]
    print_result(to_json(result), lines, json_)
    if not all(c.ok for c in result.checks):
        raise typer.Exit(1)


app.command()(report)
app.command()(diff)
app.command()(export)
app.add_typer(models_app, name="models")
app.add_typer(mubench_app, name="mubench")
app.add_typer(rater_app, name="rater")
app.add_typer(raters_app, name="raters")
app.add_typer(trials_app, name="trials")


@app.command()
def recalibrate(
    folder: RunFolder,
    tokens: Annotated[int, typer.Option(min=1, help="the other budget: tokens to select, copies counted")],
    train_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="length of the training; left out: as in the recipe, or one epoch"),
    ] = None,
    json_: AsJson = False,
) -> None:
    """θ* of a run at another token budget: tokens, share and epochs per domain, before and after."""
    from quadmix.codec import to_json
    from quadmix.pipeline.recalibrate import recalibrate as recalibrate_run

    result = recalibrate_run(folder, tokens, train_tokens=train_tokens)
    print_result(to_json(result), result.lines(), json_)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the recipe (for editor completion)."""
    from quadmix.recipe import json_schema

    typer.echo(json_schema(), nl=False)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version and leave")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _load(
    recipe: str,
    overrides: list[str] | None,
    workers: int | None,
    accept_unconfirmed: bool = False,
    *,
    offline: bool = False,
) -> Recipe:
    settings = list(overrides or [])
    if workers is not None:
        settings.append(f"run.workers={workers}")
    if accept_unconfirmed:
        settings.append("run.accept_unconfirmed=true")
    if offline:
        settings.append("run.offline=true")
    return load_recipe(recipe, settings)


def _run(recipe: Recipe, until: str, quiet: bool, json_: bool, sinks: list[str] | None = None) -> None:
    from quadmix.cli.table import refusal_lines, result_lines
    from quadmix.codec import to_json
    from quadmix.pipeline.folder import run_folder
    from quadmix.pipeline.progress import Progress
    from quadmix.pipeline.run import run as run_recipe

    targets = sink_targets(sinks, offline=recipe.run.offline)
    try:
        result = run_recipe(recipe, until=until, progress=Progress(quiet=quiet))
    except RefusalError:
        for line in [] if json_ else refusal_lines(run_folder(recipe)):
            echo(line)
        with complaining():  # the refusal is what ends this command
            send(run_folder(recipe), targets)
        raise
    if json_:
        print_result(to_json(result), [], True)
    else:
        for line in result_lines(result):
            echo(line)
    send(run_folder(recipe), targets)


def main() -> None:
    """Entry point: library errors become one message on stderr and an exit code."""
    try:
        app()
    except Interrupted as error:
        command = redact(shlex.join(["quadmix", *sys.argv[1:]]))
        echo(f"quadmix: {error}:\n  {command}", err=True)
        raise SystemExit(error.exit_code) from None
    except QuadmixError as error:
        echo(f"quadmix: {redact(str(error))}", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in _DISK:
            raise
        place = error.filename or "the run folder"
        typer.echo(f"quadmix: {place}: {_DISK[error.errno]}; the same command then goes on", err=True)
        raise SystemExit(1) from None
