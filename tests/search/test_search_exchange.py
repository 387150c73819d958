"""Swarms as CSV files: what is matched, left out by name, refused, and written back."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard

from quadmix.errors import InputError, QuadmixError, RecipeError, SearchError
from quadmix.io.atomic import write_json
from quadmix.io.csv import read_csv, write_csv
from quadmix.mixing.normalise import Normaliser
from quadmix.search.exchange import (
    MixtureTable,
    read_mixtures,
    run_mixtures,
    write_olmix,
    write_regmix,
)
from quadmix.search.wishes import current_shares, natural_shares, share_bounds
from quadmix.types import Loss, Trial

RATIOS = "run_id,web,code,math\na,0.5,0.3,0.2\nb,0.1,0.6,0.3\nc,0.2,0.2,0.6\n"
METRICS = "run_id,wiki_bpb,code_bpb\na,1.5,1.1\nb,1.2,1.3\nc,1.4,1.2\n"


def put(folder: Path, name: str, text: str) -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def read(folder: Path, ratios: str = RATIOS, metrics: str = METRICS, **options: list[str]) -> MixtureTable:
    return read_mixtures(put(folder, "ratios.csv", ratios), put(folder, "metrics.csv", metrics), **options)


def random_table(runs: int = 20) -> MixtureTable:
    rng = np.random.default_rng(3)
    return MixtureTable(
        ids=tuple(f"r{k}" for k in range(runs)), domains=("web", "a,b", 'c"d', "train_x"),
        shares=rng.dirichlet(np.ones(4), runs), metrics={"x_loss": rng.normal(size=runs), "y":
        rng.normal(size=runs)}, excluded={},
    )  # fmt: skip


def test_runs_and_columns_are_matched_by_name_in_any_order(tmp_path: Path) -> None:
    shuffled = "code_bpb,name,run,wiki_bpb\n1.2,third,c,1.4\n1.1,first,a,1.5\n1.3,second,b,1.2\n"
    for metrics in (METRICS, shuffled):
        table = read(tmp_path, metrics=metrics)
        assert (table.ids, table.domains) == (("a", "b", "c"), ("web", "code", "math"))
        np.testing.assert_allclose(table.shares[1], [0.1, 0.6, 0.3])
        assert {n: y.tolist() for n, y in table.metrics.items()} == {
            "wiki_bpb": [1.5, 1.2, 1.4], "code_bpb": [1.1, 1.3, 1.2]
        }  # fmt: skip
        assert (table.excluded, table.notes) == ({}, ())


def test_regmix_files_lose_their_prefixes_and_their_rounding(tmp_path: Path) -> None:
    ratios = "index,train_web,train_code,note\n1,0.333,0.667,x\n2,0.503,0.5,x\n3,0.2,0.8,x\n"
    table = read(tmp_path, ratios, "metric/web_val_loss,index\n4.0,3\n5.0,1\n6.0,2\n")
    assert (table.ids, table.domains, list(table.metrics)) == (
        ("1", "2", "3"), ("web", "code"), ["web_val_loss"]
    )  # fmt: skip
    np.testing.assert_allclose(table.shares.sum(axis=1), 1.0)
    np.testing.assert_allclose(table.shares[1], [0.503 / 1.003, 0.5 / 1.003])
    assert table.metrics["web_val_loss"].tolist() == [5.0, 6.0, 4.0]
    assert "1 runs had shares that sum to 1.0030 to 1.0030" in table.notes[0]
    assert table.notes[1].startswith("column 'note' of ")


@pytest.mark.parametrize("write", [write_olmix, write_regmix])
def test_what_is_written_is_read_back(tmp_path: Path, write: object) -> None:
    table = random_table()
    back = read_mixtures(*map(str, write(tmp_path / "out", table)))  # type: ignore[operator]
    assert (back.ids, back.domains, list(back.metrics)) == (table.ids, table.domains, list(table.metrics))
    np.testing.assert_allclose(back.shares, table.shares, atol=1e-9)
    for name, values in table.metrics.items():
        np.testing.assert_allclose(back.metrics[name], values, atol=1e-9)


def test_olmix_files_cannot_hold_a_domain_named_like_a_label(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"named 'name', which Olmix.* --format regmix"):
        write_olmix(tmp_path, replace(random_table(), domains=("web", "name", "c", "d")))


def test_byte_order_marks_line_ends_quotes_blank_lines_and_compression_are_read(tmp_path: Path) -> None:
    quoted = RATIOS.replace("run_id", '"run_id"').replace("a,0.5", '"a"," 0.5"')
    text = "\ufeff" + quoted.replace("\n", "\r\n\r\n")
    plain, other = put(tmp_path, "r.csv", text), put(tmp_path, "metrics.csv", METRICS)
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "r.csv.zst").write_bytes(zstandard.compress(text.encode()))
    for path in (plain, plain + ".gz", plain + ".zst", f"file://{plain}"):
        table = read_mixtures(path, other)
        assert (table.ids, table.domains) == (("a", "b", "c"), ("web", "code", "math"))
        np.testing.assert_allclose(table.shares[0], [0.5, 0.3, 0.2])
    (tmp_path / "cut.csv.zst").write_bytes(zstandard.compress(text.encode())[:-4])
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text.encode())[:-12])
    for name in ("cut.csv.zst", "cut.csv.gz"):
        with pytest.raises(InputError, match=r"is truncated or corrupt"):
            read_csv(str(tmp_path / name))


MALFORMED = {
    "no id column": (
        RATIOS.replace("run_id", "trial"),
        METRICS,
        r"ratios\.csv has no id column \(columns: trial, web.*'run_id'",
    ),
    "no domains": ("run_id,name\na,x\n", METRICS, r"ratios\.csv has no domain columns .*beside 'run_id'"),
    "no metrics": (
        RATIOS,
        "index,loss\na,1\n",
        r"metrics\.csv has no metric columns .*metric/NAME beside 'index'",
    ),
    "two columns of a name": (
        RATIOS.replace("code", "web"),
        METRICS,
        r"ratios\.csv has 2 columns named 'web'",
    ),
    "column without a name": (
        "," + RATIOS.replace("\n", "\n0,")[:-2],
        METRICS,
        r"column 1 has no name.*index=False",
    ),
    "ids twice": (
        RATIOS + "a,0.5,0.3,0.2\n",
        METRICS,
        r"ratios\.csv: 1 ids appear more than once: 'a' \(lines 2 and 5\)",
    ),
    "id empty": (RATIOS.replace("b,0.1", ",0.1"), METRICS, r"ratios\.csv, line 3: column 'run_id' is empty"),
    "share no number": (
        RATIOS.replace("0.6,0.3", "x,0.3"),
        METRICS,
        r"line 3, column 'code': share 'x', expected a number",
    ),
    "share empty": (RATIOS.replace("0.6,0.3", ",0.3"), METRICS, r"line 3, column 'code': share '', expected"),
    "share nan": (RATIOS.replace("0.6,0.3", "nan,0.3"), METRICS, r"line 3, column 'code': share 'nan'"),
    "share negative": (
        RATIOS.replace("0.1,0.6", "-0.2,0.9"),
        METRICS,
        r"line 3, column 'web': share '-0\.2'",
    ),
    "share above 1": (RATIOS.replace("0.1,0.6", "0.1,1.6"), METRICS, r"line 3, column 'code': share '1\.6'"),
    "percent": (
        "run_id,web,code\na,30,70\nb,40,60\n",
        METRICS,
        r"sum to about 100, so they are percentages.*divide them by 100",
    ),
    "ragged": (RATIOS.replace("b,0.1", "b,0,1"), METRICS, r"ratios\.csv, line 3: 5 cells, expected 4"),
    "semicolons": (RATIOS.replace(",", ";"), METRICS, r"columns divided by ';', expected commas"),
    "open quote": (RATIOS.replace("b,", '"b,'), METRICS, r"line 3: no valid CSV"),
    "empty": ("", METRICS, r"ratios\.csv has no rows"),
    "only a header": ("run_id,web\n", METRICS, r"ratios\.csv has a header but no rows"),
    "no common id": (
        RATIOS,
        METRICS.replace("\na", "\nx").replace("\nb", "\ny").replace("\nc", "\nz"),
        r"no id of .*ratios\.csv \('a', \.\.\.\) is in .*metrics\.csv \('x'",
    ),
    "no numbers": (RATIOS, "run_id,bpb\na,x\nb,y\nc,\n", r"metrics\.csv: no metric column holds a number"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    ratios, metrics, message = MALFORMED[case]
    with pytest.raises(InputError, match=message):
        read(tmp_path, ratios, metrics)


def test_other_encodings_and_missing_or_huge_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("run_id,naïve\na,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv is not UTF-8 \(byte 9 is 0xef\); save it as UTF-8"):
        read_csv(str(tmp_path / "latin.csv"))
    with pytest.raises(InputError, match=r"none\.csv' cannot be read"):
        read_csv(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match=r"is larger than 20 bytes"):
        read_csv(put(tmp_path, "r.csv", RATIOS), max_bytes=20)


def test_runs_that_cannot_be_used_are_left_out_by_name(tmp_path: Path) -> None:
    ratios = RATIOS + "d,0.5,0.5,0.1\ne,0.2,0.4,0.4\nf,0.2,0.4,0.4\ng,0.2,0.4,0.4\nh,1,0,0\n"
    metrics = METRICS + "d,1,1\ne,nan,1\nf,1,\ng,1,inf\ni,1,1\n"
    table = read(tmp_path, ratios, metrics)
    assert table.ids == ("a", "b", "c")
    why = table.excluded
    assert set(why) == {"d", "e", "f", "g", "h", "i"}
    assert why["d"] == "shares sum to 1.1, expected 1 within 0.01"
    assert why["e"] == "metric 'wiki_bpb' is nan (line 6), expected a number"
    assert why["f"].startswith("metric 'code_bpb' is empty")
    assert why["g"].startswith("metric 'code_bpb' is inf")
    assert why["h"].endswith("metrics.csv")
    assert why["i"].endswith("ratios.csv")
    # a metric that is not asked for excludes nobody
    assert set(read(tmp_path, ratios, metrics, only=["wiki_bpb"]).excluded) == {"d", "e", "h", "i"}
    with pytest.raises(SearchError, match=r"none of 3 runs can be used \(run 'a': shares sum to 0\.5"):
        read(tmp_path, "run_id,web\na,0.5\nb,0.5\nc,0.5\n")


def test_accuracies_are_noticed_and_negated_on_demand(tmp_path: Path) -> None:
    metrics = "run_id,mmlu_acc,piqa,code_bpb\na,51,0.5,0.9\nb,52,0.6,0.8\nc,53,0.7,0.7\n"
    noted = read(tmp_path, metrics=metrics).notes
    assert [n.split("'")[1] for n in noted] == ["mmlu_acc", "piqa"]
    assert noted[0].endswith("say --higher-is-better mmlu_acc")
    table = read(tmp_path, metrics=metrics, higher=["piqa", "mmlu_acc"])
    assert table.metrics["piqa"].tolist() == [-0.5, -0.6, -0.7]
    assert table.metrics["code_bpb"].tolist() == [0.9, 0.8, 0.7]
    assert all("is negated" in n for n in table.notes)
    with pytest.raises(RecipeError, match=r"there is no metric 'pika' in .*; did you mean 'piqa'"):
        read(tmp_path, metrics=metrics, higher=["pika"])


def test_a_column_without_numbers_is_no_metric_and_cannot_be_asked_for(tmp_path: Path) -> None:
    metrics = (
        METRICS.replace("bpb\n", "bpb,model\n")
        .replace("1\n", "1,m\n")
        .replace("3\n", "3,m\n")
        .replace("2\n", "2,m\n")
    )
    table = read(tmp_path, metrics=metrics)
    assert list(table.metrics) == ["wiki_bpb", "code_bpb"]
    assert "column 'model' of " in table.notes[0]
    with pytest.raises(RecipeError, match=r"no metric with numbers 'model'"):
        read(tmp_path, metrics=metrics, only=["model", "wiki_bpb"])


def test_a_domain_that_no_run_has_is_fixed_at_zero(tmp_path: Path) -> None:
    table = read(tmp_path, "run_id,web,code,law\na,0.5,0.5,0\nb,0.1,0.9,0\nc,0.2,0.8,0\n")
    assert table.unseen.tolist() == [False, False, True]
    assert table.notes == (
        "domain 'law' is 0 in all runs: nothing is known about it, its share is fixed at 0",
    )
    bounds = share_bounds(table, least={}, most={}, fixed={})
    assert bounds.high.tolist() == [1, 1, 0]
    with pytest.raises(RecipeError, match=r"'law' is 0 in all 3 runs, .*cannot be 0\.1 or more"):
        share_bounds(table, least={}, most={}, fixed={"law": 0.1})
    natural = natural_shares(put(tmp_path, "t.csv", "domain,tokens\nlaw,100\nweb,100\ncode,300\n"),
                             table.domains, table.shares)  # fmt: skip
    assert natural.shares.tolist() == [0.25, 0.75, 0]
    assert natural.note.endswith("500 tokens, less 20.0% in domains that no run has")


def test_bounds_are_by_name_and_contradictions_are_refused(tmp_path: Path) -> None:
    table = read(tmp_path)
    caps = np.array([0.9, 0.05, 1.0])
    bounds = share_bounds(table, least={"web": 0.2}, most={"web": 0.8}, fixed={"math": 0.3}, caps=caps)
    assert (bounds.low.tolist(), bounds.high.tolist()) == ([0.2, 0, 0.3], [0.8, 0.05, 0.3])
    with pytest.raises(RecipeError, match=r"no domain 'maths' in the runs; did you mean 'math'"):
        share_bounds(table, least={"maths": 0.1}, most={}, fixed={})
    with pytest.raises(RecipeError, match=r"'web': least share 0\.7 and largest share 0\.6 contradict"):
        share_bounds(table, least={"web": 0.7}, most={"web": 0.6}, fixed={})
    with pytest.raises(RecipeError, match=r"'code': least share 0\.1, but its tokens allow 0\.05"):
        share_bounds(table, least={"code": 0.1}, most={}, fixed={}, caps=caps)
    with pytest.raises(RecipeError, match=r"largest shares add up to 0\.3"):
        share_bounds(table, least={}, most=dict.fromkeys(table.domains, 0.1), fixed={})


def test_natural_shares_come_from_tokens_or_the_mean_mixture(tmp_path: Path) -> None:
    table = read(tmp_path)
    mean = natural_shares(None, table.domains, table.shares)
    np.testing.assert_allclose(mean.shares, np.array([0.8, 1.1, 1.1]) / 3)
    assert mean.tokens is None
    assert "mean mixture" in mean.note
    tokens = {"math": 10, "web": 70, "code": 20}
    files = [
        put(tmp_path, "t.json", '{"math": 10, "web": 70, "code": 20}'),
        put(tmp_path, "priors.json", '{"priors": {"token_counts": {"math": 10, "web": 70, "code": 20}}}'),
        put(tmp_path, "t.csv", "tokens,domain\n" + "".join(f"{t},{d}\n" for d, t in tokens.items())),
    ]
    for file in files:
        assert natural_shares(file, table.domains, table.shares).shares.tolist() == [0.7, 0.2, 0.1]
    for name, text, message in (
        ("a.csv", "domain,tokens\nweb,1\ncode,2\n", r"a\.csv has no tokens for domain 'math'"),
        ("b.csv", "domain,tokens\nweb,1\ncod,2\n", r"no domain 'cod' in the runs; did you mean 'code'"),
        (
            "c.csv",
            "web,1\ncode,2\n",
            r"c\.csv has the columns web, 1; expected two with a header, domain,tokens",
        ),
        ("d.csv", "domain,tokens\nweb,-1\n", r"domain 'web' has tokens '-1'"),
        ("e.csv", "domain,tokens\nweb,1\nweb,1\n", r"domain 'web' is there twice"),
        ("f.json", "{", r"f\.json is not valid JSON"),
        ("g.json", "[1]", r"g\.json holds list, expected an object"),
        ("h.json", '{"web": 0, "code": 0, "math": 0}', r"no domain has any tokens"),
    ):
        with pytest.raises(InputError, match=message):
            natural_shares(put(tmp_path, name, text), table.domains, table.shares)


def test_the_current_mixture_must_sum_to_one(tmp_path: Path) -> None:
    domains = ("web", "code", "math")
    assert current_shares(put(tmp_path, "c.json", '{"math": 0.4, "web": 0.6}'), domains).tolist() == [
        0.6,
        0,
        0.4,
    ]
    with pytest.raises(InputError, match=r"shares sum to 100, expected 1 \(fractions, not percent\)"):
        current_shares(put(tmp_path, "c.csv", "domain,share\nweb,60\ncode,40\n"), domains)


def trial(name: str, shares: tuple[float, ...], loss: float | None, kind: str = "prior") -> Trial:
    found = {} if loss is None else {"arc": Loss(bits_per_byte=loss, stderr=0.1, rows=1, tokens=9, bytes=9)}
    return Trial(
        trial_id=name, kind=kind, label="theta", theta=None, seed=0, selected_tokens=9, unique_tokens=9,
        train_tokens=9, epochs=1.0, losses=found, heldout={}, status="failed" if loss is None else "done",
        reason="it diverged" if loss is None else "", shares=shares,
    )  # fmt: skip


def test_a_run_of_this_tool_becomes_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no normaliser\.json: it is no run folder"):
        run_mixtures(tmp_path)
    write_json(
        tmp_path / "normaliser.json", Normaliser(kind="identity", criteria=("q",), domains=("web", "code"))
    )
    with pytest.raises(InputError, match=r"has no finished random trial of 0"):
        run_mixtures(tmp_path)
    trials = [
        trial("prior-0", (0.25, 0.75), 1.5), trial("prior-1", (1.0, 0.0), 1.25),
        trial("prior-2", (0.5, 0.5), None), trial("prior-3", (0.5,), 1.0),
        trial("repeat-0", (0.5, 0.5), 1.0, "repeat"),
    ]  # fmt: skip
    for t in trials:
        write_json(tmp_path / "trials" / f"{t.trial_id}.json", t)
    table = run_mixtures(tmp_path)
    assert (table.ids, table.domains) == (("prior-0", "prior-1"), ("web", "code"))
    assert table.shares.tolist() == [[0.25, 0.75], [1, 0]]
    assert table.metrics["arc"].tolist() == [1.5, 1.25]
    assert table.excluded == {"prior-2": "it diverged", "prior-3": "has shares of 1 domains, expected 2"}


def test_writing_is_atomic_and_keeps_all_digits(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.csv"
    write_csv(path, ["domain", "share"], [["a,b", 1 / 3]])
    assert read_csv(str(path)).rows == (("a,b", repr(1 / 3)),)
    with pytest.raises(QuadmixError):
        write_csv(path, ["domain"], (_broken() for _ in range(2)))
    assert read_csv(str(path)).rows == (("a,b", repr(1 / 3)),)
    assert [p.name for p in path.parent.iterdir()] == ["x.csv"]
    shutil.rmtree(path.parent)


def _broken() -> list[str]:
    raise QuadmixError("stop")
