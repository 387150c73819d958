"""Two runs: what does one select that the other does not, and why?

In: two run folders. Out: a `Diff`, with tokens per domain, documents by their fate in both, how much they
share, how the scores of the selected tokens moved, which parameters of θ differ, and a sample of documents
only in one with their numbers in both. Memory is bounded, see `overlap`.
"""

from collections.abc import Sequence
from pathlib import Path

from quadmix.io.atomic import file_digest, read_json, read_value
from quadmix.materialise.card import read_theta
from quadmix.materialise.cards import Place, Text, find_places, read_cards, read_texts
from quadmix.materialise.ledger import domain_tokens
from quadmix.materialise.overlap import STATES, Overlap, Picked, by_buckets, by_parts
from quadmix.materialise.table import SelectionManifest, read_manifest
from quadmix.types import Corpus, Floats, Theta
from quadmix.types.diffing import (
    Diff,
    DiffDocument,
    DomainMove,
    Flow,
    ScoreShift,
    SettingChange,
    Side,
    ThetaChange,
)

Folders = tuple[Path, Path]
Manifests = tuple[SelectionManifest, SelectionManifest]


def diff_runs(
    run_a: str | Path, run_b: str | Path, *, sample: int = 0, seed: int = 0, texts: bool = True
) -> Diff:
    """Compare two selections document by document, found by id; the pools may differ.

    Documents of one corpus that have the same id count as one where the pools differ. sample: how many of the
    documents only in A, and of those only in B, are shown with all their numbers (by a hash of `seed` and
    id); texts: and with the beginning of their text, read from the user's files.
    """
    folders = (Path(run_a), Path(run_b))
    manifests = (read_manifest(folders[0]), read_manifest(folders[1]))
    same = _same_pool(folders, manifests)
    compare = by_parts if same else by_buckets
    found = compare(folders, manifests, sample=sample, seed=seed)
    documents = found.both + found.only_a + found.only_b
    return Diff(
        domains=_moves(*manifests),
        documents_a=found.both + found.only_a,
        documents_b=found.both + found.only_b,
        both=found.both,
        other_copies=found.other_copies,
        only_a=found.examples_a,
        only_b=found.examples_b,
        only_a_count=found.only_a,
        only_b_count=found.only_b,
        jaccard=found.both / documents if documents else 1.0,
        token_jaccard=found.shared / found.union if found.union else 1.0,
        flow=_flow(found),
        scores=_shifts(*manifests, found),
        same_scale=_digest(folders[0] / "normaliser.json") == _digest(folders[1] / "normaliser.json"),
        theta=_theta_changes(folders, manifests),
        settings=_setting_changes(folders),
        sample=sample,
        seed=seed,
        documents=(
            *_documents(folders, manifests, "A", found.picked_a, same, texts),
            *_documents(folders, manifests, "B", found.picked_b, same, texts),
        ),
    )


def _flow(found: Overlap) -> tuple[Flow, ...]:
    return tuple(
        Flow(a=a, b=b, documents=int(found.documents[i, j]), tokens=int(found.tokens[i, j]))
        for i, a in enumerate(STATES)
        for j, b in enumerate(STATES)
        if found.documents[i, j]
    )


def _documents(
    folders: Folders, manifests: Manifests, side: Side, picked: Sequence[Picked], same: bool, texts: bool
) -> list[DiffDocument]:
    """Return the sampled documents of one side with their numbers in both runs."""
    own = 0 if side == "A" else 1
    here = {p.doc_id: Place(split=p.split, row=p.row) for p in picked}
    there = here if same else find_places(folders[1 - own], manifests[1 - own], list(here))
    cards = [read_cards(folders[own], manifests[own], here)]
    cards.append(read_cards(folders[1 - own], manifests[1 - own], there))
    read = read_texts(folders[own], here) if texts and here else {}
    a, b = (cards[0], cards[1]) if side == "A" else (cards[1], cards[0])
    found = {i: read.get(i, Text(text=None)) for i in here}
    return [
        DiffDocument(
            doc_id=i, only=side, a=a.get(i), b=b.get(i), text=t.text, characters=t.characters, note=t.note
        )
        for i, t in found.items()
    ]


