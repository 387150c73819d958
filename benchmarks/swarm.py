"""How fast proxies train, beside ordinary code that trains them one after the other, and what that costs.

Run on an idle machine: python benchmarks/swarm.py [--seconds 2] [--rounds 5] [--device cpu|cuda] [--quick]
(about 8 minutes on 2 cores, about as long on a GPU; --quick only shows that everything runs).

All cases are measured in turn, round after round, in one run; ratios are taken inside a round. Everything
trains with AdamW on the same Zipf documents through TokenStream, loader inside the measured time, in worker
processes of engine.tasks (the rival too: so it gets their allocator settings). Rates are sums over workers
that run at the same time.

rival: plain nn.Module code of the same model, one model at a time, full logits, SDPA, torch.optim.AdamW
    (fused or foreach, whichever is faster here: printed), one process with all threads: this is the bar.
    `per core`: one process with one thread per core, all at once. On a GPU: one model alone.
K=8: ours, 8 models per worker in the default precision, one worker with one thread per core. `all threads`:
    one worker with every core. On a GPU one worker; `x 2`: two workers share it.

Columns: ktok/s, median (min-max) over rounds; TFLOP/s: flops_per_token x tokens/s; peak: their share of the
measured bf16 matrix product rate (median over sizes; on CPU the faster of one process with all threads and
one per core); x fp32, x bf16: how many times the bar, in fp32 and in autocast. No ratio is printed unless
both have the same parameters and, in fp32 from equal weights and batches, the same losses to 1e-3. A bar is
`void`, not passed, where other programs used the machine: a process with all threads suffers from them more
than one per core, so ratios would flatter. The last line is one JSON object with every number.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import ProxyError
from quadmix.io.fs import available_cores
from quadmix.pipeline.presets import preset_recipe
from quadmix.proxy.device import choose_device, choose_dtype, is_out_of_memory
from quadmix.proxy.loader import batches, load
from quadmix.proxy.memory import fitting_group, group_bytes, release
from quadmix.proxy.model import Weights, flops_per_token, initial_weights, parameter_count, rotary
from quadmix.proxy.optim import rate_factor
from quadmix.proxy.order import TokenStream, windows
from quadmix.proxy.pool import PoolManifest, TokenPool
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.train import start, stepper
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.rng import stream as generator

CORES = available_cores()
FP32, BF16, TOLERANCE = "rival fp32", "rival bf16 autocast", 1e-3
GEMM = {"cpu": (512, 768, 1024, 1536, 2048), "cuda": (2048, 4096, 8192)}
SHAPES = {  # layers, width, heads, mlp, context; vocabulary; batch
    "0.2M": (ModelSection(layers=2, width=64, heads=2, mlp=128, context=128), 2048, 8),
    "1M": (ModelSection(layers=2, width=128, heads=4, mlp=256, context=256), 4096, 16),
}


def setting_of(size: str, device: str, precision: str = "auto") -> ProxySetting:
    """Return what is trained; size: of SHAPES, or `paper` for the proxies of that preset."""
    if size == "paper":
        recipe = preset_recipe("paper")
        model, training = recipe.proxy.model, recipe.proxy.training
        vocab = model.padded(recipe.tokenizer.vocab_size)
    else:
        model, vocab, batch = SHAPES[size]
        training = TrainingSection(
            tokens=10**12, batch=batch, optimizer="adamw", peak_lr=1e-3, schedule="constant"
        )
    return ProxySetting(
        pool="", targets="", heldout=None, model=model, vocab_size=vocab, domains=("all",), device=device,
        training=training.model_copy(update={"precision": precision}),
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What the first `workers` workers do at the same time. kind: gemm, windows, load, ours, or a rival."""

    size: str
    name: str
    kind: str
    models: int = 1
    workers: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """One worker's part. folder: where workers meet. adamw: the rival's for each size, fused or foreach."""

    device: str
    seconds: float
    cases: tuple[Case, ...] = ()
    rounds: int = 1
    rank: int = 0
    ranks: int = 1
    folder: str = ""
    adamw: dict[str, str] = field(default_factory=dict)


