"""How a run went: passes from the log, throughput, failures, cost; and what an old log does not say."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from facts_fixture import BEGIN, EVENTS, add_facts, event, write_log
from report_fixture import make_run

from quadmix.pipeline.events import log_alive, log_step, logged
from quadmix.recipe import RunSection
from quadmix.report import health
from quadmix.report.load import RunFiles, load_run
from quadmix.report.passes import read_history
from quadmix.report.plots import Picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_facts(make_run(tmp_path_factory.mktemp("health"), documents=600))


@pytest.fixture
def files(folder: Path) -> RunFiles:
    return load_run(folder)


def text(html: str) -> str:
    """The words of a section, without figures."""
    plain = re.sub(r"<details>.*?</details>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", plain)).replace("&#x27;", "'")


def shown(files: RunFiles) -> tuple[str, list[Picture]]:
    gallery: list[Picture] = []
    return text(health.health(files, gallery)), gallery


def with_log(files: RunFiles, events: Sequence[object]) -> RunFiles:
    records = dataclasses.replace(files.records, history=read_history(events))
    return dataclasses.replace(files, records=records)


def test_a_killed_process_leaves_its_pass_cut_at_the_last_sign_of_life(files: RunFiles):
    history = files.records.history
    assert [(p.workers, p.how, p.end - p.start) for p in history.processes] == [(4, "", 72), (2, "", 22)]
    got = [(p.stage, p.process, p.start - BEGIN, p.end and p.end - BEGIN, p.state) for p in history.passes]
    assert got == [
        ("corpus", 1, 0, 2, "ended"), ("annotate", 1, 2, 12, "ended"), ("swarm", 1, 12, 72, "cut"),
        ("corpus", 2, 86_400, 86_401, "ended"), ("swarm", 2, 86_401, 86_421, "ended"),
        ("report", 2, 86_422, None, "open"),
    ]  # fmt: skip
    assert history.broken == 1


def test_the_timeline_leaves_out_the_day_between_two_processes(files: RunFiles):
    picture = shown(files)[1][0]
    assert picture.name == "timeline"
    assert picture.rows == (
        ("corpus", 1, 0.0, 2.0, "ended"), ("annotate", 1, 2.0, 10.0, "ended"),
        ("swarm", 1, 12.0, 60.0, "cut"), ("corpus", 2, 72.0, 1.0, "ended"), ("swarm", 2, 73.0, 20.0, "ended"),
    )  # fmt: skip
    assert picture.source == ("events.jsonl",)
    assert "red: cut off" in picture.caption


def test_times_rates_failures_and_bad_rows_are_counted(files: RunFiles):
    said, _ = shown(files)
    assert "At least 1 min 33 s at work, in 2 processes; 1 stage was cut off" in said
    assert "2 of 48 models failed. Lines of the log that cannot be read: 1." in said
    tokens = sum(t.train_tokens for t in files.trials if t.status == "done")
    assert f"annotate 1 10.0 600 – {600 / 10:.0f} –" in said
    assert f"swarm 2 ≥ 80.0 – {tokens:,} – ≤ {tokens / 80 / 1e3:.3g} k" in said
    assert f"of workers {(72 * 4 + 22 * 2) / 3600:.2f} up to 4 at once, device cpu" in said
    assert "loss became NaN at step 41 2 prior-0046, prior-0047" in said
    assert "a.jsonl invalid_json 2 66.7 %" in said
    assert "/data/pool" not in said
    assert "secret" not in said


def test_hours_have_a_cost_where_the_recipe_knows_the_price(files: RunFiles):
    assert "report.price_per_hour in the recipe adds what they cost" in shown(files)[0]
    assert files.recipe is not None
    own = files.recipe.report.model_copy(update={"price_per_hour": 36.0, "currency": "EUR"})
    priced = dataclasses.replace(files, recipe=files.recipe.model_copy(update={"report": own}))
    assert f"cost by the clock {93 / 3600 * 36:.2f} EUR hours by the clock x 36 EUR" in shown(priced)[0]


def test_steps_say_what_was_retried(files: RunFiles):
    html = health.health(files, [])
    steps = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html[html.index("Step by step") :]))
    assert "swarm swarm 2 6 models 18.0 – 33.3 k 3 2" in steps
    assert "annotate annotate 9 pieces 8.0 500 11.2 k 0 0" in steps


def test_models_that_no_logged_stage_can_have_trained_give_no_rate(files: RunFiles):
    old = tuple(dataclasses.replace(t, seconds=1000.0) for t in files.trials)
    said, _ = shown(dataclasses.replace(files, trials=old))
    assert re.search(r"swarm 2 ≥ 80\.0 – [\d,]+ – – ", said)
    unknown = with_log(dataclasses.replace(files, trials=old), [e for e in EVENTS if "open" not in str(e)])
    assert re.search(r"swarm 2 ≥ 80\.0 – [\d,]+ – ≤ ", shown(unknown)[0])


def test_a_log_without_processes_counts_one_per_first_stage(files: RunFiles):
    old = [e for e in EVENTS if isinstance(e, dict) and e["event"] in ("start", "end")]
    history = read_history(old)
    assert [p.workers for p in history.processes] == [0, 0]
    assert [(p.stage, p.end, p.state) for p in history.passes if p.state != "ended"] == [
        ("swarm", None, "cut"), ("report", None, "open"),
    ]  # fmt: skip
    said, _ = shown(with_log(files, old))
    assert "of workers – unknown: the log does not say how many workers there were" in said
    assert "swarm 2 ≥ 20.0" in said


def test_a_run_without_a_log_shows_its_stages_one_after_another(tmp_path: Path):
    said, gallery = shown(load_run(make_run(tmp_path / "old", documents=300)))
    assert [row[:2] for row in gallery[0].rows] == [
        (s, 1) for s in ("corpus", "annotate", "swarm", "search", "confirm")
    ]
    assert gallery[0].rows[1][2:4] == (1.2, 8.5)
    assert "1 min 24 s at work. 2 of 48" in said
    assert "3 rows were put into quarantine, but quarantine/ is not here" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Not run: no stage has begun" in shown(load_run(empty))[0]


def test_a_stage_at_work_is_open_and_not_cut(files: RunFiles):
    working = [*EVENTS[:-1], event(86_430, "start", stage="search"), event(86_490, "alive", stage="search")]
    said, gallery = shown(with_log(files, working))
    assert gallery[0].rows[-1][3:] == (60.0, "open")
    assert "1 stage was cut off" in said
    assert "grey: not ended yet" in gallery[0].caption


@pytest.mark.parametrize("line", [None, 3, [], {}, {"time": "x", "event": "start"}, {"time": True}])
def test_what_is_no_event_is_counted_and_skipped(line: object):
    assert read_history([line]).broken == 1
    assert read_history([line, *EVENTS]).passes == read_history(EVENTS).passes


def test_what_the_pipeline_logs_is_what_the_page_reads(tmp_path: Path):
    section = RunSection(executor="processes", device="cpu")

    def fails() -> None:
        with logged(tmp_path, section, 3):
            log_alive(tmp_path, "swarm")
            raise KeyError("gone")

    with pytest.raises(KeyError):
        fails()
    with logged(tmp_path, section, 2):
        log_step(tmp_path, "swarm", "swarm 2", "models", units=4, tokens=80, seconds=2.0, failed=1, retried=2)
    lines = [orjson.loads(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    history = read_history(lines)
    assert [(p.workers, p.device, p.how) for p in history.processes] == [
        (3, "cpu", "KeyError"), (2, "cpu", "finished"),
    ]  # fmt: skip
    (work,) = history.work
    assert (work.step, work.units, work.tokens, work.failed, work.retried) == ("swarm 2", 4, 80, 1, 2)
    assert history.broken == 0


def test_a_torn_line_ends_no_report(folder: Path, tmp_path: Path):
    write_log(tmp_path, ["{", *EVENTS[:3], '{"time":1'])
    assert load_run(tmp_path).records.history.broken == 2
