"""What a proxy is trained on and how: one job per mixture, one setting for all (picklable, torch-free)."""

from dataclasses import dataclass
from pathlib import Path

from quadmix.errors import ProxyError
from quadmix.io.atomic import read_value
from quadmix.proxy.pool import PoolManifest
from quadmix.proxy.targets import TargetManifest
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.types import Copies, Theta


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProxyJob:
    """One model to train. copies: (P,) int32 per pool document. seed: of its initial weights. order_seed:
    of the times at which documents are seen; trials that share one differ only in what they select."""

    trial_id: str
    kind: str
    label: str
    theta: Theta | None
    seed: int
    order_seed: int
    copies: Copies


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySetting:
    """What all jobs share. pool, targets, heldout: folders; heldout None skips the held-out losses.
    device and checkpoint_seconds say where and how, and change no result."""

    pool: str
    targets: str
    heldout: str | None
    model: ModelSection
    training: TrainingSection
    vocab_size: int
    domains: tuple[str, ...]
    device: str = "auto"
    checkpoint_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.vocab_size < 2 or not self.domains:
            raise ProxyError(
                f"proxy setting has vocabulary {self.vocab_size} and {len(self.domains)} domains; "
                "expected at least 2 and 1"
            )

    @property
    def steps(self) -> int:
        """Return the steps of every model: whole ones within the training tokens, at least one."""
        return max(1, self.training.tokens // (self.training.batch * self.model.context))

    @property
    def tokens(self) -> int:
        """Return the training tokens of every model, exactly."""
        return self.steps * self.training.batch * self.model.context


def check_files(setting: ProxySetting) -> None:
    """Raise ProxyError unless pool and targets were made with one tokenizer, for this model."""
    pool = read_value(Path(setting.pool, "manifest.json"), PoolManifest)
    if pool.vocab_size > setting.vocab_size:
        raise ProxyError(
            f"token pool {setting.pool!r} was made with a vocabulary of {pool.vocab_size:,}, the model has "
            f"{setting.vocab_size:,} entries; remove the folder so that it is made again, or fix the model"
        )
    for folder in filter(None, (setting.targets, setting.heldout)):
        made = read_value(Path(folder, "manifest.json"), TargetManifest)
        if made.tokenizer != pool.tokenizer:
            raise ProxyError(
                f"{folder!r} was tokenised by {made.tokenizer or 'an unnamed tokenizer'}, the pool "
                f"{setting.pool!r} by {pool.tokenizer or 'an unnamed one'}: losses would mean nothing; "
                "remove both folders and run the same command again"
            )
        if made.context > setting.model.context:
            raise ProxyError(
                f"{folder!r} has windows of {made.context} tokens, longer than the model's context of "
                f"{setting.model.context}; set the contexts of proxy and evaluate alike"
            )
