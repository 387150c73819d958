"""The sections about the search: what it tried and proposes, how far to trust it, what drives the result.

In: the loaded run and the gallery. Out: HTML. Predictions stand beside what was measured and beside the
noise; what is not known is said to be unknown.
"""

from collections import Counter
from collections.abc import Sequence

from quadmix.report import robust_figures, search_figures, trials
from quadmix.report.html import Gallery, Html, absent, details, items, join, note, section, show, table, tag
from quadmix.report.load import RunFiles
from quadmix.report.origins import BATCHES, CONFIRM, PROPOSAL, TRIALS
from quadmix.report.plots import Picture
from quadmix.report.search_facts import (
    CONTROL,
    EVERY,
    PUBLISHED,
    REUSED,
    STAR,
    candidate,
    group_name,
    kind_name,
    known,
    learning_sentence,
    measured_of,
    objective_sentence,
    optimism_sentence,
    other_size,
    shots,
    steering,
    stop_sentence,
)
from quadmix.report.text import count, interval, label_name, num, percent, sig
from quadmix.report.verdict import OBJECTIVE, failed_trials
from quadmix.types import Candidate, Contrast, Effect, Proposal, SurrogateReport, Theta

SHOWN_DIFFERENCES = 10
SHOWN_FLAT = 12
QUALITY = (
    "regret@k: the best of the k trials predicted best, minus the best of all; bias: predicted minus "
    "measured over the tenth predicted best (below 0: promises too much there); inside 90 %: trials inside "
    "the 90 % interval; –: unknown."
)


# --------------------------------------------------------------------------- the search
def search(files: RunFiles, gallery: Gallery) -> Html:
    """Batches, progress, candidates with prediction and measurement."""
    title = "How did the search go?"
    proposal = files.proposal
    if proposal is None:
        return absent("search", title, "the search")
    used = f"{count(proposal.trials_used)} trials were used, {count(len(proposal.trials_excluded))} left out."
    best = f" Least measured objective of a trial: {num(proposal.best_observed)}."
    return section(
        "search",
        title,
        note(f"{objective_sentence(proposal)} {used}{best if known(proposal.best_observed) else ''}"),
        note(stop_sentence(files)) if stop_sentence(files) else Html(""),
        show(gallery, search_figures.progress(shots(files), proposal.noise_sd)),
        _batches(files, proposal),
        tag("h3", "Candidates"),
        _candidates(files, proposal),
        note(optimism_sentence(proposal.optimism)),
        source=PROPOSAL + (BATCHES if files.planned else ()),
    )


def _batches(files: RunFiles, proposal: Proposal) -> Html:
    """One row per batch: what was known before it, and what it was expected to gain."""
    if files.planned:
        planned = [(p.trials, p.seen) for p in files.planned]
    else:
        planned = [(None, seen) for seen in proposal.batches]
    rows = [
        [
            f"batch {number}" if size != 0 else f"batch {number}: not trained",
            count(size), count(seen.trials) if seen else "–", num(seen.best if seen else None),
            num(seen.improvement if seen else None), num(seen.noise if seen else None),
        ]
        for number, (size, seen) in enumerate(planned, 1 if files.planned else 2)
    ]  # fmt: skip
    headers = ["batch", "trials in it", "known before", "best measured before", "expected improvement",
               "noise of one trial"]  # fmt: skip
    caption = (
        "Batches of the search, bits per byte; the improvement is the surrogate's expectation beforehand"
    )
    source = BATCHES if files.planned else PROPOSAL
    return table(headers, rows, caption=caption, source=source) if rows else Html("")


