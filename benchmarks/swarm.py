"""Training speed of proxies in tokens per second: one model, groups, a larger model, two precisions.

Run: python benchmarks/swarm.py [--workers 2] [--seconds 5]. Every worker computes with one thread; the rate
printed is the sum over workers that run at the same time.
"""

import argparse
import sys
from dataclasses import dataclass

from quadmix.engine.tasks import run_tasks
from quadmix.proxy.setting import ProxySetting
from quadmix.recipe import ModelSection, TrainingSection

SMALL = ModelSection()
LARGE = ModelSection(layers=4, width=128, heads=4, mlp=352)


@dataclass(frozen=True)
class Case:
    name: str
    model: ModelSection
    vocab: int
    group: int
    seconds: float
    optimizer: str = "muon"
    precision: str = "auto"


def speed(case: Case) -> float:
    from quadmix.proxy.cost import measure_speed

    training = TrainingSection.model_validate({"optimizer": case.optimizer, "precision": case.precision})
    setting = ProxySetting(
        pool="",
        targets="",
        heldout=None,
        model=case.model,
        training=training,
        vocab_size=case.vocab,
        domains=("all",),
    )
    return measure_speed(setting, group=case.group, seconds=case.seconds)


def cases(seconds: float) -> list[Case]:
    return [
        Case("d64 L2 V2048, K=8", SMALL, 2048, 8, seconds),
        Case("d64 L2 V2048, K=8, float32", SMALL, 2048, 8, seconds, precision="float32"),
        Case("d64 L2 V2048, K=8, AdamW", SMALL, 2048, 8, seconds, optimizer="adamw"),
        Case("d64 L2 V2048, K=1", SMALL, 2048, 1, seconds),
        Case("d64 L2 V4096, K=8", SMALL, 4096, 8, seconds),
        Case("d128 L4 V2048, K=4", LARGE, 2048, 4, seconds),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    for case in cases(options.seconds):
        rates = run_tasks(speed, [case] * options.workers, executor="processes", workers=options.workers)
        sys.stdout.write(f"{case.name:32s} {sum(rates) / 1e3:8.1f} ktok/s over {options.workers} workers\n")


if __name__ == "__main__":
    main()
