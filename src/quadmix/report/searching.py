# --------------------------------------------------------------------------- can I trust the search?
def surrogate(files: RunFiles, gallery: Gallery) -> Html:
    """Out-of-fold parity of the surrogate next to the noise floor."""
    title = "Can the search be trusted?"
    if files.proposal is None:
        return section("surrogate", title, not_run("the search"))
    shown = [r for r in shown_surrogates(files.proposal.diagnostics).values() if r.parity]
    parts = [show(gallery, trials.parity(shown))] if shown else []
    rows = [
        [
            r.target, r.surrogate, num(r.spearman, 2), interval(r.spearman_low, r.spearman_high, 2),
            num(r.rmse), num(r.r2, 2), num(r.regret_at_1), percent(r.pairwise_accuracy),
            percent(r.interval_coverage), num(r.noise_sd), num(r.spread_sd),
        ]
        for r in files.proposal.diagnostics
    ]  # fmt: skip
    headers = ["target", "surrogate", "Spearman", "interval", "RMSE", "R²", "regret@1", "pairs right",
               "in its interval", "noise s.d.", "spread s.d."]  # fmt: skip
    parts.append(
        table(headers, rows, caption="Out-of-fold quality of the surrogates, bits per byte", words=2)
    )
    parts.append(_candidates(files))
    return section("surrogate", title, *parts)


def _candidates(files: RunFiles) -> Html:
    if files.proposal is None:
        return Html("")
    rows = [
        [label_name(c.name), num(c.predicted), interval(c.predicted_low, c.predicted_high)]
        for c in files.proposal.candidates
    ]
    caption = f"Candidates by predicted objective, from {count(files.proposal.trials_used)} trials"
    return details(caption, table(["candidate", "predicted", "90 % interval"], rows, caption=caption))


def swarm(files: RunFiles, gallery: Gallery) -> Html:
    """Losses of the swarm, failed trials by name, training curves."""
    if not files.trials:
        return section("swarm", "The swarm", not_run("no proxies have been trained"))
    failed = failed_trials(files.trials)
    own = files.confirmation.measured if files.confirmation else ()
    winner = next((m.losses for m in own if files.confirmation and m.label == files.confirmation.winner), {})
    excluded = files.proposal.trials_excluded if files.proposal else {}
    rows = [[t.trial_id, t.kind, t.reason] for t in failed]
    named = {t.trial_id for t in failed}
    rows += [[name, "excluded", reason] for name, reason in excluded.items() if name not in named]
    headers = ["trial", "kind", "reason"]
    bad = table(headers, rows, caption="Failed and excluded trials", words=3) if rows else Html("")
    done = len(files.trials) - len(failed)
    return section(
        "swarm",
        "The swarm",
        note(f"{count(done)} proxies trained, {count(len(failed))} failed."),
        show(gallery, trials.swarm_losses(files.trials, winner)),
        bad,
        show(gallery, trials.loss_curves(files.trials)),
    )


