"""Domains without labels, as CLIMB finds them (Diao et al. 2025, arXiv 2504.13161): embed, cluster, name.

In: texts of the pool, and a function that embeds them or None for the embedding built in. Out: `Clusters`,
arrays and a card that give any later text one of the same names; and `ClusterLabeller`, which does so.

Built in is latent semantic analysis without a vocabulary: hashed word 1- and 2-grams (`features.py`),
weighted by inverse document frequency, projected on the leading singular vectors of the training texts. The
weights and vectors are one (F, R) matrix, since only a row's direction counts. Clusters are spherical: texts
and centres have length 1, the nearest centre has the largest cosine.

Confidence in a label is softmax(κ · cosine) of its centre, over all centres. κ is set so that its mean
over the training texts equals the share of them that stay together when the clustering starts elsewhere: a
text labelled with confidence p keeps its company with a probability of roughly p.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from quadmix.annotate.annotator import MAX_CHARS, OTHER, UNKNOWN, AnnotatorCard, Labelled
from quadmix.annotate.cluster_names import cluster_names
from quadmix.annotate.features import DOMAIN_FEATURES, SETTINGS, hashed_features
from quadmix.annotate.models.rater import Asked, asked_digest, asked_warnings, refused
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import map_array, read_value, value_digest, write_array, write_json
from quadmix.rng import derived_seed
from quadmix.types import Floats

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

DIMENSIONS = 128  # 64 and 192 are 0.02 NMI below and above on 18 known domains
POWER_ITERATIONS = 3
PROJECTION_TEXTS = 10_000  # at most are decomposed, evenly spaced
STARTS = 5  # k-means++ starts, the tightest is kept
MIN_TEXTS = 10  # texts per cluster asked for
SMALL = 0.1  # of an even share of the texts: a smaller cluster joins its nearest
LLOYD = 4e8  # texts x clusters x dimensions beyond which k-means takes mini-batches
UNSTABLE = 0.3  # adjusted Rand index of two starts below which the card warns
MAX_CONCENTRATION = 1e3
CALIBRATED = 4_096  # texts on which κ is set
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clusters:
    """names: of C clusters, the largest first. centres: (C, R) float32, rows of length 1. concentration: κ of
    the confidence. projection: (F, R) float32 of the built-in embedding, None where a model embeds."""

    card: AnnotatorCard
    names: tuple[str, ...]
    centres: NDArray[np.float32]
    concentration: float
    projection: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClustersRecord:
    """clusters.json; the arrays lie beside it."""

    card: AnnotatorCard
    names: tuple[str, ...]
    concentration: float
    built_in: bool
    version: int = VERSION


@dataclass(frozen=True, slots=True, eq=False)
class ClusterLabeller:
    """The nearest cluster's name as the domain; below `confidence` (see the module) it is `other`.
    asked: the embedding model, None: texts of every language are placed."""

    card: AnnotatorCard
    clusters: Clusters
    embed: Embed | None
    confidence: float
    asked: Asked | None = None

    @staticmethod
    def make(
        clusters: Clusters, *, embed: Embed | None, confidence: float, asked: Asked | None = None
    ) -> "ClusterLabeller":
        """Return the labeller; InputError if clusters of a model come without it, or the other way round.

        asked: the model behind `embed`; documents in languages outside its card then get no domain, and what
        its card leaves open is among the warnings.
        """
        if (embed is None) != (clusters.projection is not None):
            made = "an embedding model" if embed is None else "the built-in embedding"
            raise InputError(
                f"domain clusters were made with {made}, got {'none' if embed is None else 'a model'} to "
                "label with; name the same annotate.domain.model as then"
            )
        settings: dict[str, Any] = {"clusters": clusters.card.digest, "confidence": confidence}
        warnings = clusters.card.warnings
        if asked is not None:
            settings["asked"] = asked_digest(asked)
            warnings += asked_warnings("domain", asked)
        card = replace(clusters.card, digest=value_digest(settings), warnings=warnings)
        return ClusterLabeller(card, clusters, embed, confidence, asked)

    def label(self, texts: Sequence[str], rows: pa.RecordBatch) -> Labelled:
        """Return a cluster's name, `other` or `unknown` per document, and why it is one of the last two.

        empty_text, language_unknown, language_outside_card (of the model's card), not_finite (the model gave
        no vector): unknown. below_confidence, unseen_words (the built-in embedding knows no word of it):
        other.
        """
        labels = [UNKNOWN] * len(texts)
        if self.asked is None:
            reasons = ["" if text.strip() else "empty_text" for text in texts]
        else:
            reasons = refused(self.asked, texts, rows)
        full = [i for i, reason in enumerate(reasons) if not reason]
        missing = Counter(reason for reason in reasons if reason)
        if full:
            vectors = _vectors(self.clusters, self.embed, [texts[i] for i in full])
            unit, length = _unit(vectors)
            best, confidence = place_vectors(self.clusters, unit)
            finite, seen, sure = np.isfinite(length), length != 0.0, confidence >= self.confidence
            for k in np.flatnonzero(finite).tolist():
                labels[full[k]] = self.clusters.names[best[k]] if seen[k] and sure[k] else OTHER
            missing["below_confidence"] = int((finite & seen & ~sure).sum())
            missing["not_finite"] = int((~finite).sum())
            missing["unseen_words"] = int((~seen).sum())
        return Labelled(labels=labels, missing={k: n for k, n in sorted(missing.items()) if n})


def train_clusters(
    texts: Sequence[str], *, embed: Embed | None, clusters: int, seed: int, embedder: str = ""
) -> Clusters:
    """Cluster texts into at most `clusters` named groups; equal arguments give equal bytes.

    embed: texts -> (D, R) vectors, NaN rows where there is none; None: the built-in embedding.
    embedder: digest of the embedding model, part of the result's.
    Raises InputError for fewer than MIN_TEXTS usable texts per cluster, or texts that form one cluster only.
    """
    kept = [text[:MAX_CHARS] for text in texts if text.strip()]
    _check_enough(len(kept), clusters)
    projection = _fit_projection(kept, seed) if embed is None else None
    raw = _project(kept, projection) if projection is not None else _embedded(embed, kept)
    unit, length = _unit(raw)
    usable = np.flatnonzero(np.isfinite(length) & (length > 0.0))
    _check_enough(len(usable), clusters)
    unit, kept = unit[usable], [kept[i] for i in usable.tolist()]
    centres, merged = _fit_centres(unit, clusters, seed)
    cosines = unit @ centres.T
    labels = cosines.argmax(axis=1)
    other = (unit @ _k_means(unit, clusters, derived_seed(seed, "clusters", "again")).T).argmax(axis=1)
    kappa = _concentration(cosines, _agreement(labels, other))
    metrics = {"silhouette": _silhouette(cosines), "stability_ari": _rand_index(labels, other)}
    facts = {
        "texts": len(kept), "left_out": len(texts) - len(kept), "asked": clusters, "clusters": len(centres),
        "merged": merged,
    }  # fmt: skip
    names = cluster_names(kept, labels, len(centres))
    made = Clusters(
        card=_card(embed is None, metrics, facts), names=names, centres=centres.astype(np.float32),
        concentration=kappa, projection=projection,
    )  # fmt: skip
    return replace(made, card=replace(made.card, digest=_digest(made, embedder)))


def place_vectors(clusters: Clusters, unit: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return (D,) the nearest cluster of each row of length 1 and (D,) the confidence in it, in (0, 1]."""
    # rounded: a product's last digits depend on how many rows are multiplied at once (promise P7)
    cosines = np.round(unit @ clusters.centres.astype(np.float64).T, 9)
    return cosines.argmax(axis=1), _confidence(cosines, clusters.concentration)


