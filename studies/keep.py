"""Keep the trained proxies of the studies' run in the repository, or put them back into a run folder.

    python studies/keep.py save       finished models of the run, its comparison and the studies
                                      -> studies/results/trials.jsonl.zst, scores row by row -> results/rows/
    python studies/keep.py restore    the other way: the studies then train only what is missing

A trial is used only where its job (θ, seeds, copies, model, training, pool, targets) has the same digest, so
a restored trial can never stand for another one. Weights are not kept.
"""

import argparse
import shutil
from pathlib import Path

import orjson
import zstandard
from common import HERE, RESULTS

from quadmix.pipeline.folder import run_folder
from quadmix.recipe import load_recipe

ARCHIVE, ROWS = RESULTS / "trials.jsonl.zst", RESULTS / "rows"


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    options.add_argument("what", choices=["save", "restore"])
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="A.B=VALUE")
    args = options.parse_args()
    folder = run_folder(load_recipe(str(HERE / "study.yaml"), args.overrides))
    print(f"{save(folder)} trials kept" if args.what == "save" else f"{restore(folder)} trials restored")


def save(folder: Path) -> int:
    """Write every finished trial as one line, its place and its content, and copy the scores row by row."""
    places = ("trials", "studies/*", "evaluate/trials", "evaluate/rungs/*/trials")
    files = sorted(file for place in places for file in folder.glob(f"{place}/[!.]*.json"))
    lines = [
        orjson.dumps({"file": f.relative_to(folder).as_posix(), "trial": orjson.loads(f.read_bytes())})
        for f in files
        if f.name != "dropped.json" and "trial_id" in orjson.loads(f.read_bytes())
    ]
    ARCHIVE.write_bytes(zstandard.compress(b"\n".join(lines), 19))
    for file in folder.glob("evaluate/**/rows/*.parquet"):
        _copy(file, ROWS / file.relative_to(folder / "evaluate"))
    return len(lines)


def restore(folder: Path) -> int:
    """Write the trials that are not there; what is there stays."""
    lines = zstandard.decompress(ARCHIVE.read_bytes()).split(b"\n")
    restored = 0
    for line in lines:
        entry = orjson.loads(line)
        file = folder / entry["file"]
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(orjson.dumps(entry["trial"]))
            restored += 1
    for file in ROWS.glob("**/*.parquet"):
        if not (place := folder / "evaluate" / file.relative_to(ROWS)).exists():
            _copy(file, place)
    return restored


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


if __name__ == "__main__":
    main()
