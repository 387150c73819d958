"""Numbers of a run and where they are sent: read back from what TensorBoard, W&B and MLflow were given."""

import math
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from report.report_fixture import make_run

from quadmix.errors import MissingExtraError, RecipeError, StoreError
from quadmix.io.atomic import read_json, write_json
from quadmix.pipeline import scalars, sinks
from quadmix.pipeline.scalars import Scalar, part, read_scalars
from quadmix.pipeline.sinks import Feed, Target, feeding, parse_sinks

SECRET = "k3y-0123456789abcdef"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "mine", documents=200)


def series(found: Sequence[Scalar], tag: str) -> dict[int, float]:
    return {s.step: s.value for s in found if s.tag == tag}


# --------------------------------------------------------------------------- what is sent
def test_the_losses_of_the_trials_and_the_best_so_far(run: Path):
    found = read_scalars(run)
    files = [read_json(p) for p in sorted(run.glob("trials/prior-*.json"))]
    done = {
        int(t["trial_id"][6:]): t["losses"]["wiki"]["bits_per_byte"] for t in files if t["status"] == "done"
    }
    assert series(found, "trials/prior/wiki") == done
    assert series(found, "trials/failed") == {48: 2.0}
    best = series(found, "best/wiki")
    assert list(best) == list(range(40))  # the files of 40 to 45 are repeats, 46 and 47 failed
    for number, value in best.items():
        assert value == min(done[k] for k in range(number + 1))


def test_the_best_so_far_waits_for_trials_that_are_still_missing(run: Path):
    (run / "trials/prior-0007.json").unlink()
    assert list(series(read_scalars(run), "best/wiki")) == list(range(7))


def test_curves_of_the_first_trials_of_every_group(run: Path):
    found = read_scalars(run)
    curve = read_json(run / "trials/prior-0003.json")["curve"]
    assert series(found, "curves/prior/3") == {step: value for step, value in curve}
    numbers = {s.tag.rsplit("/", 1)[1] for s in found if s.tag.startswith("curves/prior/")}
    assert numbers == {str(k) for k in range(scalars.CURVES)}


def test_search_confirmation_comparison_and_stages(run: Path):
    found = read_scalars(run)
    values = {s.tag: s.value for s in found if not s.axis}
    reports = read_json(run / "search/proposal.json")["diagnostics"]
    wiki = next(r for r in reports if r["target"] == "wiki" and r["surrogate"] == "gp")
    assert values["search/spearman/wiki"] == wiki["spearman"]
    assert series(found, "search/best_objective") == {22: 1.91, 34: 1.91, 46: 1.9077}
    assert series(found, "search/learning_rmse") == {9: 0.0271, 18: 0.0214, 32: 0.0183}
    assert values["confirm/confirmed"] == 1.0
    assert values["confirm/gain_over/prior-mean"] == pytest.approx(0.012)
    assert values["comparison/base/gain_over/top.edu"] == pytest.approx(0.004)
    assert values["comparison/base/gain_low_over/top.edu"] == pytest.approx(-0.002)
    measured = read_json(run / "evaluate/comparison.json")["measured"]
    assert values["comparison/base/quadmix/objective"] == measured[0]["mean"]
    assert values["stages/annotate/seconds"] == 8.5
    assert values["dataset/tokens_out"] == read_json(run / "dataset/manifest.json")["ledger"]["tokens_out"]
    assert all(math.isfinite(s.value) for s in found)
    assert len({(s.tag, s.step) for s in found}) == len(found)


def test_a_folder_of_a_run_that_has_just_begun_has_no_numbers(tmp_path: Path):
    assert read_scalars(tmp_path) == []


def test_names_become_parts_of_tags_and_stay_different():
    assert part("arc-easy") == "arc-easy"
    assert part("top:edu") == "top.edu"
    odd = ["a/b", "a_b", "a\\b", "日本", "日木", "", " a", "x" * 300, "x" * 301, "../a", "$a"]
    parts = [part(name) for name in odd]
    assert len(set(parts)) == len(odd)
    for text in parts:
        assert 0 < len(text) <= 100
        assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789_.- ")
        assert not text.startswith((".", " "))


