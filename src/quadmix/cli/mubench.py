"""`quadmix mubench`: aligned benchmarks in many languages, and how consistent a model is over them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quadmix.cli.mubench_evaluate import Languages, Tasks, evaluate, names, targets, tasks
from quadmix.cli.output import AsJson, print_result
from quadmix.errors import RecipeError

if TYPE_CHECKING:
    from quadmix.evaluate.mubench.convert import Columns

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Aligned multiple-choice benchmarks (MuBench, 61 languages; or your own), and the consistency of a "
        "model over languages, with what predictors that know nothing reach beside it."
    ),
)


@app.command()
def prepare(
    folder: Annotated[
        str | None, typer.Argument(help="folder or address of the release (hf://datasets/aialt/MuBench)")
    ] = None,
    standin: Annotated[
        Path | None, typer.Option("--standin", help="write a made-up benchmark in four toy languages here")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="of each task of the stand-in")] = 60,
    from_file: Annotated[
        str | None, typer.Option("--from-file", help="JSONL or Parquet: one question in one language per row")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="where splits, counts and made files go; default: FOLDER")
    ] = None,
    task: Tasks = None,
    language: Languages = None,
    mode: Annotated[
        list[str] | None,
        typer.Option("--mode", help="lighteval, local_template, en_template, mix_2, ...; several by commas"),
    ] = None,
    mix: Annotated[
        int | None, typer.Option("--mix", min=1, help="write mixed items: at most this many other languages")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the stand-in, of mixes and of distractors")] = 0,
    id_column: Annotated[str, typer.Option(help="--from-file: names the question in every language")] = "_id",
    language_column: Annotated[str, typer.Option(help="--from-file: code of the language")] = "language",
    prompt: Annotated[str, typer.Option(help="--from-file: text with {column} in it")] = "{prompt}",
    label_column: Annotated[str, typer.Option(help="--from-file: index, letter or text")] = "label",
    choices_column: Annotated[
        str | None, typer.Option(help="--from-file: list of texts; left out: the labels that occur")
    ] = None,
    distractors: Annotated[
        int | None, typer.Option(min=1, help="--from-file: wrong options from other questions' answers")
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="--from-file: keep the questions that all languages have")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="refuse every address of the network")] = False,
    json_: AsJson = False,
) -> None:
    """Check and align tasks, report counts per task and language, write the split into parts.

    quadmix mubench prepare MuBench --task arc_easy --language en --language de

    quadmix mubench prepare --standin OUT

    quadmix mubench prepare --from-file sib200.jsonl.zst --task sib200 --out OUT --id-column parallel_id
    --language-column lang --prompt "{text}" --label-column topic

    Exit code 1 if a task is refused: ids, options or labels that differ between languages, a bad row.
    """
    from quadmix.cli.mubench_text import prepared_lines
    from quadmix.codec import to_json
    from quadmix.evaluate.mubench.prepare import prepare as prepare_folder
    from quadmix.io.door import network

    if sum(source is not None for source in (folder, standin, from_file)) != 1:
        raise RecipeError("expected one of FOLDER, --standin OUT or --from-file FILE")
    with network(offline=offline):
        lines: list[str] = []
        if standin is not None:
            from quadmix.evaluate.mubench.standin import write_standin

            lines.append(f"{standin}: {write_standin(standin, items=items, seed=seed)} files")
        if from_file is not None:
            from quadmix.evaluate.mubench.convert import Columns

            columns = Columns(
                id=id_column, language=language_column, prompt=prompt, label=label_column,
                choices=choices_column, distractors=distractors,
            )  # fmt: skip
            lines += _convert(
                from_file, columns, (names(task), out), languages=names(language) or None, common=common,
                seed=seed,
            )  # fmt: skip
        home = str(folder or standin or out)
        if out is None and "://" in home:
            raise RecipeError(f"{home} is an address; expected --out FOLDER to put the files there")
        found = prepare_folder(
            home, out or home, tasks=names(task), modes=names(mode) or ("lighteval",),
            languages=names(language) or None, mix=mix, seed=seed,
        )  # fmt: skip
    print_result(to_json(found), [*lines, *prepared_lines(found)], json_)
    if found.problems:
        raise typer.Exit(1)


def _convert(
    path: str,
    columns: "Columns",
    into: tuple[list[str], Path | None],
    *,
    languages: list[str] | None,
    common: bool,
    seed: int,
) -> list[str]:
    from quadmix.evaluate.mubench.convert import convert_file, write_task

    tasks, out = into
    if out is None or len(tasks) != 1:
        raise RecipeError("--from-file needs --out FOLDER and one --task NAME for the new task")
    made = convert_file(path, tasks[0], columns, languages=languages, common=common, seed=seed)
    files = write_task(out, made.task)
    dropped = f"; {made.dropped} questions dropped that a language lacks" if made.dropped else ""
    return [f"{out}: {len(made.task.ids)} questions in {files} languages{dropped}"]


@app.command()
def mlc(
    predictions: Annotated[
        list[Path],
        typer.Argument(help="Parquet of `quadmix mubench evaluate`, lm_eval's samples_*.jsonl, or folders"),
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", help="folder of the items: shortest and longest option come from it"),
    ] = None,
    task: Tasks = None,
    anchor: Annotated[
        str | None, typer.Option(help="language that the others are compared with; default: en if there")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME=A,B,...", help="may repeat; default: classes of resources"),
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="target, select or report: that part of the split alone")
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option("--estimator", help="as acc_bytes, or all; left out: the one that stands for a task"),
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="resamples of the items for intervals")] = 1000,
    seed: Annotated[int, typer.Option(help="of the resamples")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="page (.html); a CSV of all pairs goes beside it")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Accuracy and consistency over languages (MLC), split into both right and same wrong, corrected for
    chance and accuracy, with intervals; content-free predictors stand beside every number.

    MLC is a reading, not an aim: a model that always takes the shortest option is consistent too.
    """
    from quadmix.cli.mubench_text import consistency_lines
    from quadmix.codec import to_json
    from quadmix.evaluate.mubench.gather import gather
    from quadmix.evaluate.mubench.measure import Sampling
    from quadmix.evaluate.mubench.report import consistency_report
    from quadmix.evaluate.mubench.splits import SHARES

    if part is not None and part not in SHARES:
        raise RecipeError(f"--part {part}: expected one of {', '.join(SHARES)}")
    groups = _groups(group) if group else None
    found = gather(predictions, data=data, tasks=names(task), estimators=names(estimator))
    report = consistency_report(
        found.predictions, found.items, anchor=anchor, groups=groups, part=part or "",
        sampling=Sampling(draws=draws, seed=seed),
    )  # fmt: skip
    lines = consistency_lines(report)
    lines += [f"note: {len(found.ignored)} files of samples are of other tasks"] if found.ignored else []
    result = to_json(report)
    if out is not None:
        from quadmix.report.consistency import write_consistency

        page, pairs = write_consistency(report, out)
        lines.append(f"page: {page}, pairs: {pairs}")
        result |= {"page": str(page), "pairs_table": str(pairs)}
    print_result(result, lines, json_)


def _groups(texts: list[str]) -> dict[str, list[str]]:
    """Return name -> languages of `NAME=A,B,...`."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        name, found, members = text.partition("=")
        languages = [m.strip() for m in members.split(",") if m.strip()]
        if not found or not name or name == "all" or name in groups or len(languages) < 2:
            raise RecipeError(
                f"--group {text!r}: expected NAME=A,B with two or more languages, each name once, not “all”"
            )
        groups[name] = languages
    return groups


for _command in (evaluate, tasks, targets):
    app.command()(_command)
