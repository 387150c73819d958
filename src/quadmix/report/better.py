# --------------------------------------------------------------------------- is it better?
def baselines(files: RunFiles, gallery: Gallery) -> Html:
    """Comparison with every baseline, then the confirmation before it."""
    parts: list[Html] = []
    if files.comparison is None:
        parts.append(not_run("the comparison with baselines"))
    else:
        parts += _comparison(files.comparison, gallery)
    parts.append(tag("h3", "Confirmation with fresh proxies"))
    if files.confirmation is None:
        parts.append(not_run("the confirmation"))
    else:
        parts += _confirmation(files.confirmation)
    return section("baselines", "Is it better?", *parts)


def _cost(comparison: Comparison) -> str:
    """Say how many proxies each searched selector had trained."""
    names = {"quadmix": "θ*"}
    counts = [f"{names.get(label, label)} {count}" for label, count in comparison.proxies.items()]
    return f" (proxies trained: {', '.join(counts)})" if counts else ""


def _comparison(comparison: Comparison, gallery: Gallery) -> list[Html]:
    seeds = max((len(m.values) for m in comparison.measured), default=0)
    intro = (
        f"Models of {short(comparison.model_parameters)} parameters, {short(comparison.train_tokens)} "
        f"training tokens each, {seeds} seeds, on {comparison.pool_share:.0%} of the pool; selectors "
        "differ only in which documents they took, and the target rows that judge here did not steer the "
        f"search{_cost(comparison)}. "
        f"{comparison.verdict}"
    )
    return [
        note(intro),
        show(gallery, trials.dots(comparison.measured, comparison.chosen, "comparison")),
        _measured_table(comparison.measured, comparison.against, comparison.chosen, comparison.predicted),
        _losses_table("Measured loss per target, bits per byte", comparison.measured, "losses"),
        _losses_table("Held-out loss per domain, bits per byte", comparison.measured, "heldout"),
    ]


def _measured_table(
    measured: Sequence[Measured], against: Sequence[Paired], chosen: str, predicted: dict[str, float]
) -> Html:
    pairs = {p.control: p for p in against if p.label == chosen}
    rows: list[list[str]] = []
    for m in sorted(measured, key=lambda m: m.mean):
        pair = pairs.get(m.label)
        rows.append(
            [
                label_name(m.label), count(m.selected_tokens), count(m.unique_tokens), num(m.epochs, 2),
                num(predicted.get(m.label)), num(m.mean), interval(m.low, m.high),
                num(pair.difference, sign=True) if pair else "–",
                interval(pair.low, pair.high, sign=True) if pair else "–",
                "–" if not pair else "beaten" if beats(pair) else "NOT beaten",
            ]
        )  # fmt: skip
    name = label_name(chosen)
    headers = ["selector", "selected tokens", "unique tokens", "epochs", "predicted", "measured",
               "95 % interval", f"{name} − it", "95 % interval", f"by {name}"]  # fmt: skip
    return table(headers, rows, caption="Selectors by measured loss (lower is better), paired differences")


def _losses_table(caption: str, measured: Sequence[Measured], which: str) -> Html:
    ordered = sorted(measured, key=lambda m: m.mean)
    losses: list[dict[str, float]] = [m.losses if which == "losses" else m.heldout for m in ordered]
    names = sorted({n for row in losses for n in row})
    if not names:
        return Html("")
    rows = [[n, *(num(row.get(n)) for row in losses)] for n in names]
    what = "target" if which == "losses" else "domain"
    return details(caption, table([what, *(label_name(m.label) for m in ordered)], rows, caption=caption))


def _confirmation(confirmation: Confirmation) -> list[Html]:
    pairs = {p.label: p for p in confirmation.against}
    rows: list[list[str]] = []
    for m in sorted(confirmation.measured, key=lambda m: m.mean):
        pair = pairs.get(m.label)
        rows.append(
            [
                m.label, num(m.mean), interval(m.low, m.high),
                num(pair.difference, sign=True) if pair else "–",
                interval(pair.low, pair.high, sign=True) if pair else "–",
                "–" if not pair else "better" if beats(pair) else "NOT better",
            ]
        )  # fmt: skip
    control = confirmation.against[0].control if confirmation.against else "control"
    headers = [
        "candidate",
        "measured",
        "95 % interval",
        f"it − {control}",
        "95 % interval",
        f"than {control}",
    ]
    state = "Confirmed" if confirmation.confirmed else "NOT confirmed"
    return [
        note(f"{state}; best measured: {confirmation.winner}. {confirmation.reason}"),
        table(headers, rows, caption="Fresh proxies by measured loss, bits per byte (lower is better)"),
        _losses_table("Fresh proxies: loss per target", confirmation.measured, "losses"),
    ]


