"""The files beside the dataset's manifest that say where its documents come from and which repeat each other.

In: what was gathered while the text was copied (`gather`). Out: dataset/sources.json, languages.json and
duplicates.json, each with the plan of the dataset's manifest and the digest of its own content. Where nothing
could be counted the file says why. They are the same for any number of workers, and after a kill.
"""

import dataclasses
from pathlib import Path

from quadmix.corpus.columns import LANGUAGE_NAMES, SOURCE_NAMES
from quadmix.errors import InputError
from quadmix.io.atomic import read_value, value_digest, write_json
from quadmix.materialise.checks import Check
from quadmix.materialise.duplicates import duplicate_facts
from quadmix.materialise.gather import facts_file, facts_folder
from quadmix.materialise.languages import language_facts, no_languages
from quadmix.materialise.ledger import manifest_digest
from quadmix.materialise.sources import Mapper, no_sources, source_facts
from quadmix.materialise.table import SelectionManifest
from quadmix.types import Corpus, DatasetManifest
from quadmix.types.facts import DuplicateFacts, LanguageFacts, SourceFacts

SOURCES, LANGUAGES, DUPLICATES = "sources.json", "languages.json", "duplicates.json"
FACTS = (SOURCES, LANGUAGES, DUPLICATES)
WITH_FACTS = 2  # version of the first manifest that has these files beside it
Facts = SourceFacts | LanguageFacts | DuplicateFacts
_INDEX = "the dataset is an index: the corpus was not read for it"


def write_facts(
    folder: Path,
    work: Path,
    corpus: Corpus,
    selection: SelectionManifest,
    manifest: DatasetManifest,
    mapper: Mapper,
) -> None:
    """Write the three files into dataset/. work: where the splits left what they gathered."""
    columns, of = corpus.columns, manifest.plan
    there = facts_folder(work, columns)
    splits = [p.split for p in selection.parts if facts_file(there, p.split).is_file()]
    index = _INDEX if manifest.format == "index" else ""
    if reason := index or _lacking("source", columns.source, SOURCE_NAMES):
        sources = no_sources(of, reason)
    else:
        sources = source_facts(there, splits, columns.source or "", mapper, of)
    if reason := index or _lacking("language", columns.language, LANGUAGE_NAMES):
        languages = no_languages(selection.info, of, reason)
    else:
        languages = language_facts(there, splits, columns.language or "", selection.info, of)
    if index:
        duplicates = DuplicateFacts(plan=of, reason=index)
    else:
        duplicates = duplicate_facts(str(folder), there, splits, mapper, of)
    for name, value in zip(FACTS, map(_signed, (sources, languages, duplicates)), strict=True):
        write_json(folder / "dataset" / name, value)


def _lacking(role: str, column: str | None, names: tuple[str, ...]) -> str:
    return (
        ""
        if column
        else f"the corpus has none of the columns {', '.join(names)}; name one in corpus.columns.{role}"
    )


def _signed(value: Facts) -> Facts:
    return dataclasses.replace(value, digest=value_digest(dataclasses.replace(value, digest="")))


def check_facts(folder: Path, manifest: DatasetManifest) -> list[Check]:
    """Check that the files are there: own digest, the plan of the dataset, and totals of its ledger."""
    checks: list[Check] = []
    for name, kind in zip(FACTS, (SourceFacts, LanguageFacts, DuplicateFacts), strict=True):
        path = folder / "dataset" / name
        if not path.is_file():
            if manifest.version >= WITH_FACTS:
                checks.append(
                    Check(name=name, ok=False, detail=f"{path} is missing; it was written with the dataset")
                )
            continue
        try:
            faults = _faults(read_value(path, kind), manifest)
        except InputError as error:
            faults = [str(error)]
        checks.append(Check(name=name, ok=not faults, detail="; ".join(faults) or "digest and totals agree"))
    return checks


def _faults(value: Facts, manifest: DatasetManifest) -> list[str]:
    faults: list[str] = []
    digest = _signed(value).digest
    if digest != value.digest:
        faults.append(f"digest {digest}, recorded {value.digest}")
    if value.plan != manifest.plan:
        faults.append(f"is of the plan {value.plan}, expected {manifest.plan}")
    if value.reason or manifest_digest(manifest) != manifest.digest:
        return faults  # nothing was counted, or the manifest itself is not sound
    ledger = manifest.ledger
    expected = {"tokens in": ledger.tokens_in, "tokens out": ledger.tokens_out}
    if isinstance(value, DuplicateFacts):
        expected = {"documents": ledger.selected, "tokens out": ledger.tokens_out}
        expected["unique tokens"] = ledger.unique_tokens
    found = _totals(value)
    faults += [f"{what} {found[what]}, expected {n}" for what, n in expected.items() if found[what] != n]
    return faults


def _totals(value: Facts) -> dict[str, int]:
    if isinstance(value, DuplicateFacts):
        return {
            "documents": value.documents,
            "tokens out": value.tokens_out,
            "unique tokens": value.unique_tokens,
        }
    if isinstance(value, SourceFacts):
        return {
            "tokens in": value.before.tokens + value.unnamed.tokens_in,
            "tokens out": value.after.tokens + value.unnamed.tokens_out,
        }
    return {
        "tokens in": sum(row.tokens_in for row in value.languages),
        "tokens out": sum(row.tokens_out for row in value.languages),
    }