def _candidates(files: RunFiles, proposal: Proposal) -> Html:
    rows: list[list[str]] = []
    for c in proposal.candidates:
        m, twin = measured_of(files, c.name)
        rows.append(
            [
                f"{label_name(c.name)} (the same θ as {label_name(twin)})" if twin else label_name(c.name),
                num(c.predicted), interval(c.predicted_low, c.predicted_high),
                num(m.mean) if m else "not tried", interval(m.low, m.high) if m else "–",
                count(len(m.values)) if m else "–", num(c.predicted - m.mean, sign=True) if m else "–",
            ]
        )  # fmt: skip
    for name in (STAR, PUBLISHED):
        if candidate(proposal, name) is None:
            rows.append([label_name(name), "not proposed", *["–"] * 5])
    headers = ["candidate", "predicted", "90 % interval", "measured", "95 % interval", "seeds",
               "predicted − measured"]  # fmt: skip
    caption = (
        "Candidates, bits per byte: predicted by the search, measured by the confirmation's fresh proxies"
    )
    said = [
        note(f"{w[:1].upper()}{w[1:]}.", "absent")
        for w in proposal.warnings
        if f"'{PUBLISHED}'" in w and "no candidate" in w
    ]
    if other_size(files):
        text = (
            "The confirmation trained models of another kind than the search's proxies: compare differences "
        )
        said.append(note(text + "between candidates, not the levels of the two columns.", "absent"))
    source = PROPOSAL + (CONFIRM if files.confirmation else ())
    return join(table(headers, rows, caption=caption, source=source), *said)


# --------------------------------------------------------------------------- can I trust the search?
def surrogate(files: RunFiles, gallery: Gallery) -> Html:
    """Out-of-fold quality of the surrogate next to the noise floor, and what more trials would buy."""
    title = "Can the surrogate be trusted?"
    proposal = files.proposal
    if proposal is None:
        return absent("surrogate", title, "the search")
    shown = steering(proposal)
    pictured = [r for r in shown if r.parity]
    others = [r for r in proposal.diagnostics if r not in shown]
    parts = [
        note("Everything here is out of fold: predictions of trials by fits that had not seen them."),
        show(gallery, trials.parity(pictured)) if pictured else Html(""),
        _quality(shown, "Out-of-fold quality of the surrogate that steered the search, bits per byte"),
        note(QUALITY, "absent"),
    ]
    if others:
        rest = _quality(others, "Out-of-fold quality of the others, bits per byte")
        parts.append(details("Its members alone, and the published surrogate", rest))
    parts.append(_members(shown))
    if proposal.learning:
        parts.append(tag("h3", "What would more trials buy?"))
        parts.append(note(learning_sentence(proposal.learning, proposal.noise_sd)))
        parts.append(show(gallery, search_figures.learning(proposal.learning, proposal.noise_sd)))
    return section("surrogate", title, *parts, source=PROPOSAL)


def _quality(reports: Sequence[SurrogateReport], caption: str) -> Html:
    """One row per report; which surrogate it is stands in the caption where it is the same in all rows."""
    names = {r.surrogate for r in reports}
    rows = [
        [
            r.target, *([r.surrogate] if len(names) > 1 else []),
            num(r.spearman, 2), interval(r.spearman_low, r.spearman_high, 2),
            num(r.r2, 2), num(r.rmse), num(r.noise_sd), num(r.spread_sd), num(r.regret_at_1),
            num(r.regret_at_5), num(r.best_decile_bias, sign=True), percent(r.pairwise_accuracy, 0),
            percent(r.interval_coverage, 0),
        ]
        for r in reports
    ]  # fmt: skip
    headers = ["target", "Spearman", "95 % interval", "R²", "RMSE", "noise s.d.", "spread s.d.", "regret@1",
               "regret@5", "bias in best 10 %", "pairs right", "inside 90 %"]  # fmt: skip
    if len(names) == 1:
        return table(headers, rows, caption=f"{caption} ({next(iter(names))})", source=PROPOSAL)
    headers = [headers[0], "surrogate", *headers[1:]]
    return table(headers, rows, caption=caption, words=2, source=PROPOSAL)


