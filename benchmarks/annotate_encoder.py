"""Encoder raters beside the loop that everybody writes first: one text at a time, padded to the window.

    python benchmarks/annotate_encoder.py [--quick] [--device cpu|cuda] [--rounds 3]

The model is made on the spot: random weights in the architecture of FineWeb-Edu's classifier (BERT with one
output, window of 512 tokens) at the size of BERT-small (4 layers of 512). A word of the texts is a token; the
numbers of words are log-normal, sigma 1.0, in two sets: `short` with a median of 120 (questions, mails,
instructions) and `long` with a median of 380 (what 281 words, the median of 4,542 documents of twelve kinds
of text, make in tokens of BERT). Both sides see the same texts in turn, round after round, on the same device
with one thread; ratios are taken inside a round, medians are given. Seconds are processor time of all threads
of this process on a CPU, the clock's on a GPU.
`naive`: tokenizer(text, padding="max_length", truncation=True), model(**that), .item(), as on model cards, in
    the number format that `ours` has.
`ours`: load_sequence(...).outputs(texts), tokenisation included.
`bfloat16`: `ours` with precision bfloat16, and the Spearman correlation of its scores with float32's.
`padding`: window / mean tokens. One text fills a core of a CPU, so there this is about all that can be won in
    one number format; a GPU is not filled by one text.
`copies`: how much memory loading takes at its peak, over the bytes of the weights, in a process of its own.
Bars: at least 3 times the naive loop on each set, no more than one copy of the model. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.encoder import load_sequence
from quadmix.recipe.cards import CardInput, CardOutput, ModelCard

FASTER, COPIES = 3.0, 1.5  # the second leaves room for activations beside one copy, and none for two
WINDOW = 512
LETTERS = "etaoinshrdlucmfwypvbgk"
MEDIANS = {"short": 120, "long": 380}
Facts = dict[str, Any]
Side = Callable[[list[str]], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = measure(options.quick, device=options.device, rounds=options.rounds)
    sys.stdout.write(json.dumps(found) + "\n")


def measure(quick: bool, *, device: Any = "auto", rounds: int = 3) -> Facts:
    """Return the speeds of all sides on both sets, the copies of the model in memory, and what passed."""
    words = make_words()
    sets = {name: make_texts(words, 16 if quick else 96, median) for name, median in MEDIANS.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = save_model(folder, words)
        settings = Settings(device=device, threads=1)
        ours, half = (
            load_sequence(placed(folder), s) for s in (settings, replace(settings, precision="bfloat16"))
        )
        sides = {
            "naive": naive_loop(folder, ours.device, settings),
            "ours": lambda some: ours.outputs(some).values[:, 0].tolist(),
            "bfloat16": lambda some: half.outputs(some).values[:, 0].tolist(),
        }
        found = {
            name: compare(sides, texts, 1 if quick else rounds, ours.device.type)
            for name, texts in sets.items()
        }
        peak = peak_copies(folder, settings, size)
    return {
        "device": str(ours.device), "model_mb": round(size / 1e6, 1), **found, "copies": round(peak, 2),
        "passed": {
            **{f"faster_{name}": found[name]["ratio"] >= FASTER for name in ("short", "long")},
            "one_copy": peak <= COPIES,
        },
    }  # fmt: skip


def compare(sides: dict[str, Side], texts: list[str], rounds: int, device: str) -> Facts:
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds, answers = interleaved(sides, texts, rounds, clock)
    tokens = np.minimum([len(text.split()) + 2 for text in texts], WINDOW)
    ratios = {
        side: median(a / b for a, b in zip(seconds["naive"], seconds[side], strict=True))
        for side in ("ours", "bfloat16")
    }
    difference = np.abs(np.subtract(answers["naive"], answers["ours"])).max()
    spread = np.ptp(answers["naive"])
    return {
        "texts": len(texts), "mean_tokens": round(float(tokens.mean()), 1),
        "docs_per_second": {side: round(len(texts) / median(s), 2) for side, s in seconds.items()},
        "padding": round(float(WINDOW / tokens.mean()), 2), "ratio": round(ratios["ours"], 2),
        "ratio_bfloat16": round(ratios["bfloat16"], 2),
        "largest_difference_of_spread": float(difference / spread),
        "bfloat16_spearman": round(float(spearmanr(answers["ours"], answers["bfloat16"]).statistic), 4),
    }  # fmt: skip


def make_words() -> list[str]:
    """Return 5,000 different words of two to nine letters."""
    rng = np.random.default_rng(0)
    made = ("".join(rng.choice(list(LETTERS), rng.integers(2, 10))) for _ in range(6_000))
    return list(dict.fromkeys(made))[:5_000]


def make_texts(words: list[str], count: int, median_words: int) -> list[str]:
    """Return texts of words whose frequencies fall as in language."""
    rng = np.random.default_rng(1)
    chances = 1.0 / np.arange(2, len(words) + 2)
    lengths = np.clip(rng.lognormal(np.log(median_words), 1.0, count).astype(int), 1, 8_000)
    return [" ".join(rng.choice(words, n, p=chances / chances.sum())) for n in lengths]


def save_model(folder: Path, words: list[str]) -> int:
    """Save tokenizer and model in the hub's format; return the bytes of the weights."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=WINDOW,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30_522, hidden_size=512, num_hidden_layers=4, num_attention_heads=8, num_labels=1,
        intermediate_size=2048, max_position_embeddings=WINDOW, initializer_range=0.05,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return (folder / "model.safetensors").stat().st_size


def placed(folder: Path) -> Placed:
    card = ModelCard(
        name="bench", family="sequence", role="quality", model="bench", licence="none", source="none",
        description="random", input=CardInput(window=WINDOW), output=CardOutput(kind="number"),
    )  # fmt: skip
    return Placed(card=card, folder=folder, digest="bench")


def naive_loop(folder: Path, device: Any, settings: Settings) -> Side:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from quadmix.annotate.models.devices import choose_dtype

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=choose_dtype(settings, device))
    model = model.to(device).eval()

    def run(texts: list[str]) -> list[float]:
        before, scores = torch.get_num_threads(), []
        torch.set_num_threads(settings.threads)
        with torch.no_grad():
            for text in texts:
                inputs = tokenizer(
                    text, return_tensors="pt", padding="max_length", truncation=True, max_length=WINDOW
                ).to(device)
                scores.append(model(**inputs).logits.squeeze(-1).float().item())
        torch.set_num_threads(before)
        return scores

    return run


def interleaved(
    sides: dict[str, Side], texts: list[str], rounds: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return seconds per side and round, and the scores."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    answers: dict[str, list[float]] = {}
    for run in sides.values():
        run(texts[:4])
    for _ in range(rounds):
        for side, run in sides.items():
            start = clock()
            answers[side] = run(texts)
            seconds[side].append(clock() - start)
    return seconds, answers


def peak_copies(folder: Path, settings: Settings, size: int) -> float:
    """Return how often the weights fit into the memory that loading and a first score take, at the peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (folder, settings)) / size


def _peak(folder: Path, settings: Settings) -> int:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    BertForSequenceClassification(small)(torch.zeros(1, 4, dtype=torch.int64))
    AutoTokenizer.from_pretrained(folder)("a")  # what the libraries take themselves is not the model's
    before = _resident()
    model = load_sequence(placed(folder), settings)
    model.outputs(["a"])
    if model.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return _resident() - before


def _resident() -> int:
    """Return the peak of this process's memory so far (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM: the peak of memory is measured on Linux only")


if __name__ == "__main__":
    main()
