"""A watched run: the page follows its files, says what is at work, survives broken files, and ends."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from report.report_fixture import make_run

from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import write_json
from quadmix.io.lease import lease
from quadmix.report import watch as watching
from quadmix.report.html import Html
from quadmix.report.watch import Watched, banner, dress, run_state, stamp, state_words, watch

PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n</head><main id="main">\nbody {}\n</main>'
)
REFRESH = '<meta http-equiv="refresh" content="5">'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder at work: a lease that lives, one trial, progress."""
    write_json(tmp_path / "trials/prior-0000.json", {"n": 1})
    alive(tmp_path)
    write_json(
        tmp_path / "progress.json",
        {"stage": "swarm", "done": 12, "total": 40, "unit": "models", "eta_s": 200.4},
    )
    return tmp_path


def alive(folder: Path, age: float = 0.0) -> None:
    write_json(folder / "lease.json", {"heartbeat": time.time() - age, "pid": 1})


def finish(folder: Path) -> None:
    write_json(folder / "stages/report.json", {"stage": "report"})
    (folder / "lease.json").unlink()


@pytest.fixture
def renders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """Write a page that counts how often it was written; return what redact was each time."""
    calls: list[bool | None] = []

    def write(run_folder: Path, *, redact: bool | None, dress: Callable[[str], str]) -> Path:
        calls.append(redact)
        page = Path(run_folder) / "report.html"
        page.write_text(dress(PAGE.format(len(calls))))
        return page

    monkeypatch.setattr(watching, "write_report", write)
    monkeypatch.setattr(watching, "SHARE", 1.0)  # render at every change, however long the last one took
    return calls


def following(folder: Path, acts: list[Callable[[], object]]) -> tuple[Watched, list[str]]:
    """Return how to watch a folder in which one thing happens at each pause; then the run finishes."""
    said: list[str] = []
    todo: Iterator[Callable[[], object]] = iter([*acts, lambda: finish(folder)])
    return Watched(every=5.0, say=said.append, pause=lambda _: next(todo)()), said


def test_it_writes_again_only_when_a_file_of_the_page_changed(folder: Path, renders: list[bool | None]):
    seen: list[int] = []
    how, said = following(
        folder,
        [
            lambda: seen.append(len(renders)),
            lambda: seen.append(len(renders)) or write_json(folder / "trials/prior-0001.json", {"n": 2}),
            lambda: seen.append(len(renders)),
        ],
    )
    assert watch(folder, how) == folder / "report.html"
    assert seen == [1, 1, 2]
    assert len(renders) == 3  # once more at the end
    assert len(said) == 3
    assert said[0].endswith("at work: swarm, 12 of 40 models, about 3:20 left in all")
    assert said[-1].endswith("the run is finished")


def test_the_page_asks_to_be_loaded_again_until_the_run_is_finished(folder: Path, renders: list[bool | None]):
    pages: list[str] = []

    def look() -> None:
        pages.append((folder / "report.html").read_text(encoding="utf-8"))

    def progress() -> None:
        write_json(folder / "progress.json", {"stage": "swarm", "done": 13, "total": 40, "unit": "models"})

    how, _ = following(folder, [look, progress, look])
    watch(folder, how)
    assert all(p.count(REFRESH) == 1 for p in pages)
    assert "At work: swarm, 12 of 40 models, about 3:20 left in all." in pages[0]
    assert "At work: swarm, 13 of 40 models, time left not known." in pages[1]
    assert "body 1" in pages[1]  # the same rendering: progress alone draws no figures
    assert (folder / "report.html").read_text(encoding="utf-8") == PAGE.format(2)


def test_ctrl_c_leaves_a_page_that_does_not_ask_again(folder: Path, renders: list[bool | None]):
    def stop() -> None:
        assert REFRESH in (folder / "report.html").read_text(encoding="utf-8")
        raise KeyboardInterrupt

    how, _ = following(folder, [stop])
    with pytest.raises(KeyboardInterrupt):
        watch(folder, how)
    assert (folder / "report.html").read_text(encoding="utf-8") == PAGE.format(1)


