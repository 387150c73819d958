"""Names of clusters: the words that stand in a cluster's texts and seldom elsewhere.

In: texts and the number of each one's cluster. Out: one name per cluster, three words joined by '-'.

This is class-based tf-idf (as BERTopic names topics, Grootendorst 2022, arXiv 2203.05794) with texts counted
instead of words: tf is the share p(w|c) of a cluster's texts that hold the word, idf the log of how much
that is above the share among all texts, log p(w|c)/p(w), squared. A word that is everywhere weighs nothing,
so no list of stop words, and no language, is built in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import MissingExtraError

WORDS = 3
MAX_WORDS = 50_000  # the most frequent are looked at
NAME_CHARS = 5_000  # of a text are read: its words recur
_WORD = r"(?u)\b[^\W\d_]{3,24}\b"


def cluster_names(texts: Sequence[str], labels: NDArray[np.int64], clusters: int) -> tuple[str, ...]:
    """Return one name per cluster 0..clusters-1, all different, a function of the texts and labels alone.

    labels: (D,) int64. A cluster whose texts have no word of letters is called cluster-<number>.
    """
    matrix, words = _word_table(texts)
    everywhere = np.asarray(matrix.sum(axis=0), np.float64).ravel() / max(1, len(texts))
    names: list[str] = []
    for cluster in range(clusters):
        inside = np.flatnonzero(labels == cluster)
        share = np.asarray(matrix[inside].sum(axis=0), np.float64).ravel() / max(1, len(inside))
        above = np.log(np.maximum(share, 1e-12) / np.maximum(everywhere, 1e-12))
        score = share * np.maximum(above, 0.0) ** 2
        order = np.argsort(-score, kind="stable")[: 20 * WORDS]  # ties: alphabetical, as `words` is
        ranked = [words[i] for i in order.tolist() if score[i] > 0.0]
        names.append(_unused(_distinct(ranked), cluster, names))
    return tuple(names)


def _word_table(texts: Sequence[str]) -> tuple[Any, list[str]]:
    """Return which text has which word, a (D, W) sparse matrix of 0 and 1, and the W words."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "annotate", "naming clusters") from error
    counter = CountVectorizer(
        binary=True, token_pattern=_WORD, max_features=MAX_WORDS, min_df=2 if len(texts) > 1 else 1
    )
    try:
        matrix = counter.fit_transform([text[:NAME_CHARS] for text in texts])
    except ValueError:  # scikit-learn's way to say that no word is left
        from scipy.sparse import csr_matrix

        return csr_matrix((len(texts), 0)), []
    return matrix, [str(word) for word in counter.get_feature_names_out()]


def _distinct(words: Sequence[str]) -> list[str]:
    """Leave out a word that begins as one before it does: movie-movies-film says one thing twice."""
    kept: list[str] = []
    for word in words:
        if not any(word.startswith(other) or other.startswith(word) for other in kept):
            kept.append(word)
    return kept


def _unused(words: Sequence[str], cluster: int, taken: Sequence[str]) -> str:
    """Return the first three words, or four and more where that name is taken."""
    for count in range(WORDS, len(words) + 1):
        name = "-".join(words[:count])
        if name not in taken:
            return name
    short = "-".join(words[:WORDS])
    return short if short and short not in taken else f"cluster-{cluster + 1}"
