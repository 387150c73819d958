"""Finding a model's files: what is hashed, what is refused, and that nothing is fetched when offline."""

import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from quadmix.annotate.models.fetch import KNOWN_BASES, place
from quadmix.annotate.models.heads import BASES
from quadmix.errors import InputError, StoreError
from quadmix.io.hashing import sha256_file
from quadmix.recipe.cards import ModelCard, card_folder, card_names, load_card, save_card

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def card(**changes: Any) -> ModelCard:
    data: dict[str, Any] = {
        "name": "mine", "family": "fasttext", "role": "quality", "model": "model.bin", "licence": "none",
        "source": "here", "description": "a test", "files": {"model.bin": None},
        "output": {"kind": "classes", "labels": ["a", "b"], "positive": "a"},
    }  # fmt: skip
    return ModelCard.model_validate(data | changes)


def encoder(**changes: Any) -> ModelCard:
    data = {"family": "sequence", "model": "owner/name", "files": {}, "output": {"kind": "number"}}
    return card(**(data | changes))


def folder_with(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def test_a_file_may_have_any_name_and_its_sha256_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    (tmp_path / "renamed.bin").write_bytes(b"weights")
    by_folder, by_file = place(card(), path=tmp_path), place(card(), path=tmp_path / "renamed.bin")
    assert by_folder.card.files == {"model.bin": sha(b"weights")}
    assert by_file.card.files == {"renamed.bin": sha(b"weights")}
    assert by_folder.digest == by_file.digest
    assert by_file.folder == tmp_path


def test_a_wrong_digest_names_the_file_and_both_digests(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    good = card(files={"model.bin": sha(b"weights").upper()})
    assert place(good, path=tmp_path).card.files == {"model.bin": sha(b"weights")}
    with pytest.raises(InputError) as caught:
        place(card(files={"model.bin": sha(b"others")}), path=tmp_path)
    for part in ("model.bin", sha(b"weights"), sha(b"others"), "fetch it again"):
        assert part in str(caught.value)


def test_the_digest_follows_what_the_scores_depend_on_and_nothing_else(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w", notes__md="x")
    plain = place(encoder(), path=folder).digest
    assert place(encoder(description="other words", licence="MIT", notes="n"), path=folder).digest == plain
    assert place(encoder(input={"window": 512}), path=folder).digest != plain
    (folder / "notes.md").write_text("changed", encoding="utf-8")
    (folder / "optimizer.pt").write_text("never read", encoding="utf-8")
    assert place(encoder(), path=folder).digest == plain
    (folder / "config.json").write_text('{"a": 1}', encoding="utf-8")
    assert place(encoder(), path=folder).digest != plain


@pytest.mark.parametrize("other", ["model.safetensors", "extra.safetensors"])
def test_weights_of_both_kinds_count_whichever_is_read(tmp_path: Path, other: str) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", pytorch_model__bin="w")
    first = place(encoder(), path=folder).digest
    (folder / "pytorch_model.bin").write_text("v", encoding="utf-8")
    assert place(encoder(), path=folder).digest != first
    (folder / other).write_text("w", encoding="utf-8")
    second = place(encoder(), path=folder).digest
    (folder / "pytorch_model.bin").write_text("perhaps read", encoding="utf-8")
    assert place(encoder(), path=folder).digest != second


def test_an_adapter_that_takes_weights_from_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w", adapter_config__json="{}")
    with pytest.raises(InputError, match="merge the adapter"):
        place(encoder(), path=folder)


def test_what_was_found_pins_every_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w")
    files = place(encoder(), path=folder).card.files
    assert files == {n: sha256_file(folder / n) for n in ("config.json", "model.safetensors")}


def test_a_hub_head_on_a_known_encoder_needs_no_hub(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w")
    assert place(load_card("nvidia-quality"), path=folder, offline=True).base is None
    assert set(KNOWN_BASES) == set(BASES)


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path: Path) -> None:
    import os

    file = tmp_path / "f"
    file.write_bytes(b"one")
    before = file.stat()
    assert sha256_file(file) == sha(b"one")
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_file(file) == sha(b"one")  # same size and time: not read again
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert sha256_file(file) == sha(b"two")


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({}, "nowhere", "nowhere does not exist"),
        ({}, "empty", r"empty/model.bin does not exist; expected model.bin"),
        ({"files": {}}, "empty", "there is no file of a model"),
        ({"family": "sequence", "output": {"kind": "number"}}, "file", "is a file, expected the folder"),
        ({}, "s3://user:key@bucket/model", r"expected a file or folder on this machine"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, changes: dict[str, Any], path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"w")
    with pytest.raises(InputError, match=message) as caught:
        place(card(**changes), path=path if "://" in path else tmp_path / path)
    assert "key" not in str(caught.value)


def test_the_users_own_card_finds_what_lies_beside_it(tmp_path: Path) -> None:
    own = tmp_path / "rater" / "card.yaml"
    save_card(own, card())
    (own.parent / "model.bin").write_bytes(b"weights")
    found = place(load_card(str(own)), beside=card_folder(str(own)))
    assert found.folder == own.parent
    assert card_folder("dclm-fasttext") is None
    (own.parent / "model.bin").unlink()
    with pytest.raises(InputError, match=r"model\.bin does not exist, and it is no id on the hub"):
        place(load_card(str(own)), beside=card_folder(str(own)))


# Code of a repository


def remote(**changes: Any) -> ModelCard:
    return encoder(remote_code=True, revision=COMMIT, **changes)


@pytest.mark.parametrize("accepted", [None, "yes", "main", OTHER, COMMIT[:12]])
def test_code_needs_the_very_commit(tmp_path: Path, accepted: str | None) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w", modeling__py="1")
    with pytest.raises(InputError, match=f"accept_remote_code.*{COMMIT}"):
        place(remote(), path=folder, accept_remote_code=accepted)


def test_code_in_a_local_folder_must_be_pinned_file_by_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w", modeling__py="1")
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.py").write_text("1", encoding="utf-8")
    with pytest.raises(InputError, match=r"carries no commit.*modeling\.py: [0-9a-f]{64}; sub/deep\.py: "):
        place(remote(), path=folder, accept_remote_code=COMMIT)
    names = ("modeling.py", "sub/deep.py")
    pinned = remote().model_copy(update={"files": {name: sha256_file(folder / name) for name in names}})
    found = place(pinned, path=folder, accept_remote_code=COMMIT)
    assert found.card.revision == COMMIT
    (folder / "sub" / "deep.py").write_text("2", encoding="utf-8")
    with pytest.raises(InputError, match=r"deep\.py has the sha256"):
        place(pinned, path=folder, accept_remote_code=COMMIT)
    with pytest.raises(InputError, match="accept_remote_code is None"):
        place(pinned, path=folder)


def test_without_a_pin_the_users_commit_is_the_pin_and_a_branch_never_is(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w")
    open_card = encoder(remote_code=True)
    assert place(open_card, path=folder, accept_remote_code=OTHER).card.revision == OTHER
    with pytest.raises(InputError, match="expected a commit of 40 hex digits"):
        place(encoder(remote_code=True, revision="main"), path=folder, accept_remote_code="main")
    with pytest.raises(InputError, match="the commit you have read"):
        place(open_card, path=folder)


def test_code_of_yet_another_repository_is_refused(tmp_path: Path) -> None:
    config = json.dumps({"auto_map": {"AutoModel": "other/code--modeling.NewModel"}})
    folder = folder_with(tmp_path / "m", config__json=config, model__safetensors="w")
    with pytest.raises(InputError, match=r"other/code--modeling\.NewModel"):
        place(remote(), path=folder, accept_remote_code=COMMIT)


# What a head stands on


def test_a_head_finds_its_base_beside_it_and_depends_on_it(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "head", head__safetensors="h")
    below = folder_with(tmp_path / "below", config__json="{}", model__safetensors="w")
    head = card(
        family="frozen-head", model="here", files={}, head="head.safetensors", base="../below",
        output={"kind": "number"}, input={"pooling": "mean"},
    )  # fmt: skip
    found = place(head, path=folder)
    assert found.base is not None
    assert (found.base.folder.resolve(), found.base.card.input.pooling) == (below, "mean")
    (below / "model.safetensors").write_text("v", encoding="utf-8")
    changed = place(head, path=folder)
    assert changed.digest != found.digest
    moved = below.rename(folder / "base")
    again = place(head.model_copy(update={"base": "owner/name"}), path=folder, offline=True)
    assert again.base is not None
    assert (again.base.folder, again.digest) == (moved, changed.digest)


def test_below_a_hub_head_only_the_config_is_read(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w")
    folder_with(folder / "base", config__json='{"model_type": "deberta-v2"}')
    head = card(family="hub-head", model="o/n", files={}, base="owner/base")
    found = place(head, path=folder)
    assert found.base is not None
    assert found.base.folder == folder / "base"


# The hub


def test_offline_a_model_of_the_hub_is_refused_unless_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StoreError, match="name a local folder with `path`"):
        place(encoder(revision=COMMIT), offline=True)
    monkeypatch.setenv("QUADMIX_OFFLINE", "1")
    with pytest.raises(StoreError, match="switched off"):
        place(load_card("fineweb-edu"))


def test_the_hub_is_asked_for_the_pinned_commit_and_the_files_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path / COMMIT, model__bin="w", config__json="{}", model__safetensors="w")
    asked: list[dict[str, Any]] = []

    def fake(repo: str, **given: Any) -> str:
        asked.append({"repo": repo, **given})
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    found = place(card(model="owner/name"))
    assert asked == [{"repo": "owner/name", "revision": None, "allow_patterns": ["model.bin"]}]
    assert (found.card.revision, found.folder) == (COMMIT, folder)  # what `main` was is recorded
    place(remote(), accept_remote_code=COMMIT)
    assert asked[1]["revision"] == COMMIT
    assert {"*.safetensors", "*.json", "*.py"} <= set(asked[1]["allow_patterns"])
    place(encoder())
    assert "*.py" not in asked[2]["allow_patterns"]


def test_what_the_hub_says_is_told_without_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_averysecretvalue")

    def fail(repo: str, **given: Any) -> str:
        raise OSError("401 for hf_averysecretvalue")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(StoreError, match=r"downloading 'hf://owner/name' failed: 401 for \*\*\*"):
        place(encoder())


# The cards of the package


def test_the_cards_of_the_package_are_whole() -> None:
    cards = {name: load_card(name) for name in card_names()}
    assert len(cards) == 26
    assert all(card.name == name for name, card in cards.items())
    assert all(card.notes and card.source for card in cards.values())
    for found in cards.values():
        assert found.revision is None or len(found.revision) == 40
        assert found.base is None or found.base in cards or "/" in found.base
    assert (cards["dclm-fasttext"].output.positive, cards["dclm-fasttext"].output.negative) == (
        "__label__hq",
        "__label__cc",
    )
    assert cards["qurater"].input.aggregate == "length-mean"
    assert (cards["qurater"].input.window, len(cards["qurater"].output.labels)) == (512, 4)
    assert len(cards["nvidia-domain"].output.labels) == 26
    assert cards["nvidia-domain"].output.labels == cards["nvidia-multilingual-domain"].output.labels
    for name in ("topic", "format", "topic-nourl", "format-nourl"):
        organizer = cards[f"weborganizer-{name}"]
        assert (len(organizer.output.labels), organizer.remote_code) == (24, True)
        assert ("{url}" in organizer.input.template) == ("nourl" not in name)


# What a careless or hostile folder holds


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "other/code--modeling.X"}}}),
        ("processor.json", {"auto_map": {"AutoModel": "other/code--modeling.X"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "other/code--tok.X"]}}),
    ],
)
def test_foreign_code_is_found_in_any_file_and_at_any_depth(
    tmp_path: Path, name: str, given: dict[str, Any]
) -> None:
    folder = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w")
    (folder / name).write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(InputError, match="code of another repository"):
        place(remote(), path=folder, accept_remote_code=COMMIT)


