"""What all sections of a recipe share."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused, defaults validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def refuse_stray(section: Section, keys: Mapping[str, Sequence[str]]) -> None:
    """Refuse keys that a section of this kind would not read. keys: kind -> the keys that only some read."""
    kind = str(getattr(section, "kind", ""))
    others = {key for used in keys.values() for key in used} - set(keys.get(kind, ()))
    known = type(section).model_fields  # a default that was written out is nobody's mistake
    stray = sorted(k for k in others & section.model_fields_set if getattr(section, k) != known[k].default)
    if stray:
        raise ValueError(f"kind {kind!r} does not use the key {stray[0]!r}; remove it or choose another kind")
