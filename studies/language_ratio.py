"""English and a second language: how much of each, and what does parallel text add?

MuBench's pretraining study (arXiv 2506.19468: 1.2B parameters, 500B tokens, English and Chinese) in small:
models of the size ladder, constant tokens, English share x share of parallel text, several seeds. English is
web text of the corpus, the second language web documents of web_registers, as many bytes of each; parallel
text are the lines of NTREX and TICO-19, one of each language by turns. A cell's tokens are drawn from these
three by their shares; what has too few is repeated.

Measured: bits per byte of held-out text of both languages and of FLORES sentences (sib200), and a choice that
needs no translation: the second half of a FLORES sentence among four second halves, the same items in both
languages. From these accuracy per language and how often both choose the same option (MLC), both right
(MLC+), the same wrong one (MLC-), beside what the shortest and the longest option and an untrained model
reach.

With --apart there are cells with the same parallel text, each language in documents of its own: what they
change is due to the text, what the pairs change beyond it is due to the pairing.

Prints tables, draws docs/mubench.svg, writes studies/results/language_ratio.json. Models lie in
runs/language_ratio/, one folder per language and size, and the same command goes on where it was stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import HERE, save
from language_pages import contrast, draw, lines
from language_texts import DOMAINS, OPTIONS, Material, choice_items, consistency, read_material, text_nulls

from quadmix.corpus.targets import TargetText
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.engine.tasks import Place
from quadmix.errors import InputError
from quadmix.io.atomic import (
    read_json,
    read_table,
    read_value,
    value_digest,
    write_array,
    write_json,
    write_text,
)
from quadmix.mixing.draw import settle_copies
from quadmix.proxy.choices import encode_benchmarks, read_choices
from quadmix.proxy.pool import PoolManifest, TokenPool, open_pool
from quadmix.proxy.scoring import ScoringSetting, rows_path, score_models
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.proxy.swarm import run_swarm
from quadmix.proxy.targets import encode_targets
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.rng import doc_keys
from quadmix.types import Copies, Ints, Trial

PICTURE = HERE / "../docs/mubench.svg"
RATIOS, SHARES = "1,0.9,0.7,0.5,0.3,0", "0,0.01,0.05,0.1"
_FIRST_SEED = 1000
UNTRAINED = "untrained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """english: share of the text in one language that is English. parallel: share of all tokens; apart: the
    documents of that share have one language each."""

    english: float
    parallel: float
    apart: bool = False

    @property
    def name(self) -> str:
        return f"{round(100 * self.english):03d}-{round(1000 * self.parallel):03d}" + "a" * self.apart

    @property
    def shares(self) -> list[float]:
        """Return the shares of `DOMAINS`."""
        rest = 1 - self.parallel
        both = (0.0, self.parallel) if self.apart else (self.parallel, 0.0)
        return [rest * self.english, rest * (1 - self.english), *both]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """What all cells share. home: folder of this language's models."""

    home: Path
    pool: TokenPool
    setting: ProxySetting
    benchmarks: Path
    nulls: dict[str, dict[str, float]]


def main(words: Sequence[str] | None = None) -> None:
    args = options().parse_args(words)
    if args.show:
        show(read_json(common.RESULTS / "language_ratio.json"))
        return
    cells = [
        Cell(english=r, parallel=p, apart=a)
        for r in floats(args.ratios) for p in floats(args.shares) for a in (False, True)
        if not a or (args.apart and p)
    ]  # fmt: skip
    world = make_world(args)
    jobs = [job(world, cell, seed, args.tokens) for seed in range(args.seeds) for cell in cells]
    place = Place("serial" if args.workers == 1 else "processes", args.workers)
    trials = run_swarm(
        jobs, world.setting, folder=world.home / "trials", group=args.group, place=place, save_weights=True,
        on_trial=lambda t: print(f"{t.trial_id}: {t.status} {t.reason}", file=sys.stderr, flush=True),
    )  # fmt: skip
    add_untrained(world)
    refused = score_models(
        [UNTRAINED, *(t.trial_id for t in trials if t.status == "done")], world.home / "trials/weights",
        ScoringSetting(model=world.setting.model, vocab_size=world.setting.vocab_size, device=args.device),
        [str(world.benchmarks)], world.home / "rows", jobs={t.trial_id: t.job for t in trials}, place=place,
    )  # fmt: skip
    nulls = world.nulls | {UNTRAINED: chosen(world, UNTRAINED)}
    found = {cell.name: gathered(world, cell, trials, refused) for cell in cells}
    result = {
        "language": args.language, "tokens": args.tokens, "size": args.size, "seeds": args.seeds,
        "context": args.context, "cells": found, "contrasts": contrasts(cells, found), "nulls": nulls,
        "pool_tokens": dict(zip(DOMAINS, domain_tokens(world.pool).tolist(), strict=True)),
    }  # fmt: skip
    save("language_ratio", result)
    show(result)


