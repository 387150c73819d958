"""`quadmix rater`: train a quality rater for many languages from pairwise votes (MuRating)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quadmix.cli.output import AsJson, print_result, steps_watched
from quadmix.recipe import RaterRecipe

if TYPE_CHECKING:
    from quadmix.raters.comparing import HeadCurve
    from quadmix.raters.selecting import ByCell

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Train one quality rater for many languages from what several raters of one language say about pairs "
        "of texts (MuRating).\n\n`pairs` makes labelled pairs in all languages from your documents, raters "
        "and translations; `train` trains a rater on them and writes its card and report; `score` rates "
        "files; `select` takes the best of every language or topic; `compare` holds raters against each "
        "other on the same held-out pairs; `compare-heads` says whether the score should know the language. "
        "In a recipe the rater is a criterion of `kind: model` with `model: FOLDER/model/card.yaml`.\n\n"
        "docs/murating.md walks through all of it. `quadmix raters` (with s) lists and tries raters that "
        "others have trained."
    ),
)

Settings = Annotated[str, typer.Argument(metavar="RATER.yaml", help="settings of the rater's training")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override one key; may be repeated")
]


@app.command()
def pairs(
    settings: Settings,
    overrides: Overrides = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="say what judge and translator would be asked and cost, send nothing"),
    ] = False,
    json_: AsJson = False,
) -> None:
    """Make the labelled pairs: documents -> excerpts -> votes -> translations -> pairs of three kinds.

    What is there from the same settings and files is loaded. A judge and a translator go on where a killed
    call stopped, and stop at their budgets.
    """
    from quadmix.codec import to_json
    from quadmix.raters.making import make_pairs, rater_folder
    from quadmix.raters.planning import plan_spending
    from quadmix.raters.telling import pairs_lines
    from quadmix.recipe import load_rater

    recipe = load_rater(settings, overrides or ())
    folder = rater_folder(recipe)
    with _network(recipe), steps_watched() as tell:
        if plan:
            planned = plan_spending(recipe, folder, tell)
            print_result(to_json(planned), planned.lines(), json_)
            return
        made = make_pairs(recipe, folder, tell)
    print_result(to_json(made), [*pairs_lines(made), f"written to {folder}"], json_)


@app.command()
def train(settings: Settings, overrides: Overrides = None, json_: AsJson = False) -> None:
    """Train the rater on the pairs, write its card and report: accuracy, one scale or not, bias, offsets.

    Makes the pairs first if they are not there. A killed training goes on from its last checkpoint.
    """
    from quadmix.codec import to_json
    from quadmix.raters.making import make_pairs, rater_folder
    from quadmix.raters.telling import report_lines
    from quadmix.raters.tiers import MODEL
    from quadmix.raters.training import train_rater
    from quadmix.recipe import load_rater

    recipe = load_rater(settings, overrides or ())
    folder = rater_folder(recipe)
    with _network(recipe), steps_watched() as tell:
        made = make_pairs(recipe, folder, tell)
        report = train_rater(recipe, folder, made.digest, tell)
    lines = [*report_lines(report), f"the rater: {folder / MODEL / 'card.yaml'}"]
    print_result(to_json(report), lines, json_)


@app.command()
def score(
    card: Annotated[str, typer.Argument(metavar="CARD.yaml", help="model/card.yaml of a trained rater")],
    files: Annotated[list[str], typer.Argument(help="JSONL or Parquet files, folders or patterns")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file of the scores; OUT.json says of what")],
    text: Annotated[str, typer.Option("--text", help="column with the text")] = "text",
    id_: Annotated[str, typer.Option("--id", help="column with the id")] = "id",
    language: Annotated[str | None, typer.Option("--language", help="column with the language")] = None,
    in_language: Annotated[
        str | None, typer.Option("--in-language", help="language of all documents")
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="column with the domain, for a rater that reads it")
    ] = None,
    carry: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="bring a column along, such as a topic; may be repeated"),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Rate files: score (higher = better), z against the rater's own reference, and how even long texts are.

    sigmoid(a - b) of two scores is the probability that the raters prefer the first text. Between languages
    compare `calibrated`, from which the language's offset on parallel texts is taken off. A column that
    `--carry` names stands in the table as text, for `quadmix rater select --cell`.
    """
    from quadmix.codec import to_json
    from quadmix.raters.scored import load_rater_model, read_offsets, read_reference
    from quadmix.raters.scoring import Columns, score_files
    from quadmix.raters.telling import scoring_lines

    columns = Columns(
        text=text, id=id_, language=language, in_language=in_language, domain=domain,
        carry=tuple(carry or ()),
    )  # fmt: skip
    rater = load_rater_model(card)
    with steps_watched() as tell:
        found = score_files(
            rater, files, out, columns, reference=read_reference(card), offsets=read_offsets(card), tell=tell
        )
    print_result(to_json(found), scoring_lines(found, out), json_)


