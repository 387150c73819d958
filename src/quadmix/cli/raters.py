"""`quadmix raters`: raters by their cards: list, try, train, look at what they gave."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from quadmix.cli.output import AsJson, RunFolder, print_result

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Raters and domain classifiers: the cards in the package, trying one, training one's own, looking at "
        "what they gave.\n\nA card says what a model reads, how its output becomes a score, and what its "
        "files must be. In a recipe: `kind: model` with `model: CARD` and `path: FOLDER`."
    ),
)

Card = Annotated[str, typer.Argument(metavar="CARD", help="name of a card, or the path of your own .yaml")]
ModelPath = Annotated[
    str | None, typer.Option("--path", help="local folder or file of the model; left out, the hub")
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if there is one")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(help="auto: bfloat16 on a GPU, float32 on a CPU")
]
RemoteCode = Annotated[
    str | None,
    typer.Option("--accept-remote-code", metavar="COMMIT", help="run the repository's code at this commit"),
]
TextColumn = Annotated[str, typer.Option("--text", help="column with the text")]


@app.command("list")
def list_(json_: AsJson = False) -> None:
    """All cards of the package: name, what for, family, languages, licence."""
    from quadmix.pipeline.raters import cards, short

    found = cards()
    rows = [("card", "role", "family", "languages", "licence"), *(short(c) for c in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    print_result([c.model_dump(mode="json") for c in found], lines, json_)


@app.command()
def show(card: Card, json_: AsJson = False) -> None:
    """One card, whole: what it reads, how its output becomes a score, files, licence, notes."""
    from quadmix.recipe.cards import card_text, load_card

    found = load_card(card)
    print_result(found.model_dump(mode="json"), card_text(found).splitlines(), json_)


@app.command("try")
def try_(
    card: Card,
    path: ModelPath = None,
    output: Annotated[str | None, typer.Option(help="which output, where the card has several")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    accept_remote_code: RemoteCode = None,
    json_: AsJson = False,
) -> None:
    """Load a model as its card says; run 20 fixed texts, and 16 pairs that show which way it points.

    Exit code 1 if its outputs are not those on the card, the pairs are ranked the wrong way round, or no text
    gets a score.
    """
    from quadmix.annotate.models.base import Settings
    from quadmix.codec import to_json
    from quadmix.pipeline.raters import ask, tried_lines, try_rater

    settings = Settings(device=device, precision=precision)
    found = try_rater(ask(card, path, settings, accept_remote_code=accept_remote_code), output)
    shown = {
        "card": found.card.name, "digest": found.digest, "golden": found.golden, "scores": found.scores,
        "probe": found.probe,
    }  # fmt: skip
    print_result(to_json(shown), tried_lines(found), json_)
    silent = bool(found.scores) and all(score != score for score in found.scores)  # NaN
    if silent or found.golden.passed is False or (found.probe and found.probe.verdict == "wrong"):
        raise typer.Exit(1)


@app.command()
def golden(
    card: Card,
    out: Annotated[Path, typer.Option("--out", help="the card with the outputs, as .yaml")],
    path: ModelPath = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    accept_remote_code: RemoteCode = None,
) -> None:
    """Record what a model gives for the 20 fixed texts, and the digests of its files, on a copy of its card.

    `quadmix raters try` and `quadmix doctor RECIPE` then say whether it still gives that elsewhere.
    """
    from quadmix.annotate.models.base import Settings
    from quadmix.pipeline.raters import ask, is_local, keep_golden

    settings = Settings(device=device, precision=precision)
    asked = ask(card, path, settings, accept_remote_code=accept_remote_code)
    made = keep_golden(asked, out, local=is_local(card, path))
    rows = made.golden.outputs if made.golden else ()
    print_result(
        {"card": str(out), "texts": len(rows)}, [f"{out}: outputs of {len(rows)} texts recorded"], False
    )


@app.command("train-fasttext")
def train_fasttext(
    name: Annotated[str, typer.Argument(help="name of the new card")],
    good: Annotated[list[str], typer.Option("--good", help="JSONL or Parquet file; may be repeated")],
    bad: Annotated[list[str], typer.Option("--bad", help="JSONL or Parquet file; may be repeated")],
    out: Annotated[Path, typer.Option("--out", help="folder for the model, its card and what was measured")],
    text: TextColumn = "text",
    dim: Annotated[int, typer.Option(help="numbers per word and n-gram")] = 100,
    epochs: Annotated[int, typer.Option(help="passes over the texts; few texts need more")] = 5,
    lr: Annotated[float, typer.Option(help="learning rate")] = 0.1,
    bucket: Annotated[int, typer.Option(help="rows for n-grams, of dim x 4 bytes each")] = 2_000_000,
    heldout: Annotated[float, typer.Option(help="share of the texts kept for the metrics")] = 0.1,
    trained_on: Annotated[
        list[str] | None, typer.Option("--trained-on", help="data set, for the check of circularity")
    ] = None,
    seed: int = 0,
    json_: AsJson = False,
) -> None:
    """Train a fastText classifier of good against bad text, as DCLM did; held-out AUC, text length alone.

    In a recipe: `kind: model`, `model: OUT/card.yaml`.
    """
    from quadmix.annotate.models.train_fasttext import FastTextTraining
    from quadmix.pipeline.raters import train_from_files

    training = FastTextTraining(dim=dim, epochs=epochs, lr=lr, bucket=bucket, heldout=heldout, seed=seed)
    made = train_from_files(name, (good, bad), text, out, training=training, trained_on=trained_on or ())
    print_result(made.facts, made.lines(), json_)


@app.command("train-head")
def train_head(
    name: Annotated[str, typer.Argument(help="name of the new card")],
    labelled: Annotated[str, typer.Option("--labelled", help="JSONL or Parquet file of texts with numbers")],
    embedder: Annotated[str, typer.Option("--embedder", help="card of an embedding model")],
    out: Annotated[Path, typer.Option("--out", help="folder for the head, its card and what was measured")],
    text: TextColumn = "text",
    label: Annotated[str, typer.Option("--label", help="column with the number, larger = better")] = "label",
    path: ModelPath = None,
    device: Device = "auto",
    precision: Precision = "auto",
    accept_remote_code: RemoteCode = None,
    json_: AsJson = False,
) -> None:
    """Train a regression head on frozen embeddings; held-out Spearman, learning curve, text length alone.

    In a recipe: `kind: model`, `model: OUT/card.yaml`.
    """
    from quadmix.annotate.models.base import Settings
    from quadmix.pipeline.raters import ask, is_local, train_head_from_file

    settings = Settings(device=device, precision=precision)
    asked = ask(embedder, path, settings, accept_remote_code=accept_remote_code)
    made = train_head_from_file(name, labelled, (text, label), asked, out, local=is_local(embedder, path))
    print_result(made.facts, made.lines(), json_)


@app.command()
def diagnose(folder: RunFolder, json_: AsJson = False) -> None:
    """What the annotations of a run say: correlations per domain, length bias, coverage, drift of shards,
    orientation, raters that were trained on a target."""
    from quadmix.annotate.diagnosis_text import diagnosis_lines
    from quadmix.codec import to_json
    from quadmix.pipeline.raters import diagnose_run

    found = diagnose_run(folder)
    print_result(to_json(found), diagnosis_lines(found), json_)