# --------------------------------------------------------------------------- where to
def test_words_that_name_a_sink(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda _: True)
    words = ["tensorboard", "tensorboard:/logs", "wandb:team/project", "mlflow:sqlite:///a.db"]
    found = [(t.kind, t.place) for t in parse_sinks(words)]
    assert found == [
        ("tensorboard", ""), ("tensorboard", "/logs"), ("wandb", "team/project"), ("mlflow", "sqlite:///a.db"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("tensorbord:x", "is unknown; expected tensorboard:FOLDER"),
        ("tensorboard:s3://b/x", "is no local folder"),
        ("wandb:a/b/c", "expected wandb:PROJECT"),
        ("mlflow", "needs a place"),
        ("mlflow:./runs", "no longer writes to plain folders"),
        (f"mlflow:https://me:{SECRET}@host", "holds a user name, key or token"),
        (f"mlflow:https://host/?token={SECRET}", "holds a user name, key or token"),
    ],
)
def test_a_wrong_word_is_refused_without_showing_a_key(
    word: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RecipeError, match=message) as caught:
        parse_sinks([word])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_names_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=rf"quadmix\[{kind}\]"):
        parse_sinks([f"{kind}:https://host" if kind == "mlflow" else kind])


def test_offline_refuses_what_uses_the_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda _: True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for word in ("wandb:p", "mlflow:http://host:5000", "mlflow:databricks"):
        assert parse_sinks([word])
        with pytest.raises(StoreError, match="would use the network, which is switched off"):
            parse_sinks([word], offline=True)
    monkeypatch.setenv("QUADMIX_OFFLINE", "1")
    with pytest.raises(StoreError, match="switched off"):
        parse_sinks(["wandb:p"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert parse_sinks(["wandb:p", "mlflow:sqlite:///a.db", "tensorboard:x"], offline=True)


# --------------------------------------------------------------------------- the feed
class Recorder:
    """A sink that keeps what it is given; fails as often as `failures` says."""

    given: list[Scalar]
    failures = 0
    closed = 0

    def __init__(self, place: str, folder: Path) -> None:
        self.given = []
        Recorder.latest = self

    latest: "Recorder"

    def write(self, scalars: Sequence[Scalar]) -> None:
        if Recorder.failures:
            Recorder.failures -= 1
            raise ConnectionError(f"no route to https://me:{SECRET}@host")
        self.given += scalars

    def close(self) -> None:
        Recorder.closed += 1


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr(sinks, "WeightsAndBiases", Recorder)
    Recorder.failures = Recorder.closed = 0
    return Recorder


def test_a_feed_sends_only_what_is_new_or_has_changed(run: Path, recorder: type[Recorder]):
    with feeding(run, [Target(kind="wandb", place="p")]) as feed:
        assert feed.send() == len(read_scalars(run)) == len(recorder.latest.given)
        assert feed.send() == 0
        write_json(run / "stages/report.json", {"stage": "report", "seconds": 3.5})
        data = read_json(run / "stages/swarm.json")
        write_json(run / "stages/swarm.json", data | {"seconds": 70.5})
        recorder.latest.given.clear()
        assert feed.send() == 2
        assert {(s.tag, s.value) for s in recorder.latest.given} == {
            ("stages/report/seconds", 3.5), ("stages/swarm/seconds", 70.5),
        }  # fmt: skip
    assert recorder.closed == 1


def test_one_sink_that_fails_does_not_keep_the_others_and_is_tried_again(
    run: Path, recorder: type[Recorder], tmp_path: Path
):
    pytest.importorskip("tensorboardX")
    targets = [Target(kind="wandb", place="p"), Target(kind="tensorboard", place=str(tmp_path / "tb"))]
    recorder.failures = 1
    feed = Feed(run, targets)
    with pytest.raises(StoreError, match="sending to wandb:p failed: no route to") as caught:
        feed.send()
    assert SECRET not in str(caught.value)
    assert event_files(tmp_path / "tb")
    assert feed.send() == len(read_scalars(run)) == len(recorder.latest.given)
    feed.close()


# --------------------------------------------------------------------------- TensorBoard
def event_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("events.out.tfevents.*"))


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file, their checksums checked."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        assert struct.unpack_from("<I", data, place + 8)[0] == masked(data[place : place + 8])
        body = data[place + 12 : place + 12 + size]
        assert struct.unpack_from("<I", data, place + 12 + size)[0] == masked(body)
        yield body
        place += 16 + size


def varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if not byte & 128:
            return value, place


def fields(data: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """Yield (field number, value) of a protocol buffer message."""
    place = 0
    while place < len(data):
        key, place = varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = varint(data, place)
            yield number, value
        elif kind == 2:
            size, place = varint(data, place)
            yield number, data[place : place + size]
            place += size
        else:
            width, code = (8, "<d") if kind == 1 else (4, "<f")
            yield number, struct.unpack_from(code, data, place)[0]
            place += width


def read_events(path: Path) -> dict[tuple[str, int], float]:
    """Return (tag, step) -> value of an event file; written after the format, without TensorBoard's code."""
    found: dict[tuple[str, int], float] = {}
    for record in records(path):
        event = dict(fields(record))
        summary = event.get(5)
        for number, value in fields(summary) if isinstance(summary, bytes) else ():
            assert number == 1
            inner = dict(fields(value))  # type: ignore[arg-type]
            found[inner[1].decode(), int(event.get(2, 0))] = inner[2]  # type: ignore[union-attr, arg-type, assignment]
    return found


def test_crc32c_is_that_of_rfc_3720():
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


def test_tensorboard_files_hold_every_number(run: Path, tmp_path: Path):
    pytest.importorskip("tensorboardX")
    with feeding(run, parse_sinks([f"tensorboard:{tmp_path / 'tb'}"], offline=True)) as feed:
        feed.send()
    (file,) = event_files(tmp_path / "tb")
    assert file.parent.name == "mine"
    found = read_events(file)
    wanted = {(s.tag, s.step): s.value for s in read_scalars(run)}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, rel=1e-6)


def test_sent_again_tensorboard_shows_a_run_once(run: Path, tmp_path: Path):
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):
        with feeding(run, [Target(kind="tensorboard", place=str(tmp_path / "tb"))]) as feed:
            feed.send()
    found = reader.EventAccumulator(str(tmp_path / "tb" / "mine"), size_guidance={"scalars": 0})
    found.Reload()
    best = series(read_scalars(run), "best/wiki")
    assert [e.step for e in found.Scalars("best/wiki")] == list(best)
    assert [e.value for e in found.Scalars("best/wiki")] == pytest.approx(list(best.values()))


