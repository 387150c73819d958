"""What the run shows, in one sentence and a strip of facts: the honest summary.

In: the files of a run. Out: `Verdict`. The sentence compares θ* with *every* baseline of every rung and names
those it does not beat, first those it is worse than; a promise that is not kept is named in `broken`. Gains
are control minus θ* in bits per byte, so a positive gain is good.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from quadmix.report.compared import (
    Outcome,
    against,
    beaten_words,
    compared,
    gain_words,
    other_rung,
    tally,
)
from quadmix.report.load import RunFiles, load_run
from quadmix.report.origins import COMPARISON, CONFIRM, DATASET, PROPOSAL, SELECTION, STAGES
from quadmix.report.text import clean, count, interval, label_name, named, num, percent, short
from quadmix.types import Confirmation, DatasetManifest, Paired, SurrogateReport, Trial

Tone = Literal["good", "bad", "warn", "plain", "absent"]
MIN_SPEARMAN = 0.5
BUDGET_TOLERANCE = 0.01
CONTROL, OBJECTIVE, PAPER = "prior-mean", "objective", "paper"
WARNINGS = "warnings"  # the anchor of their list


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One tile of the strip; `data` are its numbers for report.json, `source` the files they come from.

    link: the anchor of what its note points to, "" if there is none.
    """

    name: str
    value: str
    note: str
    tone: Tone
    data: dict[str, float | str | None]
    source: tuple[str, ...] = ()
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The sentence with the files it comes from (`source`), its facts, all warnings of the run and the
    promises that were broken. beaten: who was beaten by how much, and what the sign of a gain means; ""
    without a comparison."""

    sentence: str
    outcome: Outcome
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...]
    broken: tuple[str, ...]
    source: tuple[str, ...] = ()
    beaten: str = ""


def verdict(run_folder: str | Path) -> Verdict:
    """Return the verdict of a run folder."""
    return judge(load_run(run_folder))


def judge(files: RunFiles) -> Verdict:
    """Return the verdict of a loaded run."""
    outcome, sentence = _sentence(files)
    facts = [_budget(files), _documents(files), _coverage(files), _surrogate(files), _confirmed(files)]
    facts.append(_against_baselines(files))
    broken = tuple(_broken(files, facts))
    warnings = tuple(_warnings(files))
    checked = tuple(dict.fromkeys(path for fact in facts for path in fact.source))
    said = STAGES if files.stages else ()
    tone: Tone = "warn" if warnings else "good"
    listed = _tile("Warnings", count(len(warnings)), "listed under Run" if warnings else "none", tone, *said)
    facts.append(replace(listed, link=WARNINGS if warnings else ""))
    facts.append(
        _tile("Broken promises", count(len(broken)), "listed below", "bad", *checked)
        if broken
        else _tile("Broken promises", "0", "of those this page can check", "good", *checked)
    )
    judged = (COMPARISON if files.comparison else ()) + (CONFIRM if files.confirmation else ())
    return Verdict(
        sentence=clean(sentence), outcome=outcome, facts=tuple(facts), warnings=warnings, broken=broken,
        source=judged, beaten=clean(beaten_words(files.comparison)),
    )  # fmt: skip


def _tile(name: str, value: str, note: str, tone: Tone, *source: str, **data: float | str | None) -> Fact:
    return Fact(name=name, value=clean(value), note=clean(note), tone=tone, data=data, source=source)


# --------------------------------------------------------------------------- the sentence
def _sentence(files: RunFiles) -> tuple[Outcome, str]:
    rungs = against(files.comparison)
    if rungs:
        first = next(rung for rung in rungs if rung.pairs)
        where = f"on this corpus at {first.rung}" if len(rungs) > 1 else "on this corpus"
        outcome, text = compared(_chosen_name(files), first, where)
        further = "".join(other_rung(rung) for rung in rungs if rung is not first)
        if outcome == "better" and any(rung.tone != "good" for rung in rungs):
            outcome = "mixed"
        return outcome, text + further + _unconfirmed_note(files.confirmation)
    if files.confirmation:
        return _only_confirmed(files.confirmation)
    if files.proposal:
        return "unknown", "Not decided: θ* has been proposed, but neither confirmed nor compared."
    return "unknown", "Not decided: this run has not yet searched for θ*."


def _chosen_name(files: RunFiles) -> str:
    """Return θ*, unless the control itself won the confirmation or another label was compared."""
    name = label_name(files.comparison.chosen) if files.comparison else ""
    won = files.confirmation.winner if files.confirmation else ""
    if won == CONTROL:
        return f"The chosen mixture, {label_name(CONTROL)} itself,"
    return name if name == "θ*" else f"The chosen mixture {name}"


def _only_confirmed(confirmation: Confirmation) -> tuple[Outcome, str]:
    pair = control_pair(confirmation)
    if confirmation.source:
        there = f" (gain {gain_words(pair)} over {label_name(pair.control)})" if pair else ""
        state = "confirmed" if confirmation.confirmed else "NOT confirmed"
        return "unknown", (
            f"The θ* of the run {confirmation.source}, {state} there{there}, was applied to this corpus; "
            "whether it is better here was not measured."
        )
    gain = (
        f": {label_name(pair.label)}, gain {gain_words(pair)} over {label_name(pair.control)}" if pair else ""
    )
    tail = " No comparison with baselines has been run."
    if confirmation.confirmed:
        return "better", f"θ* beat its control in fresh proxies{gain}.{tail}"
    why = "" if pair else f" {_stop(plain_reason(confirmation))}"
    return "not better", f"θ* did NOT beat its control in fresh proxies{gain}.{why}{tail}"


def _stop(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _unconfirmed_note(confirmation: Confirmation | None) -> str:
    if confirmation is None:
        return " It was never confirmed with fresh proxies."
    if not confirmation.confirmed:
        return f" The fresh proxies before it had NOT confirmed θ*: {_stop(plain_reason(confirmation))}"
    return ""


def plain_reason(confirmation: Confirmation) -> str:
    """Return the reason without the word that it begins with: the page has said that already."""
    reason = in_words(confirmation, confirmation.reason)
    for start in ("Not confirmed: ", "Confirmed: "):
        if reason.startswith(start):
            rest = reason.removeprefix(start)
            return rest[:1].upper() + rest[1:] if rest.startswith(("the ", "no ", "every ")) else rest
    return reason


def in_words(confirmation: Confirmation, text: str) -> str:
    """Return a sentence of the confirmation with its candidates as the page calls them."""
    pairs = confirmation.against
    labels = [confirmation.winner, *(name for p in pairs for name in (p.label, p.control))]
    labels += [*(m.label for m in confirmation.measured), *(s.label for s in confirmation.rounds)]
    return named(text, dict.fromkeys(label for label in labels if label))


def control_pair(confirmation: Confirmation) -> Paired | None:
    """Return the winner's paired difference, or the best candidate's if the control won."""
    own = [p for p in confirmation.against if p.label == confirmation.winner]
    return min(own or confirmation.against, key=lambda p: p.difference, default=None)


# --------------------------------------------------------------------------- the strip
def _budget(files: RunFiles) -> Fact:
    if not files.dataset:
        return _tile("Tokens", "not run", "no dataset was written", "absent")
    got, asked = files.dataset.ledger.tokens_out, files.dataset.token_budget
    note = f"of {short(asked)} asked ({percent(got / asked - 1, 2)}), copies counted; "
    note += f"{short(files.dataset.ledger.unique_tokens)} unique"
    tone: Tone = "bad" if _budget_missed(files, files.dataset) else "good"
    return _tile("Tokens", short(got), note, tone, *DATASET, tokens_out=got, token_budget=asked)


def _budget_missed(files: RunFiles, dataset: DatasetManifest) -> bool:
    """Promise P10: within one document per domain; 1 % besides, since copies are drawn at random."""
    slack = BUDGET_TOLERANCE * dataset.token_budget
    if files.table is not None and len(files.table.tokens):
        slack = max(slack, float(files.table.longest.sum()))
    return abs(dataset.ledger.tokens_out - dataset.token_budget) > slack


def _documents(files: RunFiles) -> Fact:
    if not files.dataset:
        return _tile("Documents kept", "not run", "no dataset was written", "absent")
    ledger = files.dataset.ledger
    dropped, bad = sum(ledger.dropped.values()), sum(ledger.quarantined.values())
    note = f"of {count(ledger.rows_in)} in; {count(dropped)} dropped, {count(bad)} quarantined"
    tone: Tone = "bad" if ledger_faults(files.dataset) else "good"
    data = {"rows_in": ledger.rows_in, "selected": ledger.selected, "dropped": dropped, "quarantined": bad}
    return _tile("Documents kept", count(ledger.selected), note, tone, *DATASET, **data)


def _coverage(files: RunFiles) -> Fact:
    table = files.table
    if table is None or not len(table.coverage):
        return _tile("Score coverage", "not run", "no selection table", "absent")
    share = table.coverage
    worst = int(share.argmin())
    need = files.recipe.annotate.min_coverage if files.recipe else None
    short_of = need is not None and share[worst] < need
    note = f"least covered: {table.criteria[worst]}" + (f"; {percent(need, 2)} asked" if need else "")
    return _tile(
        "Score coverage", percent(float(share[worst]), 2), note, "bad" if short_of else "good", *SELECTION,
        coverage=float(share[worst]), criterion=table.criteria[worst],
    )  # fmt: skip


def shown_surrogates(reports: Iterable[SurrogateReport]) -> dict[str, SurrogateReport]:
    """Return per target the surrogate that steered the search: stored with its parity, not `paper`'s
    unless that is the only one; among several the best by rank correlation."""
    found: dict[str, SurrogateReport] = {}
    for report in reports:
        if report.target not in found or _order(report) > _order(found[report.target]):
            found[report.target] = report
    return found


def _order(report: SurrogateReport) -> tuple[bool, bool, float]:
    return bool(report.parity), report.surrogate != PAPER, _rho(report)


def _rho(report: SurrogateReport) -> float:
    return report.spearman if math.isfinite(report.spearman) else -math.inf


def _surrogate(files: RunFiles) -> Fact:
    shown = shown_surrogates(files.proposal.diagnostics) if files.proposal else {}
    worst = shown.get(OBJECTIVE) or min(shown.values(), key=_rho, default=None)
    if worst is None:
        return _tile("Surrogate rank correlation", "not run", "no search", "absent")
    low_high = interval(worst.spearman_low, worst.spearman_high, 2)
    note = f"out of fold, {low_high}; {'' if worst.target == OBJECTIVE else 'weakest target: '}{worst.target}"
    tone: Tone = "good" if _rho(worst) >= MIN_SPEARMAN else "bad"
    return _tile(
        "Surrogate rank correlation", num(worst.spearman, 2), note, tone, *PROPOSAL,
        spearman=worst.spearman, low=worst.spearman_low, high=worst.spearman_high, target=worst.target,
    )  # fmt: skip


def _confirmed(files: RunFiles) -> Fact:
    if files.confirmation is None:
        return _tile("Confirmed gain", "not run", "θ* was not confirmed with fresh proxies", "absent")
    pair = control_pair(files.confirmation)
    tone: Tone = "good" if files.confirmation.confirmed else "bad"
    if pair is None:
        reason = in_words(files.confirmation, files.confirmation.reason)
        return _tile("Confirmed gain", "–", reason, tone, *CONFIRM)
    verb = "over" if files.confirmation.confirmed else "NOT confirmed over"
    note = f"bits per byte, {label_name(pair.label)} {verb} {label_name(pair.control)}, "
    note += interval(-pair.high, -pair.low, sign=True)
    tried = max(len(files.confirmation.rounds), len(files.confirmation.measured)) - 1
    note += f"; {count(pair.pairs)} seeds, {count(tried)} tried"
    return _pair_tile("Confirmed gain", pair, note, tone, CONFIRM)


def _against_baselines(files: RunFiles) -> Fact:
    """The tile of all rungs; its number is the least gain in the rung with the worst tone."""
    rungs = against(files.comparison)
    if not rungs:
        return _tile("Gain over best baseline", "not run", "no comparison", "absent")
    tones: tuple[Tone, ...] = ("bad", "warn", "good")
    found = min((r for r in rungs if r.pairs), key=lambda r: (tones.index(r.tone), -r.pairs[0].difference))
    worst = found.pairs[0]
    where = f"at {found.rung}: " if len(rungs) > 1 else ""
    note = f"{where}bits per byte over {label_name(worst.control)} (above 0: better), "
    note += f"{interval(-worst.high, -worst.low, sign=True)}; {tally(found)}"
    note += "".join(f". At {r.rung}: {tally(r)}" for r in rungs if r is not found)
    tone: Tone = next(t for t in tones if any(r.tone == t for r in rungs))
    return _pair_tile("Gain over best baseline", worst, note, tone, COMPARISON)


def _pair_tile(name: str, pair: Paired, note: str, tone: Tone, source: tuple[str, ...]) -> Fact:
    data = {"gain": -pair.difference, "low": -pair.high, "high": -pair.low, "control": pair.control}
    return _tile(name, num(-pair.difference, sign=True), note, tone, *source, **data)


# --------------------------------------------------------------------------- promises and warnings
def ledger_faults(dataset: DatasetManifest) -> list[str]:
    """Return what does not add up in the manifest (promise P4), in words with both numbers."""
    ledger, domains = dataset.ledger, dataset.domains
    accounted = ledger.selected + sum(ledger.dropped.values()) + sum(ledger.quarantined.values())
    checks = [
        ("rows in", ledger.rows_in, "selected + dropped + quarantined", accounted),
        ("tokens out", ledger.tokens_out, "the domains' tokens", sum(d.tokens_out for d in domains)),
        ("unique tokens", ledger.unique_tokens, "the domains'", sum(d.unique_tokens for d in domains)),
        ("selected documents", ledger.selected, "the domains'", sum(d.documents_out for d in domains)),
    ]
    return [f"P4 ledger: {a} {count(x)}, but {b} {count(y)}" for a, x, b, y in checks if x != y]


def _broken(files: RunFiles, facts: Sequence[Fact]) -> Iterable[str]:
    named = {fact.name: fact for fact in facts}
    if files.dataset:
        yield from ledger_faults(files.dataset)
    if named["Tokens"].tone == "bad":
        yield f"P10 budget missed: {named['Tokens'].value} tokens {named['Tokens'].note}"
    if named["Score coverage"].tone == "bad":
        yield f"P8 coverage {named['Score coverage'].value}, {named['Score coverage'].note}"
    if named["Surrogate rank correlation"].tone == "bad":
        fact = named["Surrogate rank correlation"]
        yield f"the surrogate ranks θ poorly: Spearman {fact.value} < {MIN_SPEARMAN} ({fact.note})"
    if files.confirmation and not files.confirmation.confirmed:
        yield f"θ* is unconfirmed: {clean(plain_reason(files.confirmation))}"
    elif files.dataset and not files.confirmation:
        yield "a dataset was written although θ* was never confirmed"


def failed_trials(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials that failed, in the order of their names."""
    return sorted((t for t in trials if t.status == "failed"), key=lambda t: t.trial_id)


def _warnings(files: RunFiles) -> Iterable[str]:
    said: dict[str, None] = dict.fromkeys(files.notes)
    for stage in files.stages:
        said.update(dict.fromkeys(_from_stage(stage.stage, text) for text in stage.warnings))
    if files.proposal:
        said.update(dict.fromkeys(_from_stage("search", text) for text in files.proposal.warnings))
    for what, trials in (("swarm", files.trials), ("comparison", files.comparison_trials)):
        if failed := failed_trials(trials):
            names = ", ".join(t.trial_id for t in failed[:3]) + (" …" if len(failed) > 3 else "")
            said[f"{what}: {len(failed)} of {len(trials)} trials failed ({names})"] = None
    return [clean(text) for text in said]


def _from_stage(stage: str, text: str) -> str:
    """Return a warning with its stage before it, once: some stages write their name themselves."""
    return f"{stage}: {text.removeprefix(f'{stage}: ')}"