def show(result: dict[str, Any]) -> None:
    """Print the tables of docs/mubench.md and draw its picture."""
    print("\n".join(lines(result)))
    draw(result, PICTURE)


def options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--language", default="zho", help="ISO 639-3, as in the data (zho, fra, ind, fin, ...)")
    made.add_argument("--data", type=Path, default=HERE / "../../shared/data", help="corpus/, multilingual/")
    made.add_argument("--tokens", type=int, default=4_000_000, help="training tokens per model")
    made.add_argument("--size", default="1M", help="step of the size ladder")
    made.add_argument("--context", type=int, default=256)
    made.add_argument("--vocab", type=int, default=4096)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--ratios", default=RATIOS, help="English shares of the text in one language")
    made.add_argument("--shares", default=SHARES, help="shares of parallel text")
    made.add_argument("--apart", action="store_true", help="also the parallel text with its languages apart")
    made.add_argument("--group", type=int, default=8, help="models trained together")
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    made.add_argument("--show", action="store_true", help="print and draw the stored result, train nothing")
    made.add_argument("--folder", type=Path, default=Path("runs/language_ratio"))
    return made


# --------------------------------------------------------------------------- models
def make_world(args: argparse.Namespace) -> World:
    """Write (or find) tokenizer, pool, targets and items of a language."""
    home = args.folder / f"{args.language}-{args.size}-{args.context}-{args.vocab}"
    material = read_material(args.data, args.language)
    source = value_digest([material, args.vocab])
    file, mark = home / "tokenizer.json", home / "source.json"
    if not mark.is_file() or read_json(mark)["source"] != source:
        texts = [t[:50_000] for part in material.training.values() for t in part]
        write_text(file, train_tokenizer(texts, args.vocab))
        write_json(mark, {"source": source})
    tokenizer = Tokenizer.load(file)
    pool = make_pool(material, tokenizer, home / "pool")
    heldout = [target(name, texts) for name, texts in material.heldout.items()]
    flores = [target(f"flores-{DOMAINS[k]}", [pair[k] for pair in material.sentences]) for k in range(2)]
    encode_targets([*heldout, *flores], tokenizer, args.context, str(home / "targets"))
    items = [choice_items(material.sentences, which) for which in range(2)]
    encode_benchmarks(items, tokenizer, args.context, str(home / "benchmarks"))
    sized = {"size": args.size} if args.size != "tiny" else {"layers": 1, "width": 16, "heads": 1, "mlp": 32}
    model = ModelSection.model_validate({**sized, "context": args.context})
    setting = ProxySetting(
        pool=str(home / "pool"), targets=str(home / "targets"), heldout=None, model=model,
        training=TrainingSection(tokens=args.tokens), vocab_size=tokenizer.vocab_size, domains=DOMAINS,
        device=args.device,
    )  # fmt: skip
    return World(
        home=home, pool=pool, setting=setting, benchmarks=home / "benchmarks", nulls=text_nulls(items)
    )


def target(name: str, texts: Sequence[str]) -> TargetText:
    return TargetText(
        name=name, prompts=("",) * len(texts), answers=tuple(texts), score_prompt=True, weight=1.0,
        rows_in=len(texts),
    )  # fmt: skip


