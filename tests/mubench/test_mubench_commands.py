"""`quadmix mubench prepare` and `mlc` as commands."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from mubench_files import answered
from typer.testing import CliRunner

from quadmix.cli.main import app
from quadmix.errors import QuadmixError
from quadmix.evaluate.mubench.load import load_task
from quadmix.evaluate.mubench.standin import write_standin
from quadmix.evaluate.mubench.tables import write_predictions

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "toy"
    write_standin(folder, items=12)
    return folder


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["mubench", *map(str, words)])
    if isinstance(result.exception, QuadmixError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_prepare_counts_mixes_and_leaves_gpqa_out(toy: Path, tmp_path: Path) -> None:
    code, text = run("prepare", toy, "--out", tmp_path, "--mix", 2)
    assert code == 0
    assert "arc_easy (lighteval): 12 items x 4 languages (qaa qab qac qad), aligned; target" in text
    assert "not here, of the release" not in text  # toy languages are none of the release
    assert "4 files of mixed items" in text
    assert "gpqa: left out, its authors ask not to publish it in clear text; name it with --task" in text
    assert load_task(tmp_path, "arc_easy", "mix_lighteval_2").mode == "mix_lighteval_2"
    code, text = run("prepare", toy, "--out", tmp_path, "--task", "gpqa", "--json")
    found = json.loads(text)
    assert (found["tasks"][0]["task"], list(found["restricted"])) == ("gpqa", ["gpqa"])


def test_prepare_names_the_languages_of_the_release_that_are_not_here(toy: Path, tmp_path: Path) -> None:
    for own, code in (("qaa", "en"), ("qab", "de")):
        file = tmp_path / "SNLIDataset" / f"lighteval_{code}_test.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes((toy / "SNLIDataset" / f"lighteval_{own}_test.jsonl").read_bytes())
    code, text = run("prepare", tmp_path)
    assert code == 0
    assert "not here, of the release: af ar az" in text


def test_prepare_exits_with_1_and_names_what_is_wrong(toy: Path, tmp_path: Path) -> None:
    file = toy / "SNLIDataset" / "lighteval_qab_test.jsonl"
    whole = file.read_bytes()
    file.write_bytes(b"\n".join(whole.splitlines()[:-1]) + b"\n")
    try:
        code, text = run("prepare", toy, "--out", tmp_path, "--task", "snli,arc_easy")
    finally:
        file.write_bytes(whole)
    assert code == 1
    assert re.search(
        r"refused: snli \(lighteval\): .*lighteval_qab_test\.jsonl: its 11 ids are not the 12", text
    )
    assert "arc_easy (lighteval): 12 items" in text


def test_prepare_makes_the_standin_and_takes_a_file(tmp_path: Path) -> None:
    code, text = run("prepare", "--standin", tmp_path / "toy", "--items", 3, "--task", "snli")
    assert (code, text.splitlines()[0]) == (0, f"{tmp_path / 'toy'}: 460 files")
    rows = [
        {"item": n, "lang": language, "q": f"{language}{n}", "c": ["a", "b"], "gold": n % 2}
        for language in ("et", "it") for n in range(5)
    ]  # fmt: skip
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = ["--from-file", file, "--id-column", "item", "--language-column", "lang", "--prompt", "{q}?",
             "--choices-column", "c", "--label-column", "gold"]  # fmt: skip
    code, text = run("prepare", *words, "--task", "mine", "--out", tmp_path / "own")
    assert code == 0
    assert "5 questions in 2 languages" in text
    assert "mine (lighteval): 5 items x 2 languages (et it), aligned" in text
    assert run("prepare", *words)[0] == 2
    assert run("prepare")[0] == 2
    assert run("prepare", tmp_path, "--standin", tmp_path / "x")[0] == 2
    assert run("prepare", "hf://datasets/aialt/MuBench", "--offline", "--out", tmp_path)[0] == 1
    assert run("prepare", "hf://datasets/aialt/MuBench")[0] == 2


def test_mlc_reads_samples_prints_nulls_and_writes_the_page(tmp_path: Path) -> None:
    code, text = run("mlc", SAMPLES, "--out", tmp_path / "page.html", "--draws", 100, "--anchor", "qaa")
    assert code == 0
    header = next(line for line in text.splitlines() if line.strip().startswith("languages"))
    assert re.search(r"MLC +shortest +longest +unconditional +over best null +MLC\+", header)
    assert "arc_easy (lighteval, acc): 12 items, 4 languages" in text
    assert "MLC alone does not" in text
    assert (tmp_path / "page.html").is_file()
    assert (tmp_path / "page.csv").is_file()


def test_mlc_of_predictions_takes_texts_from_the_data(toy: Path, tmp_path: Path) -> None:
    task = load_task(toy, "arc_easy", "lighteval")
    write_predictions(tmp_path / "p.parquet", [answered(task, 0.5)])
    code, text = run("mlc", tmp_path / "p.parquet", "--draws", 100)
    assert code == 1
    assert "give the items with --data FOLDER" in text
    code, text = run(
        "mlc", tmp_path / "p.parquet", "--data", toy, "--draws", 100, "--json", "--group", "latin=qaa,qab"
    )
    found = json.loads(text)
    assert code == 0
    (own,) = found["tasks"]
    assert [s["name"] for s in own["sets"]] == ["all", "latin"]
    assert set(own["sets"][0]["nulls"]) == {"shortest", "longest"}
    assert np.array(own["pairs"]["mlc"]).shape == (4, 4)


def test_mlc_takes_the_estimator_that_stands_for_a_task_unless_another_is_named(
    toy: Path, tmp_path: Path
) -> None:
    story, arc = (load_task(toy, name, "lighteval") for name in ("story_cloze", "arc_easy"))
    names = ("acc", "acc_bytes", "unconditional")
    write_predictions(tmp_path / "p.parquet", [answered(t, 0.5, name=n) for t in (story, arc) for n in names])

    def shown(*words: str) -> list[list[str]]:
        code, text = run("mlc", tmp_path / "p.parquet", "--data", toy, "--draws", 100, "--json", *words)
        assert code == 0
        found = json.loads(text)["tasks"]
        assert all("unconditional" in t["sets"][0]["nulls"] for t in found)
        return [[t["task"], t["estimator"]] for t in found]

    assert shown() == [["story_cloze", "acc_bytes"], ["arc_easy", "acc"]]
    assert shown("--estimator", "acc") == [["story_cloze", "acc"], ["arc_easy", "acc"]]
    assert len(shown("--estimator", "all")) == 4
    code, text = run("mlc", tmp_path / "p.parquet", "--data", toy, "--estimator", "acc_cal")
    assert (code, "no predictions by estimator 'acc_cal'; there are acc, acc_bytes" in text) == (1, True)


@pytest.mark.parametrize(
    "words", [["--group", "a"], ["--group", "all=qaa,qab"], ["--group", "a=qaa"], ["--part", "test"]]
)
def test_mlc_refuses_groups_and_parts_that_are_none(words: list[str]) -> None:
    assert run("mlc", SAMPLES, *words)[0] == 2
