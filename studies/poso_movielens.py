"""POSO's public experiment (arXiv 2108.04690, section 5): MovieLens, users that training has not seen.

    python studies/poso_movielens.py FOLDER [--splits 5] [--device cpu]

FOLDER is an unpacked MovieLens data set, any of 100k, latest-small, 1M, 10M, 20M, 25M, which you fetch under
its licence (research; nothing of it may be passed on) from https://grouplens.org/datasets/movielens/

Two tasks: Favorite, a rating of 5, and Satisfied, of at least 4. A row is a rating; inputs are the film, its
genres, the last 30 films of the user and their genres, never a rating or the user. The code is the bucketed
number of the user's earlier ratings (accumulated view count, AVC). Three models, each plain, with the code
beside its inputs, and with POSO: MLP (history averaged), MHA (history attended to), MMoE. Every user is
tested in one split; a tenth of the training users says when to stop, at the first epoch without a gain. The
paper gives no sizes.

GAUC: AUC of each user, weighted by events; AUC of events with fewer than 5 (20) earlier ratings over all
users. Intervals: Student's t of the paired differences over splits, whose training users overlap.
Writes studies/results/poso_movielens_<set>.json and prints the tables of docs/poso.md.
"""

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from movielens import HISTORY, NEW, Events, folds, group_auc, read_movielens
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F

from quadmix.annotate.trained import auc
from quadmix.io.atomic import write_json
from quadmix.pipeline.folder import library_versions
from quadmix.poso import (
    Gate,
    MMoE,
    PersonalizationCode,
    PosoMLP,
    PosoMMoE,
    PosoMultiheadAttention,
    log2_edges,
)
from quadmix.rng import derived_seed, stream

HERE = Path(__file__).parent
ITEM, GENRE, ATTENDED, HIDDEN, EXPERTS = 16, 8, 24, (64, 32), 4
BATCH, RATE, DECAY, EPOCHS, PATIENCE = 1024, 2e-3, 3e-5, 12, 1
LEAST = 3  # films with fewer training events are the unknown film
TASKS = ("Favorite", "Satisfied")
KINDS = ("MLP", "MHA", "MMoE")
CODES = ("AVC", "shuffled AVC", "is new", "film", "all features")
ARMS = (
    *((kind, how, "AVC") for kind in KINDS for how in ("plain", "concat", "POSO")),
    ("MLP", "concat, as many parameters", "AVC"),
    *(("MLP", "POSO", code) for code in CODES[1:]),
)
Arm = tuple[str, str, str]
PAPER = {"baseline": (76.08, 74.57), "POSO": (76.89, 75.29)}  # GAUC on ML-20M, Table 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """What models read, on one device. item: (E,), unknown films 0. seen: (E,). told: (E,), `seen` of events
    drawn at random. genres: (1 + items, G) float32, rows that sum to 1 or 0. labels: (E, 2)."""

    item: Tensor
    seen: Tensor
    told: Tensor
    genres: Tensor
    labels: Tensor


def prepared(events: Events, train: np.ndarray, seed: int, device: str) -> Data:
    """Return the data of a split; films that training (E,) bool has hardly seen become the unknown one."""
    counts = np.bincount(events.item[train], minlength=len(events.genres))
    item = np.where(counts[events.item] >= LEAST, events.item, 0)
    genres = events.genres / np.maximum(events.genres.sum(axis=1, keepdims=True), 1)
    told = events.seen[stream(seed, "told").permutation(len(item))]
    labels = np.stack([events.rating >= 5, events.rating >= 4], axis=1)
    return Data(
        item=torch.from_numpy(item).to(device), seen=torch.from_numpy(events.seen).to(device),
        told=torch.from_numpy(told).to(device), labels=torch.from_numpy(labels).float().to(device),
        genres=torch.from_numpy(genres.astype(np.float32)).to(device),
    )  # fmt: skip


class Inputs(nn.Module):
    """Vectors of films and of the code; the same for every model."""

    def __init__(self, data: Data, code: str) -> None:
        super().__init__()
        self.data, self.kind = data, code
        self.films = nn.Embedding(len(data.genres), ITEM)
        nn.init.normal_(self.films.weight, std=0.1)
        self.genres = nn.Linear(data.genres.shape[1], GENRE, bias=False) if data.genres.shape[1] else None
        self.film_width = ITEM + (GENRE if self.genres is not None else 0)
        if code in ("AVC", "shuffled AVC", "all features"):
            self.code = PersonalizationCode(buckets={"code": log2_edges()}, dim=8)
        else:
            categories = 2 if code == "is new" else len(data.genres)
            self.code = PersonalizationCode({"code": categories}, dim=8)
        self.pc_dim = self.code.pc_dim + (2 * self.film_width if code == "all features" else 0)

    def table(self) -> Tensor:
        """Return (1 + films, film_width)."""
        if self.genres is None:
            return self.films.weight
        return torch.cat([self.films.weight, self.genres(self.data.genres)], dim=1)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the film (B, w), the history (B, 30, w) and what of it is empty (B, 30)."""
        back = rows[:, None] - 1 - torch.arange(HISTORY, device=rows.device)
        empty = torch.arange(HISTORY, device=rows.device) >= self.data.seen[rows, None]
        items = self.data.item[torch.cat([rows[:, None], back.clamp(min=0)], dim=1)]
        vectors = F.embedding(items, self.table())
        return vectors[:, 0], vectors[:, 1:], empty

    def pc(self, rows: Tensor, features: Tensor) -> Tensor:
        """Return (B, pc_dim), what the gates read."""
        data = self.data
        value = {
            "AVC": data.seen, "all features": data.seen, "shuffled AVC": data.told,
            "is new": 1 + (data.seen < NEW).long(), "film": data.item,
        }[self.kind][rows]  # fmt: skip
        found = self.code({"code": value})
        return torch.cat([found, features], dim=1) if self.kind == "all features" else found


