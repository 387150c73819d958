"""What `quadmix mubench evaluate` prints: a table per task, and what was cut or left out."""

from collections.abc import Sequence

from quadmix.evaluate.mubench.engine import MACRO, Evaluation, TaskFacts
from quadmix.types import Score

_Z = 1.959963984540054  # two-sided 95 %
_SHOWN = 5
_COLUMNS = ("chance", "dealt out", "shortest", "longest", "entropy", "bits/byte", "margin")


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n (Wilson 1927)."""
    centre, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    half = _Z * (share * (1 - share) / n + _Z**2 / (4 * n**2)) ** 0.5
    return (centre - half) / scale, (centre + half) / scale


def evaluation_lines(found: Evaluation) -> list[str]:
    """Return the tables of all tasks, then the means over them."""
    model = found.model
    lines = [f"{model.name}: {model.precision}, context {model.context:,}, vocabulary {model.entries:,}"]
    if found.packed is False:
        lines.append("  this kind of model takes no options side by side: they were computed one by one")
    table = {(s.task, s.language, s.metric): s for s in found.scores}
    for task in found.tasks:
        lines += ["", *_task_lines(task, table)]
    means = [s for s in found.scores if s.task.startswith(f"{MACRO}_")]
    if means:
        lines += ["", "mean over tasks, families and abilities, by the estimator of each task"]
        lines += [
            f"  {s.language:8} {s.value:.3f} ± {s.stderr:.3f} (s.e. over items), chance {s.chance:.3f}"
            for s in means
        ]
    return lines


def _task_lines(task: TaskFacts, table: dict[tuple[str, str, str], Score]) -> list[str]:
    name = f"{task.task}_{task.mode}"
    lines = [f"{task.task} ({task.mode}, {task.headline}, split {task.split}): {task.items:,} items"]
    lines.append(f"  language  {'accuracy [95 %]':20}  " + "  ".join(f"{name:>9}" for name in _COLUMNS))
    for cell in task.cells:
        code = cell.language
        head = table[name, code, task.headline]
        null, spread = (table[name, code, f"{task.headline}:{part}"].value for part in ("null", "entropy"))
        low, high = wilson(head.value, head.n)
        more = [
            table.get((name, code, metric)) for metric in ("shortest", "longest", "bits_per_byte", "margin")
        ]
        values = [
            head.chance,
            null,
            *(s and s.value for s in more[:2]),
            spread,
            *(s and s.value for s in more[2:]),
        ]
        shown = "  ".join(f"{'-' if value is None else f'{value:.3f}':>9}" for value in values)
        lines.append(f"  {code:8}  {head.value:.3f} [{low:.3f}, {high:.3f}]  {shown}")
    for cell in task.cells:
        if cell.cut:
            lines.append(
                f"  {cell.language}: {len(cell.cut):,} prompts are longer than the context and lost their "
                f"beginning ({_some(cell.cut)})"
            )
    if task.left_out:
        lines.append(
            f"  {len(task.left_out):,} items are left out in every language, since an option does not fit "
            f"into the context, or there is not one blank, in some ({_some(task.left_out)})"
        )
    if task.converted:
        lines.append(f"  made from local_template: {' '.join(task.converted)}")
    return lines


def _some(ids: Sequence[str]) -> str:
    rest = len(ids) - _SHOWN
    return ", ".join(ids[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