def save_clusters(folder: str | Path, clusters: Clusters) -> None:
    """Write clusters.json, written last, centres.npy and, for the built-in embedding, projection.npy."""
    home = Path(folder)
    write_array(home / "centres.npy", clusters.centres)
    if clusters.projection is not None:
        write_array(home / "projection.npy", clusters.projection)
    record = ClustersRecord(
        card=clusters.card, names=clusters.names, concentration=clusters.concentration,
        built_in=clusters.projection is not None,
    )  # fmt: skip
    write_json(home / "clusters.json", record)


def load_clusters(folder: str | Path) -> Clusters:
    """Read what `save_clusters` wrote; the arrays are memory-mapped, so that workers share them."""
    home = Path(folder)
    record = read_value(home / "clusters.json", ClustersRecord)
    if record.version != VERSION:
        raise InputError(
            f"{home / 'clusters.json'} has version {record.version}, expected {VERSION}; remove the folder "
            "and run the annotate stage again"
        )
    centres = map_array(home / "centres.npy")
    if centres.ndim != 2 or len(centres) != len(record.names):
        raise InputError(
            f"{home / 'centres.npy'} has shape {centres.shape}, expected ({len(record.names)}, R) as "
            "clusters.json names; remove the folder and run the annotate stage again"
        )
    return Clusters(
        card=record.card, names=record.names, centres=centres, concentration=record.concentration,
        projection=map_array(home / "projection.npy") if record.built_in else None,
    )  # fmt: skip