class Rival(nn.Module):
    """The model as one would write it: architecture `quadmix`, with the weights of model k of a group."""

    def __init__(self, m: ModelSection, weights: Weights, k: int) -> None:
        super().__init__()
        self.heads, device = m.heads, weights.embedding.device
        self.embedding = nn.Embedding(*weights.embedding[k].shape)
        self.norm = nn.RMSNorm(m.width, eps=1e-6, elementwise_affine=False)
        shapes = 4 * [(m.width, m.width)] + 2 * [(m.width, m.mlp)] + [(m.mlp, m.width)]
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(*shape, bias=False) for shape in shapes) for _ in range(m.layers)
        )
        turn = rotary(m.context, m.width // m.heads, 1, dtype=torch.float32, device=device)
        self.register_buffer("cos", turn[0])
        self.register_buffer("sin", turn[1])
        self.embedding.weight.data.copy_(weights.embedding[k])
        for i, layer in enumerate(self.layers):
            down = weights.wide[k, 3 * i + 2].T  # stored transposed
            stored = [*weights.square[k, 4 * i : 4 * i + 4], *weights.wide[k, 3 * i : 3 * i + 2], down]
            for linear, matrix in zip(layer, stored, strict=True):
                linear.weight.data.copy_(matrix.T)
        self.to(device)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.embedding(tokens))
        for query, key, value, out, gate, up, down in self.layers:
            y = self.norm(x)
            q, k, v = (p(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (query, key, value))
            y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
            x = x + out(y.transpose(1, 2).flatten(2))
            y = self.norm(x)
            x = x + down(F.silu(gate(y)) * up(y))
        return F.linear(self.norm(x), self.embedding.weight)

    def turned(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos.to(x.dtype) + torch.cat((second, first), dim=-1) * self.sin.to(x.dtype)


class RivalTrainer:
    """Ordinary training of one model: batch (B, T + 1) -> loss. way: fused or foreach."""

    def __init__(self, setting: ProxySetting, weights: Weights, k: int, way: str, autocast: bool) -> None:
        self.model, t = Rival(setting.model, weights, k), setting.training
        self.clip, self.autocast = t.clip, autocast
        matrices = {"params": [*self.model.layers.parameters()], "weight_decay": t.weight_decay}
        table = {"params": [self.model.embedding.weight], "weight_decay": 0.0}
        rate: dict[str, Any] = {"lr": t.peak_lr, "betas": (0.9, 0.95), "eps": 1e-8, way: True}
        self.optimizer = torch.optim.AdamW([matrices, table], **rate)

    def __call__(self, batch: Tensor) -> Tensor:
        with torch.autocast(batch.device.type, torch.bfloat16) if self.autocast else nullcontext():
            logits = self.model(batch[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return loss.detach()


@cache
def pool_of(vocab: int, documents: int = 16_384) -> TokenPool:
    """Return about 4M tokens of Zipf documents of log-normal lengths."""
    draw = generator(0, "swarm benchmark", vocab)
    lengths = np.clip(draw.lognormal(5.3, 0.8, documents), 8, 8192).astype(np.int64)
    share = np.cumsum(1.0 / np.arange(1, vocab + 1))
    tokens = np.searchsorted(share / share[-1], draw.random(int(lengths.sum()))).astype(np.uint16)
    return TokenPool(
        tokens=tokens, offsets=np.concatenate([[0], np.cumsum(lengths)]), rows=np.arange(documents),
        keys=draw.integers(2**64, size=documents, dtype=np.uint64), domain=np.zeros(documents, np.int16),
        manifest=PoolManifest(documents=documents, tokens=len(tokens), vocab_size=vocab, source=""),
    )  # fmt: skip


def streams_of(setting: ProxySetting, rank: int, models: int) -> list[TokenStream]:
    pool, draw = pool_of(setting.vocab_size), generator(rank, "copies")
    copies = [draw.choice(3, len(pool), p=(0.5, 0.3, 0.2)).astype(np.int32) for _ in range(models)]
    return [TokenStream(pool, c, seed=0) for c in copies]


def prepare(case: Case, job: Job, stack: ExitStack) -> tuple[Callable[[], Any], float]:
    """Return one step of a case and how many tokens (gemm: FLOPs) it does."""
    if case.kind == "gemm":
        a, b = (torch.randn(case.models, case.models, device=job.device).bfloat16() for _ in range(2))
        return partial(torch.mm, a, b), 2.0 * case.models**3
    device, setting, steps = torch.device(job.device), setting_of(case.size, job.device), count()
    training, context = setting.training, setting.model.context
    streams, tokens = streams_of(setting, job.rank, case.models), case.models * training.batch * context
    if case.kind == "windows":
        return lambda: windows(streams[0], next(steps), training.batch, context), tokens
    if case.kind == "load":
        return lambda: load(streams, setting, next(steps)), tokens
    loader = stack.enter_context(batches(streams, setting, device))
    if case.kind == "ours":
        state = start(setting, range(case.models), device)
        take, peak = stepper(state, setting), torch.full((case.models,), training.peak_lr, device=device)
        return lambda: take(next(loader), peak * rate_factor(next(steps), setting.steps, training)), tokens
    weights = initial_weights(setting.model, setting.vocab_size, [job.rank], device)
    trainer = RivalTrainer(setting, weights, 0, job.adamw[case.size], autocast=case.kind == BF16)
    return lambda: trainer(next(loader)[0]), tokens


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def warmed(case: Case, job: Job, stack: ExitStack) -> Callable[[], float]:
    """Warm a case up; return its measurement: work per second over about `seconds`, one wait at the end."""
    torch.set_num_threads(case.threads)
    step, work = prepare(case, job, stack)
    seconds = job.seconds * (0.1 if case.kind in ("gemm", "windows", "load") else 1.0)
    done, begun, last = 0, time.perf_counter(), 0.0
    while done < (6 if job.device == "cuda" else 1) or time.perf_counter() - begun < 0.1 * seconds:
        before = time.perf_counter()
        step()
        synchronise(job.device)
        done, last = done + 1, time.perf_counter() - before

    def measurement() -> float:
        steps, begun = max(1, round(seconds / last)), time.perf_counter()
        for _ in range(steps):
            step()
        synchronise(job.device)
        return steps * work / (time.perf_counter() - begun)

    return measurement


def attempt(function: Callable[[], Any]) -> Any:
    """Return the result, or the reason (str) where memory does not suffice."""
    try:
        return function()
    except ProxyError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return f"out of memory: {str(error).splitlines()[0][:160]}"


def measure(job: Job) -> list[list[float | str]]:
    """Body of a worker: every case in every round, in step with the others; (rounds, cases) rates."""
    number = count()
    if Path(job.folder, f"0-{job.rank}").exists():
        raise RuntimeError(f"worker {job.rank} of the benchmark died; nothing can be measured any more")

    def meet() -> None:
        here = next(number)
        Path(job.folder, f"{here}-{job.rank}").touch()
        while not all(Path(job.folder, f"{here}-{rank}").exists() for rank in range(job.ranks)):
            time.sleep(0.002)

    def one(case: Case) -> float | str:
        meet()
        with ExitStack() as stack:
            busy = job.rank < case.workers
            ready = attempt(lambda: warmed(case, job, stack)) if busy else lambda: 0.0
            meet()
            rate = ready if isinstance(ready, str) else attempt(ready)
        del ready
        release()
        return rate

    return [[one(case) for case in job.cases] for _ in range(job.rounds)]


def check(job: Job) -> dict[str, dict[str, Any]]:
    """Per size: train two models both ways in fp32; parameters, losses, and which AdamW is faster."""
    torch.set_num_threads(CORES)
    device, ways, out = torch.device(job.device), ("fused", "foreach"), {}
    for size in SHAPES:
        setting = setting_of(size, job.device, "float32")
        state, rate = start(setting, [0, 1], device), torch.full((2,), setting.training.peak_lr).to(device)
        rivals = [RivalTrainer(setting, state.weights, k, way, autocast=False) for k, way in enumerate(ways)]
        take, streams = stepper(state, setting), streams_of(setting, 0, 2)
        differences, seconds = [], {way: [] for way in ways}
        for step in range(10):
            batch = load(streams, setting, step).long().to(device)
            take(batch, rate)
            for k, way in enumerate(ways):
                begun = time.perf_counter()
                loss = float(rivals[k](batch[k]))
                synchronise(job.device)
                seconds[way].append(time.perf_counter() - begun)
                differences.append(abs(loss - float(state.progress.total[k])))
            state.progress.total.zero_()
        mine = parameter_count(setting.model, setting.vocab_size)
        theirs = sum(p.numel() for p in rivals[0].model.parameters())
        out[size] = {
            "parameters": mine, "rival_parameters": theirs, "loss_difference": max(differences), "loss": loss,
            "passed": mine == theirs and max(differences) <= TOLERANCE,
            "adamw": min(ways, key=lambda way: median(seconds[way])), "step_seconds": seconds,
        }  # fmt: skip
    return out


def memory(job: Job) -> dict[str, Any]:
    """Return the growth of this fresh worker's peak while it trains a group, beside the estimate."""
    case, device, gpu = job.cases[0], torch.device(job.device), job.device == "cuda"
    setting, models = setting_of(case.size, job.device), case.models

    def peak() -> int:  # VmHWM, since ru_maxrss would begin at the parent's
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        resident = 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        return torch.cuda.max_memory_allocated() if gpu else resident

    def train() -> int:
        take, rate = stepper(start(setting, range(models), device), setting), torch.zeros(models).to(device)
        for _ in range(6 if gpu else 2):
            take(torch.randint(setting.vocab_size, shape, device=device), rate)
        return peak() - bare

    warm = torch.ones(64, 64, device=device, requires_grad=True)
    (warm.bfloat16() @ warm.bfloat16()).sum().backward()
    bare, shape = peak(), (models, setting.training.batch, setting.model.context + 1)
    grown, estimate = attempt(train), group_bytes(setting, models) / models
    found = {"size": case.size, "models": models, "bare": bare, "estimate_per_model": estimate}
    return found | ({"reason": grown} if isinstance(grown, str) else {"per_model": grown / models})


def paper(job: Job) -> dict[str, Any]:
    """Return what one proxy of the preset `paper` costs on this GPU, from a few whole steps."""
    setting = setting_of("paper", job.device)
    rate = models = attempt(lambda: fitting_group(setting, 16, 1))
    if not isinstance(models, str):
        with ExitStack() as stack:
            rate = attempt(lambda: warmed(Case("paper", "paper", "ours", models), job, stack)())
    hours = None if isinstance(rate, str) else setting.tokens / rate / 3600
    return {"models": models, "tokens_per_second": rate, "gpu_hours_per_proxy": hours}


def cases_of(device: str, quick: bool) -> list[Case]:
    """Return the cases of a round."""
    whole, each, gpu = {"threads": CORES}, {"workers": CORES}, device == "cuda"
    out = [Case("-", f"gemm {n}", "gemm", n, threads=1 if gpu else CORES) for n in GEMM[device]]
    if not gpu:
        out += [Case("-", f"gemm {n} per core", "gemm", n, **each) for n in GEMM[device]]
    for size in SHAPES:
        if gpu:
            out += [Case(size, kind, kind) for kind in (FP32, BF16)]
            out += [Case(size, f"K={k}", "ours", k) for k in ((1, 64) if quick else (1, 16, 64, 128))]
            out += [Case(size, f"K=64 x {n}", "ours", 64, workers=n) for n in (2, 4)]
            out += [Case(size, "loader", "load", 64)]
        else:
            out += [Case(size, kind, kind, **whole) for kind in (FP32, BF16)]
            out += [Case(size, f"{kind} per core", kind, **each) for kind in (FP32, BF16)]
            out += [Case(size, f"K={k}", "ours", k, **each) for k in ((1, 8) if quick else (1, 4, 8, 16, 32))]
            out += [Case(size, "K=8, all threads", "ours", 8, **whole), Case(size, "loader", "windows")]
    return out


Series = list[float] | str  # a number per round, or why there is none


def over(above: Series, *below: Series) -> Series:
    """Return, round by round, `above` over the largest of `below`."""
    for part in (above, *below):
        if isinstance(part, str):
            return part
    best = [max(values) for values in zip(*below, strict=True)]
    return [a / b for a, b in zip(above, best, strict=True)]


def facts(value: Any) -> Any:
    """Return nested series with their medians and spreads, for the JSON."""
    if isinstance(value, dict):
        return {name: facts(part) for name, part in value.items()}
    if isinstance(value, str):
        return {"median": None, "reason": value}
    return {"median": median(value), "min": min(value), "max": max(value), "rounds": value}


def rates_of(results: list[Any], cases: list[Case]) -> dict[str, dict[str, Series]]:
    """Return rates[size][case], summed over workers; rates["-"] has matrix products, `gemm` their peak."""
    rates: dict[str, dict[str, Series]] = {}
    for index, case in enumerate(cases):
        parts = [[worker[r][index] for worker in results] for r in range(len(results[0]))]
        bad = [value for values in parts for value in values if isinstance(value, str)]
        rates.setdefault(case.size, {})[case.name] = bad[0] if bad else [sum(values) for values in parts]
    products: Any = rates["-"]
    ways = [[products[n] for n in products if n.endswith("core") == each] for each in (False, True)]
    medians = [[median(values) for values in zip(*way, strict=True)] for way in ways if way]
    products["gemm"] = [max(values) for values in zip(*medians, strict=True)]
    return rates


def compare(size: str, rates: dict[str, dict[str, Series]], passed: bool) -> dict[str, dict[str, Series]]:
    """Print the table of a size; return the ratios of each case, without `passed` the peak's share alone."""
    model, vocab, _ = SHAPES[size]
    flops, mine = flops_per_token(model, vocab), rates[size]
    out: dict[str, dict[str, Series]] = {}
    print(f"\n{size:28} {'ktok/s':>9} {'(min-max)':>22} {'TFLOP/s':>8}    peak  x fp32  x bf16")
    for name, rate in mine.items():
        if isinstance(rate, str):
            print(f"{name:28} {rate}")
            continue
        line = (
            f"{name:28} {median(rate) / 1e3:9,.1f} {f'({min(rate) / 1e3:,.1f}-{max(rate) / 1e3:,.1f})':>22}"
        )
        if name != "loader":
            out[name] = {"peak": over([flops * r for r in rate], rates["-"]["gemm"])}
            if passed:
                out[name] |= {"x fp32": over(rate, mine[FP32]), "x bf16": over(rate, mine[BF16])}
            line += f" {flops * median(rate) / 1e12:8.3f}"
            line += "".join(f" {number(r, '7.3f'):>7}" for r in out[name].values())
        print(line)
    return out


def number(series: Series, form: str) -> str:
    return "-" if isinstance(series, str) else format(median(series), form)


def bars_of(rates: dict[str, Any], ratios: dict[str, Any], gpu: bool) -> list[tuple[str, Series, float]]:
    """Return (what, ratio, bound) of everything that was promised."""
    bars: list[tuple[str, Series, float]] = []
    group, bounds = (
        ("K=64", {"1M": (15.0, 15.0)}) if gpu else ("K=8", {"0.2M": (1.9, 1.35), "1M": (2.5, 1.35)})
    )
    for size in SHAPES:
        for column, bound in zip(("x fp32", "x bf16"), bounds.get(size, ()), strict=False):
            found = ratios[size].get(group, {}).get(column, "not compared")
            bars.append(
                (f"{size}: {group}, {column} ({'lone eager' if gpu else 'all threads'})", found, bound)
            )
        workers = [1.0 if gpu else float(CORES)] * len(rates["-"]["gemm"])
        one = over(rates[size][group], workers)
        bars.append(
            (
                f"{size}: loader over the training of one worker, {group}",
                over(rates[size]["loader"], one),
                1.0,
            )
        )
    share = ratios["1M"].get(group, {}).get("peak", "not measured")
    return bars if gpu else [*bars, (f"1M: {group}, share of the matrix product rate", share, 0.35)]


def used_by_others() -> float:
    """Return the share of the machine's CPU time that others use in one second (Linux)."""

    def idle() -> float:
        return float(Path("/proc/stat").read_text(encoding="ascii").split()[4]) / os.sysconf("SC_CLK_TCK")

    before, begun = idle(), time.perf_counter()
    time.sleep(1.0)
    return 1.0 - (idle() - before) / (time.perf_counter() - begun) / (os.cpu_count() or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=0, help="default 5, on a GPU 3")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--quick", action="store_true", help="one short round, few K: shows that it runs")
    o = parser.parse_args()
    device, others = choose_device(o.device).type, [used_by_others()]
    gpu = device == "cuda"
    seconds, rounds = (0.1, 1) if o.quick else (o.seconds, o.rounds or (3 if gpu else 5))
    cases = cases_of(device, o.quick)
    job = Job(device, seconds, tuple(cases), rounds)
    gpus = (os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],) if gpu else ()
    alone = Place("processes", 1, gpu_ids=gpus)
    checks = run_tasks(check, [job], place=alone)[0]
    for size, found in checks.items():
        print(size, *(f"{name} {found[name]}" for name in list(found)[:-1]), sep="  ")
    ranks = max(case.workers for case in cases)
    ways = {size: found["adamw"] for size, found in checks.items()}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [replace(job, rank=r, ranks=ranks, folder=folder, adamw=ways) for r in range(ranks)]
        rates = rates_of(run_tasks(measure, jobs, place=replace(alone, workers=ranks)), cases)
    print("matrix products, TFLOP/s:", *(f"{r / 1e12:.3f}" for r in rates["-"]["gemm"]))
    ratios = {size: compare(size, rates, checks[size]["passed"]) for size in SHAPES}
    print("\nmemory of a worker beyond torch itself, MB per model, and the estimate of memory.group_bytes")
    grown = []
    for case in [Case(s, "memory", "ours", k) for s in SHAPES for k in ((1, 64) if gpu else (1, 8))]:
        grown.append(found := run_tasks(memory, [replace(job, cases=(case,))], place=alone)[0])
        sizes = [found.get(name, float("nan")) / 1e6 for name in ("per_model", "estimate_per_model", "bare")]
        print("{:5} K={:<3} {:9.1f} {:9.1f}  (torch itself {:.0f})".format(case.size, case.models, *sizes))
    cost = run_tasks(paper, [job], place=alone)[0] if gpu else None
    print(f"\none proxy of the preset paper: {cost}\n" if gpu else "")
    others.append(used_by_others())
    void, bars = o.quick or max(others) > 0.1, []
    for text, ratio, bound in bars_of(rates, ratios, gpu):
        met = None if void else isinstance(ratio, list) and median(ratio) >= bound
        bars.append({"bar": text, "bound": bound, "met": met} | facts(ratio))
        word = {None: "void", True: "pass", False: "FAIL"}[met]
        print(f"{word}  {text}: {number(ratio, '.2f')}, at least {bound}")
    print(json.dumps({
        "device": torch.cuda.get_device_name() if gpu else "cpu", "cores": CORES, "torch": torch.__version__,
        "precision": str(choose_dtype("auto", torch.device(device))), "seconds": seconds, "rounds": rounds,
        "used_by_others": others, "check": checks, "rates": facts(rates), "ratios": facts(ratios),
        "memory": grown, "paper": cost, "bars": bars,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
