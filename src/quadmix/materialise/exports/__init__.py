"""Exports: the finished dataset in the format that a training framework reads (see docs/exports.md)."""

from quadmix.materialise.exports.kinds import Document, ExportFormat, ExportManifest, Shard, Source
from quadmix.materialise.exports.run import export_dataset

__all__ = ["Document", "ExportFormat", "ExportManifest", "Shard", "Source", "export_dataset"]
