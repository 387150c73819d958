"""The run folder: identity (promise P1), one writer (P9), stage summaries, resume after a kill.

A run is named by what determines its result: recipe without `run` and without paths, tool version,
digests of every input file, seed. The same folder with another identity is refused field by field.
"""

import importlib.metadata
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from quadmix import __version__
from quadmix.annotate.models.prepare import model_digests
from quadmix.engine.tasks import resolve_workers
from quadmix.errors import IdentityError, InputError, RecipeError
from quadmix.io.atomic import append_event, file_digest, read_json, value_digest, write_json, write_text
from quadmix.io.fs import expand, file_info
from quadmix.io.lease import lease
from quadmix.io.trials import trials_digest
from quadmix.pipeline.events import logged
from quadmix.pipeline.progress import Progress
from quadmix.recipe import PATH_KEYS, EvaluateSection, LabelledSet, Recipe, dump_recipe

STAGES = (
    "corpus", "annotate", "mixing", "pool", "swarm", "search", "confirm", "materialise", "evaluate", "report",
)  # fmt: skip


# where work runs and where its result goes besides; a preset is in the other sections; how the outcome is
# compared changes nothing before it, and every model of a comparison is checked against its own job
_COMPARED = set(EvaluateSection.model_fields) - {"enabled", "holdout", "holdout_bytes", "benchmarks"}
_NOT_IDENTITY: Any = {
    "run": True, "preset": True, "materialise": {"out": True, "keep_local": True}, "evaluate": _COMPARED,
    "report": True, "corpus": {"columns": {"source": True, "language": True}},
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An open run: the checked recipe, its folder, and where work runs."""

    recipe: Recipe
    folder: Path
    identity: str
    workers: int
    progress: Progress

    def path(self, *parts: str) -> Path:
        """Return a path inside the run folder."""
        return self.folder.joinpath(*parts)


@dataclass(slots=True)
class StageNotes:
    """What a stage has to say: facts for the report, warnings for the verdict."""

    warnings: list[str] = field(default_factory=list[str])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def run_folder(recipe: Recipe) -> Path:
    """Return the folder of a recipe's run, absolute: workers on other machines stand elsewhere."""
    return (Path(recipe.run.folder) / recipe.name).absolute()


@contextmanager
def open_run(recipe: Recipe, progress: Progress) -> Generator[Job]:
    """Check the identity of the run folder, take its lease, and yield the job."""
    folder = run_folder(recipe)
    facts = identity_facts(recipe)
    check_identity(folder, facts)
    folder.mkdir(parents=True, exist_ok=True)
    with lease(folder, note=progress.note):
        check_identity(folder, facts)  # again: another process may have made the folder its own meanwhile
        write_json(folder / "identity.json", {**facts, "identity": value_digest(facts)})
        write_text(folder / "recipe.resolved.yaml", dump_recipe(recipe))
        workers = resolve_workers(recipe.run.workers)
        with progress.recording(folder), logged(folder, recipe.run, workers):
            yield Job(
                recipe=recipe,
                folder=folder,
                identity=value_digest(facts),
                workers=workers,
                progress=progress,
            )


@contextmanager
def stage(job: Job, name: str) -> Generator[StageNotes]:
    """Time a stage and commit its summary to stages/<name>.json when it ends well.

    A stage that is met again (resume, or a later command) keeps the seconds of its longest pass, so
    that loading finished work does not hide what it cost.
    """
    notes, start = StageNotes(), time.monotonic()
    append_event(job.path("events.jsonl"), {"time": time.time(), "event": "start", "stage": name})
    with job.progress.row(name):
        yield notes
    file = job.path("stages", f"{name}.json")
    before = cast(dict[str, Any], read_json(file)) if file.exists() else {}
    seconds = max(time.monotonic() - start, before.get("seconds", 0.0))
    write_json(
        file, {"stage": name, "seconds": round(seconds, 2), "warnings": notes.warnings, "facts": notes.facts}
    )
    append_event(job.path("events.jsonl"), {"time": time.time(), "event": "end", "stage": name})


def stage_done(folder: Path, name: str) -> bool:
    """Has this stage been committed in the run folder?"""
    return (folder / "stages" / f"{name}.json").exists()


def identity_facts(recipe: Recipe) -> dict[str, Any]:
    """Return everything that determines the result, as a flat mapping of field to value."""
    settings = recipe.model_dump(mode="json", exclude=_NOT_IDENTITY)
    facts: dict[str, Any] = {"tool": __version__}
    facts |= {f"library.{name}": version for name, version in library_versions().items()}
    if not recipe.annotate.overlap_with:  # runs without it have the identity of before the key was there
        del settings["annotate"]["overlap_with"]
    _flatten("recipe", settings, facts)
    pool = [file_info(p) for p in expand(recipe.corpus.paths)]
    facts["files.corpus"] = value_digest([(i.path.rsplit("/", 1)[-1], i.bytes, i.digest) for i in pool])
    for place, path in _side_files(recipe):
        try:
            facts[f"files.{place}"] = file_info(path).digest
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    facts |= {f"files.annotate.{name}": digest for name, digest in model_digests(recipe.annotate).items()}
    if recipe.mixing.theta_from is not None:
        facts["files.theta_from"] = theta_digest(recipe.mixing.theta_from)
    for number, folder in enumerate(recipe.proxy.reuse):
        facts[f"files.reuse.{number}"] = reused_digest(recipe, folder)
    return facts


def reused_digest(recipe: Recipe, folder: str) -> str:
    """Return the digest of what a reused run brings: its identity and its trials, wherever it lies."""
    home = Path(folder)
    if home.absolute() == run_folder(recipe):
        raise RecipeError(
            f"proxy.reuse names {folder}, the folder of this run itself, which goes on by itself; name the "
            "folder of an earlier run, or give this one another name"
        )
    if not (home / "identity.json").is_file():
        raise RecipeError(
            f"proxy.reuse names {folder!r}, which is no run folder of quadmix (it has no identity.json); "
            "expected one such as runs/my-mixture, relative to the recipe"
        )
    return value_digest([read_json(home / "identity.json").get("identity"), trials_digest(home)])


def theta_digest(folder: str) -> str:
    """Return the digest of what a run gives to another corpus: its identity, θ* and normaliser."""
    home = Path(folder)
    names = ("search/confirm.json", "normaliser.json", "tokenizer.json", "annotators/manifest.json")
    needed = [home / "identity.json", *(home / name for name in names)]
    for file in needed:
        if not file.is_file():
            raise RecipeError(
                f"mixing.theta_from names {folder!r}, which has no {file.relative_to(home)}; expected the "
                "folder of a run whose search is confirmed, such as runs/my-mixture, relative to the recipe"
            )
    return value_digest([read_json(needed[0]).get("identity"), *map(file_digest, needed[1:])])


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries whose numbers end up in θ* ("" where one is not installed)."""
    names = ("numpy", "scipy", "torch", "tokenizers", "scikit-learn", "lightgbm", "cmaes", "pyarrow",
             "transformers", "fasttext-numpy2", "kenlm", "langcodes")  # fmt: skip
    found = {d: importlib.metadata.version(d) for d in names if _installed(d)}
    return {name: found.get(name, "") for name in names}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_identity(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a folder of another run with the fields that differ."""
    file = folder / "identity.json"
    if not file.exists():
        return
    stored = cast(dict[str, Any], read_json(file))
    stored.pop("identity", None)
    fresh = dict(facts)
    names = sorted(n for n in stored.keys() | fresh.keys() if stored.get(n) != fresh.get(n))
    if names:
        shown = "; ".join(f"{n}: folder has {stored.get(n)!r}, now {fresh.get(n)!r}" for n in names[:6])
        more = f"; and {len(names) - 6} more fields" if len(names) > 6 else ""
        raise IdentityError(
            f"{folder} belongs to another run ({shown}{more}). Give this run its own name "
            "(--set name=...) or folder (--set run.folder=...), or go back to the old settings"
        )


def _flatten(prefix: str, value: Any, out: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in cast(dict[str, Any], value).items():
            card = key == "model" and str(item).endswith((".yaml", ".yml"))
            if key not in PATH_KEYS and not card:  # their contents are digested instead
                _flatten(f"{prefix}.{key}", item, out)
    elif isinstance(value, list) and any(isinstance(v, dict) for v in cast(list[Any], value)):
        for index, item in enumerate(cast(list[Any], value)):
            _flatten(f"{prefix}.{index}", item, out)
    else:
        out[prefix] = value


def _side_files(recipe: Recipe) -> list[tuple[str, str]]:
    files = [(f"targets.{t.name}", t.path) for t in recipe.targets]
    files += [(f"evaluate.benchmarks.{b.name}", b.path) for b in recipe.evaluate.benchmarks]
    files += [(f"annotate.overlap_with.{s.name}", s.path) for s in recipe.annotate.overlap_with]
    if recipe.tokenizer.path:
        files.append(("tokenizer", recipe.tokenizer.path))
    if recipe.search.current:
        files.append(("search.current", recipe.search.current))
    sets: list[tuple[str, LabelledSet]] = []
    for criterion in recipe.annotate.criteria:
        for role in ("good", "bad", "labelled"):
            sets += [(f"{criterion.name}.{role}.{i}", s) for i, s in enumerate(getattr(criterion, role))]
    sets += [(f"domain.labelled.{i}", s) for i, s in enumerate(recipe.annotate.domain.labelled)]
    return files + [(f"annotate.{place}", s.path) for place, s in sets]
