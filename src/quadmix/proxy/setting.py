"""What a proxy is trained on and how: one job per mixture, one setting for all (picklable, torch-free)."""

from dataclasses import dataclass

from quadmix.errors import ProxyError
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.types import Copies, Theta


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProxyJob:
    """One model to train. copies: (P,) int32 per pool document. seed: initialisation and data order."""

    trial_id: str
    kind: str
    label: str
    theta: Theta | None
    seed: int
    copies: Copies


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySetting:
    """What all jobs share. pool, targets, heldout: folders; heldout None skips the held-out losses."""

    pool: str
    targets: str
    heldout: str | None
    model: ModelSection
    training: TrainingSection
    vocab_size: int
    domains: tuple[str, ...]

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