def _check_enough(texts: int, clusters: int) -> None:
    if clusters < 2 or texts < MIN_TEXTS * clusters:
        raise InputError(
            f"annotate.domain: {texts} usable texts for {clusters} clusters, expected at least 2 clusters "
            f"with {MIN_TEXTS} texts each; give more text or set annotate.domain.clusters to at most "
            f"{max(2, texts // MIN_TEXTS)}"
        )


def _vectors(clusters: Clusters, embed: Embed | None, texts: Sequence[str]) -> NDArray[Any]:
    if clusters.projection is not None:
        return _project(texts, clusters.projection)
    vectors = _embedded(embed, texts)
    if vectors.shape[1] != clusters.centres.shape[1]:
        raise InputError(
            f"annotate.domain: the model gives {vectors.shape[1]} numbers per text, the clusters were made "
            f"with {clusters.centres.shape[1]}; name the same annotate.domain.model as then"
        )
    return vectors


def _embedded(embed: Embed | None, texts: Sequence[str]) -> NDArray[Any]:
    vectors = np.asarray(embed(texts) if embed else np.empty((0, 0), np.float32))
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise InputError(
            f"annotate.domain: the embedding has shape {vectors.shape}, expected one row per text: "
            f"({len(texts)}, R)"
        )
    return vectors


def _unit(vectors: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the rows at length 1 (zero and non-finite rows become zeros), float64, and their lengths."""
    exact = vectors.astype(np.float64)
    length = np.sqrt((exact * exact).sum(axis=1))
    usable = np.isfinite(length) & (length > 0.0)
    scale = np.where(usable, length, 1.0)[:, None]
    return np.where(usable[:, None], exact / scale, 0.0), length


def _fit_projection(texts: Sequence[str], seed: int) -> NDArray[np.float32]:
    """Return (F, R) float32: idf times the leading right singular vectors of the weighted features."""
    matrix: Any = hashed_features(texts[:: -(-len(texts) // PROJECTION_TEXTS)], DOMAIN_FEATURES)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    count = matrix.shape[0]
    seen = np.bincount(matrix.indices, minlength=matrix.shape[1])
    # what one text alone has says nothing about its likeness to others
    idf = np.where(seen > 1, np.log((1.0 + count) / (1.0 + seen)) + 1.0, 0.0).astype(np.float32)
    rank = min(DIMENSIONS, count - 1, max(1, int((seen > 1).sum()) - 1))
    state = derived_seed(seed, "clusters", "projection") % 2**32
    with _one_thread(), np.errstate(invalid="ignore"):  # copies of one text: no variance to explain
        weighted = normalize(matrix.multiply(idf[None, :]).tocsr())
        svd = TruncatedSVD(rank, n_iter=POWER_ITERATIONS, random_state=state).fit(weighted)
    directions: Any = svd.components_
    return (idf[:, None] * directions.T).astype(np.float32)


def _project(texts: Sequence[str], projection: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (D, R) float32; a sparse product is made row by row, so a row does not depend on others."""
    return hashed_features(texts, len(projection)) @ projection


def _fit_centres(unit: Floats, clusters: int, seed: int) -> tuple[Floats, int]:
    """Return (C, R) centres of length 1, the largest cluster first, and how many were merged away."""
    found = _k_means(unit, clusters, derived_seed(seed, "clusters"))
    labels = (unit @ found.T).argmax(axis=1)
    sums = np.zeros_like(found)
    np.add.at(sums, labels, unit)
    counts = np.bincount(labels, minlength=len(found))
    least = max(MIN_TEXTS / 2, SMALL * len(unit) / clusters)
    while len(counts) > 1 and counts.min() < least:
        small = int(counts.argmin())
        centres, _ = _unit(sums)
        near = centres @ centres[small]
        near[small] = -np.inf
        target = int(near.argmax())
        sums[target] += sums[small]
        counts[target] += counts[small]
        sums, counts = np.delete(sums, small, axis=0), np.delete(counts, small)
    centres, _ = _unit(sums)
    sizes = np.bincount((unit @ centres.T).argmax(axis=1), minlength=len(centres))
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    if len(order) < 2:
        raise InputError(
            f"annotate.domain: {len(unit)} texts form one cluster only, expected at least two; are they "
            "copies of each other? Use annotate.domain.kind single"
        )
    return centres[order], len(found) - len(order)


def _k_means(unit: Floats, clusters: int, seed: int) -> Floats:
    """Return (clusters, R) centres of length 1; one thread and a fixed seed, so the same on every call."""
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "annotate", "clustering texts") from error
    import warnings

    large = float(unit.size) * clusters > LLOYD
    kind: Any = MiniBatchKMeans if large else KMeans
    settings: dict[str, Any] = {"batch_size": max(1024, 4 * clusters)} if large else {}
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than clusters: merged
        model = kind(
            clusters, init="k-means++", n_init=STARTS, random_state=seed % 2**32, **settings
        ).fit(unit)  # fmt: skip
    return _unit(model.cluster_centers_)[0]


