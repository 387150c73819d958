"""The numbers of a run sent to TensorBoard, Weights & Biases or MLflow; none of them is ever required.

In: a run folder and where to send to: `tensorboard:FOLDER`, `wandb:PROJECT` or `wandb:ENTITY/PROJECT`,
`mlflow:URI` (a server, or sqlite:///FILE). Out: one run over there per `Feed`, named after the run folder;
what a feed has sent is not sent again. Sent are the numbers of `scalars`, the name of the run and its
identity: no text, no path, no recipe, no environment. Keys come from the environment of the tool in question,
never from here.
"""

import importlib.util
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from quadmix import __version__
from quadmix.errors import InputError, MissingExtraError, QuadmixError, RecipeError, StoreError
from quadmix.io.atomic import read_json
from quadmix.io.door import is_offline
from quadmix.pipeline.scalars import Scalar, read_scalars
from quadmix.urls import holds_secret, is_remote, redact

Kind = Literal["tensorboard", "wandb", "mlflow"]
_PACKAGES: dict[Kind, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow-skinny"),
}
_BATCH = 500  # metrics of one request to MLflow, which allows 1,000
_LOCAL_MLFLOW = ("file:", "sqlite:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send to, as parsed from `kind:place`; place "" is the tool's own default."""

    kind: Kind
    place: str

    def __str__(self) -> str:
        return f"{self.kind}:{redact(self.place)}" if self.place else self.kind


class Sink(Protocol):
    """One run in another tool."""

    def write(self, scalars: Sequence[Scalar]) -> None:
        """Send these numbers; what is sent twice is twice over there."""
        ...

    def close(self) -> None:
        """Send what is still held back and end the run over there."""
        ...


def parse_sinks(words: Sequence[str], *, offline: bool = False) -> list[Target]:
    """Return where to send to; nothing is opened, so that a wrong word fails before a run begins.

    Raises RecipeError for an unknown kind, an address with a key in it or a missing place, StoreError for a
    place on the network when that is switched off, MissingExtraError if the tool's package is not installed.
    """
    targets = [_parse(word) for word in words]
    for target in targets:
        module, package = _PACKAGES[target.kind]
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, target.kind, f"--sink {target}")
        if (offline or is_offline()) and _needs_network(target):
            raise StoreError(
                f"--sink {target} would use the network, which is switched off (--offline, run.offline or "
                "QUADMIX_OFFLINE); send the run later with `quadmix report RUN --sink`, or for wandb set "
                "WANDB_MODE=offline"
            )
    return targets


def _parse(word: str) -> Target:
    kind, _, place = word.partition(":")
    if kind not in get_args(Kind):
        raise RecipeError(
            f"--sink {redact(word)!r} is unknown; expected tensorboard:FOLDER, wandb:PROJECT or mlflow:URI"
        )
    target = Target(kind=cast(Kind, kind), place=place)
    if holds_secret(place):
        raise RecipeError(
            f"--sink {target} holds a user name, key or token; expected an address without. Keys come from "
            "the environment (WANDB_API_KEY, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN)"
        )
    if target.kind == "tensorboard" and is_remote(place):
        raise RecipeError(f"--sink {target} is no local folder; TensorBoard's files are written to one")
    if target.kind == "mlflow" and not (place or os.environ.get("MLFLOW_TRACKING_URI")):
        raise RecipeError("--sink mlflow needs a place: mlflow:URI, or MLFLOW_TRACKING_URI")
    if target.kind == "mlflow" and place and "://" not in place and not place.startswith("databricks"):
        raise RecipeError(
            f"--sink {target}: MLflow no longer writes to plain folders; expected a server's address or "
            "mlflow:sqlite:///FILE"
        )
    if target.kind == "wandb" and place.count("/") > 1:
        raise RecipeError(f"--sink {target}: expected wandb:PROJECT or wandb:ENTITY/PROJECT")
    return target


def _needs_network(target: Target) -> bool:
    if target.kind == "wandb":
        return os.environ.get("WANDB_MODE", "").lower() not in ("offline", "disabled")
    if target.kind == "mlflow":
        uri = target.place or os.environ.get("MLFLOW_TRACKING_URI", "")
        return not uri.startswith(_LOCAL_MLFLOW)
    return False


