"""Run lm-evaluation-harness on a model and groups of tasks, and write its samples: MODEL TASKS OUT GROUP ...

A process of its own: the harness reads the environment (offline, cache) when it is imported.
"""

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def main() -> None:
    model, tasks, out, *groups = sys.argv[1:]
    manager = TaskManager(include_path=tasks, include_defaults=False)
    found = simple_evaluate(
        model=HFLM(pretrained=model, device="cpu", batch_size=16), tasks=groups, task_manager=manager,
        bootstrap_iters=0, log_samples=True,
    )  # fmt: skip
    assert found is not None
    members = {name: sorted(manager.load([name])["tasks"]) for name in manager.all_groups}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(
            {"samples": found["samples"], "results": found["results"], "groups": members}, file, default=str
        )


if __name__ == "__main__":
    main()