def _members(reports: Sequence[SurrogateReport]) -> Html:
    """Weight of every member of the surrogate per target."""
    weighed = [r for r in reports if r.members]
    if not weighed:
        return Html("")
    names = sorted({n for r in weighed for n in r.members})
    rows = [[r.target, *(percent(r.members.get(n, 0.0), 0) for n in names)] for r in weighed]
    return table(["target", *names], rows, caption="Weights of the surrogate's members", source=PROPOSAL)


# --------------------------------------------------------------------------- what drives the result?
def drivers(files: RunFiles, gallery: Gallery) -> Html:
    """Effects of the parameters, free choices, and the shares of the candidates."""
    title = "What drives the result?"
    proposal = files.proposal
    if proposal is None:
        return absent("drivers", title, "the search")
    parts: list[Html] = []
    winner = files.confirmation.winner if files.confirmation else STAR
    if proposal.effects:
        parts.append(show(gallery, search_figures.effect_bars(proposal.effects, proposal.noise_sd)))
        parts += _differences(proposal, files.domains, winner)
        parts.append(show(gallery, robust_figures.interaction_heat(proposal.interactions)))
        parts += _free(proposal)
    else:
        parts.append(note("The effects of the parameters are not stored in this run.", "absent"))
    picture = search_figures.shares(proposal.candidates, [*dict.fromkeys([STAR, CONTROL, PUBLISHED, winner])])
    parts.append(tag("h3", "Shares of the domains"))
    parts.append(show(gallery, picture) or note("Not stored in this run.", "absent"))
    parts.append(show(gallery, _best_trials(files, proposal)))
    return section("drivers", title, *parts, source=PROPOSAL)


def _best_trials(files: RunFiles, proposal: Proposal) -> Picture | None:
    report = next((r for r in steering(proposal) if r.target == OBJECTIVE), None)
    shares = {t.trial_id: t.shares for t in files.trials}
    names = _order(proposal) or tuple(files.domains)
    star = candidate(proposal, STAR)
    return robust_figures.best_trials(report.parity if report else (), shares, names, star)


def _differences(proposal: Proposal, domains: Sequence[str], winner: str) -> list[Html]:
    """Where the winner differs from the prior mean in a way that is clear over refits."""
    first, control = candidate(proposal, winner) or proposal.candidates[0], candidate(proposal, CONTROL)
    own: Sequence[Contrast | Effect] = proposal.contrasts.get(first.name, proposal.effects)
    clear = [e for e in own if e.low > 0 or e.high < 0]
    clear = sorted(clear, key=lambda e: -abs(e.difference))[:SHOWN_DIFFERENCES]
    heading = tag("h3", f"What distinguishes {label_name(first.name)} from the {label_name(CONTROL)}")
    if not clear:
        return [heading, note("No group of parameters makes a difference that is clear over refits.")]
    names = _order(proposal) or tuple(domains)
    rows = [
        [
            group_name(e.group, e.domain), _value(first, e, names), _value(control, e, names),
            num(e.difference, sign=True), interval(e.low, e.high, sign=True),
        ]
        for e in clear
    ]  # fmt: skip
    caption = (
        "Largest differences of the predicted objective, bits per byte: the values of "
        f"{label_name(first.name)} put into the prior mean, group by group (below 0 = better)"
    )
    if criteria := _criteria(proposal, names):
        caption += f"; weights in the order {' / '.join(criteria)}"
    headers = ["group", label_name(first.name), label_name(CONTROL), "difference", "90 % interval"]
    return [heading, table(headers, rows, caption=caption, words=3, source=PROPOSAL)]


def _order(proposal: Proposal) -> tuple[str, ...]:
    """Return the domains in θ's order, which the names of the features keep."""
    shares = [n for n in proposal.feature_names if n.startswith("share[")]
    return tuple(n.removeprefix("share[").removesuffix("]") for n in shares)


def _criteria(proposal: Proposal, domains: Sequence[str]) -> list[str]:
    """Return the criteria in θ's order, from the names of the first domain's features."""
    start = f"score[{domains[0]}," if domains else "score["
    return [n[len(start) : -1] for n in proposal.feature_names if n.startswith(start)]


