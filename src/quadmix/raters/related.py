"""Documents under different sources that share text: one side of a split must get them all.

In: documents. Out: a group per source, and counts. Two sources are joined where original texts of theirs have
the same words, or share a run of words (13 words or signs, 26 of some scripts: `decontaminate`, after Brown
et al. 2020, arXiv 2005.14165), and so are all that are joined through others. A run in more than `COMMON`
sources is a formula, as a licence or a site's footer is, that says nothing of a document: it joins none.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from quadmix.annotate.overlap import ngram_hashes
from quadmix.raters.decontaminate import run_length, words_of
from quadmix.raters.table import Texts

COMMON = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """sources: that share text with another one. groups: that they form. largest: sources in the largest."""

    sources: int = 0
    groups: int = 0
    largest: int = 0

    def warnings(self) -> list[str]:
        """Return it as text, nothing where no source is joined."""
        if not self.sources:
            return []
        return [
            f"{self.sources:,} documents share a text or a run of words with another one; they are split "
            f"together, as {self.groups:,} groups, the largest of {self.largest:,} documents"
        ]


def related_sources(texts: Texts) -> tuple[dict[str, str], Related]:
    """Return source -> its group, named by its first source in the order of strings, and what was joined.

    Translations of a text that is there are not read: they share its source. Takes 16 bytes per word.
    """
    names, source = np.unique(np.asarray(texts.source, np.str_), return_inverse=True)
    hashes: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = [np.empty(0, np.uint64)]
    owners, same = [np.empty(0, np.int64)], dict[str, int]()
    left, right = list[int](), list[int]()
    for row, (text, origin) in enumerate(zip(texts.text, texts.origin, strict=True)):
        if origin:
            continue
        owner = int(source[row])
        first = same.setdefault(" ".join(words_of(text.lower())) or text.strip(), owner)
        left.append(first)
        right.append(owner)
        hashes.append(ngram_hashes([text], run_length(text), words_of))
        owners.append(np.full(len(hashes[-1]), owner, np.int64))
    runs, owner = np.concatenate(hashes), np.concatenate(owners)
    order = np.lexsort((owner, runs))
    runs, owner = runs[order], owner[order]
    one = np.ones(len(runs), np.bool_)  # a source's run once, though it may have several originals
    one[1:] = (runs[1:] != runs[:-1]) | (owner[1:] != owner[:-1])
    runs, owner = runs[one], owner[one]
    begin = np.flatnonzero(np.concatenate([[True], runs[1:] != runs[:-1]])[: len(runs)])
    many = np.repeat(counts := np.diff([*begin.tolist(), len(runs)]), counts)
    joined = np.flatnonzero((runs[1:] == runs[:-1]) & (many[1:] <= COMMON))
    a, b = np.concatenate([left, owner[joined]]), np.concatenate([right, owner[joined + 1]])
    edges = coo_array((np.ones(len(a), np.bool_), (a, b)), shape=(len(names), len(names)))
    group = connected_components(edges, directed=False)[1]
    head = np.full(len(names), len(names))
    np.minimum.at(head, group, np.arange(len(names)))  # names are sorted
    sizes = np.bincount(group)
    sizes = sizes[sizes > 1]
    found = Related(
        sources=int(sizes.sum()), groups=len(sizes), largest=int(sizes.max()) if len(sizes) else 0
    )
    return dict(zip(names.tolist(), names[head[group]].tolist(), strict=True)), found
