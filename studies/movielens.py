"""A MovieLens folder as events in order: who rated what, after how many others. Any of the published formats.

In: a folder with u.data (100k), ratings.dat (1M, 10M) or ratings.csv (latest-small, 20M, 25M, 32M), and the
file of the films beside it for genres (u.item, movies.dat, movies.csv); without that file there are none.
Nothing is fetched, and nothing of the data is written: the licences of MovieLens forbid to pass it on.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from quadmix.errors import InputError

HISTORY = 30  # earlier films that an event sees (POSO, section 5: lists are cut at 30)
NEW = 5  # events of a user with fewer earlier ones are those of a new user
_SETS = {
    100_000: "ml-100k", 1_000_209: "ml-1m", 10_000_054: "ml-10m", 20_000_263: "ml-20m",
    25_000_095: "ml-25m", 32_000_204: "ml-32m", 100_836: "ml-latest-small",
}  # fmt: skip
_FORMATS = (  # ratings, films, delimiter, header
    ("u.data", "u.item", "\t", False),
    ("ratings.dat", "movies.dat", "::", False),
    ("ratings.csv", "movies.csv", ",", True),
)
_GENRES_100K = 19  # columns of flags at the end of a line of u.item
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Events:
    """E ratings, by user, time and place in the file; of events of one second the file decides.

    user, item: (E,) numbers from 0 and from 1. rating: (E,). seen: (E,) earlier ratings of the user, its
    accumulated view count. genres: (1 + items, G) bool, row 0 for no film; G = 0 without a file of films.
    """

    name: str
    user: Ints
    item: Ints
    rating: NDArray[np.float32]
    seen: Ints
    genres: NDArray[np.bool_]

    @property
    def users(self) -> int:
        return int(self.user[-1]) + 1


def read_movielens(folder: Path) -> Events:
    """Read a folder; InputError if it holds no ratings, or a row is not one."""
    for ratings, films, delimiter, header in _FORMATS:
        if (folder / ratings).is_file():
            columns = _ratings(folder / ratings, delimiter, header)
            return _events(columns, folder / films, delimiter, header)
    expected = ", ".join(f[0] for f in _FORMATS)
    raise InputError(f"{folder} has none of {expected}; give the unpacked folder of a MovieLens data set")


def _ratings(path: Path, delimiter: str, header: bool) -> list[NDArray[np.float64]]:
    """Return user, item, rating and time (E,), as they stand in the file."""
    text = path.read_bytes()
    if delimiter == "::":
        text, delimiter = text.replace(b"::", b"\t"), "\t"
    names = ["user", "item", "rating", "time"]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(text),
            read_options=pa_csv.ReadOptions(column_names=names, skip_rows=int(header)),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float64())),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: {error}; expected user, film, rating and time in every row") from error
    columns = [table[name].to_numpy() for name in names]
    whole = np.stack([*columns[:2], columns[3]])
    bad = ~(np.isfinite(whole).all(axis=0) & (columns[2] >= 0.5) & (columns[2] <= 5))
    if bad.any() or not len(bad):
        row = int(bad.argmax()) if len(bad) else 0
        what = f"row {row + int(header)} is {[c[row].item() for c in columns]}" if len(bad) else "it is empty"
        raise InputError(f"{path}: {what}, expected user, film, a rating from 0.5 to 5, time")
    return columns


def _events(columns: list[NDArray[np.float64]], films: Path, delimiter: str, header: bool) -> Events:
    user, item, rating, time = columns
    order = np.lexsort((time, user))  # stable: file order among equal times
    numbers = np.unique(user[order], return_inverse=True)[1].astype(np.int64)
    known, items = np.unique(item[order], return_inverse=True)
    first = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    seen = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    return Events(
        name=_SETS.get(len(order), f"{len(order):,} ratings, not a published number"), user=numbers,
        item=items.astype(np.int64) + 1, rating=rating[order].astype(np.float32), seen=seen,
        genres=_genres(films, delimiter, header, known),
    )  # fmt: skip


def _genres(path: Path, delimiter: str, header: bool, known: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (1 + items, G); known: the film's number in the files of items 1, 2, ..."""
    if not path.is_file():
        return np.zeros((1 + len(known), 0), np.bool_)
    rows: dict[float, set[str]] = {}
    for line in path.read_text(encoding="latin-1").splitlines()[int(header) :]:
        if path.name == "u.item":
            first, *_, last = line.split("|", 1)
            flags = last.split("|")[-_GENRES_100K:]
            rows[float(first)] = {str(place) for place, flag in enumerate(flags) if flag == "1"}
        elif line:
            first, last = line.split(delimiter, 1)[0], line.rsplit(delimiter, 1)[1]
            rows[float(first)] = set() if last.startswith("(no genres") else set(last.strip('"').split("|"))
    names = {name: place for place, name in enumerate(sorted({g for own in rows.values() for g in own}))}
    out = np.zeros((1 + len(known), len(names)), np.bool_)
    for place, film in enumerate(known.tolist(), start=1):
        for name in rows.get(film, ()):
            out[place, names[name]] = True
    return out


def folds(events: Events, count: int, order: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """Return (E,) masks of the events of the users that are tested in each of `count` splits: every user in
    one. order: (users,) a permutation."""
    place = np.empty(events.users, np.int64)
    place[order] = np.arange(events.users) % count
    return [place[events.user] == fold for fold in range(count)]


def group_auc(users: Ints, truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """Return GAUC: the AUC of each user, averaged with the number of its events as weight; users with one
    class are left out, equal scores count half. users: (E,), sorted."""
    from scipy.stats import rankdata

    total = weight = 0.0
    first = np.flatnonzero(np.r_[True, users[1:] != users[:-1], True])
    for start, stop in pairwise(first.tolist()):
        own = truth[start:stop]
        good = int(own.sum())
        bad = len(own) - good
        if good and bad:
            ranks = rankdata(scores[start:stop])
            total += len(own) * (ranks[own].sum() - good * (good + 1) / 2) / (good * bad)
            weight += len(own)
    return float(total / weight) if weight else float("nan")
