"""Saved models scored row by row: against sums by hand, whatever the workers; refusals are named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from proxy_world import CONTEXT, MODEL, PUBLISHED, VOCAB, make_targets
from safetensors.torch import save_file
from torch.nn import functional as F

from quadmix.engine.tasks import Place
from quadmix.errors import InputError, ProxyError
from quadmix.io.atomic import read_table, read_value, write_json
from quadmix.proxy.checkpoint import read_weights, write_weights
from quadmix.proxy.losses import measure, ratio, row_scores
from quadmix.proxy.model import Weights, hidden_states, initial_weights
from quadmix.proxy.rescore import weights_path
from quadmix.proxy.scoring import (
    Refused,
    ScoringSetting,
    refused_path,
    rows_key,
    rows_path,
    score_models,
    scored,
    sound_weights,
)
from quadmix.proxy.targets import IGNORE, TargetManifest, TargetSet, open_targets
from quadmix.recipe import ModelSection

SERIAL = Place("serial")
SETTING = ScoringSetting(model=MODEL, vocab_size=VOCAB)
COLUMNS = ["task", "kind", "row", "nll", "bytes", "tokens", "greedy"]


def some_weights(model: ModelSection, seeds: list[int]) -> Weights:
    """Models that are far from uniform: large embeddings, and layers that do something."""
    with torch.no_grad():
        weights = initial_weights(model, VOCAB, seeds, torch.device("cpu"))
        generator = torch.Generator().manual_seed(1)
        for tensor in weights.named().values():
            tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
    return weights


def saved(folder: Path, names: list[str], model: ModelSection = MODEL) -> Path:
    weights = some_weights(model, list(range(len(names))))
    for k, name in enumerate(names):
        one = {key: tensor[k] for key, tensor in weights.named().items()}
        write_weights(str(weights_path(folder, name)), one)
    return folder


def world(folder: Path, names: list[str]) -> tuple[Path, list[str]]:
    sets = [str(make_targets(folder / kind, kind=kind)) for kind in ("target", "heldout", "benchmark")]
    return saved(folder / "weights", names), sets


def by_hand(weights: dict[str, torch.Tensor], target: TargetSet, model: ModelSection) -> pa.Table:
    """One window after another through the whole softmax."""
    one = Weights(**{name: tensor[None] for name, tensor in weights.items()})
    rows = len(target.bytes)
    nll, greedy, tokens = np.zeros(rows), np.ones(rows, dtype=bool), np.zeros(rows, dtype=int)
    for inputs, labels, row in zip(target.inputs, target.labels, target.row, strict=True):
        ids = torch.from_numpy(inputs.astype(np.int64))[None, None]
        logits = (hidden_states(one, ids, model, torch.float32) @ one.table.mT)[0]
        for place in np.flatnonzero(labels != IGNORE):
            label = int(labels[place])
            nll[row] -= float(F.log_softmax(logits[place], dim=-1)[label])
            greedy[row] &= int(logits[place].argmax()) == label
            tokens[row] += 1
    return pa.table({"nll": nll, "greedy": greedy, "tokens": tokens})


@pytest.mark.parametrize("model", [MODEL, PUBLISHED], ids=["quadmix", "tinyllama-untied"])
def test_every_row_is_the_sum_of_its_tokens(tmp_path: Path, model: ModelSection) -> None:
    names = ["a", "b"]
    weights = saved(tmp_path / "weights", names, model)
    folder = str(make_targets(tmp_path / "sets", windows=8))
    setting = replace(SETTING, model=model)
    assert score_models(names, weights, setting, [folder], tmp_path / "rows", place=SERIAL) == {}
    for name in names:
        table = read_table(rows_path(tmp_path / "rows", name))
        assert table.column_names == COLUMNS
        assert [str(table.schema.field(c).type) for c in COLUMNS[2:]] == [
            "int32", "float", "int32", "int32", "bool",
        ]  # fmt: skip
        assert pa.types.is_dictionary(table.schema.field("task").type)
        for target in open_targets(folder):
            mine = table.filter(pa.compute.equal(table["task"], target.name))
            hand = by_hand(read_weights(weights_path(weights, name)), target, model)
            np.testing.assert_allclose(mine["nll"].to_numpy(), hand["nll"].to_numpy(), rtol=1e-5)
            assert mine["greedy"].to_pylist() == hand["greedy"].to_pylist()
            assert mine["tokens"].to_pylist() == hand["tokens"].to_pylist()
            assert mine["bytes"].to_pylist() == target.bytes.tolist()
            assert mine["row"].to_pylist() == list(range(len(target.bytes)))


@torch.no_grad()
def test_greedy_says_whether_decoding_gives_the_row(tmp_path: Path) -> None:
    (target,) = open_targets(make_targets(tmp_path / "sets"))[:1]
    weights = some_weights(MODEL, [0, 1])
    labels = np.full((2, CONTEXT), IGNORE, dtype=np.int32)
    inputs = np.array(target.inputs[:2])
    hidden = hidden_states(
        weights, torch.from_numpy(inputs.astype(np.int64)).expand(2, 2, -1), MODEL, torch.float32
    )
    best = (hidden[0] @ weights.table[0].mT).view(2, CONTEXT, -1).argmax(dim=-1).numpy()
    labels[:, -3:] = best[:, -3:]
    labels[1, -2] = (labels[1, -2] + 1) % VOCAB  # one token of the second row is another one
    made = replace(target, inputs=inputs, labels=labels, row=np.arange(2), bytes=np.array([3, 3]))
    found = row_scores(weights, made, MODEL, torch.float32, greedy=True).greedy
    assert found is not None
    assert found.tolist() == [[True, False], [False, False]]  # the second model says other things


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measured_losses_are_the_ratios_of_the_rows(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = some_weights(MODEL, [0, 1, 2])
    for target in open_targets(make_targets(tmp_path)):
        asked = row_scores(weights, target, MODEL, dtype, greedy=True)
        plain = row_scores(weights, target, MODEL, dtype)
        assert plain.greedy is None
        assert (asked.nll == plain.nll).all()  # to the bit
        assert measure(weights, target, MODEL, dtype) == [
            ratio(row, target.bytes, target.tokens) for row in plain.nll
        ]


def test_workers_change_no_byte_and_files_come_in_groups(tmp_path: Path) -> None:
    names = [f"m{i}" for i in range(5)]
    weights, sets = world(tmp_path, names)
    heard: list[int] = []
    for folder, place in (("one", SERIAL), ("two", Place("processes", workers=2))):
        score_models(
            names, weights, SETTING, sets, tmp_path / folder, group=2, place=place, on_done=heard.append
        )
    assert sorted(heard) == [1, 1, 2, 2, 2, 2]
    for name in names:
        one, two = (rows_path(tmp_path / f, name).read_bytes() for f in ("one", "two"))
        assert one == two
    table = read_table(rows_path(tmp_path / "one", "m0"))
    assert table["kind"].to_pylist() == [k for k in ("target", "heldout", "benchmark") for _ in range(6)]


def test_what_is_there_is_kept_and_what_changed_is_scored_again(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    weights, sets = world(tmp_path, names)
    out = tmp_path / "rows"

    def written(setting: ScoringSetting = SETTING) -> list[int]:
        heard: list[int] = []
        score_models(names, weights, setting, sets, out, group=1, place=SERIAL, on_done=heard.append)
        assert heard == [1, 1, 1]
        return [rows_path(out, name).stat().st_mtime_ns for name in names]

    def changed(before: list[int], after: list[int]) -> list[bool]:
        return [x != y for x, y in zip(before, after, strict=True)]

    first = written()
    assert written() == first
    assert written(replace(SETTING, device="cpu")) == first
    weights_path(weights, "a").write_bytes(weights_path(weights, "c").read_bytes())
    rows_path(out, "c").write_bytes(b"PAR1 cut")
    second = written()
    assert changed(first, second) == [True, False, True]
    a, c = (read_table(rows_path(out, name)) for name in ("a", "c"))
    assert a["nll"].equals(c["nll"])  # the same weights by another name
    make_targets(Path(sets[1]), kind="heldout", windows=4)
    third = written()
    assert changed(second, third) == [True] * 3
    assert changed(third, written(replace(SETTING, precision="bfloat16"))) == [True] * 3


def test_models_that_cannot_be_scored_are_named_and_the_others_are_scored(tmp_path: Path) -> None:
    names = ["ok", "absent", "shape", "nan"]
    weights, sets = world(tmp_path, names)
    out = tmp_path / "rows"
    weights_path(weights, "absent").unlink()
    save_file({"embedding": torch.zeros(VOCAB + 1, 16)}, weights_path(weights, "shape"))
    broken = {n: torch.full_like(t, torch.nan) for n, t in read_weights(weights_path(weights, "nan")).items()}
    write_weights(str(weights_path(weights, "nan")), broken)
    refused = score_models(names, weights, SETTING, sets, out, place=SERIAL)
    assert list(refused) == ["absent", "shape", "nan"]
    assert "absent.safetensors' are gone, and" in refused["absent"]
    assert "run the same command again: it is then trained anew" in refused["absent"]
    assert "embedding of shape (49, 16), the model of this run has (48, 16)" in refused["shape"]
    assert refused["nan"] == "its loss on target 'up' is not finite"
    assert [rows_path(out, n).exists() for n in names] == [True, False, False, False]
    assert [refused_path(out, n).exists() for n in names] == [False, True, True, True]
    stamp = rows_path(out, "ok").stat().st_mtime_ns
    assert score_models(names, weights, SETTING, sets, out, place=SERIAL) == refused
    assert rows_path(out, "ok").stat().st_mtime_ns == stamp  # nothing changed: the refusals are remembered
    saved(weights, names)
    assert score_models(names, weights, SETTING, sets, out, place=SERIAL) == {}
    assert all(rows_path(out, n).exists() and not refused_path(out, n).exists() for n in names)


def test_sets_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    weights, sets = world(tmp_path, ["a"])

    def refuses(error: type[Exception], message: str, sets: list[str], setting: ScoringSetting) -> None:
        with pytest.raises(error, match=message):
            score_models(["a"], weights, setting, sets, tmp_path / "rows", place=SERIAL)

    again = str(make_targets(tmp_path / "again"))
    refuses(InputError, "target 'up' is in .*target.* and again in .*again", [sets[0], again], SETTING)
    short = replace(SETTING, model=MODEL.model_copy(update={"context": 8}))
    refuses(ProxyError, "windows of 16 tokens, longer than the model's context of 8", sets, short)
    manifest = Path(sets[1]) / "manifest.json"
    write_json(manifest, replace(read_value(manifest, TargetManifest), tokenizer="other"))
    refuses(ProxyError, "was tokenised by other, .* by an unnamed one", sets, SETTING)


def test_rows_outlive_their_weights_and_other_sets_ask_for_another_training(tmp_path: Path) -> None:
    names, out = ["a", "b"], tmp_path / "rows"
    weights, sets = world(tmp_path, names)
    jobs = {"a": "job a", "b": "job b"}
    assert score_models(names, weights, SETTING, sets, out, jobs=jobs, place=SERIAL) == {}
    before = {n: rows_path(out, n).read_bytes() for n in names}
    weights_path(weights, "a").unlink()
    key = rows_key(sets, SETTING)
    assert scored(out, "a", key, "job a")
    assert not scored(out, "a", key, "job of today")  # trained from other copies: another model
    assert not scored(out, "c", key, "")
    heard: list[int] = []
    assert not score_models(names, weights, SETTING, sets, out, jobs=jobs, place=SERIAL, on_done=heard.append)
    assert heard == [1, 1]
    assert {n: rows_path(out, n).read_bytes() for n in names} == before

    newer = {**jobs, "a": "job of today"}
    assert list(score_models(names, weights, SETTING, sets, out, jobs=newer, place=SERIAL)) == ["a"]
    make_targets(Path(sets[1]), kind="heldout", windows=4)
    assert not scored(out, "a", rows_key(sets, SETTING), "job a")
    refused = score_models(names, weights, SETTING, sets, out, jobs=jobs, place=SERIAL)
    assert list(refused) == ["a"]
    assert rows_path(out, "a").read_bytes() == before["a"]  # never removed: nothing could bring them back
    assert read_value(refused_path(out, "a"), Refused).reason == refused["a"]
    make_targets(Path(sets[1]), kind="heldout")
    assert score_models(names, weights, SETTING, sets, out, jobs=jobs, place=SERIAL) == {}
    assert not refused_path(out, "a").exists()


def test_rows_of_the_same_weights_take_the_mark_of_a_new_job(tmp_path: Path) -> None:
    weights, sets = world(tmp_path, ["a"])
    out, key = tmp_path / "rows", rows_key(sets, SETTING)
    for given, expected in ((None, ""), ({"a": "new"}, "new"), (None, "new")):
        assert not score_models(["a"], weights, SETTING, sets, out, jobs=given, place=SERIAL)
        assert [scored(out, "a", key, job) for job in ("", "new")] == [expected == "", expected == "new"]


def test_matching_rows_win_over_a_refusal_that_a_kill_left(tmp_path: Path) -> None:
    weights, sets = world(tmp_path, ["a"])
    out = tmp_path / "rows"
    score_models(["a"], weights, SETTING, sets, out, place=SERIAL)
    write_json(refused_path(out, "a"), Refused(reason="old", key="old"))
    assert score_models(["a"], weights, SETTING, sets, out, place=SERIAL) == {}
    assert not refused_path(out, "a").exists()


def test_losses_that_are_not_finite_are_remembered_without_the_weights(tmp_path: Path) -> None:
    weights, sets = world(tmp_path, ["a"])
    file, out = weights_path(weights, "a"), tmp_path / "rows"
    write_weights(str(file), {n: torch.full_like(t, torch.nan) for n, t in read_weights(file).items()})
    refused = score_models(["a"], weights, SETTING, sets, out, jobs={"a": "j"}, place=SERIAL)
    file.unlink()
    assert scored(out, "a", rows_key(sets, SETTING), "j")  # else it would be trained again in every run
    assert score_models(["a"], weights, SETTING, sets, out, jobs={"a": "j"}, place=SERIAL) == refused


def test_unsound_weights_are_told_apart_without_reading_them(tmp_path: Path) -> None:
    file = weights_path(saved(tmp_path, ["a"]), "a")
    assert sound_weights(file, SETTING)
    assert not sound_weights(file, replace(SETTING, vocab_size=VOCAB + 1))
    whole = file.read_bytes()
    for cut in (whole[:-1], whole[:20], b"", b"not a tensor file"):
        file.write_bytes(cut)
        assert not sound_weights(file, SETTING)
    assert not sound_weights(tmp_path / "none.safetensors", SETTING)


def test_old_weights_without_facts_are_scored(tmp_path: Path) -> None:
    weights, sets = world(tmp_path, ["old", "new"])
    tensors = {name: t.bfloat16() for name, t in read_weights(weights_path(weights, "old")).items()}
    save_file(tensors, weights_path(weights, "old"))
    write_weights(str(weights_path(weights, "new")), tensors, {"model": "{}", "training": "{}"})
    assert score_models(["old", "new"], weights, SETTING, sets, tmp_path / "rows", place=SERIAL) == {}
    old, new = (read_table(rows_path(tmp_path / "rows", name)) for name in ("old", "new"))
    assert old.equals(new)


def test_a_group_that_does_not_fit_is_halved_and_rows_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"m{i}" for i in range(5)]
    weights, sets = world(tmp_path, names)
    assert score_models(names, weights, SETTING, sets, tmp_path / "whole", place=SERIAL) == {}
    tried: list[int] = []

    def small(stacked: Weights, *args: object, **named: object) -> object:
        tried.append(len(stacked.embedding))
        if len(stacked.embedding) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return row_scores(stacked, *args, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("quadmix.proxy.losses.row_scores", small)
    room = 1
    assert score_models(names, weights, SETTING, sets, tmp_path / "halved", place=SERIAL) == {}
    assert [n for n in tried if n > 1] == [5, 2, 3, 2]
    for name in names:
        one, other = (rows_path(tmp_path / f, name).read_bytes() for f in ("whole", "halved"))
        assert one == other
    room = 0
    with pytest.raises(
        ProxyError, match=r"memory does not suffice to score model 'm0' alone .*fewer run\.work"
    ):
        score_models(names, weights, SETTING, sets, tmp_path / "none", place=SERIAL)
