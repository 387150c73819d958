"""Fill the tables of docs/reproduction.md from the results in studies/results.

    python studies/tables.py            rewrites every block from <!-- table:NAME --> to <!-- /table -->
    python studies/tables.py --check    changes nothing; exit code 1 when the page is not up to date

A block whose study has no result yet says which command makes it. What stands between blocks is not touched.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tables_r2_r5 as first
import tables_r6_r8 as last
from cells import Result

HERE = Path(__file__).parent
PAGE = HERE / "../docs/reproduction.md"
RESULTS = HERE / "results"
_BLOCK = re.compile(r"<!-- table:(\w+) -->\n.*?<!-- /table -->", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of the page. results: names of result files, the first that is there counts. part: the key
    without which the result does not hold this block."""

    results: tuple[str, ...]
    command: str
    lines: Callable[[Result], list[str]]
    part: str = "made"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--check", action="store_true", help="exit code 1 when the page must be rewritten")
    options.add_argument("--page", type=Path, default=PAGE)
    options.add_argument("--results", type=Path, default=RESULTS)
    args = options.parse_args()
    text = args.page.read_text(encoding="utf-8")
    new = render(text, read_results(args.results))
    if args.check and new != text:
        raise SystemExit(f"{args.page}: the tables are not those of {args.results}: python studies/tables.py")
    if not args.check:
        args.page.write_text(new, encoding="utf-8")


def read_results(folder: Path) -> dict[str, Result]:
    """Return name -> content of the result files of a folder."""
    return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in sorted(folder.glob("*.json"))}


def render(text: str, results: Mapping[str, Result]) -> str:
    """Return the page with every block filled; SystemExit for blocks not closed, unknown or missing."""
    names = re.findall(r"<!-- table:(\S+) -->", text)
    if len(_BLOCK.findall(text)) != len(names) or len(set(names)) != len(names):
        raise SystemExit(
            "each block must end with <!-- /table --> before the next begins, and stand there once"
        )
    if unlike := sorted(set(names) ^ set(BLOCKS)):
        raise SystemExit(f"the page and studies/tables.py differ in their blocks: {', '.join(unlike)}")
    return _BLOCK.sub(lambda found: _filled(found[1], results), text)


def _filled(name: str, results: Mapping[str, Result]) -> str:
    block = BLOCKS[name]
    result = next((results[r] for r in block.results if r in results), None)
    if result is None or block.part not in result:
        lines = [f"not run yet: `{block.command}`"]
    else:
        try:
            lines = [*block.lines(result), "", made(result)]
        except (KeyError, TypeError) as error:
            raise SystemExit(
                f"the result for {name!r} is not what this version writes ({error!r}): {block.command}"
            ) from error
    return "\n".join([f"<!-- table:{name} -->", "", *lines, "", "<!-- /table -->"])


def made(result: Result) -> str:
    """Return the command and the version of torch that made a result."""
    facts = result["made"]
    return f"Made by `{facts['command']}`, torch {facts['libraries']['torch']}."


def _block(study: str, lines: Callable[[Result], list[str]], part: str = "made", *others: str) -> Block:
    return Block(results=(study, *others), command=f"python studies/{study}.py", lines=lines, part=part)


BLOCKS = {
    "r2_spearman": _block("r2_surrogate", first.r2_spearman),
    "r2_error": _block("r2_surrogate", first.r2_error),
    "r2_regret": _block("r2_surrogate", first.r2_regret),
    "r2_noise": _block("r2_surrogate", first.r2_noise),
    "r3_main": _block("r3_main", first.r3_main, "made", "r3_base"),
    "r3_benchmarks": _block("r3_main", first.r3_benchmarks, "made", "r3_base"),
    "r3_heldout": _block("r3_main", first.r3_heldout, "made", "r3_base"),
    "r3_tasks": _block("r3_main", first.r3_tasks, "made", "r3_base"),
    "r3_transfer": _block("r3_main", first.r3_transfer, "made", "r3_base"),
    "r3_likeness": _block("r3_likeness", first.r3_likeness),
    "r3_likeness_benchmarks": _block("r3_likeness", first.r3_benchmarks),
    "r4_criteria": _block("r4_criteria", first.r4_criteria),
    "r4_count": _block("r4_criteria", first.r4_count),
    "r5_tokens": _block("r5_tokens", first.r5_fixed_tokens),
    "r5_epochs": _block("r5_tokens", first.r5_fixed_epochs),
    "r5_contrasts": _block("r5_tokens", first.r5_contrasts),
    "r6_targets": _block("r6_targets", last.r6_targets),
    "r6_families": _block("r6_targets", last.r6_families),
    "r6_contrasts": _block("r6_targets", last.r6_contrasts),
    "r6_tasks": _block("r6_targets", last.r6_tasks),
    "r6_search": _block("r6_targets", last.r6_search),
    "r7_sizes": _block("r7_transfer", last.r7_sizes),
    "r7_rates": _block("r7_transfer", last.r7_rates),
    "r7_rungs": _block("r7_transfer", last.r7_rungs),
    "r8_prior": _block("r8_ablations", last.r8_prior, "prior"),
    "r8_rank": _block("r8_ablations", last.r8_rank, "rank"),
    "r8_rounded": _block("r8_ablations", last.r8_rounded, "rank"),
    "r8_percentile": _block("r8_ablations", last.r8_percentile, "percentile"),
    "r8_selected": _block("r8_ablations", last.r8_selected, "percentile"),
    "r8_noise": _block("r8_ablations", last.r8_noise, "noise"),
}  # fmt: skip


if __name__ == "__main__":
    main()
