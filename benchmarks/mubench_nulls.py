"""What predictors that know nothing reach on a folder of aligned tasks: accuracy and MLC of the shortest and
of the longest option.

    PYTHONPATH=src python benchmarks/mubench_nulls.py FOLDER [TASK ...]
"""

import sys

import numpy as np

from quadmix.evaluate.mubench.consistency import pairs
from quadmix.evaluate.mubench.load import load_task
from quadmix.evaluate.mubench.nulls import text_nulls
from quadmix.evaluate.mubench.sources import chosen_tasks


def main() -> None:
    folder, *named = sys.argv[1:]
    print("task           languages  items  chance  null      accuracy  MLC    kappa")
    for name in chosen_tasks(folder, named)[0]:
        task = load_task(folder, name, "lighteval")
        for null in text_nulls(task):
            chosen = np.stack(list(null.chosen.values()))
            found = pairs(chosen, null.labels, null.options)
            every = np.arange(len(chosen))
            mlc, kappa = (found.mean(matrix, every) for matrix in (found.mlc, found.kappa))
            print(
                f"{name:14} {len(chosen):9} {len(task.ids):6} {np.mean(1 / null.options):7.3f}  "
                f"{null.estimator:8} {found.accuracy.mean():9.3f}  {mlc:.3f}  {kappa:.3f}"
            )


if __name__ == "__main__":
    main()
