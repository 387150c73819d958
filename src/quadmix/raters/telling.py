"""What the steps of a rater's training say to people, as lines of text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from quadmix.raters.against import Against
from quadmix.raters.audit import audit_lines
from quadmix.raters.calibration import calibration_lines
from quadmix.raters.cells import CellChoice
from quadmix.raters.comparing import Difference, HeadComparison, HeadCurve
from quadmix.raters.making import DirectionFacts, PairsMade
from quadmix.raters.measures import Measured
from quadmix.raters.reportcard import card_lines
from quadmix.raters.scoring import Scoring
from quadmix.raters.selecting import ByCell, Taken
from quadmix.raters.table import KINDS
from quadmix.raters.training import RaterReport

_SHOWN = 12


def pairs_lines(made: PairsMade) -> list[str]:
    """Return what went into the pairs, what was lost on the way and why, and what came out."""
    lines = [f"{made.rows:,} rows, {sum(made.languages.values()):,} documents: {_counted(made.languages)}"]
    lines += [f"  dropped, {code or 'no language'}: {_counted(why)}" for code, why in made.dropped.items()]
    lines += [
        f"benchmark {Path(b.path).name}: {b.documents:,} documents share a run of words with it and are left "
        f"out; {b.short:,} of its {b.texts:,} texts are too short to be found"
        for b in made.benchmarks
    ]
    for one in made.directions:
        lines += _direction(one)
    if made.translated:
        failed = {code: n.failed for code, n in made.translated.items() if n.failed}
        total = sum(n.made + n.known for n in made.translated.values())
        lines.append(f"translations: {total:,} there" + (f"; failed: {_counted(failed)}" if failed else ""))
        if refused := {code: n.refused for code, n in made.translated.items() if n.refused}:
            lines.append(
                f"  refused by the translator: {_counted(refused)}; not asked again, unless pairs.json and "
                "translations/refused-*.jsonl, which says why, are removed"
            )
    lost = {f"{r.source}->{r.target}": r.given - r.kept for r in made.routes if r.kept < r.given}
    given = sum(r.given for r in made.routes)
    if given:
        lines.append(f"fidelity: {sum(lost.values()):,} of {given:,} translations dropped: {_counted(lost)}")
        reasons: dict[str, int] = {}
        for route in made.routes:
            for reason, n in route.dropped.items():
                reasons[reason] = reasons.get(reason, 0) + n
        lines += [f"  {reason}: {n:,}" for reason, n in sorted(reasons.items(), key=lambda r: -r[1])]
    kinds = (f"{made.made['train'][k]:,} {k} (of {made.wanted[k]:,} wanted)" for k in KINDS)
    lines.append(f"training pairs: {', '.join(kinds)}")
    lines.append("held-out pairs: " + ", ".join(f"{made.made['held'][k]:,} {k}" for k in KINDS))
    lines += [f"  unused: {why}: {n:,}" for why, n in made.unused.items()]
    lines += [made.stage1.line()] if made.stage1 else []
    lines += [f"warning: {w}" for w in made.warnings]
    return lines


def report_lines(report: RaterReport) -> list[str]:
    """Return what a rater is worth: its card, the bias audit, the offsets."""
    chosen = ", ".join(f"{name} {value:g}" for name, value in report.chosen.items())
    lines = [
        f"{report.name}: {report.encoder}, head {report.head}, {report.pairs:,} training pairs"
        + (f"; {chosen}" if chosen else "")
    ]
    lines += [f"  not read: {why}: {n:,}" for why, n in report.unread.items()]
    lines += card_lines(report.card)
    lines += [f"warning: {w}" for w in report.warnings]
    if report.scripts is not None:
        lines += ["", *report.scripts.lines()]
    if report.audit is not None:
        found = audit_lines(report.audit)
        warned = [line for line in found if line.startswith("warning")]
        lines += ["", "bias audit of the held-out texts", *(line for line in found if line not in warned)]
        lines += warned[:_SHOWN]
        if len(warned) > _SHOWN:
            lines.append(f"and {len(warned) - _SHOWN} more such warnings, in report.json")
    if report.offsets is not None:
        lines += ["", "offsets of the languages on parallel held-out texts, with standard errors"]
        lines += [
            f"  {o.language:<8} {o.value:+.3f} ± {o.stderr:.3f} ({o.sources:,} sources)"
            for o in report.offsets.languages
        ]
        lines += [f"  {code}: none, {why}" for code, why in report.offsets.left_out.items()]
    return lines


def scoring_lines(found: Scoring, out: Path) -> list[str]:
    """Return what was rated, and what has no score."""
    lines = [f"{found.scored:,} of {found.documents:,} documents have a score by {found.card}"]
    lines += [f"  none: {why}: {n:,}" for why, n in found.missing.items()]
    named = {code or "not said": n for code, n in found.languages.items()}
    lines += [
        f"warning: {code}: {n:,} documents; the rater was never trained on it, scores are transfer alone"
        for code, n in found.unseen.items()
    ]
    lines += [
        f"warning: domain {name!r}: {n:,} documents; the rater was never trained on it, it counts as unknown"
        if name else f"{n:,} documents say no domain; it counts as unknown"
        for name, n in found.unseen_domains.items()
    ]  # fmt: skip
    lines += [
        f"warning: column {name!r} is empty in {n:,} documents" for name, n in found.carried.items() if n
    ]
    if found.scripts is not None:
        lines += found.scripts.lines()
    if not found.reference:
        lines.append("there is no reference.json beside the card, so z is empty")
    lines.append(f"languages: {_counted(named)}")
    if found.domains:
        lines.append(f"domains: {_counted({name or 'not said': n for name, n in found.domains.items()})}")
    return [*lines, f"written to {out}, its origin to {out.name}.json"]


def taken_lines(found: Taken) -> list[str]:
    """Return what a selection by score took of every language, and of the cells that gave least."""
    lines = [
        f"{found.documents:,} documents, {found.units:,} units",
        f"{'language':<12}{'documents':>12}{'of':>12}{'units':>14}{'of':>14}{'share':>8}  least score",
    ]
    for one in found.languages:
        share = one.tokens / one.pool_tokens if one.pool_tokens else 0.0
        lines.append(
            f"{one.language or 'not said':<12}{one.documents:>12,}{one.pool_documents:>12,}{one.tokens:>14,}"
            f"{one.pool_tokens:>14,}{share:>8.1%}  {one.threshold:+.3f}"
            + (f"; {one.unscored:,} without a score" if one.unscored else "")
        )
    return lines if found.by is None else lines + _cell_lines(found.cells, found.by)


def _cell_lines(cells: Sequence[CellChoice], by: ByCell) -> list[str]:
    named = [one for one in cells if one.cell]
    merged, unnamed = (sum(numbers) for numbers in zip(*((c.merged, c.unnamed) for c in cells), strict=True))
    lines = ["", f"{len(named):,} cells by {by.column!r} of at least {by.least:,.0f} units"]
    if merged:
        lines.append(f"  {merged:,} smaller ones are selected together, language by language")
    if unnamed:
        lines.append(f"warning: {unnamed:,} documents have no {by.column!r}; they are selected with those")
    by_share = sorted(cells, key=lambda c: (c.share if c.share == c.share else 2.0, c.language, c.cell))
    lines.append(f"{'language':<12}{'cell':<24}{'documents':>12}{'units':>14}{'of':>14}{'share':>8}")
    lines += [
        f"{c.language or 'not said':<12}{c.cell or 'small or not said':<24}{c.documents:>12,}"
        f"{c.kept_units:>14,}{c.pool_units:>14,}{_percent(c.share):>8}"
        for c in by_share[:_SHOWN]
    ]
    if len(cells) > _SHOWN:
        lines.append(f"and {len(cells) - _SHOWN:,} more with larger shares; --json lists all")
    return lines


def against_lines(found: Against) -> list[str]:
    """Return the raters as a table: accuracies with intervals, paired differences to the first, the scale."""
    lines = [
        f"{found.pairs:,} held-out pairs of {found.texts:,} texts; {found.left_out:,} left out, a rater has "
        "seen their documents",
        f"{'rater':<20}{'within languages':<24}{'between':<24}{'within - first':<26}"
        f"{'between - first':<26}{'MSE/var':<9}kept by one cut",
    ]
    for r in found.raters:
        first = r is found.raters[0]
        gains = ["–", "–"] if first else [_gain(r.difference), _gain(r.cross_gain)]
        lines.append(
            f"{r.name:<20}{_measured(r.within):<24}{_measured(r.cross):<24}{gains[0]:<26}{gains[1]:<26}"
            f"{r.parallel:<9.3f}{r.least:.1%} to {r.most:.1%}"
        )
    return lines


def heads_lines(found: HeadComparison) -> list[str]:
    """Return the heads as a table, and which to take."""
    lines = [
        f"{found.pairs:,} held-out pairs, {found.seeds} seeds; tail: {', '.join(found.tail)}",
        f"{'head':<14}{'tail':<8}{'others':<8}{'all':<8}{'worst 5':<9}{'tail - plain':<26}others - plain",
    ]
    for a in found.arms:
        gains = ["–" if a.arm == "plain" else _percentage_points(g) for g in (a.tail_gain, a.head_gain)]
        lines.append(
            f"{a.arm:<14}{a.tail:<8.3f}{a.head:<8.3f}{a.every:<8.3f}{a.worst:<9.3f}{gains[0]:<26}{gains[1]}"
        )
    lines += [
        f"  {a.arm}, languages never trained on: " + ", ".join(f"{c} {v:.3f}" for c, v in a.unseen.items())
        for a in found.arms
        if a.unseen
    ]
    if found.across:
        lines.append(
            f"  {found.across:,} held pairs of two domains, or of unknown ones, are not judged: the code has "
            "the domain, and ranks are taken inside it"
        )
    lines += ["", *calibration_lines(found.calibration), *_gate_lines(found)]
    lines += _curve_lines(found.curve) if found.curve else []
    return [*lines, "", f"take {found.chosen}: {found.why}"]


def _gate_lines(found: HeadComparison) -> list[str]:
    if not found.gates:
        return []
    lines = [
        "", "the first POSO head. S: how far masking the language moves what its last layer reads; factors "
        "of the gate, 1 = neutral; distance: to those of the language with most texts; at its start: of "
        "the same head before training, whose random gate moves them, too",
        f"{'language':<10}{'texts':>8}{'S':>8}  {'at its start':<14}"
        f"{'factors':<15}{'distance':<10}at its start",
    ]  # fmt: skip
    lines += [
        f"{g.language:<10}{g.texts:>8,}{g.sensitivity:>8.2f}  {g.start_sensitivity:<14.2f}"
        f"{f'{g.gate:.2f} ± {g.spread:.2f}':<15}{g.distance:<10.2f}{g.start_distance:.2f}"
        for g in found.gates
    ]
    if found.domain_sensitivity:
        told = ", ".join(
            f"{name} {value:.2f} ({found.domain_start[name]:.2f})"
            for name, value in found.domain_sensitivity.items()
        )
        lines.append(f"S of masking the domain (at its start): {told}")
    return lines


def _curve_lines(curve: HeadCurve) -> list[str]:
    """Return the curve as a table: accuracy of plain, of the others the gain over it, by training pairs."""
    names = [arm.arm for arm in curve.points[0].arms]
    lines = [
        "", f"tail accuracy over labelled training pairs per tail language, {curve.pairs:,} held pairs; "
        "others: points gained over plain, 95 %",
        f"{'pairs':<7}{'had':<14}" + "".join(f"{name:<24}" for name in names),
    ]  # fmt: skip
    for p in curve.points:
        cells = [f"{a.tail:.3f}" if a.arm == "plain" else _percentage_points(a.gain) for a in p.arms]
        had = f"{p.least:,}" if p.least == p.most else f"{p.least:,}-{p.most:,}"
        lines.append(f"{p.size:<7}{had:<14}" + "".join(f"{cell:<24}" for cell in cells).rstrip())
    if curve.left_out:
        lines.append(f"  no language has more pairs at {', '.join(map(str, curve.left_out))}: left out")
    return lines


def _percentage_points(gain: Difference) -> str:
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def _measured(m: Measured) -> str:
    return f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]"


def _gain(m: Measured) -> str:
    return f"{m.value:+.3f} [{m.low:+.3f}, {m.high:+.3f}]"


def _direction(one: DirectionFacts) -> list[str]:
    lines = [
        f"direction {one.direction}: {one.labelled:,} labelled pairs of {one.drawn:,} drawn among "
        f"{one.documents:,} documents, {one.texts:,} texts"
    ]
    lines += [f"  refused: {why}: {n:,}" for why, n in one.refused.items()]
    lines += [f"  no label: {why}: {n:,}" for why, n in one.unlabelled.items()]
    lines += [f"  rater {name} abstains: {_counted(why)}" for name, why in one.missing.items() if why]
    if one.judge is not None:
        j = one.judge
        lines.append(
            f"  judge {j.model}: {j.voted:,} votes of {j.asked:,} asked, {j.left:,} left by the budget; "
            f"{j.requests:,} requests, {j.tokens:,} tokens; {j.first:.0%} for the text shown first"
        )
        lines += [f"    no vote: {why}: {n:,}" for why, n in j.reasons.items()]
    found = one.diagnostics
    width = max(map(len, found.names))
    lines.append("  agreement of the raters, pairs on which both prefer a side:")
    for name, row in zip(found.names, found.agreement.tolist(), strict=True):
        cells = " ".join(f"{value:5.2f}" if value == value else "    –" for value in row)
        lines.append(f"    {name:{width}}  {cells}")
    for left in found.without:
        lines.append(
            f"  without {left.name}: labels move by {_number(left.change)}, {_share(left.flipped)} turn, "
            f"{left.lost:,} are lost; of the best tenth {_share(left.top)} are others"
        )
    return lines


def _number(value: float) -> str:
    return f"{value:.2f}" if value == value else "–"


def _percent(value: float) -> str:
    return f"{value:.1%}" if value == value else "–"


def _share(value: float) -> str:
    return f"{value:.0%}" if value == value else "–"


def _counted(counts: Mapping[str, int]) -> str:
    order: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    shown = ", ".join(f"{name} {n:,}" for name, n in order[:_SHOWN])
    return shown + (f", and {len(order) - _SHOWN} more" if len(order) > _SHOWN else "") or "none"
