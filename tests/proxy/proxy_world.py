"""A tiny world for proxy tests: a pool of two domains with different bigrams, written without a corpus."""

from pathlib import Path

import numpy as np

from quadmix.io.atomic import write_array, write_json
from quadmix.proxy.pool import PoolManifest
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.proxy.targets import IGNORE, TargetManifest
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.rng import doc_keys

VOCAB, CONTEXT = 48, 16
MODEL = ModelSection(layers=2, width=16, heads=2, mlp=32, context=CONTEXT)
PUBLISHED = MODEL.model_copy(update={"architecture": "tinyllama", "head": "untied"})


def tokens_of(domain: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Domain 0 counts up, domain 1 counts down, both with noise; token 0 is end-of-document."""
    steps = np.where(rng.random(length) < 0.8, 1 if domain == 0 else -1, rng.integers(0, VOCAB, length))
    return (np.cumsum(steps) % (VOCAB - 1) + 1).astype(np.uint16)


def make_pool(folder: Path, documents: int = 120, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    domain = rng.integers(0, 2, documents).astype(np.int16)
    texts = [np.append(tokens_of(d, int(rng.integers(5, 60)), rng), 0).astype(np.uint16) for d in domain]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    arrays = {
        "tokens": np.concatenate(texts),
        "offsets": offsets,
        "rows": np.arange(documents, dtype=np.int64),
        "keys": doc_keys(f"d{i}" for i in range(documents)),
        "domain": domain,
    }
    for name, array in arrays.items():
        write_array(folder / f"{name}.npy", array)
    manifest = PoolManifest(documents=documents, tokens=int(offsets[-1]), vocab_size=VOCAB, source="test")
    write_json(folder / "manifest.json", manifest)
    return folder


def make_targets(folder: Path, kind: str = "target", windows: int = 6) -> Path:
    rng = np.random.default_rng(7)
    names = ("up", "down")
    for index in range(len(names)):
        ids = np.stack([tokens_of(index, CONTEXT + 1, rng) for _ in range(windows)]).astype(np.int32)
        labels = ids[:, 1:].copy()
        labels[:, :3] = IGNORE
        labels[0, 5:] = IGNORE
        row = np.arange(windows, dtype=np.int64) // 2
        arrays = {
            "inputs": ids[:, :-1],
            "labels": labels,
            "row": row,
            "bytes": np.full(row[-1] + 1, 40, np.int64),
        }
        for key, array in arrays.items():
            write_array(folder / f"{index:05d}.{key}.npy", array)
    manifest = TargetManifest(names=names, kind=kind, context=CONTEXT, source="test", windows=windows * 2)
    write_json(folder / "manifest.json", manifest)
    return folder


def make_setting(folder: Path, model: ModelSection = MODEL, **training: object) -> ProxySetting:
    defaults = {"tokens": 640, "batch": 4, "precision": "float32", "peak_lr": 0.02}
    return ProxySetting(
        pool=str(make_pool(folder / "pool")),
        targets=str(make_targets(folder / "targets")),
        heldout=str(make_targets(folder / "heldout", kind="heldout")),
        model=model,
        training=TrainingSection(**{**defaults, **training}),  # pyright: ignore[reportArgumentType]
        vocab_size=VOCAB,
        domains=("zero", "one"),
    )


def make_job(name: str, copies: np.ndarray, seed: int = 0) -> ProxyJob:
    return ProxyJob(
        trial_id=name,
        kind="prior",
        label="theta",
        theta=None,
        seed=seed,
        order_seed=seed,
        copies=copies.astype(np.int32),
    )


def some_copies(seed: int, documents: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, documents).astype(np.int32)
