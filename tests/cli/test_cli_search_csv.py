"""`quadmix search --trials`: from two CSV files to a mixture near the known optimum, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner, Result

from quadmix.cli import main as cli
from quadmix.cli.mixtures import export_trials
from quadmix.errors import RecipeError
from quadmix.io.atomic import read_value
from quadmix.io.csv import read_csv
from quadmix.search.exchange import MixtureTable, read_mixtures, write_olmix, write_regmix
from quadmix.types import Proposal

DOMAINS = ("web", "code", "math", "wiki", "law")
BEST = {"a_loss": np.array([0.3, 0.3, 0.1, 0.2, 0.1]), "b_loss": np.array([0.1, 0.2, 0.4, 0.2, 0.1])}
runner = CliRunner()


def losses(shares: np.ndarray) -> dict[str, np.ndarray]:
    """Cross-entropy of a target's best mixture and the mixture: least where both are the same."""
    return {t: 2.0 - (best * np.log(shares + 0.02)).sum(axis=1) for t, best in BEST.items()}


def swarm(runs: int = 56) -> MixtureTable:
    """Random mixtures, the last four of them one mixture, with noise of 0.005."""
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(5, 0.8), runs)
    shares[-4:] = 0.2
    metrics = {t: y + rng.normal(0, 0.005, runs) for t, y in losses(shares).items()}
    ids = tuple(f"run-{k}" for k in range(runs))
    return MixtureTable(ids=ids, domains=DOMAINS, shares=shares, metrics=metrics, excluded={})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The swarm in Olmix's format, rows of the metrics the other way round; one run has no loss."""
    folder = tmp_path_factory.mktemp("swarm")
    ratios, metrics = write_olmix(folder, swarm())
    head, *rows = metrics.read_text(encoding="utf-8").splitlines()
    rows[3] = "run-3,,1.0"
    metrics.write_text("\n".join([head, *reversed(rows)]), encoding="utf-8")
    return str(ratios), str(metrics)


def call(*words: str) -> Result:
    return runner.invoke(cli.app, ["search", *words])


def error(files: tuple[str, str], *words: str) -> str:
    result = call("--trials", *files, *words)
    assert isinstance(result.exception, RecipeError), result.output
    return str(result.exception)


