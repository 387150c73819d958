"""A stand-in benchmark and small models in the hub's format, made on the spot."""

from pathlib import Path

import torch

from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.evaluate.mubench.load import load_task
from quadmix.evaluate.mubench.standin import write_standin
from quadmix.io.atomic import write_text
from quadmix.proxy.hf import write_llama
from quadmix.proxy.model import initial_weights
from quadmix.recipe import ModelSection

TASKS = ("arc_easy", "mnli", "winogrande")


def standin(folder: Path, items: int = 12) -> Path:
    """Write the stand-in with so many items per task."""
    write_standin(folder, items=items)
    return folder


def texts(folder: Path) -> list[str]:
    """Return prompts and options of some tasks in all languages and both kinds of modes."""
    out: list[str] = []
    for task in TASKS:
        for mode in ("lighteval", "local_template"):
            for items in load_task(folder, task, mode).items.values():
                out += [" ".join((item.prompt, *item.choices)) for item in items]
    return out


def tiny_model(data: Path, out: Path, *, context: int = 128, seed: int = 1) -> Path:
    """Write a Llama whose weights are drawn at random, none of them zero, so that prompts matter."""
    section = ModelSection(layers=2, width=32, heads=2, mlp=48, context=context, vocab_multiple=64)
    file = out.with_suffix(".tokenizer.json")
    write_text(file, train_tokenizer(texts(data), 400))
    tokenizer = Tokenizer.load(file)
    drawn = initial_weights(section, section.padded(tokenizer.vocab_size), [seed], torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor[0].detach() + 0.3 * torch.randn(tensor.shape[1:], generator=generator)
        for name, tensor in drawn.named().items()
    }
    write_llama(tensors, section, tokenizer, out)
    return out