@app.command()
def select(
    scores: Annotated[list[Path], typer.Argument(help="tables of `quadmix rater score`")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file: id, language, units, score, the cell")],
    share: Annotated[float, typer.Option(help="of the units of every language (threshold: documents)")] = 0.1,
    units: Annotated[float | None, typer.Option(help="in all instead, parts by --alpha or --part")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="languages get parts as their units ** alpha; 0: equal parts")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option("--part", metavar="LANGUAGE=N", help="explicit parts; may be repeated")
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="select in every cell (language, COLUMN), such as a topic"),
    ] = None,
    cell_min: Annotated[
        float | None,
        typer.Option(help="cells of a language with fewer units are selected together; 10,000 if left out"),
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(help="share of every cell's units that is kept for certain; the rest goes to the best"),
    ] = None,
    how: Annotated[
        Literal["top", "sample", "threshold"],
        typer.Option(help="best first; drawn by score (QuRating); quantile of documents (FineWeb2-HQ)"),
    ] = "top",
    temperature: Annotated[float, typer.Option(help="of --how sample")] = 1.0,
    seed: int = 0,
    json_: AsJson = False,
) -> None:
    """Select by score alone, language by language, as the published selectors do, or cell by cell.

    A unit is a word, or a sign in scripts without spaces. No cut over all languages is offered: see the
    offsets in a rater's report first.

    Raters prefer some topics, so the best of a language may hold no stories at all. `--cell topic` takes the
    same share of every topic as of its language. `--cell topic --floor 0.02` asks for less: 2 % of every
    topic for certain, and the best of the language, of whatever topic, with the rest of its budget. Documents
    without a value in the column, and cells too small to be met, form one cell of their language and are
    counted. `quadmix rater score --carry topic` brings the column along.
    """
    from quadmix.codec import to_json
    from quadmix.raters.selecting import Budget, select_scored
    from quadmix.raters.telling import taken_lines

    found = select_scored(
        scores, out, budget=Budget(share=share, units=units, alpha=alpha, explicit=_parts(part or ())),
        how=how, by=_by_cell(cell, cell_min, floor), temperature=temperature, seed=seed,
    )  # fmt: skip
    print_result(to_json(found), [*taken_lines(found), f"written to {out}"], json_)


def _by_cell(column: str | None, least: float | None, floor: float | None) -> "ByCell | None":
    from quadmix.raters.selecting import ByCell

    if column is not None:
        return ByCell(column=column, floor=floor, **({} if least is None else {"least": least}))
    if least is not None or floor is not None:
        name = "--floor" if floor is not None else "--cell-min"
        raise typer.BadParameter("it is for cells; name their column with --cell", param_hint=name)
    return None


