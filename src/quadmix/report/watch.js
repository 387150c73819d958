// @ts-check
"use strict";
// The page of a run at work loads itself again when a newer one can be expected and nobody is at work in it.
// Folds, place and focus are kept in the history entry, which needs no storage; filters are in the address.
(function () {
  /** @typedef {{folds: string[], anchor: string, offset: number, focus: string}} Kept */
  const box = document.getElementById("watch");
  const said = document.getElementById("watch-said");
  const button = document.getElementById("reload");
  if (!box || !said || !button) return;
  const [QUIET, FIELD, LONGEST] = [5, 60, 60]; // seconds without a touch: anywhere, in a field; between two tries
  const opened = Date.now() / 1000;
  const wait = Number(box.dataset.wait);
  const age = Math.max(0, opened - Number(box.dataset.written)); // of two clocks, so only about right
  const due = opened + (age < wait ? wait - age : Math.min(Math.max(age / 4, 2), LONGEST));
  let touched = 0;

  /** The name of each fold: it stays the same in the next page. @returns {Map<string, HTMLDetailsElement>} */
  function folds() {
    const found = new Map();
    for (const fold of document.querySelectorAll("main details")) {
      const section = fold.closest("section");
      const link = fold.closest("figure")?.querySelector("a[href^='figures/']");
      const summary = fold.querySelector("summary");
      const name = [section?.id, link?.getAttribute("href"), summary?.textContent].join("\n");
      let place = 0;
      while (found.has(name + "\n" + place)) place++;
      found.set(name + "\n" + place, fold);
    }
    return found;
  }

  /** @returns {Kept} */
  function look() {
    const all = [...folds()];
    const top = [...document.querySelectorAll("main section")].filter((s) => s.getBoundingClientRect().top < 80);
    const anchor = top.length ? top[top.length - 1] : document.body;
    const at = document.activeElement;
    const own = all.find(([, fold]) => fold.querySelector("summary") === at);
    return {
      folds: all.filter(([, fold]) => fold.open).map(([name]) => name),
      anchor: anchor.id,
      offset: anchor.getBoundingClientRect().top,
      focus: own ? own[0] : at?.id || "",
    };
  }

  function reload() {
    try {
      history.scrollRestoration = "manual";
      history.replaceState({ watch: look() }, "");
    } catch { /* a browser that keeps nothing for a file: the page begins closed, at its top */ }
    location.reload();
  }

  /** @param {Kept} kept */
  function restore(kept) {
    const all = folds();
    for (const name of kept.folds) {
      const fold = all.get(name);
      if (fold) fold.open = true;
    }
    const own = all.get(kept.focus)?.querySelector("summary") || document.getElementById(kept.focus);
    own?.focus({ preventScroll: true });
    const anchor = document.getElementById(kept.anchor) || document.body;
    const ended = new AbortController();
    const place = () => scrollTo(0, scrollY + anchor.getBoundingClientRect().top - kept.offset);
    // cards fill and figures appear after this script: the place is taken again until then or a first touch
    document.addEventListener("toggle", place, { capture: true, signal: ended.signal });
    addEventListener("load", place, { signal: ended.signal });
    addEventListener("touched", () => ended.abort(), { once: true });
    place();
  }

  /** Why not now? "" if nothing speaks against it. */
  function busy() {
    const still = Date.now() / 1000 - touched;
    if (document.hidden) return "it is in the background";
    if (getSelection()?.type === "Range") return "text is selected";
    const field = document.activeElement?.matches("input, select, textarea");
    if (field && still < FIELD) return "a field is being filled in";
    return still < QUIET ? "it is being read" : "";
  }

  function turn() {
    const now = Date.now() / 1000;
    const reason = busy();
    if (now >= due && !reason) return reload();
    const old = Math.round((now - opened + age) / 60);
    tell(now >= due ? `A newer page can be expected; not loaded while ${reason}.`
      : old >= 3 && age > 3 * wait
        ? `No newer page for ${old} minutes: nothing has changed, or the watch has been stopped.`
        : "This page loads itself again while nobody types, selects or scrolls.");
  }

  /** @param {string} words */
  function tell(words) {
    if (said && said.textContent !== words) said.textContent = words;
  }

  for (const kind of ["pointerdown", "pointermove", "wheel", "touchmove", "keydown", "input"]) {
    addEventListener(kind, () => {
      touched = Date.now() / 1000;
      dispatchEvent(new Event("touched"));
    }, { capture: true, passive: true });
  }
  button.hidden = false;
  button.addEventListener("click", reload);
  /** @type {Kept|undefined} */
  const kept = history.state?.watch;
  if (kept) {
    restore(kept);
    history.scrollRestoration = "auto";
    history.replaceState(null, "");
  }
  setInterval(turn, 1000);
  turn();
})();