class Model(nn.Module):
    """Two logits of an event, by one of the three bodies."""

    def __init__(self, arm: Arm, data: Data) -> None:
        super().__init__()
        kind, how, code = arm
        self.inputs, self.kind = Inputs(data, code), kind
        self.beside, self.gated = how.startswith("concat"), how == "POSO"
        film, pc_dim = self.inputs.film_width, self.inputs.pc_dim
        width = 2 * film + (self.inputs.code.pc_dim if self.beside else 0)
        if kind == "MHA":
            self.query = nn.Linear(width, ATTENDED)
            self.attention = (
                PosoMultiheadAttention(ATTENDED, 2, pc_dim, kdim=film, vdim=film)
                if self.gated
                else nn.MultiheadAttention(ATTENDED, 2, kdim=film, vdim=film, batch_first=True)
            )
            width += ATTENDED
        if kind == "MMoE":
            made = (
                PosoMMoE(width, HIDDEN, EXPERTS, 2, pc_dim) if self.gated else MMoE(width, HIDDEN, EXPERTS, 2)
            )
            self.body, self.out = made, nn.Linear(HIDDEN[-1], 2)
        elif kind == "MLP" and self.gated:
            self.body = PosoMLP(width, HIDDEN, 2, pc_dim=pc_dim)
        else:
            first = _as_wide_as_poso(width, pc_dim) if how.endswith("parameters") else HIDDEN[0]
            self.body = nn.Sequential(
                nn.Linear(width, first),
                nn.ReLU(),
                nn.Linear(first, HIDDEN[1]),
                nn.ReLU(),
                nn.Linear(HIDDEN[1], 2),
            )

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, 2) logits of events."""
        film, history, empty = self.inputs(rows)
        share = ~empty / (~empty).sum(dim=1, keepdim=True).clamp(min=1)
        mean = torch.bmm(share[:, None], history)[:, 0]
        x = torch.cat([film, mean], dim=1)
        pc = self.inputs.pc(rows, x)
        if self.beside:
            x = torch.cat([x, pc], dim=1)
        if self.kind == "MHA":
            x = torch.cat([x, self._attended(self.query(x)[:, None], history, empty, pc)], dim=1)
        own = (x, pc) if self.gated and self.kind != "MHA" else (x,)
        if self.kind == "MMoE":
            return (self.body(*own) * self.out.weight).sum(dim=-1) + self.out.bias
        return self.body(*own)

    def _attended(self, query: Tensor, history: Tensor, empty: Tensor, pc: Tensor) -> Tensor:
        """Return (B, ATTENDED); zeros where there is no history."""
        if self.gated:
            return self.attention(query, history, history, pc, empty)[:, 0]
        some = ~empty.all(dim=1, keepdim=True)  # the plain module gives NaN for a row that sees nothing
        found = self.attention(query, history, history, key_padding_mask=empty & some, need_weights=False)[0]
        return found[:, 0] * some

    def parameters_without_tables(self) -> int:
        """Return the parameters but those of the films, the same for every arm."""
        return sum(p.numel() for n, p in self.named_parameters() if not n.startswith("inputs.films"))


def _as_wide_as_poso(width: int, pc_dim: int) -> int:
    """Return the first width with which a plain MLP has as many parameters as POSO's gates bring."""
    gates = sum(p.numel() for d in HIDDEN for p in Gate(pc_dim, d).parameters())
    own = (width - pc_dim + 1) * HIDDEN[0] + HIDDEN[0] * HIDDEN[1]
    return round((own + gates) / (width + 1 + HIDDEN[1]))