def _setting_changes(folders: Folders) -> tuple[SettingChange, ...]:
    """Return the fields of the identities that differ, but for the digest over all of them."""
    a, b = (_identity(folder) for folder in folders)
    return tuple(
        SettingChange(field=name, a=a.get(name, ""), b=b.get(name, ""))
        for name in sorted(a.keys() | b.keys())
        if name != "identity" and a.get(name) != b.get(name)
    )


def _identity(folder: Path) -> dict[str, str]:
    path = folder / "identity.json"
    data = read_json(path) if path.is_file() else {}
    return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}


def _same_pool(folders: Folders, manifests: Manifests) -> bool:
    """Return whether row k of part p is the same document in both runs."""
    parts = [[(p.split, p.documents) for p in m.parts] for m in manifests]
    paths = [folder / "corpus" / "manifest.json" for folder in folders]
    if parts[0] != parts[1] or not all(p.is_file() for p in paths):
        return False
    return read_value(paths[0], Corpus).digest == read_value(paths[1], Corpus).digest


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else ""


def _moves(a: SelectionManifest, b: SelectionManifest) -> tuple[DomainMove, ...]:
    tokens_a = {d.domain: d.tokens_out for d in domain_tokens(a)}
    tokens_b = {d.domain: d.tokens_out for d in domain_tokens(b)}
    total_a, total_b = max(1, sum(tokens_a.values())), max(1, sum(tokens_b.values()))
    return tuple(
        DomainMove(
            domain=name,
            tokens_a=tokens_a.get(name, 0),
            tokens_b=tokens_b.get(name, 0),
            share_a=tokens_a.get(name, 0) / total_a,
            share_b=tokens_b.get(name, 0) / total_b,
        )
        for name in dict.fromkeys((*a.info.domains, *b.info.domains))
    )


def _names(manifest: SelectionManifest) -> tuple[list[str], list[str]]:
    return list(manifest.info.domains), [c.name for c in manifest.info.criteria]


def _shifts(a: SelectionManifest, b: SelectionManifest, found: Overlap) -> tuple[ScoreShift, ...]:
    (domains_a, criteria_a), (domains_b, criteria_b) = _names(a), _names(b)

    def mean(scores: Floats, weights: Floats, place: tuple[int, int]) -> float:
        return float(scores[place] / weights[place]) if weights[place] else float("nan")

    return tuple(
        ScoreShift(
            domain=domain,
            criterion=criterion,
            mean_a=mean(
                found.scores_a, found.weights_a, (domains_a.index(domain), criteria_a.index(criterion))
            ),
            mean_b=mean(
                found.scores_b, found.weights_b, (domains_b.index(domain), criteria_b.index(criterion))
            ),
        )
        for domain in domains_a
        for criterion in criteria_a
        if domain in domains_b and criterion in criteria_b
    )


def _theta_changes(folders: Folders, manifests: Manifests) -> tuple[ThetaChange, ...]:
    thetas = [read_theta(folder) for folder in folders]
    if thetas[0] is None or thetas[1] is None:
        return ()
    a, b = _parameters(thetas[0], manifests[0]), _parameters(thetas[1], manifests[1])
    return tuple(
        ThetaChange(domain=domain, parameter=parameter, a=value, b=b[domain, parameter])
        for (domain, parameter), value in a.items()
        if (domain, parameter) in b and b[domain, parameter] != value
    )


def _parameters(theta: Theta, manifest: SelectionManifest) -> dict[tuple[str, str], float]:
    domains, criteria = _names(manifest)
    curve = (("steepness λ", theta.steepness), ("cutoff ω", theta.cutoff), ("exponent η", theta.exponent),
             ("floor ε", theta.floor), ("scale", theta.scale))  # fmt: skip
    found: dict[tuple[str, str], float] = {}
    for m, domain in enumerate(domains):
        for n, criterion in enumerate(criteria):
            found[domain, f"weight of {criterion}"] = float(theta.weights[m, n])
        found.update(((domain, name), float(values[m])) for name, values in curve)
    return found
