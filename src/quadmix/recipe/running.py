"""Where and how work runs: the `run` section of a recipe, which is not part of a run's identity."""

from typing import Literal

from pydantic import Field

from quadmix.recipe.base import Section


class RunSection(Section):
    """Where and how work runs; not part of the run's identity."""

    folder: str = Field(
        default="runs", description="run folders are made here; relative to the working directory"
    )
    workers: int = Field(default=0, ge=0, description="worker processes; 0 = one per core")
    executor: Literal["serial", "processes", "ray"] = "processes"
    address: str | None = Field(
        default=None,
        description="executor ray: an existing cluster (auto, host:port, ray://...); left out, a local one",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="where proxies are trained; auto: GPUs if this machine has any (on Ray: say cuda)",
    )
    groups_per_gpu: int = Field(default=1, ge=1, description="groups of proxies trained at once on each GPU")
    checkpoint_seconds: float = Field(
        default=120,
        ge=0,
        description="a group in training is saved this often, and goes on from there after a kill",
    )
    accept_unconfirmed: bool = Field(
        default=False, description="write the dataset even if θ* did not beat the control"
    )
    accept_test_targets: bool = Field(default=False, description="allow targets that look like test splits")
    offline: bool = Field(default=False, description="refuse every address that would use the network")
    allow_http: bool | Literal["private"] = Field(
        default=False,
        description="allow http(s) addresses of public hosts; private: also of this machine and of "
        "private networks",
    )