def _value(found: Candidate | None, effect: Contrast | Effect, domains: Sequence[str]) -> str:
    """Return the candidate's value of a group in one domain, a dash for groups over several."""
    theta = found.theta if found else None
    if effect.domain not in domains or theta is None or len(theta.cutoff) != len(domains):
        return "–"
    place = domains.index(effect.domain)
    if effect.group == "weight":
        return " / ".join(num(float(w), 2) for w in theta.weights[place])
    if effect.group in ("steepness", "cutoff", "exponent", "floor", "scale"):
        return sig(_numbers(theta, effect.group, place), 3)
    return "–"


def _numbers(theta: Theta, group: str, place: int) -> float:
    return float(getattr(theta, group)[place])


def _free(proposal: Proposal) -> list[Html]:
    """List the groups whose value hardly matters, by kind."""
    flat: dict[str, list[str]] = {}
    for e in proposal.effects:
        if e.flat:
            flat.setdefault(e.group, []).append(e.domain)
    heading = tag("h3", "Free choices")
    measure = "the noise of one trial" if known(proposal.noise_sd) else "what can be seen at all"
    if not flat:
        return [heading, note(f"None: every group moves the objective by more than {measure}.")]
    lines = [_flat_line(group, domains) for group, domains in flat.items()]
    text = f"Any value does around θ*: these move the predicted objective by less than {measure}."
    if not known(proposal.noise_sd):
        text += " The noise is unknown, so only groups without any effect are named."
    return [heading, note(text), items(lines)]


def _flat_line(group: str, domains: Sequence[str]) -> str:
    name = kind_name(group)
    if EVERY in domains:
        return f"{name}: in all domains together"
    shown = ", ".join(domains[:SHOWN_FLAT])
    more = f" and {len(domains) - SHOWN_FLAT} more" if len(domains) > SHOWN_FLAT else ""
    return f"{name}: in {shown}{more}"


# --------------------------------------------------------------------------- the swarm
_KINDS = {"prior": "for the search", "repeat": "repeats of the prior mean", "confirm": "for the confirmation",
          "regmix": "for the baseline RegMix", "compare": "for the comparison",
          REUSED: "reused from earlier runs"}  # fmt: skip


def _trained(files: RunFiles) -> str:
    """Count the finished proxies by what they are for."""
    done = [t for t in files.trials if t.status == "done"]
    kinds = Counter(REUSED if t.trial_id.startswith(REUSED) else t.kind for t in done)
    named = ", ".join(f"{count(n)} {_KINDS.get(kind, kind)}" for kind, n in kinds.items())
    return f"{count(len(done))} proxies ({named})"


def swarm(files: RunFiles, gallery: Gallery) -> Html:
    """Losses of the swarm, failed trials by name, training curves."""
    if not files.trials:
        return absent("swarm", "The swarm", "no proxies have been trained")
    failed = failed_trials(files.trials)
    own = files.confirmation.measured if files.confirmation else ()
    winner = next((m.losses for m in own if files.confirmation and m.label == files.confirmation.winner), {})
    excluded = files.proposal.trials_excluded if files.proposal else {}
    rows = [[t.trial_id, t.kind, t.reason] for t in failed]
    named = {t.trial_id for t in failed}
    rows += [[name, "excluded", reason] for name, reason in excluded.items() if name not in named]
    headers = ["trial", "kind", "reason"]
    source = TRIALS + (PROPOSAL if files.proposal else ())
    bad = Html("")
    if rows:
        bad = table(headers, rows, caption="Failed and excluded trials", words=3, source=source)
    return section(
        "swarm",
        "The swarm",
        note(f"{_trained(files)}; {count(len(failed))} failed."),
        show(gallery, trials.swarm_losses(files.trials, winner)),
        bad,
        show(gallery, trials.loss_curves(files.trials)),
        source=TRIALS,
    )
