"""dataset/README.md: what the dataset is, how it was made, what it holds, and how to check it.

In: the manifest, what the selection's numbers mean and, where the run has them, θ and the tokenizer. Out:
Markdown with the YAML header that the Hugging Face hub reads. It never quotes a document.
"""

import html
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from quadmix.annotate.survey import EXCLUDED_REASONS, OVERLAP
from quadmix.io.atomic import file_digest, read_value, write_text
from quadmix.materialise.table import SelectionInfo
from quadmix.types import Confirmation, DatasetManifest, Theta

_SIZES = tuple(
    (f"{10**k}{unit}", 10**k * 1000**n) for n, unit in enumerate("KMBT", start=1) for k in range(3)
)


def read_theta(run_folder: str | Path) -> Theta | None:
    """Return the θ behind the selection (theta.json, else the confirmed one), None if there is neither."""
    final = Path(run_folder) / "theta.json"
    if final.is_file():
        return read_value(final, Theta)
    path = Path(run_folder) / "search" / "confirm.json"
    return read_value(path, Confirmation).theta if path.is_file() else None


def write_card(run_folder: str | Path, manifest: DatasetManifest, info: SelectionInfo) -> Path:
    """Write dataset/README.md."""
    folder = Path(run_folder)
    path = folder / "dataset" / "README.md"
    write_text(path, render_card(manifest, info, read_theta(folder), _tokenizer(folder)))
    return path