def make_pool(material: Material, tokenizer: Tokenizer, folder: Path) -> TokenPool:
    """Write all training text as a token pool, domain by domain."""
    source = value_digest([material.training, tokenizer.digest])
    manifest = folder / "manifest.json"
    if manifest.is_file() and read_value(manifest, PoolManifest).source == source:
        return open_pool(folder)
    manifest.unlink(missing_ok=True)
    texts = [(number, text) for number, name in enumerate(DOMAINS) for text in material.training[name]]
    encoded = tokenizer.encode([text for _, text in texts])
    lengths = np.array([len(ids) + 1 for ids in encoded], dtype=np.int64)
    end = tokenizer.end_of_document
    arrays = {
        "tokens": np.concatenate([np.array([*ids, end], dtype=np.uint16) for ids in encoded]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "rows": np.arange(len(texts), dtype=np.int64),
        "keys": doc_keys(f"{number}:{i}" for i, (number, _) in enumerate(texts)),
        "domain": np.array([number for number, _ in texts], dtype=np.int16),
    }
    for name, array in arrays.items():
        write_array(folder / f"{name}.npy", array)
    write_json(
        manifest,
        PoolManifest(
            documents=len(texts), tokens=int(lengths.sum()), vocab_size=tokenizer.vocab_size, source=source,
            tokenizer=tokenizer.digest,
        ),
    )  # fmt: skip
    return open_pool(folder)


def domain_tokens(pool: TokenPool) -> Ints:
    return np.bincount(pool.domain, weights=pool.lengths, minlength=len(DOMAINS)).astype(np.int64)


def cell_copies(pool: TokenPool, cell: Cell, tokens: int, seed: int) -> Copies:
    """Return copies per document, so that one epoch has `tokens` tokens in the cell's shares."""
    expected = np.array(cell.shares) * tokens / np.maximum(domain_tokens(pool), 1)
    drawn = settle_copies(
        expected[pool.domain], pool.keys, pool.lengths.astype(np.int32), pool.domain,
        num_domains=len(DOMAINS), seed=seed,
    )  # fmt: skip
    return drawn.copies


def job(world: World, cell: Cell, seed: int, tokens: int) -> ProxyJob:
    """Return one model; models of one seed share start and order, so that they differ by their text."""
    number = _FIRST_SEED + seed
    return ProxyJob(
        trial_id=f"{cell.name}-{seed}", kind="study", label=cell.name, theta=None, seed=number,
        order_seed=number, copies=cell_copies(world.pool, cell, tokens, number),
    )  # fmt: skip


def add_untrained(world: World) -> None:
    """Write the weights that every model of the first seed begins with."""
    path = world.home / "trials" / "weights" / f"{UNTRAINED}.safetensors"
    if path.is_file():
        return
    import torch

    from quadmix.proxy.checkpoint import write_weights
    from quadmix.proxy.model import initial_weights

    setting = world.setting
    drawn = initial_weights(setting.model, setting.vocab_size, [_FIRST_SEED], torch.device("cpu"))
    write_weights(str(path), {name: tensor[0] for name, tensor in drawn.named().items()})


# --------------------------------------------------------------------------- results
def gathered(
    world: World, cell: Cell, trials: Sequence[Trial], refused: dict[str, str]
) -> dict[str, list[float | None]]:
    """Return measure -> one value per seed, None for a model that failed."""
    own = sorted((t for t in trials if t.label == cell.name), key=lambda t: t.seed)
    rows = [values_of(world, t) if t.status == "done" and t.trial_id not in refused else {} for t in own]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def values_of(world: World, trial: Trial) -> dict[str, float]:
    losses = {f"bpb_{name}": loss.bits_per_byte for name, loss in trial.losses.items()}
    return losses | chosen(world, trial.trial_id)


def chosen(world: World, name: str) -> dict[str, float]:
    """Return accuracy and consistency of one model: the options of least loss per byte."""
    rows, known = read_table(rows_path(world.home / "rows", name)), read_choices(world.benchmarks)
    task = np.array(rows["task"].to_pylist())
    loss = rows["nll"].to_numpy() / rows["bytes"].to_numpy()
    names = [f"flores-{DOMAINS[which]}" for which in range(2)]
    picked = [loss[task == own].reshape(-1, OPTIONS).argmin(axis=1) for own in names]
    return consistency(*picked, np.array(known[names[0]].gold))


def contrasts(cells: Sequence[Cell], found: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """Return contrast -> cell -> measure -> difference over seeds; the cell `all` is the mean over the cells.

    parallel: with parallel text minus without. apart: the same text, each language in its own documents,
    minus without. pairing: the first minus the second, so what pairs of lines add to the text that they are.
    """
    sides: dict[str, list[tuple[Cell, Cell]]] = {"parallel": [], "apart": [], "pairing": []}
    for cell in (c for c in cells if c.parallel):
        sides["apart" if cell.apart else "parallel"].append((cell, replace(cell, parallel=0.0, apart=False)))
        if not cell.apart:
            sides["pairing"].append((cell, replace(cell, apart=True)))
    return {
        name: contrast([(one.name, other.name) for one, other in pairs], found)
        for name, pairs in sides.items() if pairs and pairs[0][1].name in found
    }  # fmt: skip


def floats(text: str) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if not all(0 <= v <= 1 for v in values):
        raise InputError(f"{text!r}: expected shares from 0 to 1")
    return values


if __name__ == "__main__":
    main()
