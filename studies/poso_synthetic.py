"""A minority that the features do not show: what masking, gates and a code beside the features do about it.

    python studies/poso_synthetic.py [--seeds 5] [--minority 0.04 0.01]

Rows are 32 normal numbers, the same for both groups; the label is a Bernoulli draw of a random two-layer
function, another one for each group. 36,000 rows train, 4,000 of each group test. A model without the code
can only learn the majority ("submergence", POSO, arXiv 2108.04690, section 1).

Prints the tables of docs/poso.md, draws docs/poso.svg and writes studies/results/poso_synthetic.json.
"""

import argparse
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F

from quadmix.annotate.trained import auc
from quadmix.io.atomic import replacing, write_json
from quadmix.pipeline.folder import library_versions
from quadmix.poso import GateConfig, PersonalizationCode, Poso, PosoMLP, log2_edges, masking_sensitivity
from quadmix.report.plots import ACCENT, BAR, INK, ORANGE, RED, Words, picture
from quadmix.rng import derived_seed, stream

HERE = Path(__file__).parent
WIDTH, TRAIN, TEST = 32, 36_000, 4_000
HIDDEN = [64, 32]
STEPS, BATCH, RATE = 500, 1024, 4e-3
ARMS = ("plain", "concat", "POSO", "POSO, W2 std 0.05", "POSO, shuffled code")
TIERS = (20_000, 8_000, 4_000, 2_000, 1_000, 500, 250)  # rows of each tier of the graded world


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """x (D, 32) float32, group (D,) int64 from 1 on, y (D,) float32 of 0 and 1."""

    x: Tensor
    group: Tensor
    y: Tensor


