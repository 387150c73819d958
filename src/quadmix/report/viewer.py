"""The section of sampled documents: what was sampled, the filters, and the list that `page.js` fills.

In: the loaded run. Out: HTML without any document; those come as data (`documents`) and are inserted as text.
"""

from quadmix.report.documents import strata_counts
from quadmix.report.html import Html, absent, join, note, section
from quadmix.report.load import RunFiles
from quadmix.report.origins import DATASET, RECIPE, SAMPLES, SELECTION
from quadmix.report.text import count

TITLE = "The documents"
_MEASURES = (
    '<option value="rank">rank (0 = best)</option><option value="merged">merged score (0 = best)</option>'
    '<option value="expected">expected copies</option><option value="tokens">tokens</option>'
)
DRAWN = ("kept", "dropped")  # kinds of sample that a hash chooses; the others are sorted by a measure
FRAME = Html(
    '<form class="filters" id="filters" role="search" aria-label="Filter documents">'
    '<label>Sample <select id="f-stratum"><option value="">all</option></select></label>'
    '<label>Domain <select id="f-domain"><option value="">all</option></select></label>'
    '<label>Copies <select id="f-copies"><option value="">any</option><option value="0">0</option>'
    '<option value="1">1</option><option value="2">2 or more</option></select></label>'
    f'<label>Range of <select id="f-by">{_MEASURES}</select></label>'
    '<label>from <input id="f-min" type="number" step="any" inputmode="decimal" autocomplete="off"></label>'
    '<label>to <input id="f-max" type="number" step="any" inputmode="decimal" autocomplete="off"></label>'
    f'<label>Sort by <select id="f-sort"><option value="">order of sampling</option>{_MEASURES}'
    "</select></label>"
    '<label>Order <select id="f-order"><option value="up">smallest first</option>'
    '<option value="down">largest first</option></select></label>'
    '<label class="wide">Text or id <input id="f-text" type="search" autocomplete="off"></label>'
    '<button id="reset" type="button">Reset</button></form>'
    '<p id="found" role="status" aria-live="polite"></p><div id="docs"></div>'
    '<div id="pager" class="pager" role="group" aria-label="Pages" hidden>'
    '<button id="before" type="button">Previous</button> <button id="after" type="button">Next</button></div>'
    "<noscript><p>The viewer needs JavaScript; samples.parquet holds the same rows.</p></noscript>"
)


def documents(files: RunFiles, *, redact: bool) -> Html:
    """Return the viewer's frame under the sentences that say of what it is a sample."""
    if not files.samples:
        return absent("documents", TITLE, "no documents have been sampled")
    parts = [note(_sampled(files)), note(_strata(files), "hint")]
    if redact:
        parts.append(
            note(
                "The texts were left out of this page on request (redact samples); samples.parquet has them.",
                "redacted",
            )
        )
    parts.append(
        note(
            "Open a document to see why it has its copies. The address of the page keeps the filters, so a "
            "view can be shared; quadmix explain works out every number of a document from the run folder.",
            "hint",
        )
    )
    seed = DATASET if files.dataset else RECIPE if files.recipe else ()
    source = (*SAMPLES, *(SELECTION if files.table else ()), *seed)
    return section("documents", TITLE, join(*parts), FRAME, source=source)


def _sampled(files: RunFiles) -> str:
    different = len({(s["domain"], s["doc_id"], s["rank_low"]) for s in files.samples})
    own = "" if different == len(files.samples) else f" ({count(different)} different ones)"
    of = f" of {count(files.table.documents)} selectable documents" if files.table else ""
    return (
        f"{count(len(files.samples))} samples{own}{of}, chosen by rule, not by hand. {_rules(files)}In each "
        "kind of sample every domain shows one document before any shows a second."
    )


def _rules(files: RunFiles) -> str:
    """Say which kinds of sample are drawn and which hold the extremes of a measure."""
    found = list(dict.fromkeys(str(s["stratum"]) for s in files.samples))
    drawn, extremes = (
        [k.replace("_", " ") for k in found if (k in DRAWN) == random] for random in (True, False)
    )
    seed = files.dataset.seed if files.dataset else files.recipe.seed if files.recipe else None
    by = "by a hash of their ids" + (f" and the seed {seed}" if seed is not None else "")
    said = f"At random, {by}: {', '.join(drawn)}. " if drawn else ""
    if extremes:
        said += f"The extremes of what they are named for (ties by the hash): {', '.join(extremes)}. "
    return said


def _strata(files: RunFiles) -> str:
    kinds = [
        f"{name.replace('_', ' ')} ({what + ', ' if what else ''}{count(n)})"
        for name, what, n in strata_counts(files)
    ]
    return f"Kinds: {', '.join(kinds)}."