def test_a_broken_file_is_said_once_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the real report: half of a JSON file, then the whole one."""
    run = make_run(tmp_path / "run", documents=200)
    monkeypatch.setattr(watching, "SHARE", 1.0)
    alive(run)
    confirm, pages = run / "search/confirm.json", list[str]()
    whole = confirm.read_bytes()

    def look() -> None:
        pages.append((run / "report.html").read_text(encoding="utf-8"))

    how, said = following(
        run,
        [
            look,
            lambda: confirm.write_bytes(whole[: len(whole) // 2]),
            look,
            look,
            lambda: confirm.write_bytes(whole),
            look,
        ],
    )
    watch(run, how)
    broken = [text for text in said if text.startswith("not written, trying again: ")]
    assert len(broken) == 1
    assert "confirm.json is not valid JSON" in broken[0]
    assert pages[1] == pages[0] == pages[3]
    last = (run / "report.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in pages[0]
    assert 'http-equiv="refresh"' not in last
    assert 'id="verdict"' in last


def test_a_file_with_other_content_than_expected_does_not_end_it(
    folder: Path, renders: list[bool | None], monkeypatch: pytest.MonkeyPatch
):
    good, fail = watching.write_report, [KeyError("copies"), OSError("gone"), None]

    def write(run_folder: Path, *, redact: bool | None, dress: Callable[[str], str]) -> Path:
        if fail and (error := fail.pop(0)):
            raise error
        return good(run_folder, redact=redact, dress=dress)

    monkeypatch.setattr(watching, "write_report", write)
    how, said = following(folder, [lambda: None, lambda: None])
    watch(folder, how)
    assert [text.startswith("not written") for text in said] == [True, True, False, False]


def test_a_missing_library_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def write(*_: object, **__: object) -> Path:
        raise MissingExtraError("matplotlib", "report", "the report's figures")

    monkeypatch.setattr(watching, "write_report", write)
    with pytest.raises(MissingExtraError, match=r"quadmix\[report\]"):
        watch(folder, following(folder, [])[0])


def test_rendering_takes_a_share_of_the_time_only(
    folder: Path, renders: list[bool | None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "SHARE", 1e-9)
    change = [lambda k=k: write_json(folder / f"trials/prior-{k:04d}.json", {}) for k in range(1, 5)]
    watch(folder, following(folder, change)[0])
    assert len(renders) == 2  # the first, and the one of the end, which waits for nothing


def test_what_follows_a_new_page_is_called_with_each(folder: Path, renders: list[bool | None]):
    called: list[int] = []
    how, _ = following(folder, [lambda: None])
    watch(
        folder, Watched(every=5, redact=True, say=how.say, pause=how.pause, changed=lambda: called.append(1))
    )
    assert len(called) == len(renders) == 2
    assert renders == [True, True]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        watch(tmp_path / "none", Watched())


# --------------------------------------------------------------------------- parts
def test_the_stamp_leaves_out_what_the_watch_and_the_sinks_write(folder: Path):
    before = stamp(folder)
    assert [Path(p).name for p in before] == ["prior-0000.json"]
    for name in ("report.html", "report.json", "progress.json", "lease.json", "figures/a.json"):
        write_json(folder / name, {"x": 1})
    for name in ("wandb/run/a.json", "tensorboard/x/a.json", "trials/.tmp-1-a.json", "pool/tokens.bin"):
        write_json(folder / name, {"x": 1})
    assert stamp(folder) == before
    write_json(folder / "search/proposal.json", {"x": 1})
    assert len(stamp(folder)) == 2


def test_a_run_is_at_work_while_its_lease_lives(folder: Path):
    assert run_state(folder) == "working"
    write_json(folder / "stages/report.json", {})  # of an earlier pass
    assert run_state(folder) == "working"
    alive(folder, age=120)
    assert run_state(folder) == "finished"
    (folder / "stages/report.json").unlink()
    assert run_state(folder) == "waiting"
    (folder / "lease.json").write_bytes(b"{half")
    assert run_state(folder) == "waiting"
    (folder / "lease.json").unlink()
    with lease(folder):  # what a real run writes
        assert run_state(folder) == "working"


def test_words_of_every_state(folder: Path):
    assert state_words(folder, "finished") == "the run is finished"
    assert state_words(folder, "waiting") == "no process works on this run at present"
    (folder / "progress.json").write_bytes(b"")
    assert state_words(folder, "working") == "the run has begun"
    write_json(folder / "progress.json", {"stage": "<b>", "done": 1, "total": 0, "eta_s": 7300})
    assert state_words(folder, "working") == "at work: <b>, about 2:01:40 left in all"
    assert "<b>" not in banner(folder, "working", 5)
    assert "At work: &lt;b&gt;" in banner(folder, "working", 5)


def test_a_page_of_something_else_is_not_dressed():
    with pytest.raises(InputError, match="does not begin as a page of quadmix does"):
        dress("<html></html>", Html("x"), 5)
    assert dress(PAGE, Html("<p>x</p>"), 0.1).count('content="2"') == 1