def teachers(rng: np.random.Generator) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return logits of rows x (D, 32) at angles (D,): 0 is one random function, pi/2 another one, of equal
    variance and uncorrelated with it."""
    inner, outer = rng.normal(size=(2, WIDTH, 16)) / WIDTH**0.5, rng.normal(size=(2, 16))

    def raw(x: np.ndarray) -> np.ndarray:
        return np.stack([np.tanh(2 * x @ a) @ b for a, b in zip(inner, outer, strict=True)])

    first, second = raw(rng.normal(size=(50_000, WIDTH)))
    along = (first @ second) / (first @ first)
    spread = 4 / first.std(), 4 / (second - along * first).std()

    def logits(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
        f, g = raw(x)
        return np.cos(angle) * spread[0] * f + np.sin(angle) * spread[1] * (g - along * f)

    return logits


def drawn(rng: np.random.Generator, logits: Any, groups: np.ndarray, angle: np.ndarray) -> Rows:
    """Draw a row for each group number; angle: of each group."""
    x = rng.normal(size=(len(groups), WIDTH)).astype(np.float32)
    chance = 1 / (1 + np.exp(-logits(x, angle[groups - 1])))
    y = (rng.random(len(groups)) < chance).astype(np.float32)
    return Rows(x=torch.from_numpy(x), group=torch.from_numpy(groups), y=torch.from_numpy(y))


def two_groups(seed: int, minority: float) -> tuple[Rows, Rows]:
    """Return training and test rows; group 2 is the minority, its function unrelated to that of group 1."""
    rng = stream(seed, "two groups")
    logits, angle = teachers(rng), np.array([0.0, np.pi / 2])
    groups = 1 + (rng.random(TRAIN) < minority).astype(np.int64)
    return drawn(rng, logits, groups, angle), drawn(rng, logits, np.repeat([1, 2], TEST), angle)


def tiers(seed: int) -> tuple[Rows, Rows]:
    """Return rows whose function turns, tier by tier, from that of the largest to an unrelated one."""
    rng = stream(seed, "tiers")
    logits, angle = teachers(rng), np.linspace(0, np.pi / 2, len(TIERS))
    groups = np.repeat(np.arange(1, len(TIERS) + 1), TIERS)
    return drawn(rng, logits, groups, angle), drawn(
        rng, logits, np.repeat(np.arange(1, len(TIERS) + 1), TEST), angle
    )


class Scorer(nn.Module):
    """A score of x and a group. how: plain, concat or gated (`body` takes the code as a second input)."""

    def __init__(self, code: PersonalizationCode, body: nn.Module, how: str) -> None:
        super().__init__()
        self.code, self.body, self.how = code, body, how

    def forward(self, x: Tensor, given: dict[str, Tensor]) -> Tensor:
        """Return (D,) logits."""
        if self.how == "plain":
            return self.body(x)[:, 0]
        pc = self.code(given)
        return (self.body(torch.cat([x, pc], dim=1)) if self.how == "concat" else self.body(x, pc))[:, 0]


def plain_mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, HIDDEN[0]), nn.ReLU(), nn.Linear(*HIDDEN), nn.ReLU(), nn.Linear(HIDDEN[1], 1)
    )


def scorer(arm: str) -> Scorer:
    """Return the untrained model of an arm, for two groups."""
    code = PersonalizationCode({"group": 2}, dim=8)
    if arm == "plain":
        return Scorer(code, plain_mlp(WIDTH), "plain")
    if arm == "concat":
        return Scorer(code, plain_mlp(WIDTH + code.pc_dim), "concat")
    config = GateConfig(init_std=0.05 if "0.05" in arm else 0.5)
    return Scorer(code, PosoMLP(WIDTH, HIDDEN, 1, pc_dim=code.pc_dim, gate=config), "gated")


def fit(
    model: Scorer, rows: Rows, given: dict[str, Tensor], seed: int, steps: int = STEPS, batch: int = BATCH
) -> Scorer:
    """Train with Adam on the logistic loss; the same order of rows for every model of a seed."""
    rng = stream(seed, "batches")
    optimizer = torch.optim.Adam(model.parameters(), RATE, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(steps):
        picked = torch.from_numpy(rng.integers(len(rows.y), size=batch))
        logits = model(rows.x[picked], {name: value[picked] for name, value in given.items()})
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits, rows.y[picked]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def last_activations(model: Scorer, x: Tensor, given: dict[str, Tensor]) -> Tensor:
    """Return what the last layer reads."""
    seen: list[Tensor] = []
    last = [m for m in model.body.modules() if isinstance(m, nn.Linear) and m.out_features == 1][-1]
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(x, given)
    handle.remove()
    return seen[0]


def measured(
    arm: str, seed: int, minority: float, steps: int = STEPS, batch: int = BATCH
) -> dict[str, float]:
    """Train an arm; return its AUC on both groups and S, how far masking the code moves the minority."""
    train, test = two_groups(seed, minority)
    told = [train.group, test.group]
    if "shuffled" in arm:
        rng = stream(seed, "shuffled")
        told = [group[torch.from_numpy(rng.permutation(len(group)))] for group in told]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "start"))
        model = fit(scorer(arm), train, {"group": told[0]}, seed, steps, batch)
    with torch.no_grad():
        scores = model(test.x, {"group": told[1]}).numpy()
    few = test.group == 2
    out = {
        name: 100 * auc(test.y[mask].numpy(), scores[mask.numpy()])
        for name, mask in (("minority", few), ("majority", ~few))
    }
    if model.how != "plain":
        shown, masked = (
            last_activations(model, test.x[few], {"group": group})
            for group in (told[1][few], 0 * told[1][few])
        )
        out["S"] = masking_sensitivity(shown, masked)
    return out


def gates_by_tier(seed: int) -> tuple[np.ndarray, list[float], list[float]]:
    """Train four whole sub-modules under scalar gates; return the factors (tiers, 4), S and AUC per tier."""
    train, test = tiers(seed)
    code = PersonalizationCode(buckets={"rows": log2_edges(2**14)}, dim=8)
    sizes = torch.tensor(TIERS, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "start"))
        body = Poso([plain_mlp(WIDTH) for _ in range(4)], code.pc_dim)
        model = fit(Scorer(code, body, "gated"), train, {"rows": sizes[train.group - 1]}, seed, 2 * STEPS)
    with torch.no_grad():
        factors = body.gate(code({"rows": sizes})).numpy()
        scores = model(test.x, {"rows": sizes[test.group - 1]})
        hidden = model(test.x, {"rows": torch.full(test.group.shape, float("nan"))})
    groups = [test.group == tier + 1 for tier in range(len(TIERS))]
    moved = [masking_sensitivity(scores[g], hidden[g]) for g in groups]
    return factors, moved, [100 * auc(test.y[g].numpy(), scores[g].numpy()) for g in groups]


def with_interval(values: Sequence[float], digits: int = 1) -> str:
    """Return mean and half a 95 % interval (Student's t over seeds)."""
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


def table(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the rows of one share as markdown."""
    lines = [
        "| | minority AUC | − plain | − concat | majority AUC | S on the minority |",
        "|---|---|---|---|---|---|",
    ]
    for arm, seeds in found.items():
        gains = [
            with_interval([a["minority"] - b["minority"] for a, b in zip(seeds, found[other], strict=True)])
            if arm != other else "–" for other in ("plain", "concat")
        ]  # fmt: skip
        minority, majority = (with_interval([s[name] for s in seeds]) for name in ("minority", "majority"))
        moved = with_interval([s["S"] for s in seeds], 2) if "S" in seeds[0] else "–"
        lines.append(f"| {arm} | {minority} | {gains[0]} | {gains[1]} | {majority} | {moved} |")
    return lines


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the picture of docs/poso.md: masking per arm, gates and S against the tier."""
    factors, moved = np.array(found["tiers"]["factors"]), found["tiers"]["S"]
    share = max(found["shares"], key=float)
    shown = {arm: [s["S"] for s in found["shares"][share][arm]] for arm in ARMS if arm != "plain"}

    def drawing(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        names, y = list(shown), np.arange(len(shown))[::-1]
        left.barh(y, [np.mean(v) for v in shown.values()], 0.5, color=BAR)
        for place, values in zip(y, shown.values(), strict=True):
            left.plot(values, [place] * len(values), ".", color=INK, ms=4)
        left.set_yticks(y, names)
        left.set_xlabel("S: how far masking the code moves the last layer")
        left.set_title(f"masking sensitivity, minority of {float(share):.0%}")
        for i, color in enumerate((ACCENT, ORANGE, RED, BAR)):
            right.plot(TIERS, factors[:, i], "o-", color=color, label=f"sub-module {i + 1}")
        right.plot(TIERS, moved, "k:", label="S of the score")
        right.set_xscale("log")
        right.set_xticks(TIERS, [f"{n:,}" for n in TIERS])
        right.set_xticks([], minor=True)
        right.invert_xaxis()
        right.set_xlabel("training rows of the tier")
        right.set_ylabel("factor C g")
        right.set_title("gates against tier")
        right.legend()

    words = Words(name="poso", caption="", alt="", source=())
    made = picture(words, (10.4, 3.2), drawing, columns=(), rows=())
    with replacing(path) as temporary:
        temporary.write_bytes(made.svg)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--minority", type=float, nargs="+", default=[0.04, 0.01])
    args = options.parse_args()
    torch.set_num_threads(1)
    shares: dict[str, Any] = {}
    for minority in args.minority:
        shares[str(minority)] = {
            arm: [measured(arm, seed, minority) for seed in range(args.seeds)] for arm in ARMS
        }
        print(f"\nminority {minority:.0%}, {args.seeds} seeds\n")
        print("\n".join(table(shares[str(minority)])))
    factors, moved, aucs = gates_by_tier(0)
    found = {
        "command": f"python studies/poso_synthetic.py --seeds {args.seeds} --minority "
        + " ".join(map(str, args.minority)),
        "shares": shares, "tiers": {"rows": TIERS, "factors": factors.tolist(), "S": moved, "auc": aucs},
        "libraries": library_versions(), "python": platform.python_version(),
    }  # fmt: skip
    print("\n| tier | " + " | ".join(f"{n:,}" for n in TIERS) + " |\n|---|" + "---|" * len(TIERS))
    print("| AUC | " + " | ".join(f"{value:.1f}" for value in aucs) + " |")
    print("| S | " + " | ".join(f"{value:.2f}" for value in moved) + " |")
    write_json(HERE / "results/poso_synthetic.json", found)
    draw(found, HERE / "../docs/poso.svg")


if __name__ == "__main__":
    main()