# --------------------------------------------------------------------------- MLflow and W&B
@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_every_number(run: Path, tmp_path: Path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    with feeding(run, parse_sinks([f"mlflow:{uri}"], offline=True)) as feed:
        feed.send()
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("quadmix")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")
    assert found.data.tags["quadmix.identity"] == "c0ffee"
    wanted = read_scalars(run)
    assert found.data.metrics.keys() == {s.tag for s in wanted}
    for tag in ("best/wiki", "search/best_objective", "curves/prior/3", "stages/swarm/seconds"):
        told = {m.step: m.value for m in client.get_metric_history(found.info.run_id, tag)}
        assert told == series(wanted, tag)


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_holds_every_number(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET * 2)
    monkeypatch.setenv("OTHER_TOKEN", SECRET)
    with feeding(run, parse_sinks(["wandb:team/project"], offline=True)) as feed:
        feed.send()
    (file,) = run.rglob("*.wandb")
    deadline = time.monotonic() + 60  # a process of W&B's own writes the file, and goes on for a moment
    while not any(r.WhichOneof("record_type") == "exit" for r in wandb_records(file)):  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    found: dict[tuple[str, int], float] = {}
    for axis, row in wandb_rows(file):
        found |= {(tag, row[axis]): value for tag, value in row.items() if not tag.startswith(("axis", "_"))}
    wanted = read_scalars(run)
    assert found == {(s.tag, s.step): s.value for s in wanted if s.axis}
    assert wandb_summary(file).items() >= {(s.tag, s.value) for s in wanted if not s.axis}
    for path in (run / "wandb").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def wandb_records(file: Path) -> Iterator[object]:
    """Yield the records of an offline run: a log of LevelDB's format after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:  # no room for the head of a piece: the rest of the block is empty
            place += left
            continue
        if place + 7 > len(data):
            return  # still being written
        size, kind = struct.unpack_from("<HB", data, place + 4)
        if place + 7 + size > len(data):
            return
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole, or its last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def named(items: object) -> dict:
    import json

    return {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}  # type: ignore[attr-defined]


def wandb_rows(file: Path) -> Iterator[tuple[str, dict]]:
    """Yield each logged row with the name of its axis."""
    for record in wandb_records(file):
        row = named(record.history.item)  # type: ignore[attr-defined]
        axes = [name for name in row if name.startswith("axis/")]
        if axes:
            yield axes[0], row


def wandb_summary(file: Path) -> dict:
    found: dict = {}
    for record in wandb_records(file):
        found |= named(record.summary.update)  # type: ignore[attr-defined]
    return found