def trained(arm: Arm, data: Data, events: Events, parts: tuple[np.ndarray, np.ndarray], seed: int) -> Model:
    """Train on the rows of parts[0] and keep the epoch with the best mean GAUC on those of parts[1]."""
    train, held = parts
    device = data.item.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "start"))
        model = Model(arm, data).to(device)
        optimizer = torch.optim.Adam(model.parameters(), RATE, weight_decay=DECAY)
        best, kept, waited = -1.0, {}, 0
        for epoch in range(EPOCHS):
            model.train()
            order = train[stream(seed, "batches", epoch).permutation(len(train))]
            for start in range(0, len(order), BATCH):
                rows = torch.from_numpy(order[start : start + BATCH]).to(device)
                optimizer.zero_grad()
                # the sum of both tasks' mean losses
                (2 * F.binary_cross_entropy_with_logits(model(rows), data.labels[rows])).backward()
                optimizer.step()
            now = float(np.mean([m["GAUC"] for m in judged(model, data, events, held).values()]))
            waited = 0 if now > best else waited + 1
            if now > best:
                best, kept = now, {n: p.detach().clone() for n, p in model.state_dict().items()}
            if waited == PATIENCE:
                break
    model.load_state_dict(kept)
    return model


@torch.no_grad()
def judged(model: Model, data: Data, events: Events, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Return GAUC and AUC, in percent, of each task on sorted rows."""
    model.eval()
    parts = [
        model(torch.from_numpy(part).to(data.item.device))
        for part in np.split(rows, range(8192, len(rows), 8192))
    ]
    scores = torch.cat(parts).cpu().numpy()
    truth, user, seen = data.labels.cpu().numpy()[rows] > 0.5, events.user[rows], events.seen[rows]
    out: dict[str, dict[str, float]] = {}
    for place, task in enumerate(TASKS):
        own, score = truth[:, place], scores[:, place]
        few = seen < 20
        out[task] = {
            "GAUC": 100 * group_auc(user, own, score),
            "GAUC AVC<20": 100 * group_auc(user[few], own[few], score[few]),
            "AUC AVC<5": 100 * auc(own[seen < NEW], score[seen < NEW]),
            "AUC AVC<20": 100 * auc(own[few], score[few]),
            "AUC": 100 * auc(own, score),
        }
    return out


def split_results(
    events: Events, split: int, splits: int, arms: Sequence[Arm], device: str
) -> dict[str, Any]:
    """Train every arm on one split, with the same start, order and stopping users; return its measures."""
    test = folds(events, splits, stream(0, "folds").permutation(events.users))[split]
    training_users = np.unique(events.user[~test])
    picked = stream(split, "held").permutation(training_users)[: max(1, len(training_users) // 10)]
    held = np.isin(events.user, picked)
    data = prepared(events, ~test & ~held, split, device)
    parts = np.flatnonzero(~test & ~held), np.flatnonzero(held)
    out: dict[str, Any] = {}
    for arm in arms:
        begun = time.process_time()
        model = trained(arm, data, events, parts, split)
        found = judged(model, data, events, np.flatnonzero(test))
        out[" / ".join(arm)] = {
            "parameters": model.parameters_without_tables(), **found,
            "seconds": round(time.process_time() - begun, 1),
        }  # fmt: skip
    return out


def difference(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and half of a 95 % interval over splits."""
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)


