"""`quadmix mubench evaluate`, `tasks` and `targets`: a model on aligned items, the same items for
lm-evaluation-harness, and as targets of a search. Registered in `cli.mubench`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quadmix.cli.output import AsJson, print_result, steps_watched

if TYPE_CHECKING:
    from quadmix.evaluate.mubench.target_files import Native

Data = Annotated[str, typer.Argument(help="folder or address of the benchmark, one folder per task in it")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", "--tasks", help="as arc_easy; several by commas; left out: all but gpqa"),
]
Languages = Annotated[
    list[str] | None,
    typer.Option("--language", "--languages", help="as de; several by commas; left out: all that are there"),
]
Mode = Annotated[str, typer.Option("--mode", help="lighteval, local_template, en_template, mix_2, ...")]
Split = Annotated[
    str, typer.Option("--split", help="report, select, target, test (all three), dev; what was tuned on one "
                      "must not be reported on it")
]  # fmt: skip
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="items per task, the same ids in every language")
]
Offline = Annotated[bool, typer.Option("--offline", help="refuse every address of the network")]


def evaluate(
    model: Annotated[
        str, typer.Argument(help="folder of a causal model in the Hugging Face format, with its tokenizer")
    ],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="results folder, of this model alone")],
    task: Tasks = None,
    language: Languages = None,
    mode: Mode = "lighteval",
    split: Split = "report",
    limit: Limit = None,
    unconditional: Annotated[
        bool, typer.Option("--unconditional", help="also without the prompt: acc_mutual_info, and a null")
    ] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if there is one")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="auto: float32 on a CPU, else the files'")
    ] = "auto",
    context: Annotated[
        int | None, typer.Option(min=2, help="tokens at most; left out: the model's own")
    ] = None,
    offline: Offline = False,
    json_: AsJson = False,
) -> None:
    """Score a model by likelihood: accuracies with their nulls, loss of the right answers, predictions.

    The same command goes on where it was stopped; other tasks and languages are added to the folder. Take
    OUT/predictions.parquet to `quadmix mubench mlc`.
    """
    from quadmix.cli.mubench_lines import evaluation_lines
    from quadmix.codec import to_json
    from quadmix.evaluate.mubench.engine import PREDICTIONS, Wanted, evaluate_model
    from quadmix.evaluate.mubench.model import load_causal
    from quadmix.evaluate.mubench.sources import check_mode, chosen_tasks
    from quadmix.io.door import network

    check_mode(mode)
    with network(offline=offline), steps_watched() as tell:
        work, off = chosen_tasks(data, names(task))
        wanted = Wanted(
            tasks=tuple(work), mode=mode, languages=tuple(names(language)), split=split, limit=limit,
            unconditional=unconditional,
        )  # fmt: skip
        loaded = load_causal(model, device=device, precision=precision, context=context)
        found = evaluate_model(loaded, data, out, wanted, tell)
    lines = [*evaluation_lines(found), *(f"{name}: left out; name it with --task" for name in off)]
    print_result(to_json(found), [*lines, f"predictions: {out / PREDICTIONS}"], json_)


def tasks(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="folder for `lm_eval --include_path`")],
    task: Tasks = None,
    language: Languages = None,
    mode: Mode = "lighteval",
    split: Split = "report",
    limit: Limit = None,
    offline: Offline = False,
    json_: AsJson = False,
) -> None:
    """Write the same items as tasks of lm-evaluation-harness, with groups per task, language and ability.

    lm_eval --model hf --model_args pretrained=MODEL --include_path OUT --tasks mubench_small --log_samples
    --output_path RESULTS
    """
    from quadmix.cli.mubench_text import restricted_lines
    from quadmix.codec import to_json
    from quadmix.evaluate.mubench.engine import Wanted, wanted_task
    from quadmix.evaluate.mubench.harness_tasks import write_harness_tasks
    from quadmix.evaluate.mubench.sources import check_mode, chosen_tasks, restricted
    from quadmix.io.door import network

    check_mode(mode)
    with network(offline=offline):
        work, off = chosen_tasks(data, names(task))
        wanted = Wanted(
            tasks=tuple(work), mode=mode, languages=tuple(names(language)), split=split, limit=limit
        )
        written = write_harness_tasks([wanted_task(data, name, wanted) for name in work], out)
    lines = [f"{len(written.tasks)} tasks of {sum(t.items for t in written.tasks):,} items in {out}; groups:"]
    lines += [f"  {name}  ({len(members)})" for name, members in written.groups.items()]
    lines += restricted_lines(restricted(work))
    lines += [f"{name}: left out; name it with --task" for name in off]
    print_result(to_json(written), lines, json_)


def targets(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="folder of the files and of targets.yaml")],
    task: Tasks = None,
    language: Languages = None,
    rows: Annotated[int, typer.Option(min=1, help="of a target, the same ids in every language")] = 400,
    weight: Annotated[
        list[str] | None, typer.Option("--weight", metavar="LANGUAGE=N", help="may repeat; default 1")
    ] = None,
    native: Annotated[
        list[str] | None,
        typer.Option("--native", metavar="LANGUAGE=FILE[:COLUMN]", help="text held out from the pool"),
    ] = None,
    texts: Annotated[bool, typer.Option(help="also all texts, to hold the pool against")] = True,
    offline: Offline = False,
    json_: AsJson = False,
) -> None:
    """Write the part `target` as targets of a search: the loss of right answers per language and ability.

    OUT/targets.yaml is the piece of recipe that names them.
    """
    from quadmix.cli.mubench_text import restricted_lines
    from quadmix.codec import to_json
    from quadmix.evaluate.mubench.sources import chosen_tasks, restricted
    from quadmix.evaluate.mubench.target_files import write_targets
    from quadmix.io.door import network

    weights = {code: _number(value) for code, value in _pairs(weight, "--weight").items()}
    with network(offline=offline):
        work, off = chosen_tasks(data, names(task))
        found = write_targets(
            data, out, tasks=work, languages=names(language), rows=rows, weights=weights,
            native=_native(native), texts=texts,
        )  # fmt: skip
    lines = [
        f"{t.name}: {t.rows:,} rows, weight {t.weight:.3g}"
        + (f"; {t.unfit} items without one blank are left out" if t.unfit else "")
        for t in found.targets
    ]
    lines += [f"{code}: {count:,} texts to hold the pool against" for code, count in found.texts.items()]
    lines += restricted_lines(restricted(work))
    lines += [f"{name}: left out; name it with --task" for name in off]
    print_result(to_json(found), [*lines, f"piece of recipe: {found.fragment}"], json_)


def names(given: Sequence[str] | None) -> list[str]:
    """Return the names of options that may repeat and hold several with commas between."""
    return list(dict.fromkeys(name.strip() for one in given or () for name in one.split(",") if name.strip()))


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals or not name or not value or name in found:
            raise typer.BadParameter(f"{one!r}: expected LANGUAGE=..., each once", param_hint=option)
        found[name] = value
    return found


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"{text!r}: expected a number above 0, as de=2", param_hint="--weight")
    return value


def _native(given: Sequence[str] | None) -> dict[str, "Native"]:
    from quadmix.evaluate.mubench.target_files import Native

    found: dict[str, Native] = {}
    for language, place in _pairs(given, "--native").items():
        path, colon, column = place.rpartition(":")
        # an address or a drive has a colon of its own, with a slash behind it
        plain = not colon or "/" in column or "\\" in column
        found[language] = Native(path=place) if plain else Native(path=path, column=column)
    return found
