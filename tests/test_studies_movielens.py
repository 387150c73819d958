"""The MovieLens study on made-up ratings: formats, histories, measures, and a run of all its models."""

import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

import poso_movielens as study
from movielens import HISTORY, folds, group_auc, read_movielens

from quadmix.annotate.trained import auc
from quadmix.errors import InputError

GENRES = ("Action", "Comedy", "Drama")
USERS, FILMS = 24, 40


@pytest.fixture(scope="module")
def rows() -> list[tuple[int, int, int, int]]:
    """User, film, rating, time: 24 users with 10 to 45 ratings, out of order, some of one second."""
    rng = np.random.default_rng(0)
    found = []
    for user in range(USERS):
        count = int(rng.integers(10, 36))
        for film in rng.choice(FILMS, count, replace=False).tolist():
            found.append((user * 3 + 1, film * 2 + 5, int(rng.integers(1, 6)), int(rng.integers(900, 930))))
    rng.shuffle(found)
    return [tuple(row) for row in found]


def genre_names(film: int) -> list[str]:
    return [name for place, name in enumerate(GENRES) if (film >> (place + 1)) & 1]


def write(folder: Path, rows, kind: str, films: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    known = sorted({row[1] for row in rows})
    if kind == "100k":
        (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
        flags = {f: ["1" if n in genre_names(f) else "0" for n in GENRES] + ["0"] * 16 for f in known}
        text = "".join(f"{f}|Caf\xe9 {f} (1995)|01-Jan-1995|||{'|'.join(flags[f])}\n" for f in known)
        name, data = "u.item", text.encode("latin-1")
    else:
        delimiter, name = ("::", "movies.dat") if kind == "1m" else (",", "movies.csv")
        head = "" if kind == "1m" else "userId,movieId,rating,timestamp\n"
        lines = "".join(delimiter.join(map(str, row)) + "\n" for row in rows)
        (folder / ("ratings.dat" if kind == "1m" else "ratings.csv")).write_text(head + lines)
        title = "Film, the (1995)" if kind == "1m" else '"Film, the (1995)"'
        text = "" if kind == "1m" else "movieId,title,genres\n"
        for f in known:
            text += delimiter.join([str(f), title, "|".join(genre_names(f)) or "(no genres listed)"]) + "\n"
        data = text.encode()
    if films:
        (folder / name).write_bytes(data)
    return folder


def test_every_format_gives_the_same_events(rows, tmp_path: Path) -> None:
    first, *others = [read_movielens(write(tmp_path / kind, rows, kind)) for kind in ("100k", "1m", "csv")]
    for other in others:
        for name in ("user", "item", "rating", "seen", "genres"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
    known = sorted({row[1] for row in rows})
    assert first.genres.shape == (len(known) + 1, 3)
    assert not first.genres[0].any()
    for place, film in enumerate(known, start=1):
        assert first.genres[place].tolist() == [name in genre_names(film) for name in GENRES]


def test_events_are_in_order_and_count_what_came_before(rows, tmp_path: Path) -> None:
    found = read_movielens(write(tmp_path, rows, "csv"))
    known = sorted({row[1] for row in rows})
    at = 0
    for number, user in enumerate(sorted({row[0] for row in rows})):
        own = sorted((row for row in rows if row[0] == user), key=lambda row: row[3])  # stable, as the file
        part = slice(at, at + len(own))
        assert (found.user[part] == number).all()
        assert found.item[part].tolist() == [1 + known.index(row[1]) for row in own]
        assert found.rating[part].tolist() == [row[2] for row in own]
        assert found.seen[part].tolist() == list(range(len(own)))
        at += len(own)
    assert at == len(found.item)


def test_history_is_the_last_thirty_films_of_the_user_before_the_event(rows, tmp_path: Path) -> None:
    events = read_movielens(write(tmp_path, rows, "csv", films=False))
    data = study.prepared(events, np.ones(len(events.item), bool), 0, "cpu")
    inputs = study.Inputs(data, "AVC")
    assert inputs.film_width == study.ITEM  # no file of films, no genres
    every = torch.arange(len(events.item))
    _, history, empty = inputs(every)
    for row in range(len(events.item)):
        earlier = [i for i in range(row) if events.user[i] == events.user[row]][::-1][:HISTORY]
        assert (~empty[row]).sum() == len(earlier)
        assert torch.equal(history[row, : len(earlier)], inputs.films(data.item[earlier]))


def test_no_model_reads_a_rating_or_a_later_event(rows, tmp_path: Path) -> None:
    """Other ratings, and other films after an event, leave its score as it is."""
    events = read_movielens(write(tmp_path, rows, "csv"))
    data = study.prepared(events, np.ones(len(events.item), bool), 0, "cpu")
    last = int(np.flatnonzero(events.user == 3)[-5])
    later = data.item.clone()
    later[last + 1 :] = later[last + 1 :].flip(0)
    for arm in study.ARMS:
        model = study.Model(arm, data).eval()
        before = model(torch.arange(last + 1))
        model.inputs.data = study.Data(
            item=later, seen=data.seen, told=data.told, genres=data.genres, labels=1 - data.labels
        )
        assert torch.equal(model(torch.arange(last + 1)), before)
        assert torch.isfinite(before).all()  # the first event of a user has no history


def test_group_auc_is_the_weighted_mean_over_users_with_both_classes() -> None:
    rng = np.random.default_rng(1)
    user = np.repeat([0, 1, 2], [7, 12, 4])
    truth = np.concatenate([rng.random(19) < 0.5, np.ones(4, bool)])
    scores = rng.integers(0, 4, 23).astype(np.float32)
    wanted = [auc(truth[user == u], scores[user == u]) for u in (0, 1)]
    assert group_auc(user, truth, scores) == pytest.approx((7 * wanted[0] + 12 * wanted[1]) / 19)
    assert np.isnan(group_auc(user[19:], truth[19:], scores[19:]))


def test_every_user_is_tested_once(rows, tmp_path: Path) -> None:
    events = read_movielens(write(tmp_path, rows, "csv"))
    masks = folds(events, 5, np.random.default_rng(0).permutation(events.users))
    assert (np.sum(masks, axis=0) == 1).all()
    for mask in masks:
        assert not set(events.user[mask]) & set(events.user[~mask])


def test_arm_with_as_many_parameters_has_as_many(rows, tmp_path: Path) -> None:
    events = read_movielens(write(tmp_path, rows, "csv"))
    data = study.prepared(events, np.ones(len(events.item), bool), 0, "cpu")
    wide, gated = (
        study.Model(("MLP", how, "AVC"), data).parameters_without_tables()
        for how in ("concat, as many parameters", "POSO")
    )
    assert wide == pytest.approx(gated, rel=0.01)


def test_study_runs_and_prints_differences_over_splits(rows, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(study, "EPOCHS", 1)
    threads = torch.get_num_threads()
    given = [str(write(tmp_path / "data", rows, "1m")), "--splits", "2", "--results", str(tmp_path / "out")]
    study.main(given)
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "not a published number: " in printed
    assert "24 users, 40 films, 3 genres" in printed
    assert "| MLP / POSO / AVC − MLP / concat / AVC |" in printed
    (file,) = (tmp_path / "out").iterdir()
    found = orjson.loads(file.read_bytes())
    assert len(found["splits"]) == 2
    assert set(found["splits"][0]) == {" / ".join(arm) for arm in study.ARMS}
    assert 0 <= found["splits"][1]["MHA / POSO / AVC"]["Favorite"]["GAUC"] <= 100
    monkeypatch.setattr(study, "split_results", None)  # a stored split is not trained again
    study.main([*given, "--threads", str(threads)])
    assert capsys.readouterr().out.split("mean over splits")[1] == printed.split("mean over splits")[1]


def test_folder_without_ratings_and_rows_that_are_none_are_named(rows, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has none of u\.data, ratings\.dat, ratings\.csv"):
        read_movielens(tmp_path)
    folder = write(tmp_path / "bad", [*rows, (1, 1, 9, 1)], "csv")
    with pytest.raises(
        InputError, match=rf"row {len(rows) + 1} is \[1\.0, 1\.0, 9\.0, 1\.0\], expected user"
    ):
        read_movielens(folder)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,x,4\n")
    with pytest.raises(InputError, match=r"expected user, film, rating and time in every row"):
        read_movielens(folder)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(InputError, match="it is empty"):
        read_movielens(folder)
