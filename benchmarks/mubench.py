"""Items per second of the engine for aligned benchmarks, beside lm-evaluation-harness on the same model.

Run: python benchmarks/mubench.py FOLDER [--items 40] [--repeats 3] [--size 5M] [--entries 32768]
     [--threads 1] [--model FOLDER] [--device cpu]

FOLDER holds arc_easy, csqa, hellaswag, winogrande and mmlu (.jsonl.zst), which stand for the forms of items:
four and five short options, long options, a blank, letters after a long prompt. The model is a Llama of the
size ladder with random weights; speed does not depend on what it has learned. Its vocabulary has as many
entries as that of a small multilingual model. Both engines get texts and give log-likelihoods per option,
tokenisation included, nothing else: the harness by `HFLM.loglikelihood`, with the fastest of four batch
sizes for each form, found before. Repeats are interleaved; medians. On a CPU time is that of the processor,
so that other work on the machine counts less.
Prints a line per form; the last line is JSON: items per second, their ratio, whether every choice was the
same (`identical`), and whether the ratio over all items is at least 3 (`passed`).
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.evaluate.mubench.cells import score_cell
from quadmix.evaluate.mubench.forms import Question, questions
from quadmix.evaluate.mubench.items import Item
from quadmix.evaluate.mubench.model import CausalModel, load_causal
from quadmix.io.atomic import write_text
from quadmix.io.rows import read_records
from quadmix.proxy.hf import write_llama
from quadmix.proxy.model import initial_weights
from quadmix.recipe import ModelSection

FORMS = {
    "arc_easy": "lighteval", "csqa": "lighteval", "hellaswag": "lighteval", "winogrande": "lighteval",
    "mmlu": "en_template",
}  # fmt: skip
BAR = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", default="5M")
    parser.add_argument("--entries", type=int, default=32_768, help="of the vocabulary")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, help="a folder instead of a model made here")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    asked = {name: load(arguments.folder, name, arguments.items) for name in FORMS}
    with tempfile.TemporaryDirectory() as home:
        folder = arguments.model or make_model(Path(home), arguments, asked)
        model = load_causal(folder, device=arguments.device, precision="float32")
        theirs = HFLM(pretrained=str(folder), device=arguments.device, dtype="float32", batch_size=16)
        found = {name: compare(model, theirs, asked[name], arguments.repeats) for name in FORMS}
    for name, row in found.items():
        print(
            f"{name:10} engine {row['engine']:7.1f} items/s, harness {row['harness']:7.1f}, "
            f"{row['ratio']:.1f} times; same choice on {row['same']} of {row['items']}, "
            f"log-likelihoods differ by at most {row['difference']:.1e}"
        )
    total = {who: sum(r["items"] for r in found.values()) / sum(r["items"] / r[who] for r in found.values())
             for who in ("engine", "harness")}  # fmt: skip
    ratio = total["engine"] / total["harness"]
    identical = all(r["same"] == r["items"] for r in found.values())
    print(
        json.dumps(
            {
                "forms": found, **total, "ratio": ratio, "identical": identical,
                "passed": ratio >= BAR and identical, "device": arguments.device,
                "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
                "entries": model.facts.entries, "size": str(arguments.model or arguments.size),
            }
        )
    )  # fmt: skip


def load(folder: Path, name: str, count: int) -> list[Question]:
    rows = [
        r for r in read_records(str(folder / f"{name}.jsonl.zst")) if r["split"] in ("validation", "test")
    ]
    rng = np.random.default_rng(0)
    items: list[Item] = []
    for row in (rows[i] for i in np.sort(rng.permutation(len(rows))[:count])):
        choices = tuple(str(c).strip() for c in row["choices"])
        prompt = row["query"].strip()
        if name == "mmlu":
            letters = ascii_uppercase[: len(choices)]
            lines = [f"Option {a}: {text}" for a, text in zip(letters, choices, strict=True)]
            prompt, choices = "\n".join([f"Question: {prompt}", *lines, "Answer:"]), tuple(letters)
        items.append(Item(id=row["id"], prompt=prompt, choices=choices, label=row["gold"]))
    return questions(name, FORMS[name], "en", items)


def make_model(home: Path, arguments: argparse.Namespace, asked: dict[str, list[Question]]) -> Path:
    texts = [context + rest for own in asked.values() for q in own
             for context, rest in zip(q.contexts, q.continuations, strict=True)]  # fmt: skip
    settings = {"size": arguments.size, "context": 1024, "vocab_multiple": arguments.entries}
    section = ModelSection.model_validate(settings)
    write_text(home / "tokenizer.json", train_tokenizer(texts, min(8192, arguments.entries)))
    tokenizer = Tokenizer.load(home / "tokenizer.json")
    drawn = initial_weights(section, arguments.entries, [0], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: tensor[0].detach() + 0.1 * torch.randn(tensor.shape[1:], generator=generator)
        for name, tensor in drawn.named().items()
    }  # as drawn, some matrices are zero and the prompt would not matter
    write_llama(tensors, section, tokenizer, home / "model")
    return home / "model"


def ours(model: CausalModel, asked: list[Question]) -> np.ndarray:
    return score_cell(model, asked, "benchmark", unconditional=False).log_likelihood


def harness(lm: HFLM, asked: list[Question]) -> np.ndarray:
    pairs = [pair for q in asked for pair in zip(q.contexts, q.continuations, strict=True)]
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)
    ]
    return np.array([score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)])


def fastest(lm: HFLM, asked: list[Question]) -> int:
    """Return the batch size with which the harness is fastest on these items."""
    times: dict[int, float] = {}
    for size in (1, 4, 16, 64):
        lm.batch_size_per_gpu = size
        times[size] = clock(lambda: harness(lm, asked[:16]))[0]
    return min(times, key=lambda size: times[size])


def compare(model: CausalModel, lm: HFLM, asked: list[Question], repeats: int) -> dict[str, float]:
    lm.batch_size_per_gpu = fastest(lm, asked)
    mine, theirs = ours(model, asked[:4]), harness(lm, asked[:4])  # both warm
    seconds: dict[str, list[float]] = {"engine": [], "harness": []}
    for _ in range(repeats):
        taken, mine = clock(lambda: ours(model, asked))
        seconds["engine"].append(taken)
        taken, theirs = clock(lambda: harness(lm, asked))
        seconds["harness"].append(taken)
    ends = np.cumsum([len(q.choices) for q in asked])[:-1]
    picks = [[int(part.argmax()) for part in np.split(scores, ends)] for scores in (mine, theirs)]
    speed = {who: len(asked) / statistics.median(times) for who, times in seconds.items()}
    return {
        **speed, "ratio": speed["engine"] / speed["harness"], "items": len(asked),
        "batch": lm.batch_size, "same": sum(a == b for a, b in zip(*picks, strict=True)),
        "difference": float(np.abs(mine - theirs).max()),
    }  # fmt: skip


def clock(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    now = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = now()
    found = run()
    return now() - started, found


if __name__ == "__main__":
    main()
