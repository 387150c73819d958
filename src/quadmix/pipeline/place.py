"""Where a run's tasks go: cores, GPUs or a Ray cluster, and how many models fit there together."""

import os
from dataclasses import replace

from quadmix.engine.tasks import Place, resolve_workers
from quadmix.errors import MissingExtraError
from quadmix.proxy.setting import ProxySetting
from quadmix.recipe import Recipe, RunSection
from quadmix.types import Corpus

_COLUMNS = ("parquet", "arrow")
_GROUP = {"cpu": 8, "cuda": 64}  # benchmarks/swarm.py; more fills a CPU's cache, fewer leaves a GPU idle


def data_place(run: RunSection) -> Place:
    """Return where shards are read, scored and written."""
    if run.executor == "serial":
        return Place("serial", 1)
    workers = run.workers if run.executor == "ray" else resolve_workers(run.workers)
    return Place(run.executor, workers, run.address)


def numbers_place(run: RunSection) -> Place:
    """Return where tables of numbers are worked on, and text is copied as Arrow columns: in threads, since
    both let go of the interpreter and a process takes longer to start than many a pass."""
    place = data_place(run)
    return replace(place, executor="threads") if place.executor == "processes" else place


def text_place(recipe: Recipe, corpus: Corpus) -> Place:
    """Return where the dataset is written: lines of JSON are read and written by the interpreter, which one
    thread at a time holds, so they take processes."""
    lines = recipe.materialise.format == "jsonl.zst" or any(s.format not in _COLUMNS for s in corpus.splits)
    return data_place(recipe.run) if lines else numbers_place(recipe.run)


def training_place(run: RunSection) -> Place:
    """Return where models are trained: one worker per core, or `groups_per_gpu` per GPU.

    Raises ProxyError if a device was asked for that is not there.
    """
    place = data_place(run)
    if _device(run) != "cuda":
        return place
    if run.executor == "ray":
        return replace(place, gpu_share=1 / run.groups_per_gpu)
    gpus = _visible_gpus()
    return replace(place, workers=len(gpus) * run.groups_per_gpu, gpu_ids=tuple(gpus))


def rating_place(recipe: Recipe) -> Place:
    """Return where documents are scored: as `data_place`, or one worker per GPU where a neural model of the
    recipe runs on GPUs, so that each holds one copy."""
    from quadmix.annotate.models.devices import NEURAL
    from quadmix.annotate.models.prepare import model_families

    section = recipe.annotate
    if not NEURAL & model_families(section):
        return data_place(recipe.run)
    return training_place(recipe.run.model_copy(update={"device": section.device, "groups_per_gpu": 1}))


def even_group(models: int, group: int) -> int:
    """Return a group size of at most `group` that makes an even number of groups, so that two workers end
    together. It must not depend on the workers: a model's last bits depend on its group."""
    groups = -(-models // group)
    return -(-models // (groups + groups % 2))


def grouped_by(group: int, multiple: int) -> int:
    """Return a group size of whole multiples that fits into `group`: about half of it, so that few groups are
    shared out evenly; one multiple at least, or what fits."""
    return min(group, max(group // 2 // multiple, 1) * multiple)


def wanted_group(group: int, run: RunSection) -> int:
    """Return how many models to train together if memory allows: the recipe's number, or the device's."""
    return group or _GROUP[_device(run)]


def fitting(setting: ProxySetting, group: int, run: RunSection) -> int:
    """Return how many models to train together: as wanted, or what the memory of this machine allows.

    A cluster's nodes are not asked: a group that does not fit there is halved where it runs.
    """
    from quadmix.proxy.memory import fitting_group

    group = wanted_group(group, run)
    if run.executor == "ray":
        return group
    place = training_place(run)
    sharing = run.groups_per_gpu if place.gpu_ids else 1 if run.executor == "serial" else place.workers
    return fitting_group(setting, group, sharing)


def _device(run: RunSection) -> str:
    try:
        from quadmix.proxy.device import choose_device
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "training proxies") from error
    if run.executor == "ray" and run.device == "cuda":
        return "cuda"  # of the cluster; this machine needs none
    return choose_device(run.device).type


def _visible_gpus() -> list[str]:
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(i) for i in range(torch.cuda.device_count())]