def tables(found: list[dict[str, Any]]) -> list[str]:
    """Return differences as markdown: POSO and concat against plain, POSO against concat, codes."""
    columns = [(task, what) for what in ("GAUC", "AUC AVC<5", "GAUC AVC<20") for task in TASKS]
    head = (
        "| | " + " | ".join(f"{what}, {task}" for task, what in columns) + " |\n|---|" + "---|" * len(columns)
    )
    lines = ["mean over splits", "", head]

    def row(label: str, cell: Callable[[str, str], str]) -> str:
        return f"| {label} | " + " | ".join(cell(task, what) for task, what in columns) + " |"

    def gain(arm: str, other: str) -> Callable[[str, str], str]:
        return lambda task, what: "{:+.2f} ± {:.2f}".format(
            *difference([split[arm][task][what] - split[other][task][what] for split in found])
        )

    for arm in found[0]:
        label = f"{arm} ({found[0][arm]['parameters']:,})"
        lines.append(
            row(label, lambda task, what, arm=arm: f"{np.mean([s[arm][task][what] for s in found]):.2f}")
        )
    lines += ["", "differences in points, 95 %", "", head]
    pairs = [(f"{k} / POSO / AVC", f"{k} / {how} / AVC") for k in KINDS for how in ("plain", "concat")]
    pairs += [(f"{k} / concat / AVC", f"{k} / plain / AVC") for k in KINDS]
    wide = "MLP / concat, as many parameters / AVC"
    pairs += [("MLP / POSO / AVC", wide)]
    pairs += [(f"MLP / POSO / {code}", "MLP / plain / AVC") for code in CODES[1:]]
    lines += [row(f"{a} − {b}", gain(a, b)) for a, b in pairs if a in found[0] and b in found[0]]
    return lines


def main(given: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("folder", type=Path)
    options.add_argument("--splits", type=int, default=5)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--results", type=Path, default=HERE / "results")
    args = options.parse_args(given)
    torch.set_num_threads(args.threads)
    events = read_movielens(args.folder)
    early = float((events.seen < NEW).mean())
    print(
        f"{events.name}: {len(events.item):,} ratings, {events.users:,} users, "
        f"{len(events.genres) - 1:,} films, {events.genres.shape[1] or 'no'} genres; "
        f"{early:.1%} of the ratings have fewer than {NEW} earlier ones"
    )
    arms = [arm for arm in ARMS if arm[0] in args.kinds]
    args.results.mkdir(parents=True, exist_ok=True)
    made: dict[str, Any] = {
        "command": f"python studies/poso_movielens.py FOLDER --splits {args.splits}", "data": events.name,
        "genres": events.genres.shape[1], "arms": [" / ".join(arm) for arm in arms],
        "libraries": library_versions(), "python": platform.python_version(),
    }  # fmt: skip
    file = args.results / f"poso_movielens_{events.name.split(',')[0].replace(' ', '-')}.json"
    found = finished(file, made)
    for split in range(len(found), args.splits):
        found.append(split_results(events, split, args.splits, arms, args.device))
        write_json(file, made | {"splits": found})
        seconds = sum(a["seconds"] for a in found[-1].values())
        print(f"split {split + 1} of {args.splits}: {seconds:.0f} s", flush=True)
    print("\n".join(tables(found)))
    print(f"paper, ML-20M, GAUC {' / '.join(TASKS)}: {PAPER}")


def finished(file: Path, made: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the splits that a run of the very same kind has stored before it was stopped."""
    if not file.is_file():
        return []
    stored = orjson.loads(file.read_bytes())
    same = all(stored.get(name) == value for name, value in orjson.loads(orjson.dumps(made)).items())
    arms = made["arms"]
    return [{arm: split[arm] for arm in arms} for split in stored["splits"]] if same else []


if __name__ == "__main__":
    main()
