"""`quadmix export`: the dataset of a run in the format of a training framework."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quadmix.cli.output import AsJson, RunFolder, print_result

if TYPE_CHECKING:
    from quadmix.materialise.exports import ExportManifest


def export(
    folder: RunFolder,
    format_: Annotated[
        str,
        typer.Option("--format", help="megatron, olmo, nanotron, litdata (tokens); mds, hf, jsonl (texts)"),
    ],
    out: Annotated[Path | None, typer.Option(help="new folder; left out: RUN/exports/FORMAT")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json; left out: the one of the run")
    ] = None,
    eos: Annotated[
        str | None, typer.Option(help="end-of-document token; left out: found in the tokenizer")
    ] = None,
    tokenizer_name: Annotated[
        str, typer.Option(help="what nanotron loads the tokenizer by, a name of the hub or a path")
    ] = "",
    json_: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress on stderr")] = False,
) -> None:
    """Write the dataset as Megatron, OLMo-core, nanotron, litdata, MosaicML, Hugging Face or JSONL files.

    Everything is read back and compared before the folder appears. An export that was killed starts again.
    """
    from quadmix.codec import to_json
    from quadmix.materialise.exports import export_dataset
    from quadmix.pipeline.progress import Progress

    target = out or folder / "exports" / format_
    done = export_dataset(
        folder,
        target,
        format=format_,
        tokenizer=tokenizer,
        eos=eos,
        tokenizer_name=tokenizer_name,
        watch=Progress({"export": 0.8, "verify": 0.2}, quiet=quiet),
    )
    print_result({"folder": str(target), **to_json(done)}, _lines(target, done, eos is not None), json_)


def _lines(target: Path, done: "ExportManifest", told: bool) -> list[str]:
    tokens = f", {done.tokens:,} tokens" if done.tokens else ""
    lines = [
        str(target),
        f"  {done.documents:,} documents{tokens} in {len(done.files)} files, {done.bytes:,} bytes",
        f"  written by {done.library} {done.library_version}",
        f"  order: {done.order}, as in the dataset",
    ]
    if done.tokens:
        how = "as told" if told else "found in the tokenizer; --eos names another"
        lines += [
            f"  tokens: {done.dtype}, {done.entries:,} entries, tokenizer {done.tokenizer}",
            f"  end of document: {done.eos} (id {done.eos_id}), {how}",
        ]
    lines.append(
        "  verified: all documents read back and compared; "
        f"of {done.sampled} samples {done.exact} come back to the letter"
    )
    if done.exact < done.sampled:
        lines.append("  the tokenizer does not keep every character of a text")
    if done.eos_inside:
        lines.append(
            f"  {done.eos_inside:,} documents hold the end-of-document token inside their text; "
            "consumers that split by it see more documents"
        )
    return lines