@pytest.fixture(scope="module")
def found(files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What one search with bounds wrote and printed."""
    folder = tmp_path_factory.mktemp("found")
    (folder / "now.json").write_text('{"web": 0.7, "code": 0.3}', encoding="utf-8")
    result = call(
        "--trials", *files, "--out", str(folder / "out"), "--current", str(folder / "now.json"),
        "--surrogate", "ridge", "--max-share", "law=0.5", "--set", "search.candidates=500", "--seed", "3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def test_the_proposal_is_near_the_known_optimum(found: tuple[Path, str]) -> None:
    proposal = read_value(found[0] / "proposal.json", Proposal)
    weights = proposal.objective.weights
    assert set(weights) == set(BEST)
    optimum = np.sum([weights[t] * BEST[t] for t in BEST], axis=0)  # of a sum of cross-entropies: their mean
    shares = np.array([proposal.candidates[0].shares[d] for d in DOMAINS])
    assert shares.sum() == pytest.approx(1)
    assert 0.5 * np.abs(shares - optimum).sum() < 0.15

    def truth(mixture: np.ndarray) -> float:
        return float(sum(weights[t] * y[0] for t, y in losses(mixture[None]).items()))

    assert truth(shares) < min(truth(row) for row in swarm().shares)
    assert proposal.noise_sd == pytest.approx(0.005, rel=0.8)
    assert set(proposal.trials_excluded) == {"run-3"}


def test_the_shares_are_written_for_every_candidate(found: tuple[Path, str]) -> None:
    table = read_csv(str(found[0] / "shares.csv"))
    assert table.header[:3] == ("domain", "natural", "proposal")
    assert {"best_observed", "current"} <= set(table.header)
    assert [row[0] for row in table.rows] == list(DOMAINS)
    values = np.array([row[1:] for row in table.rows], dtype=float)
    np.testing.assert_allclose(values.sum(axis=0), 1.0)
    np.testing.assert_allclose(values[:, table.header.index("current") - 1], [0.7, 0.3, 0, 0, 0], atol=1e-3)
    proposal = read_value(found[0] / "proposal.json", Proposal)
    np.testing.assert_allclose(values[:, 1], [proposal.candidates[0].shares[d] for d in DOMAINS])
    assert sorted(p.name for p in found[0].iterdir()) == ["proposal.json", "shares.csv"]


def test_the_summary_says_what_was_used_how_good_it_is_and_what_to_do(found: tuple[Path, str]) -> None:
    text = found[1]
    for said in (
        "55 of 56 runs used (52 different mixtures), 5 domains, 2 metrics",
        "left out run-3: metric 'a_loss' is empty",
        "Spearman", "regret@1", "in 90 %", "objective = weighted mean: ", "gain of proposal",
        "expected gain less optimism: +",
        "note: natural is the mean mixture of the runs", "Nothing is confirmed yet. Train the proposal, best",
        "with 3 seeds each", "shares.csv",
    ):  # fmt: skip
        assert said in text


def test_bounds_tokens_and_ceilings_are_met_and_regmix_files_give_json(tmp_path: Path) -> None:
    pair = write_regmix(tmp_path, swarm())
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("domain,tokens\nweb,600\ncode,100\nmath,25\nwiki,175\nlaw,100\n", encoding="utf-8")
    result = call(
        "--trials", *map(str, pair), "--target", "b_loss=2", "--target", "a_loss", "--at-most", "a_loss=9",
        "--tokens", str(tokens), "--budget", "1000", "--repetition", "4", "--fixed", "web=0.3",
        "--min-share", "law=0.15", "--max-share", "code=0.25", "--surrogate", "ridge", "--worst",
        "--set", "search.candidates=500", "--out", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    answer = orjson.loads(result.stdout)
    proposal = answer["proposal"]
    assert (proposal["objective"]["how"], proposal["objective"]["ceilings"]) == ("worst", {"a_loss": 9.0})
    assert answer["natural"]["web"] == pytest.approx(0.6)
    shares = proposal["candidates"][0]["shares"]
    assert shares["web"] == pytest.approx(0.3)
    assert shares["law"] >= 0.15 - 1e-9
    assert shares["code"] <= 0.25 + 1e-9
    assert shares["math"] <= 4 * 25 / 1000 + 1e-9
    assert "at 1,000 tokens no domain is repeated more than 4 times" in answer["notes"]


def test_wrong_options_name_the_remedy(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("domain,tokens\nweb,1\ncode,1\nmath,1\nwiki,1\nlaw,1\n", encoding="utf-8")
    known = ("--tokens", str(tokens))
    for words, message in (
        (["--target", "a_los"], "no metric 'a_los' in "),
        (["--target", "a_los"], "did you mean 'a_loss'?"),
        (["--target", "a_loss=x"], "--target 'a_loss=x': expected NAME=NUMBER or NAME"),
        (["--target", "a_loss=0"], "--target a_loss=0: expected a weight above 0"),
        (["--target", "a_loss", "--target", "a_loss=2"], "--target names 'a_loss' twice"),
        (["--target", "a_loss", "--at-most", "b_loss=2"], "add --target b_loss=0.01"),
        (["--at-most", "a_loss"], "--at-most 'a_loss': expected NAME=NUMBER"),
        (["--higher-is-better", "a_loss", "--at-most", "a_loss=0.4"], "write --at-most a_loss=-0.4"),
        (["--min-share", "maths=0.1"], "no domain 'maths' in the runs; did you mean 'math'?"),
        (["--min-share", "math=10"], "--min-share math=10: expected a share from 0 to 1"),
        (
            ["--min-share", "math=0.6", "--max-share", "math=0.5"],
            "'math': least share 0.6 and largest share 0.5",
        ),
        (["--min-share", "math=0.6", "--fixed", "web=0.5"], "least shares add up to 1.1 (math 0.6, web 0.5)"),
        (["--budget", "10"], "--budget needs --tokens FILE"),
        (["--repetition", "2"], "--repetition needs --budget TOKENS"),
        ([*known, "--budget", "0"], "--budget 0: expected a number above 0"),
        ([*known, "--budget", "100"], "largest shares add up to 0.2"),
        (["--surrogate", "magic"], "search.surrogate"),
        (["--set", "search.batches=2"], "--set search.batches has no effect with --trials"),
        (["--set", "search.topk=2"], "did you mean 'top_k'?"),
        (["--set", "seed=2"], "with --trials, expected search.key=value"),
    ):
        assert message in error(files, *words)
    assert [p.name for p in tmp_path.iterdir()] == ["tokens.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected exactly one of RECIPE and --trials RATIOS METRICS, got neither"),
        (["r.yaml", "--trials", "a", "b"], "got both"),
        (["r.yaml", "--min-share", "a=1", "--worst"], "--worst goes with --trials"),
        (["--trials", "a", "b", "--workers", "2"], "--workers and --accept-unconfirmed go with a RECIPE"),
    ],
)
def test_one_of_recipe_and_trials_else_exit_code_2(words: list[str], message: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_library_errors_become_one_line_and_an_exit_code(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quadmix", "search", "--trials", *files, "--target", "a_los"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("quadmix: there is no metric 'a_los' in ")


def test_the_help_shows_both_formats() -> None:
    text = " ".join(call("--help").output.split())
    assert "quadmix search --trials ratios.csv metrics.csv" in text
    assert "quadmix search --trials train_mixture_1m.csv train_pile_loss_1m.csv" in text


def test_an_export_is_read_back_and_an_unknown_format_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = swarm()
    monkeypatch.setattr("quadmix.search.exchange.run_mixtures", lambda _run: table)
    for name, files in (
        ("olmix", ["ratios.csv", "metrics.csv"]), ("regmix", ["train_mixture.csv", "train_loss.csv"])
    ):  # fmt: skip
        lines = export_trials("runs/x", name, tmp_path / name)  # type: ignore[arg-type]
        paths = [str(tmp_path / name / file) for file in files]
        assert lines == ["56 runs, 5 domains, 2 metrics", *paths]
        back = read_mixtures(*paths)
        np.testing.assert_allclose(back.shares, table.shares, atol=1e-9)
        assert back.ids == table.ids
    with pytest.raises(RecipeError, match="--format 'csv': expected olmix or regmix"):
        export_trials("runs/x", "csv", tmp_path)  # type: ignore[arg-type]
