"""`quadmix raters`: cards, trying, recording, training from files, and bad input."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_run import demo_rows, tiny_settings, write_rows
from typer.testing import CliRunner, Result

from quadmix.cli.main import app
from quadmix.errors import InputError
from quadmix.recipe import card_names

SMALL = ("--dim", "16", "--bucket", "600000", "--heldout", "0.2")


def cli(*words: str) -> Result:
    return CliRunner().invoke(app, ["raters", *words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raters")
    write_rows(folder / "good.jsonl", demo_rows("reference.jsonl.zst", 60))
    write_rows(folder / "bad.jsonl", demo_rows("pool.jsonl.zst", 60))
    done = cli(
        "train-fasttext", "mine", "--good", str(folder / "good.jsonl"), "--bad", str(folder / "bad.jsonl"),
        "--out", str(folder / "mine"), "--trained-on", "wikipedia", *SMALL,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "auc" in done.output
    assert "length_auc" in done.output
    return folder / "mine"


def test_every_card_is_listed_and_can_be_shown() -> None:
    listed = cli("list", "--json")
    assert [c["name"] for c in json.loads(listed.output)] == card_names()
    for name in card_names():
        shown = cli("show", name)
        assert shown.exit_code == 0
        assert yaml.safe_load(shown.output)["name"] == name


def test_a_trained_rater_is_a_card_that_can_be_tried(trained: Path) -> None:
    card = yaml.safe_load((trained / "card.yaml").read_text())
    assert card["trained_on"] == ["wikipedia"]
    assert len(card["files"]["model.bin"]) == 64
    tried = cli("try", str(trained / "card.yaml"), "--json")
    assert tried.exit_code == 0, tried.output
    found = json.loads(tried.output)
    assert len(found["scores"]) == 20
    assert all(0 <= s <= 1 for s in found["scores"])
    assert found["golden"]["passed"] is None


def test_recorded_outputs_are_held_against_what_a_model_gives(trained: Path, tmp_path: Path) -> None:
    recorded = trained / "golden.yaml"
    assert cli("golden", str(trained / "card.yaml"), "--out", str(recorded)).exit_code == 0
    assert json.loads(cli("try", str(recorded), "--json").output)["golden"]["passed"] is True
    other = yaml.safe_load(recorded.read_text())
    other["golden"]["outputs"][3] = [0.123, 0.877]
    (trained / "other.yaml").write_text(yaml.safe_dump(other))
    tried = cli("try", str(trained / "other.yaml"))
    assert tried.exit_code == 1
    assert "on text 3" in tried.output


def test_doctor_says_whether_the_models_of_a_recipe_are_sound(trained: Path, tmp_path: Path) -> None:
    cli("golden", str(trained / "card.yaml"), "--out", str(trained / "golden.yaml"))
    settings = tiny_settings(tmp_path)
    settings["annotate"]["criteria"] = [
        {"name": "a", "kind": "model", "model": str(trained / "golden.yaml")},
        {"name": "b", "kind": "model", "model": "dclm-fasttext"},
    ]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    told = json.loads(CliRunner().invoke(app, ["doctor", str(tmp_path / "r.yaml"), "--json"]).output)
    assert told["model of a"].startswith("mine: as it should be")
    assert told["model of b"].startswith("not checked: ")


def test_a_finished_annotation_is_diagnosed(trained: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    settings["annotate"]["criteria"].append(
        {"name": "mine", "kind": "model", "model": str(trained / "card.yaml")}
    )
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    done = CliRunner().invoke(app, ["annotate", str(tmp_path / "r.yaml"), "--quiet"])
    assert done.exit_code == 0, done.output
    found = json.loads(cli("diagnose", str(tmp_path / "runs" / "tiny"), "--json").output)
    assert found["criteria"] == ["rules", "length", "mine"]
    assert {p["name"]: p["verdict"] for p in found["probes"]}["length"] == "not probed"
    text = cli("diagnose", str(tmp_path / "runs" / "tiny")).output
    assert "rules with mine" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "dclm"), "there is no card 'dclm'"),
        (("try", "nowhere.yaml"), "nowhere.yaml does not exist"),
        (("diagnose", "nowhere"), "has no recipe.resolved.yaml"),
        (("train-fasttext", "m", "--good", "g.jsonl", "--bad", "g.jsonl", "--out", "o"), "does not exist"),
    ],
)
def test_bad_input_is_told(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*words)
    assert isinstance(done.exception, InputError)
    assert told in str(done.exception)


def test_a_card_with_a_wrong_key_names_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\nfamly: fasttext\n")
    done = cli("show", str(tmp_path / "c.yaml"))
    assert isinstance(done.exception, InputError)
    assert "famly" in str(done.exception) or "family" in str(done.exception)


def test_a_head_is_trained_on_an_embedder_of_ones_own_and_found_again(tmp_path: Path) -> None:
    from annotate.models.encoder_world import save_embedder, texts

    save_embedder(tmp_path / "emb")
    card = {
        "name": "emb", "family": "embedding", "role": "embedding", "model": "emb", "licence": "none",
        "source": "a test", "description": "small", "direction": "none", "output": {"kind": "vector"},
        "input": {"pooling": "mean", "window": 64},
    }  # fmt: skip
    (tmp_path / "emb.yaml").write_text(yaml.safe_dump(card))
    made = [{"text": t, "label": float(len(set(t.split())) % 7)} for t in texts(120)]
    write_rows(tmp_path / "scores.jsonl", made)
    done = cli(
        "train-head", "mine", "--labelled", str(tmp_path / "scores.jsonl"), "--embedder",
        str(tmp_path / "emb.yaml"), "--out", str(tmp_path / "head"), "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for told in ("spearman", "length_spearman", "learning curve"):
        assert told in done.output
    tried = cli("try", str(tmp_path / "head" / "card.yaml"), "--device", "cpu", "--json")
    assert len(json.loads(tried.output)["scores"]) == 20


def test_golden_outputs_come_with_the_digests_of_all_files(tmp_path: Path) -> None:
    from annotate.models.encoder_world import bert, save_sequence

    save_sequence(tmp_path / "reg", bert())
    card = {
        "name": "reg", "family": "sequence", "role": "quality", "model": "reg", "licence": "none",
        "source": "a test", "description": "small", "output": {"kind": "number"}, "input": {"window": 64},
    }  # fmt: skip
    (tmp_path / "reg.yaml").write_text(yaml.safe_dump(card))
    recorded = tmp_path / "elsewhere" / "mine.yaml"
    assert cli("golden", str(tmp_path / "reg.yaml"), "--out", str(recorded)).exit_code == 0
    files = yaml.safe_load(recorded.read_text())["files"]
    assert {"config.json", "model.safetensors"} <= files.keys()
    assert all(len(digest) == 64 for digest in files.values())
    assert (
        json.loads(cli("try", str(recorded), "--device", "cpu", "--json").output)["golden"]["passed"] is True
    )
    settings = tiny_settings(tmp_path / "run")
    other = yaml.safe_load(recorded.read_text())
    other["golden"]["outputs"][0] = [9.0]
    (tmp_path / "off.yaml").write_text(yaml.safe_dump(other))
    settings["annotate"]["criteria"] = [{"name": "a", "kind": "model", "model": str(tmp_path / "off.yaml")}]
    settings["annotate"]["device"] = "cpu"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    doctor = CliRunner().invoke(app, ["doctor", str(tmp_path / "r.yaml"), "--json"])
    assert doctor.exit_code == 1
    assert "WRONG" in json.loads(doctor.output)["model of a"]
    annotated = CliRunner().invoke(app, ["annotate", str(tmp_path / "r.yaml"), "--quiet"])
    assert isinstance(annotated.exception, InputError)
    assert "differs by" in str(annotated.exception)
