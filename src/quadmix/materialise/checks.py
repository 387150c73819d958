"""What a verification says: one `Check` per claim, and the files that no manifest knows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim about the dataset and whether it holds."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All checks; `stray` lists files in dataset/, selection/ and spills/ that no manifest knows."""

    checks: tuple[Check, ...]
    stray: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks)
