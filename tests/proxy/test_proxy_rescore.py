"""Saved proxies are scored again on the same and on other targets; weights that do not fit are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from proxy_world import MODEL, PUBLISHED, VOCAB, make_job, make_setting, some_copies
from safetensors.torch import save_file

from quadmix.engine.tasks import Place
from quadmix.errors import ProxyError
from quadmix.io.atomic import map_array, read_value, write_array, write_json
from quadmix.proxy.rescore import TOLERANCE, rescore, weights_path
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.swarm import run_swarm
from quadmix.proxy.targets import TargetManifest, target_digests
from quadmix.recipe import ModelSection
from quadmix.types import Trial

SERIAL = Place("serial")


def trained(folder: Path, model: ModelSection = MODEL, models: int = 3) -> tuple[ProxySetting, list[Trial]]:
    setting = make_setting(folder, model)
    jobs = [make_job(f"m{i}", some_copies(i), seed=i) for i in range(models)]
    return setting, run_swarm(
        jobs, setting, folder=folder / "trials", group=2, place=SERIAL, save_weights=True
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ProxySetting, list[Trial]]:
    folder = tmp_path_factory.mktemp("rescore")
    return folder, *trained(folder)


def with_more_targets(setting: ProxySetting, folder: Path) -> ProxySetting:
    """Copy the targets and add a third one, `later`, with the windows of `up` the other way round."""
    old = Path(setting.targets)
    for index, source in enumerate((0, 1, 0)):
        for key in ("inputs", "labels", "row", "bytes"):
            array = np.asarray(map_array(old / f"{source:05d}.{key}.npy"))
            write_array(folder / f"{index:05d}.{key}.npy", array[::-1] if index == 2 else array)
    manifest = read_value(old / "manifest.json", TargetManifest)
    write_json(folder / "manifest.json", replace(manifest, names=(*manifest.names, "later")))
    return replace(setting, targets=str(folder))


@pytest.mark.parametrize("model", [MODEL, PUBLISHED], ids=["quadmix", "tinyllama-untied"])
def test_the_same_targets_give_the_stored_losses_but_for_bfloat16(
    tmp_path: Path, model: ModelSection
) -> None:
    setting, trials = trained(tmp_path, model)
    bare = [replace(t, losses={}) for t in trials]
    again = rescore(bare, tmp_path / "trials" / "weights", setting, place=SERIAL)
    for old, new in zip(trials, again, strict=True):
        assert new.losses.keys() == old.losses.keys()
        for name, loss in old.losses.items():
            got = new.losses[name]
            assert got.bits_per_byte == pytest.approx(loss.bits_per_byte, rel=TOLERANCE)
            assert (got.rows, got.tokens, got.bytes) == (loss.rows, loss.tokens, loss.bytes)
            assert got.bits_per_byte != loss.bits_per_byte  # else the tolerance would claim nothing


def test_only_the_wanted_target_is_measured_and_the_other_losses_stay(
    world: tuple[Path, ProxySetting, list[Trial]], tmp_path: Path
) -> None:
    folder, setting, trials = world
    more = with_more_targets(setting, tmp_path)
    again = rescore(trials, folder / "trials" / "weights", more, targets=["later"], place=SERIAL)
    for old, new in zip(trials, again, strict=True):
        assert new.losses == {**old.losses, "later": new.losses["later"]}
        # the same windows in another order: the loss is that of `up`
        assert new.losses["later"].bits_per_byte == pytest.approx(
            old.losses["up"].bits_per_byte, rel=TOLERANCE
        )


def test_the_group_changes_no_loss(world: tuple[Path, ProxySetting, list[Trial]]) -> None:
    folder, setting, trials = world
    heard: list[int] = []
    one, three = (
        rescore(
            trials, folder / "trials" / "weights", setting, group=g, place=SERIAL, on_done=heard.append
        )
        for g in (1, 3)
    )  # fmt: skip
    for a, b in zip(one, three, strict=True):
        for name in a.losses:
            assert a.losses[name].bits_per_byte == pytest.approx(b.losses[name].bits_per_byte, rel=1e-6)
    assert heard == [1, 1, 1, 3]


def test_weights_that_do_not_fit_are_refused_by_name_and_the_others_are_scored(tmp_path: Path) -> None:
    setting, trials = trained(tmp_path)
    weights = tmp_path / "trials" / "weights"
    save_file({"embedding": torch.zeros(VOCAB + 1, 16)}, weights_path(weights, "m0"))
    weights_path(weights, "m1").unlink()
    again = rescore(trials, weights, setting, place=SERIAL)
    assert [t.status for t in again] == ["failed", "failed", "done"]
    assert "m0.safetensors" in again[0].reason
    assert "embedding of shape (49, 16), the model of this run has (48, 16)" in again[0].reason
    assert "m1.safetensors' cannot be read" in again[1].reason
    weights_path(weights, "m1").write_bytes(b"not a tensor file")
    assert "cannot be read" in rescore(trials, weights, setting, place=SERIAL)[1].reason


def test_another_model_is_refused(world: tuple[Path, ProxySetting, list[Trial]]) -> None:
    folder, setting, trials = world
    other = replace(setting, model=MODEL.model_copy(update={"mlp": 64}))
    reasons = [t.reason for t in rescore(trials, folder / "trials" / "weights", other, place=SERIAL)]
    assert all("wide of shape (6, 16, 32), the model of this run has (6, 16, 64)" in r for r in reasons)


def test_a_loss_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    setting, trials = trained(tmp_path, models=1)
    weights = tmp_path / "trials" / "weights"
    shapes = {"embedding": (VOCAB, 16), "square": (8, 16, 16), "wide": (6, 16, 32)}
    save_file({n: torch.full(s, torch.nan) for n, s in shapes.items()}, weights_path(weights, "m0"))
    (trial,) = rescore(trials, weights, setting, place=SERIAL)
    assert trial.status == "failed"
    assert "loss on 'up' is nan" in trial.reason


def test_an_unknown_target_is_an_error(world: tuple[Path, ProxySetting, list[Trial]]) -> None:
    folder, setting, trials = world
    with pytest.raises(ProxyError, match=r"target 'upp' is not in .* expected some of up, down"):
        rescore(trials, folder / "trials" / "weights", setting, targets=["upp"], place=SERIAL)


def test_target_digests_follow_the_windows_not_the_place(
    world: tuple[Path, ProxySetting, list[Trial]], tmp_path: Path
) -> None:
    _, setting, _ = world
    more = with_more_targets(setting, tmp_path)
    old, new = target_digests(setting.targets), target_digests(more.targets)
    assert {n: new[n] for n in old} == old
    assert len(set(new.values())) == 3