def _parts(given: Sequence[str]) -> dict[str, float] | None:
    parts: dict[str, float] = {}
    for one in given:
        language, equals, number = one.partition("=")
        try:
            parts[language] = float(number)
        except ValueError:
            equals = ""
        if not equals or not language:
            raise typer.BadParameter(
                f"{one!r}: expected LANGUAGE=NUMBER, such as de=0.2", param_hint="--part"
            )
    return parts or None


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="folders of `quadmix rater train`, two or more")],
    json_: AsJson = False,
) -> None:
    """Hold raters against each other on the held-out pairs of the first one.

    Pairs of documents that any of them was trained on are left out. Differences are paired, with intervals.
    """
    from quadmix.codec import to_json
    from quadmix.raters.against import compare_raters
    from quadmix.raters.scored import load_rater_model
    from quadmix.raters.telling import against_lines
    from quadmix.raters.tiers import MODEL

    raters = [load_rater_model(folder / MODEL / "card.yaml") for folder in folders]
    with steps_watched() as tell:
        found = compare_raters(folders, raters, tell)
    print_result(to_json(found), against_lines(found), json_)


@app.command("compare-heads")
def compare_heads(
    settings: Settings,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(min=1, help="trainings per head; the rule asks for 5")] = 5,
    tail: Annotated[
        list[str] | None,
        typer.Option(help="languages that matter; left out, trained ones with few pairs"),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="also the curve over labels: tail languages limited to so many labelled pairs each, such "
            "as 30,100,300,1000",
        ),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Train every head (plain, concat, znorm, poso, a placebo) on one frozen encoder, and say which to take.

    POSO is taken only if the tail gains at least 0.5 points beyond its interval, the other languages lose no
    more than 0.2, and codes dealt out at random gain nothing; fewer than 30 tail pairs, or 2 of one
    of its languages, decide nothing. Beside them: concat as wide as POSO, balanced languages, a head for each
    large language, a gate that reads the text. S: how far masking the language moves POSO, beside the same
    before training.

    Accuracy and calibration (how far the probabilities are from the votes) are told by language, for the tail
    and for the others. With `encoder.code: [language, domain]` the code has the domain, too, and pairs of one
    domain alone decide. `--curve` says from how many pairs on a language is better off with a head of its
    own. A killed call goes on where it was.
    """
    from quadmix.codec import to_json
    from quadmix.raters.choosing import choose_head
    from quadmix.raters.making import rater_folder
    from quadmix.raters.telling import heads_lines
    from quadmix.recipe import load_rater

    recipe = load_rater(settings, overrides or ())
    with _network(recipe), steps_watched() as tell:
        found = choose_head(recipe, seeds=seeds, tail=tail, curve=_sizes(curve), tell=tell)
    lines = heads_lines(found)
    if found.curve is not None:
        lines.append(_drawn(found.curve, rater_folder(recipe) / "heads_curve.svg"))
    print_result(to_json(found), lines, json_)


def _sizes(curve: str | None) -> list[int]:
    parts = [part.strip() for part in curve.split(",")] if curve is not None else []
    if bad := [part for part in parts if not part.isdecimal() or int(part) < 1]:
        raise typer.BadParameter(
            f"{bad[0]!r}: expected numbers of training pairs, such as 30,100,300,1000", param_hint="--curve"
        )
    return [int(part) for part in parts]


def _drawn(curve: "HeadCurve", path: Path) -> str:
    """Draw the curve and say where; without matplotlib say that there is none, its numbers are kept."""
    from quadmix.errors import MissingExtraError
    from quadmix.io.atomic import write_bytes
    from quadmix.report.heads import curve_picture

    try:
        write_bytes(path, curve_picture(curve).svg)
    except MissingExtraError as error:
        return f"no picture of the curve: {error}"
    return f"the curve: {path}"


def _network(recipe: RaterRecipe) -> AbstractContextManager[None]:
    """What of the network the settings allow, for the length of the block."""
    from quadmix.io.door import network

    return network(offline=recipe.run.offline, allow_http=recipe.run.allow_http)
