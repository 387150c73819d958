"""What POSO costs: time beside the plain modules, parameters and products at the paper's proportions.

    python benchmarks/poso.py [--repeats 15] [--threads 1]

Time: forward and backward on the CPU, the two sides in turn, so that other work on the machine meets both;
median of the ratios. `ratio` is of processor time, `wall` of time on the clock. A code per row is the worst
case; `32 rows a code` are rows sorted by group, given as x (B / 32, 32, d) with a code for each 32.

Counts: a model of the paper's proportions (Table 1: MLP 2.48 M, MHA 2.91 M, MMoE 13.20 M of 23.15 M): ten
sequences of 30 attended to, eight experts for four tasks, a tower each. Products are those of matrices
(torch's own counter) and of the gates, of one row.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from quadmix.poso import Gate, MMoE, PosoMLP, PosoMMoE, PosoMultiheadAttention

PC = 16
ROWS = 4096
MLPS = {"MLP 256-256-256-1": (256, [256, 256]), "MLP 768-256-64-1": (768, [256, 64])}
ATTENTIONS = {  # batch, queries, keys, width, heads
    "attention, 1 query, 30 keys, d 64": (256, 1, 30, 64, 4),
    "attention, 1 query, 128 keys, d 128": (128, 1, 128, 128, 4),
    "self-attention, 30 positions, d 64": (64, 30, 30, 64, 4),
    "self-attention, 128 positions, d 128": (32, 128, 128, 128, 4),
    "self-attention, 256 positions, d 256": (8, 256, 256, 256, 8),
}
DATA, SEQUENCE, LENGTH, ATTENDED, TASKS, EXPERTS = 2048, 64, 30, 128, 4, 8
EXPERT, TOWER, SEQUENCES = [640, 512], [512, 512, 128], 10


def spent(run: Callable[[], Tensor]) -> tuple[float, float]:
    """Return processor and clock seconds of a forward and a backward pass."""
    wall, own = time.perf_counter(), time.process_time()
    run().sum().backward()
    return time.process_time() - own, time.perf_counter() - wall


def compared(plain: Callable[[], Tensor], gated: Callable[[], Tensor], repeats: int) -> str:
    """Return milliseconds of the plain side, and the ratios, as cells of a table."""
    for run in (plain, gated):
        spent(run)
    pairs = [(spent(plain), spent(gated)) for _ in range(repeats)]
    own = [b[0] / a[0] for a, b in pairs]
    wall = [b[1] / a[1] for a, b in pairs]
    low, _, high = statistics.quantiles(own, n=4)
    milliseconds = 1e3 * statistics.median(a[0] for a, _ in pairs)
    ratio = f"{statistics.median(own):.2f} ({low:.2f}-{high:.2f})"
    return f"{milliseconds:.1f} | {ratio} | {statistics.median(wall):.2f}"


def plain_mlp(width: int, hidden: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip([width, *hidden], hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


def mlp_rows(repeats: int) -> list[str]:
    lines: list[str] = []
    for name, (width, hidden) in MLPS.items():
        plain, gated = plain_mlp(width, hidden), PosoMLP(width, hidden, 1, pc_dim=PC)
        x = torch.randn(ROWS, width)
        for what, groups in (("a code per row", ROWS), ("32 rows a code", ROWS // 32)):
            pc = torch.randn(groups, PC, requires_grad=True)
            by_group = x if groups == ROWS else x.view(groups, -1, width)
            cells = compared(lambda: plain(x), lambda: gated(by_group, pc), repeats)  # noqa: B023
            lines.append(f"| {name}, {what} | {cells} |")
    return lines


def attention_rows(repeats: int) -> list[str]:
    lines: list[str] = []
    for name, (batch, queries, keys, width, heads) in ATTENTIONS.items():
        plain = nn.MultiheadAttention(width, heads, batch_first=True)
        gated = PosoMultiheadAttention(width, heads, PC)
        sequence = torch.randn(batch, keys, width, requires_grad=True)
        query = torch.randn(batch, queries, width, requires_grad=True)
        pc = torch.randn(batch, PC, requires_grad=True)
        given = (query, sequence, sequence)
        cells = compared(
            lambda: plain(*given, need_weights=False)[0],  # noqa: B023
            lambda: gated(*given, pc),  # noqa: B023
            repeats,
        )
        lines.append(f"| {name} | {cells} |")
    return lines


class Production(nn.Module):
    """A recommender of the paper's proportions, plain or with POSO in all three places."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.other = nn.Linear(2_228, DATA)  # embeddings' and other layers' share of the parameters
        self.queries = nn.ModuleList(nn.Linear(DATA, ATTENDED) for _ in range(SEQUENCES))
        self.attentions = nn.ModuleList(
            PosoMultiheadAttention(ATTENDED, 4, PC, kdim=SEQUENCE, vdim=SEQUENCE)
            if gated
            else nn.MultiheadAttention(ATTENDED, 4, kdim=SEQUENCE, vdim=SEQUENCE, batch_first=True)
            for _ in range(SEQUENCES)
        )
        self.experts = (
            PosoMMoE(DATA, EXPERT, EXPERTS, TASKS, PC) if gated else MMoE(DATA, EXPERT, EXPERTS, TASKS)
        )
        self.towers = nn.ModuleList(
            PosoMLP(EXPERT[-1], TOWER, 1, pc_dim=PC) if gated else plain_mlp(EXPERT[-1], TOWER)
            for _ in range(TASKS)
        )

    def parts(self) -> dict[str, list[nn.Module]]:
        return {
            "MHA": [*self.queries, *self.attentions], "MMoE": [self.experts], "MLP": list(self.towers),
            "all": [self],
        }  # fmt: skip

    def products(self) -> dict[str, int]:
        """Return the products of one row, by part."""
        pc = (torch.randn(1, PC),) if self.gated else ()
        x, sequence = torch.randn(1, DATA), torch.randn(1, LENGTH, SEQUENCE)
        query = torch.randn(1, 1, ATTENDED)
        runs: dict[str, Callable[[], object]] = {
            "MHA": lambda: [
                (ask(x), attend(query, sequence, sequence, *pc))
                for ask, attend in zip(self.queries, self.attentions, strict=True)
            ],
            "MMoE": lambda: self.experts(x, *pc),
            "MLP": lambda: [tower(torch.randn(1, EXPERT[-1]), *pc) for tower in self.towers],
        }
        found: dict[str, int] = {}
        for name, run in runs.items():
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()
            gates = [m for part in self.parts()[name] for m in part.modules() if isinstance(m, Gate)]
            found[name] = counter.get_total_flops() // 2 + sum(g.second.out_features for g in gates)
        return found | {"all": sum(found.values()) + self.other.weight.numel()}


def counts() -> list[str]:
    plain, gated, written = Production(False), Production(True), Production(True)
    for attention in written.attentions:
        attention._is_short = lambda *_: False  # keys and values of all positions, as the equation says
    head = ("", "parameters", "with POSO", "products", "with POSO", "with POSO, keys and values computed")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in ("MLP", "MHA", "MMoE", "all"):
        few, more = (
            sum(p.numel() for m in side.parts()[name] for p in m.parameters()) for side in (plain, gated)
        )
        works = [side.products()[name] for side in (plain, gated, written)]
        cells = [f"{few / 1e6:.2f} M", with_change(more, few), f"{works[0] / 1e6:.2f} M"]
        cells += [with_change(work, works[0]) for work in works[1:]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def with_change(value: int, before: int) -> str:
    return f"{value / 1e6:.2f} M ({100 * (value / before - 1):+.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print("\n".join(counts()), "\n", sep="")
    print("| forward and backward | plain, ms | ratio (quartiles) | wall |\n|---|---|---|---|")
    for rows in (mlp_rows, attention_rows):
        for line in rows(args.repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main()
