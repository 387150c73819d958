"""`quadmix models`: the comparison models of a run for other tools; list, export, tasks for the harness."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from quadmix.cli.output import AsJson, RunFolder, print_result

app = typer.Typer(no_args_is_help=True, help="The comparison models of a run: list, export, benchmark tasks.")


@app.command("list")
def list_(folder: RunFolder, json_: AsJson = False) -> None:
    """Every comparison model whose weights are kept: name, selector, seed, training tokens, size.

    A stale one is no model of the present comparison: the recipe changed, or its training failed.
    """
    from quadmix.codec import to_json
    from quadmix.pipeline.models import list_models, why_none

    models = list_models(folder)
    old = sum(bool(m.stale) for m in models)
    total = f"{len(models)} models" + (f", {old} of them stale" if old else "")
    lines = [*(m.render() for m in models), total] if models else [why_none(folder)]
    print_result(to_json({"models": models}), lines, json_)


@app.command()
def export(
    folder: RunFolder,
    name: Annotated[str, typer.Argument(metavar="TRIAL", help="a name that `quadmix models list` shows")],
    out: Annotated[Path, typer.Option("--out", help="new folder for the model")],
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="of the numbers on disk")
    ] = "float32",
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="also a model that is none of the present comparison")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Write a model as a Hugging Face LlamaForCausalLM folder with its tokenizer.

    transformers, lm-evaluation-harness and what else reads such folders then load it: docs/harness.md.
    """
    from quadmix.codec import to_json
    from quadmix.pipeline.models import export_model

    done = export_model(folder, name, out, force=force, stale=stale, precision=dtype)
    lines = [
        str(out),
        f"  {done.model.name}: {done.model.label}, seed {done.model.seed}, "
        f"{done.model.train_tokens:,} training tokens",
        f"  LlamaForCausalLM, {done.layers} layers of width {done.width}, context {done.model.context}, "
        f"{done.entries:,} entries, {done.precision}",
        "  every text begins with the end-of-document token (the tokenizer adds it)",
        f"  lm_eval --model hf --model_args pretrained={out} --include_path TASKS --tasks quadmix",
    ]
    print_result({"folder": str(out), **to_json(done)}, lines, json_)


@app.command()
def tasks(
    source: Annotated[Path, typer.Argument(metavar="RECIPE_OR_RUN", help="recipe file, or run folder")],
    out: Annotated[Path, typer.Option("--out", help="folder for the YAML and JSONL files")],
    json_: AsJson = False,
) -> None:
    """Write evaluate.benchmarks as local tasks of lm-evaluation-harness, with the same items and texts."""
    from quadmix.codec import to_json
    from quadmix.pipeline.models import write_benchmark_tasks

    written = write_benchmark_tasks(source, out)
    lines = [
        f"{t.name}  {t.items:,} items"
        + ("" if t.chance is None else f", chance {t.chance:.3f}")
        + (f", choices of up to {t.longest} tokens" if t.longest else "")
        for t in written
    ]
    lines.append(f"  lm_eval ... --include_path {out} --tasks quadmix  (all), or a name")
    print_result(to_json({"folder": str(out), "tasks": written}), lines, json_)
