"""The command `diff`: two selections in text, or as a page with its figures."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from quadmix.cli.output import AsJson, RunFolder, print_result
from quadmix.cli.report import Redact
from quadmix.errors import RecipeError

SAMPLE = 25


def diff(
    folder_a: RunFolder,
    folder_b: RunFolder,
    html: Annotated[Path | None, typer.Option(help="write a page with figures and why cards here")] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="write its figures as SVG, PNG and CSV into figures/ beside it")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, help="documents on the page: of those only in A, and of those only in B")
    ] = SAMPLE,
    seed: Annotated[int, typer.Option(help="of the hash that chooses them")] = 0,
    redact_samples: Redact = None,
    offline: Annotated[bool, typer.Option("--offline", help="read no text over the network")] = False,
    json_: AsJson = False,
) -> None:
    """Two selections: tokens moved per domain, documents only in A or only in B.

    With --html PATH as one self-contained page: what moved, who is kept by one alone and why, in both runs.
    """
    from quadmix.codec import to_json
    from quadmix.materialise.diff import diff_runs

    if html is None:
        if figures:
            raise RecipeError("--figures writes beside a page; expected --html PATH with it")
        result = diff_runs(folder_a, folder_b)
        print_result(to_json(result), result.render().splitlines(), json_)
        return
    from quadmix.io.door import network
    from quadmix.report.diff_page import write_diff

    redact = redact_samples or _redacted(folder_a) or _redacted(folder_b)
    with network(offline=offline):
        result = diff_runs(folder_a, folder_b, sample=sample, seed=seed, texts=not redact)
    page = write_diff(result, (folder_a, folder_b), html, figures=figures)
    numbers = to_json(dataclasses.replace(result, documents=()))
    print_result({**numbers, "page": str(page)}, [*result.render().splitlines(), f"page: {page}"], json_)


def _redacted(folder: Path) -> bool:
    """Does the run's recipe leave texts out of its report? (One of another version does not say.)"""
    from quadmix.recipe import load_recipe

    path = folder / "recipe.resolved.yaml"
    try:
        return path.is_file() and load_recipe(str(path)).report.redact_samples
    except RecipeError:
        return False
