"""What commands share: how a run folder is named, and how a result is printed."""

from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
RunFolder = Annotated[Path, typer.Argument(help="run folder, for example runs/demo")]


def print_result(value: Any, lines: list[str], as_json: bool) -> None:
    """Print a result on stdout, as lines or as one JSON object."""
    if as_json:
        import orjson

        typer.echo(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())
        return
    for line in lines:
        typer.echo(line)
