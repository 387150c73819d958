"""A head in the middle of training, and its file: whole or absent, gone on from by that training alone."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch
from torch import Tensor

from quadmix.errors import MissingExtraError
from quadmix.io.atomic import replacing
from quadmix.raters.dense import Data, DenseTraining, Epoch, new_head

if TYPE_CHECKING:
    from quadmix.raters.heads import Head

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True, kw_only=True, eq=False)
class State:
    """head: as trained so far. best: the weights of the best epoch. epochs: those that are done."""

    head: "Head"
    optimizer: torch.optim.AdamW
    key: str
    best: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    epochs: list[Epoch] = field(default_factory=list[Epoch])

    @staticmethod
    def start(data: Data, training: DenseTraining, checkpoint: Path | None, *, key: str) -> "State":
        """Return the beginning, or what a checkpoint of this training holds."""
        head = new_head(data, training)
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=training.lr, weight_decay=training.weight_decay, foreach=False
        )
        state = State(head=head, optimizer=optimizer, key=key)
        if checkpoint is not None and checkpoint.is_file():
            state._read(checkpoint)
        return state

    def finish(self, done: Epoch, *, keep: bool, checkpoint: Path | None) -> None:
        """Record an epoch; keep: its weights are the best. Writes the checkpoint, atomically."""
        self.epochs.append(done)
        if keep:
            self.best = {name: tensor.clone() for name, tensor in self.head.state_dict().items()}
        if checkpoint is not None:
            self._write(checkpoint)

    def best_head(self) -> "Head":
        """Return the head with the weights of the best epoch."""
        self.head.load_state_dict(self.best)
        return self.head

    def _tensors(self) -> dict[str, Tensor]:
        found = {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        found |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in self.head.named_parameters():
            for moment in _MOMENTS:
                found[f"{moment}.{name}"] = self.optimizer.state[parameter][moment]
        return found

    def _write(self, path: Path) -> None:
        steps = {int(self.optimizer.state[p]["step"]) for p in self.head.parameters()}
        facts = {"key": self.key, "step": max(steps), "epochs": [asdict(e) for e in self.epochs]}
        named = {name: tensor.detach().contiguous().clone() for name, tensor in self._tensors().items()}
        named["facts"] = torch.frombuffer(bytearray(orjson.dumps(facts)), dtype=torch.uint8)
        with replacing(path) as temporary:
            _safetensors().save_file(named, temporary)

    @torch.no_grad()
    def _read(self, path: Path) -> None:
        """Take over a checkpoint of this training; any other file is left as it is, to be replaced."""
        from safetensors import SafetensorError

        try:
            stored: dict[str, Tensor] = _safetensors().load_file(path)
            facts: dict[str, Any] = orjson.loads(bytes(stored.pop("facts").tolist()))
        except (SafetensorError, KeyError, orjson.JSONDecodeError):
            return
        if facts.get("key") != self.key:
            return
        self.head.load_state_dict(_part(stored, "head."))
        self.best = _part(stored, "best.")
        for name, parameter in self.head.named_parameters():
            own = {moment: stored[f"{moment}.{name}"] for moment in _MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(facts["step"])), **own}
        self.epochs = [Epoch(**epoch) for epoch in facts["epochs"]]


def _part(stored: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in stored.items() if name.startswith(prefix)}


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "the checkpoint of a head") from error
    return safetensors.torch
