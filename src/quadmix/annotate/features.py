"""Hashed word 1- and 2-grams: the features of every annotator the tool trains itself.

In: texts. Out: a sparse (D, F) matrix, rows of length 1, from word and punctuation tokens in lower case;
counts enter as 1 + log(count) and rows are scaled, so a long text does not weigh more than a short one.
As fastText (Joulin et al. 2017, arXiv 1607.01759) the models above are linear; unlike fastText they are
fit by a solver without randomness, so that the same data give the same weights.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from quadmix.annotate.annotator import MAX_CHARS
from quadmix.errors import MissingExtraError

QUALITY_FEATURES = 1 << 18
DOMAIN_FEATURES = 1 << 16
_TOKEN = r"(?u)\w+|[^\w\s]"
SETTINGS = {"ngrams": [1, 2], "token": _TOKEN, "chars": MAX_CHARS, "version": 1}


def hashed_features(texts: Sequence[str], features: int = QUALITY_FEATURES) -> Any:
    """Return a (D, features) float32 CSR matrix; at most `MAX_CHARS` of a text are read."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.preprocessing import normalize
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "annotate", "training and using text classifiers") from error
    vectorizer = cast(Any, HashingVectorizer)(
        n_features=features, ngram_range=(1, 2), token_pattern=_TOKEN, norm=None, alternate_sign=False,
        dtype=np.float32,
    )  # fmt: skip
    matrix = vectorizer.transform([text[:MAX_CHARS] for text in texts])
    matrix.data = 1.0 + np.log(matrix.data)
    return normalize(matrix, copy=False)