def test_a_bare_name_is_looked_for_beside_the_card_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'nope', which is neither a file or folder beside the card"):
        place(card(model="nope"), beside=tmp_path, offline=True)


def test_a_folder_like_code_and_a_number_that_is_none_do_no_harm(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", config__json='{"x": NaN}', model__safetensors="w")
    (folder / "x.py").mkdir()
    assert place(remote(), path=folder, accept_remote_code=COMMIT).digest


def test_a_base_whose_card_pins_more_than_is_read_and_one_that_no_card_names(tmp_path: Path) -> None:
    head = folder_with(tmp_path / "m", config__json="{}", model__safetensors="w")
    below = folder_with(tmp_path / "b", config__json="{}", model__safetensors="w")
    vector = encoder(family="embedding", role="embedding", model="../b", output={"kind": "vector"})
    save_card(head / "base.yaml", place(vector, path=below).card)
    base = place(card(family="hub-head", model="o/n", files={}, base="base.yaml"), path=head).base
    assert base is not None
    assert list(base.card.files) == ["config.json"]
    (head / "base").mkdir()
    (head / "base" / "config.json").write_text("{}", encoding="utf-8")
    plain = card(family="hub-head", model="o/n", files={})
    first = place(plain, path=head).digest
    (head / "base" / "config.json").write_text('{"a": 1}', encoding="utf-8")
    assert place(plain, path=head).digest != first
