// @ts-check
"use strict";
// The documents that one of two runs alone selects. Documents, ids and names are untrusted: every string
// enters the page through textContent, never as markup, and attributes get fixed names and words only.

/**
 * @typedef {{id: string, only: "A"|"B", domain: string, tokens: number, text: string|null, more: number,
 *   note: string, inA: boolean, inB: boolean}} Chosen
 * @typedef {{docs: Chosen[], a: Reasons, b: Reasons}} Pair
 */

(function () {
  /** @typedef {HTMLInputElement|HTMLSelectElement} Field */
  const list = get("docs");
  if (!list) return; // no document was sampled
  const data = /** @type {Pair} */ (JSON.parse(get("data").textContent || "null"));
  const STEP = 20;
  const names = /** @type {const} */ (["only", "domain", "text"]);
  const fields = /** @type {Record<typeof names[number], Field>} */ (
    Object.fromEntries(names.map((n) => [n, get("f-" + n)])));
  const [found, more] = [get("found"), get("more")];
  const [whyA, whyB] = [whyCard(data.a, "A"), whyCard(data.b, "B")];
  let matches = /** @type {number[]} */ ([]);
  let shown = 0;

  /** @param {string} id @returns {HTMLElement} */
  function get(id) {
    return /** @type {HTMLElement} */ (document.getElementById(id));
  }

  /** One run's way to its copies. @param {Element} parent @param {"A"|"B"} run @param {number} i
   *  @param {boolean} there */
  function side(parent, run, i, there) {
    const box = add(parent, "div", null, "why " + run.toLowerCase());
    if (there) (run === "A" ? whyA : whyB)(box, i);
    else add(box, "h3", run + ": not in this run's pool");
  }

  /** @param {Element} element @param {number} i */
  function fill(element, i) {
    const doc = data.docs[i];
    const inside = add(element, "div", null, "inside stacked");
    if (doc.text !== null) {
      const cut = doc.more ? `\n… ${count(doc.more)} more characters` : "";
      const text = add(inside, "div", doc.text + cut, "text wide-text");
      text.dir = "auto";
      text.tabIndex = 0;
      text.setAttribute("role", "group");
      text.setAttribute("aria-label", "Text of this document");
    }
    if (doc.note) add(inside, "p", doc.note, "absent");
    const pair = add(inside, "div", null, "pair");
    side(pair, "A", i, doc.inA);
    side(pair, "B", i, doc.inB);
    add(inside, "p", "id " + doc.id, "hint");
  }

  /** @param {number} i */
  function card(i) {
    const doc = data.docs[i];
    const element = /** @type {HTMLDetailsElement} */ (add(list, "details", null, "doc"));
    const line = add(element, "summary");
    add(line, "span", "only in " + doc.only, "chip " + doc.only.toLowerCase());
    add(line, "span", doc.domain).dir = "auto";
    add(line, "span", count(doc.tokens) + " tokens", "dim");
    const preview = doc.text === null ? doc.id : doc.text.slice(0, 160).replace(/\s+/g, " ");
    add(line, "span", preview, "preview").dir = "auto";
    element.addEventListener("toggle", () => {
      if (element.open && element.childElementCount === 1) fill(element, i);
    });
  }

  function page() {
    for (const i of matches.slice(shown, shown + STEP)) card(i);
    shown = Math.min(shown + STEP, matches.length);
    more.hidden = shown >= matches.length;
    const all = count(data.docs.length);
    found.textContent = `${count(matches.length)} of ${all} documents; ${count(shown)} shown.`;
  }

  /** Show more, and take the reader to the first of them: the button may be gone now. */
  function next() {
    const first = shown;
    page();
    /** @type {HTMLElement|undefined} */ (list.querySelectorAll("summary")[first])?.focus();
  }

  function apply() {
    const [only, domain] = [fields.only.value, fields.domain.value];
    const words = fields.text.value.toLowerCase();
    matches = [...data.docs.keys()].filter((i) => {
      const doc = data.docs[i];
      return (!only || doc.only === only)
        && (!domain || doc.domain === domain)
        && (!words || (doc.id + "\n" + (doc.text || "")).toLowerCase().includes(words));
    });
    list.replaceChildren();
    shown = 0;
    page();
  }

  for (const name of [...new Set(data.docs.map((doc) => doc.domain))].sort()) {
    const option = /** @type {HTMLOptionElement} */ (add(fields.domain, "option", name));
    option.value = name;
  }
  for (const n of names) fields[n].addEventListener("input", apply);
  get("filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", next);
  apply();
})();
