"""The formats by name: those of QuaDMix in a plain dict, those of other packages by entry point."""

from importlib.metadata import entry_points

from quadmix.errors import InputError
from quadmix.materialise.exports import hub, jsonl, litdata, mds, megatron, nanotron, olmo
from quadmix.materialise.exports.kinds import ExportFormat

GROUP = "quadmix.exporters"
BUILT_IN: dict[str, ExportFormat] = {
    module.FORMAT.name: module.FORMAT for module in (megatron, olmo, nanotron, mds, litdata, hub, jsonl)
}


def find_format(name: str) -> ExportFormat:
    """Return a format by name; one of QuaDMix cannot be replaced from outside.

    InputError names the formats there are, or an entry point that is no `ExportFormat`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise InputError(f"format {name!r} is unknown; expected one of {', '.join([*BUILT_IN, *found])}")
    loaded = found[name].load()
    if not isinstance(loaded, ExportFormat):
        raise InputError(
            f"entry point {name!r} of group {GROUP} ({found[name].value}) is {type(loaded).__name__}, "
            "expected an ExportFormat of quadmix.materialise.exports"
        )
    return loaded
