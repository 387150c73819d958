"""The report of a large run: seconds to write it, size of the page, milliseconds to open it in Chromium.

    python benchmarks/report.py [--documents 10000] [--opens 7] [--characters 2000]

Makes a run folder with that many sampled documents (real types and files, made-up numbers and texts), writes
its report, and opens it from the disk: from navigation until the viewer has listed its first documents and
the browser is ready for input. Then one search through all texts, and one change of a filter.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "report")]

from browser.chromium import chromium_path  # noqa: E402
from report_fixture import make_run  # noqa: E402

from quadmix.io.atomic import read_table, write_table  # noqa: E402
from quadmix.report import write_report  # noqa: E402
from quadmix.rng import keyed_uniform  # noqa: E402

PAGE_BYTES, OPEN_MS = 15_000_000, 1000
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have which < & > é 文"
)
OPENED = """() => {
  const entry = performance.getEntriesByType("navigation")[0];
  return [entry.domInteractive, entry.domComplete, document.querySelectorAll("#docs details").length];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--characters", type=int, default=2_000, help="of each text")
    parser.add_argument("--opens", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = make_run(Path(home) / "run", documents=4 * options.documents)
        sample(folder, options.documents, options.characters)
        start, busy = time.perf_counter(), time.process_time()
        page = write_report(folder)
        busy = time.process_time() - busy
        print(f"render: {time.perf_counter() - start:.1f} s, {busy:.1f} s of processor time")
        size = page.stat().st_size
        print(f"page: {size / 1e6:.2f} MB of {PAGE_BYTES / 1e6:.0f}")
        opened = measure(page, options.opens)
    if size > PAGE_BYTES or opened > OPEN_MS:
        sys.exit("the page is too large or opens too slowly")


def sample(folder: Path, documents: int, characters: int) -> None:
    """Replace the sampled documents by `documents` rows of the selection, with texts of their own."""
    rng = np.random.default_rng(0)
    parts = [read_table(p) for p in sorted((folder / "selection").glob("part-*.parquet"))]
    table = pa.concat_tables([p.replace_schema_metadata(None) for p in parts])
    columns = read_table(folder / "samples.parquet").column_names
    table = table.take(pa.array(rng.permutation(len(table))[:documents]))
    words = np.array(WORDS.split())
    drawn = (words[rng.integers(len(words), size=characters // 3)] for _ in range(documents))
    texts = [" ".join(text)[:characters] for text in drawn]
    strata = ["top", "kept", "borderline", "dropped", "dropped_high", "disagree"]
    new = {
        "stratum": pa.array(sorted((strata * documents)[:documents], key=strata.index)),
        "text": pa.array(texts),
        "uniform": pa.array(keyed_uniform(0, table["doc_id"].to_pylist(), "copies")),
        "factor": pa.array(np.ones(documents)),
    }
    rows = {name: new[name] if name in new else table[name] for name in columns}
    write_table(folder / "samples.parquet", pa.table(rows))


def measure(page: Path, opens: int) -> float:
    """Open the page in fresh browser contexts and print medians; return that of the opening, in ms."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {"interactive": [], "complete": [], "search": [], "filter": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path())
        for _ in range(opens):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            tab.goto(page.as_uri())
            interactive, complete, listed = tab.evaluate(OPENED)
            assert listed, "the viewer has listed nothing"
            times["interactive"].append(interactive)
            times["complete"].append(complete)
            times["search"].append(tab.evaluate(TYPED, ["f-text", "which with"]))
            times["filter"].append(tab.evaluate(TYPED, ["f-copies", "1"]))
            context.close()
        browser.close()
    for name, values in times.items():
        spread = f"{min(values):.0f} to {max(values):.0f}, {opens} times"
        print(f"{name}: {statistics.median(values):.0f} ms ({spread})")
    return statistics.median(times["complete"])


TYPED = """([id, value]) => {
  const field = document.getElementById(id), start = performance.now();
  field.value = value;
  field.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect(); // with layout
  return performance.now() - start;
}"""

if __name__ == "__main__":
    main()