def render_card(manifest: DatasetManifest, info: SelectionInfo, theta: Theta | None, tokenizer: str) -> str:
    """Return the card's Markdown."""
    parts = [
        _header(manifest),
        _what(manifest, tokenizer),
        _budget(manifest),
        _domains(manifest),
        _criteria(info),
        _theta(theta, info),
        _order(manifest),
        _ledger(manifest),
        _check(manifest),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _tokenizer(folder: Path) -> str:
    path = folder / "tokenizer.json"
    return f"tokenizer.json, xxh3 `{file_digest(path)}`" if path.is_file() else "not recorded in this run"


def _header(manifest: DatasetManifest) -> str:
    size = "n<1K"
    for (low, least), (high, _) in pairwise(_SIZES):
        if manifest.ledger.copies >= least:
            size = f"{low}<n<{high}"
    return "\n".join(
        [
            "---",
            "license: other",
            "license_name: unknown",
            "task_categories:",
            "- text-generation",
            "tags:",
            "- quadmix",
            "- pretraining",
            "size_categories:",
            f"- {size}",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            f"    path: part-*.{'parquet' if manifest.format == 'index' else manifest.format}",
            "---",
            "",
            "# Pretraining mixture selected by QuaDMix",
            "",
            "The licence is that of the source documents, which this tool does not know: replace `license`",
            "above and name your sources before you publish.",
        ]
    )


def _what(manifest: DatasetManifest, tokenizer: str) -> str:
    ledger = manifest.ledger
    return "\n".join(
        [
            "## What it is",
            "",
            f"{ledger.selected:,} documents, {ledger.copies:,} rows with repetitions, chosen out of "
            f"{ledger.rows_in:,} rows by quality and domain "
            "(QuaDMix, [arXiv 2504.16511](https://arxiv.org/abs/2504.16511)).",
            _columns(manifest),
            "",
            f"- run identity: `{manifest.identity}`",
            f"- mixture: `{manifest.theta_label}`",
            f"- dataset digest: `{manifest.digest}`",
            f"- tokens are counted with: {tokenizer}",
            f"- format: {manifest.format}, compressed with {manifest.codec}",
        ]
    )


def _columns(manifest: DatasetManifest) -> str:
    if manifest.format == "index":
        return (
            "This is an index without text: one row per selected document, `doc_id` and how many `copies` of "
            "it belong to the mixture. Documents that are not listed are not selected."
        )
    return (
        "Your columns are unchanged; one column `quadmix` says why a row is here: `doc_id`, `domain`, "
        "`tokens`, `scores` (normalised, smaller = better), `merged`, `rank` (0 = best of its domain), "
        "`expected_copies`, `copies`, `copy_index`."
    )


def budget_sentence(manifest: DatasetManifest) -> str:
    """Say how the tokens written compare with those asked for (promise P10)."""
    got, asked = manifest.ledger.tokens_out, manifest.token_budget
    if not got or not asked:
        return f"{got:,} tokens were selected; {asked:,} were asked for."
    text = f"Asked for {asked:,} tokens, copies counted; selected {got:,} ({got / asked - 1:+.3%})."
    if got >= asked * 0.999:
        return text
    return (
        f"{text} **Shortfall of {asked - got:,} tokens**: training on the budget means "
        f"{asked / got:.2f} epochs of this dataset, {asked / manifest.ledger.unique_tokens:.2f} of its "
        "unique tokens on average."
    )


def _budget(manifest: DatasetManifest) -> str:
    ledger = manifest.ledger
    unique = f"{ledger.unique_tokens:,} of them are unique, out of {ledger.tokens_in:,} in the pool."
    return f"## Budget\n\n{budget_sentence(manifest)}\n{unique}"


def _domains(manifest: DatasetManifest) -> str:
    total_in = max(1, sum(d.tokens_in for d in manifest.domains))
    total_out = max(1, sum(d.tokens_out for d in manifest.domains))
    rows = (
        (
            d.domain,
            f"{d.documents_in:,}",
            f"{d.tokens_in:,}",
            f"{d.tokens_in / total_in:.2%}",
            f"{d.documents_out:,}",
            f"{d.tokens_out:,}",
            f"{d.tokens_out / total_out:.2%}",
            f"{d.tokens_out / d.unique_tokens:.2f}" if d.unique_tokens else "–",
        )
        for d in manifest.domains
    )
    head = ["domain", "documents before", "tokens before", "share", "documents after", "tokens after"]
    head += ["share", "copies each"]
    return "## Domains before and after\n\n" + _table(head, rows)


def _criteria(info: SelectionInfo) -> str:
    rows = ((c.name, c.kind, f"{c.declared} is better", f"`{c.digest}`") for c in info.criteria)
    return "## Criteria\n\n" + _table(("criterion", "kind", "as delivered", "digest"), rows)


def _theta(theta: Theta | None, info: SelectionInfo) -> str:
    if theta is None:
        return ""
    names = [f"weight {c.name}" for c in info.criteria]
    head = ("domain", *names, "steepness λ", "cutoff ω", "exponent η", "floor ε", "scale")
    curve = zip(theta.steepness, theta.cutoff, theta.exponent, theta.floor, theta.scale, strict=True)
    rows = (
        (name, *(f"{w:.4f}" for w in weights), *(f"{v:.6g}" for v in values))
        for name, weights, values in zip(info.domains, theta.weights, curve, strict=True)
    )
    return "## Parameters per domain\n\n" + _table(head, rows)


def _order(manifest: DatasetManifest) -> str:
    if manifest.format == "index":
        text = "The documents stand in the order of the corpus, one part per piece of it that has any."
    elif manifest.order == "corpus":
        text = (
            "**Not shuffled.** The rows stand in the order of the corpus, one part per piece of it that has "
            "any, and copies of a document are neighbours. Shuffle before training, over all parts and not "
            "only inside a buffer: the order of the corpus is not random, and repetitions follow at once."
        )
    else:
        text = (
            f"The rows are shuffled globally with seed {manifest.seed}: a hash of seed and document id gives "
            "every document a time between 0 and 1, its copies follow at equal distances around that clock, "
            "and the parts are consecutive pieces of it. Inside a part copies of a document are never "
            "neighbours (unless one document is more than half of its rows); the last row of a part and the "
            "first of the next are not compared, which matters only where a handful of documents is repeated "
            "very often. Read the parts in order; no further shuffle is needed. Whoever streams several "
            "parts at once keeps the copies apart only roughly."
        )
    return f"## Order\n\n{text}"


def _ledger(manifest: DatasetManifest) -> str:
    ledger = manifest.ledger
    rows = [("rows read", f"{ledger.rows_in:,}"), ("selected", f"{ledger.selected:,}")]
    rows += [(f"dropped: {k}", f"{v:,}") for k, v in ledger.dropped.items()]
    rows += [(f"quarantined: {k}", f"{v:,}") for k, v in ledger.quarantined.items()]
    return (
        "## Conservation\n\nRows read = selected + dropped + quarantined, checked before the dataset became "
        "visible.\n\n" + _table(("rows", "count"), rows)
    )


def _check(manifest: DatasetManifest) -> str:
    return (
        "## How to check it\n\n`quadmix verify RUN` re-hashes every shard and recounts rows, tokens and "
        "copies against `manifest.json`; `quadmix explain RUN DOC_ID` shows every number behind one "
        "document.\n\n## Known limits\n\nQuality scores carry the biases of their annotators. Nothing was "
        "deduplicated, and no personal or unsafe content was removed. Documents held out for "
        f"evaluation are not in here ({manifest.ledger.dropped.get('held_out', 0):,} of them). "
        f"{_without_overlap(manifest)}Rows repeat on purpose: see `copies`."
    )


def _without_overlap(manifest: DatasetManifest) -> str:
    count = manifest.ledger.dropped.get(EXCLUDED_REASONS[OVERLAP])
    if count is None:
        return ""
    return (
        "Nor are documents that share 13 words in a row with a target or benchmark of the run "
        f"({count:,} of them); shorter or reworded copies were not looked for. "
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Escape what Markdown, HTML or a terminal would take for more than text (domain names are data)."""
    line = text.replace("\n", " ")
    shown = "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in line)
    return html.escape(shown, quote=False).replace("|", "\\|")