class Feed:
    """Sends what is new in a run folder to every sink; each keeps its own account of what it has got."""

    def __init__(self, run_folder: str | Path, targets: Sequence[Target]) -> None:
        self._folder = Path(run_folder)
        self._targets = list(targets)
        self._open: dict[int, Sink] = {}
        self._sent: list[dict[tuple[str, int], float]] = [{} for _ in self._targets]

    def send(self) -> int:
        """Read the folder and send what is new; return how many numbers that were, over all sinks.

        StoreError names the first sink that failed; the others have got theirs, and the next call tries
        the failed ones again.
        """
        scalars = read_scalars(self._folder) if self._targets else []
        count, failed = 0, list[QuadmixError]()
        for place, (target, sent) in enumerate(zip(self._targets, self._sent, strict=True)):
            new = [s for s in scalars if sent.get((s.tag, s.step)) != s.value]
            try:
                with _explained(target):
                    if place not in self._open:
                        self._open[place] = _open_sink(target, self._folder)
                    if new:
                        self._open[place].write(new)
            except QuadmixError as error:
                failed.append(error)
                continue
            sent.update({(s.tag, s.step): s.value for s in new})
            count += len(new)
        if failed:
            raise failed[0]
        return count

    def close(self) -> None:
        """End the run in every tool."""
        for place, sink in list(self._open.items()):
            del self._open[place]
            with _explained(self._targets[place]):
                sink.close()


@contextmanager
def feeding(run_folder: str | Path, targets: Sequence[Target]) -> Generator[Feed]:
    """Yield a feed that is closed at the end of the block."""
    feed = Feed(run_folder, targets)
    try:
        yield feed
    finally:
        feed.close()


@contextmanager
def _explained(target: Target) -> Generator[None]:
    """Turn whatever the tool's library raises into a StoreError; they have no common base class of errors."""
    try:
        yield
    except QuadmixError:
        raise
    except Exception as error:
        text = " ".join(redact(str(error)).split())[:300]
        raise StoreError(
            f"sending to {target} failed: {text} ({type(error).__name__}); the run is as it was, "
            "`quadmix report RUN --sink` sends it again"
        ) from error


def _open_sink(target: Target, folder: Path) -> Sink:
    opener = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}[target.kind]
    return opener(target.place, folder)


def _identity(folder: Path) -> dict[str, str]:
    """Return what tells two runs of one name apart."""
    path = folder / "identity.json"
    facts: Any = read_json(path) if path.is_file() else {}
    return {"quadmix.identity": str(facts.get("identity", "")), "quadmix.version": __version__}


class TensorBoard:
    """Event files in FOLDER/<name of the run>; sent again, a run takes the place of the earlier one."""

    def __init__(self, place: str, folder: Path) -> None:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

        home = Path(place) if place else folder / "tensorboard"
        if home.exists() and not home.is_dir():
            raise InputError(f"--sink tensorboard:{place} is a file; expected a folder")
        # a session that begins at step 0 makes readers drop what earlier files say of later steps
        self._writer: Any = SummaryWriter(str(home / folder.resolve().name), purge_step=0)

    def write(self, scalars: Sequence[Scalar]) -> None:
        for s in scalars:
            self._writer.add_scalar(s.tag, s.value, s.step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B. Its files lie in wandb/ of WANDB_DIR or else of the run folder; with WANDB_MODE=offline
    they go nowhere else."""

    def __init__(self, place: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # pyright: ignore[reportMissingImports]

        entity, _, project = place.rpartition("/")
        self._axes: set[str] = set()
        self._run: Any = wandb.init(
            project=project or "quadmix",
            entity=entity or None,
            name=folder.resolve().name,
            config=_identity(folder),
            dir=os.environ.get("WANDB_DIR") or str(folder),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
                disable_job_creation=True, x_disable_stats=True, x_disable_meta=True,
                x_disable_machine_info=True, x_save_requirements=False,
            ),
        )  # fmt: skip

    def write(self, scalars: Sequence[Scalar]) -> None:
        self._run.summary.update({s.tag: s.value for s in scalars if not s.axis})
        rows = sorted((s for s in scalars if s.axis), key=lambda s: (s.axis, s.step))
        for s in rows:
            if s.tag not in self._axes:
                self._axes.add(s.tag)
                self._run.define_metric(s.tag, step_metric=f"axis/{s.axis}")
        for (axis, step), row in groupby(rows, key=lambda s: (s.axis, s.step)):
            self._run.log({f"axis/{axis}": step, **{s.tag: s.value for s in row}})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run in the experiment `quadmix` of a tracking server, a database or a folder."""

    def __init__(self, place: str, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        self._client: Any = MlflowClient(tracking_uri=place or None)
        found = self._client.get_experiment_by_name("quadmix")
        experiment = found.experiment_id if found else self._client.create_experiment("quadmix")
        run = self._client.create_run(experiment, run_name=folder.resolve().name, tags=_identity(folder))
        self._run_id: str = run.info.run_id

    def write(self, scalars: Sequence[Scalar]) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(time.time() * 1000)
        for start in range(0, len(scalars), _BATCH):
            metrics = [Metric(s.tag, s.value, now, s.step) for s in scalars[start : start + _BATCH]]
            self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)