def _one_thread() -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)  # sums in one order on every machine


def _confidence(cosines: Floats, kappa: float) -> Floats:
    """Return (D,) the softmax of κ · cosine at its largest entry."""
    return 1.0 / np.exp(kappa * (cosines - cosines.max(axis=1, keepdims=True))).sum(axis=1)


def _agreement(labels: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the share of texts in both of two matched clusters, matched one to one as well as possible."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((int(labels.max()) + 1, int(other.max()) + 1), np.int64)
    np.add.at(table, (labels, other), 1)
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / len(labels))


def _concentration(cosines: Floats, agreement: float) -> float:
    """Return κ at which the mean confidence of the training texts is `agreement`, by bisection."""
    some = cosines[:: -(-len(cosines) // CALIBRATED)]
    low, high = 0.0, MAX_CONCENTRATION
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _confidence(some, middle).mean() < agreement else (low, middle)
    return round(high, 6)


def _silhouette(cosines: Floats) -> float:
    """Return the mean of 1 - distance to the own centre / to the next: 0 = between two, 1 = on its own."""
    two = 1.0 - np.sort(cosines, axis=1)[:, -1:-3:-1]
    return float((1.0 - two[:, 0] / np.maximum(two[:, 1], 1e-12)).mean())


def _rand_index(labels: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(labels, other))


def _card(built_in: bool, metrics: dict[str, float], facts: dict[str, int]) -> AnnotatorCard:
    stable, how = metrics["stability_ari"], "latent semantic analysis" if built_in else "an embedding model"
    warnings = (
        f"domain clusters: two starts agree little (adjusted Rand index {stable:.2f}); the texts have no "
        "clear groups at this number, try fewer annotate.domain.clusters",
    )  # fmt: skip
    return AnnotatorCard(
        name="domain", kind="clusters", direction="none", digest="", metrics=metrics, facts=facts,
        description=f"nearest of {facts['clusters']} clusters; {how}, spherical k-means, tf-idf names",
        warnings=warnings if stable < UNSTABLE else (),
    )  # fmt: skip


def _digest(clusters: Clusters, embedder: str) -> str:
    arrays = [clusters.centres] + ([] if clusters.projection is None else [clusters.projection])
    settings: dict[str, Any] = {"names": clusters.names, "concentration": clusters.concentration}
    hashes = [xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return value_digest({**SETTINGS, **settings, "embedder": embedder, "arrays": hashes})
