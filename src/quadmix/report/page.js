// @ts-check
"use strict";
// The viewer of sampled documents. Documents, ids and names are untrusted: every string enters the page
// through textContent, never as markup, and attributes get fixed names and words of this file only.
(function () {
  /** @typedef {HTMLInputElement|HTMLSelectElement} Field */
  /** @type {Data|null} */
  const given = JSON.parse(get("data").textContent || "null");
  if (!given) return; // nothing was sampled
  const data = given;
  const docs = data.docs;
  const size = docs.id.length;
  const PAGE = 20;
  const SHARED = "#documents?";
  const DEFAULTS = {
    stratum: "", domain: "", copies: "", by: "rank", min: "", max: "", sort: "", order: "up", text: "",
  };
  const names = /** @type {(keyof typeof DEFAULTS)[]} */ (Object.keys(DEFAULTS));
  const fields = /** @type {Record<keyof typeof DEFAULTS, Field>} */ (
    Object.fromEntries(names.map((n) => [n, get("f-" + n)])));
  const [list, found, pager] = [get("docs"), get("found"), get("pager")];
  const [before, after] = /** @type {HTMLButtonElement[]} */ ([get("before"), get("after")]);
  const why = whyCard(data);
  let matches = /** @type {number[]} */ ([]);
  let page = 0;

  /** @param {string} id @returns {HTMLElement} */
  function get(id) {
    return /** @type {HTMLElement} */ (document.getElementById(id));
  }

  // ------------------------------------------------------------------ texts and numbers of a document
  /** @type {(string|null)[][]} */
  const texts = [];
  /** Texts lie in blocks that are parsed when first needed. @param {number} i @returns {string|null} */
  function text(i) {
    if (data.redacted) return null;
    const place = Math.floor(i / data.chunk);
    if (!texts[place]) texts[place] = JSON.parse(get("texts-" + place).textContent || "");
    return texts[place][i % data.chunk];
  }
  function absent() {
    return data.redacted ? "(text left out of this page)" : "(text not read)";
  }

  /** The number by which documents are filtered and sorted. @param {string} key
   *  @returns {(i: number) => number|null} */
  function measure(key) {
    const criterion = data.criteria.findIndex((c) => "score:" + c.name === key);
    if (criterion >= 0) return (i) => data.scores[criterion][i];
    if (key === "merged" || key === "expected" || key === "tokens") return (i) => docs[key][i];
    return (i) => {
      const [low, high] = [docs.low[i], docs.high[i]];
      return low === null || high === null ? null : (low + high) / 2;
    };
  }

  /** The name of such a number. @param {string} key */
  function title(key) {
    return key.startsWith("score:") ? key.slice(6)
      : key === "merged" ? "merged score" : key === "expected" ? "expected copies" : key;
  }

  /** The numbers that the list is sorted and filtered by at present. */
  function measured() {
    const ranged = fields.min.value !== "" || fields.max.value !== "";
    return [...new Set([fields.sort.value, ranged ? fields.by.value : ""])].filter(Boolean);
  }

  // ------------------------------------------------------------------ list
  /** @param {Element} card @param {number} i */
  function fill(card, i) {
    const inside = add(card, "div", null, "inside");
    const words = text(i);
    const left = docs.more[i] ? `\n… ${count(docs.more[i])} more characters are in samples.parquet` : "";
    const body = add(inside, "div", words === null ? absent() : words + left, "text");
    body.dir = "auto";
    body.tabIndex = 0;
    body.setAttribute("role", "group");
    body.setAttribute("aria-label", "Text of this document");
    const reasons = add(inside, "div", null, "why");
    why(reasons, i);
    add(reasons, "p", "id " + docs.id[i] + " · " + count(docs.tokens[i]) + " tokens", "hint");
  }

  /** @param {number} i */
  function card(i) {
    const element = /** @type {HTMLDetailsElement} */ (add(list, "details", null, "doc"));
    const line = add(element, "summary");
    add(line, "span", data.strata[docs.stratum[i]].replaceAll("_", " "), "chip");
    add(line, "span", data.domains[docs.domain[i]]).dir = "auto";
    add(line, "span", copies(docs.copies[i]), "dim");
    const numbers = measured().map((key) => title(key) + " " + sig(measure(key)(i), 4));
    if (numbers.length) add(line, "span", numbers.join(" · "), "measure").dir = "auto";
    const words = text(i);
    const preview = words === null ? docs.id[i] : words.slice(0, 160).replace(/\s+/g, " ");
    add(line, "span", preview, "preview").dir = "auto";
    element.addEventListener("toggle", () => {
      if (element.open && element.childElementCount === 1) fill(element, i);
    });
  }

  function show() {
    const pages = Math.max(1, Math.ceil(matches.length / PAGE));
    page = Math.max(0, Math.min(page, pages - 1));
    list.replaceChildren();
    list.className = measured().length ? "measured" : "";
    for (const i of matches.slice(page * PAGE, (page + 1) * PAGE)) card(i);
    const last = Math.min(matches.length, (page + 1) * PAGE);
    found.textContent = `${count(matches.length)} of ${count(size)} samples match`
      + (last ? `; ${count(page * PAGE + 1)} to ${count(last)} shown (page ${page + 1} of ${pages}).` : ".");
    pager.hidden = pages === 1;
    before.disabled = page === 0;
    after.disabled = page === pages - 1;
  }

  /** @param {number} by */
  function turn(by) {
    page += by;
    show();
    remember();
    const first = list.querySelector("summary");
    if (first) first.focus(); // the button may be disabled now, and the new page is to be seen from its top
  }

  // ------------------------------------------------------------------ filters
  function apply() {
    const stratum = data.strata.indexOf(fields.stratum.value);
    const domain = data.domains.indexOf(fields.domain.value);
    const words = fields.text.value.toLowerCase();
    const copied = fields.copies.value;
    const [min, max] = [fields.min.value, fields.max.value];
    const [least, most] = [min === "" ? -Infinity : Number(min), max === "" ? Infinity : Number(max)];
    const value = measure(fields.by.value);
    matches = [];
    for (let i = 0; i < size; i++) {
      if (stratum >= 0 && docs.stratum[i] !== stratum) continue;
      if (domain >= 0 && docs.domain[i] !== domain) continue;
      if (copied && Math.min(docs.copies[i], 2) !== Number(copied)) continue;
      if (min + max) {
        const number = value(i);
        if (number === null || number < least || number > most) continue;
      }
      if (words && !(docs.id[i] + "\n" + (text(i) || "")).toLowerCase().includes(words)) continue;
      matches.push(i);
    }
    sort();
    show();
  }

  function sort() {
    if (!fields.sort.value) return;
    const key = measure(fields.sort.value);
    const sign = fields.order.value === "down" ? -1 : 1;
    /** Missing values stand last in both orders. @param {number} i */
    const place = (i) => {
      const number = key(i);
      return number === null ? Infinity : sign * number;
    };
    matches.sort((a, b) => (place(a) === place(b) ? a - b : place(a) < place(b) ? -1 : 1));
  }

  /** Show the smallest and largest value there is as what may be typed. */
  function range() {
    const value = measure(fields.by.value);
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < size; i++) {
      const number = value(i);
      if (number === null) continue;
      low = Math.min(low, number);
      high = Math.max(high, number);
    }
    const [min, max] = /** @type {HTMLInputElement[]} */ ([fields.min, fields.max]);
    min.placeholder = low <= high ? sig(low, 4) : "";
    max.placeholder = low <= high ? sig(high, 4) : "";
  }

  /** Keep the view in the address, so that it can be shared. */
  function remember() {
    const view = new URLSearchParams();
    for (const n of names) if (fields[n].value !== DEFAULTS[n]) view.set(n, fields[n].value);
    if (page) view.set("page", String(page + 1));
    const words = view.toString();
    if (!words && !location.hash.startsWith(SHARED)) return;
    history.replaceState(null, "", words ? SHARED + words : "#documents");
  }

  /** Take the view from the address; what it does not name, or names wrongly, is as at the start. */
  function recall() {
    const view = new URLSearchParams(location.hash.slice(SHARED.length));
    for (const n of names) {
      const field = fields[n];
      const word = view.get(n) ?? DEFAULTS[n];
      field.value = field.type === "number" && !Number.isFinite(Number(word)) ? "" : word;
      if (field instanceof HTMLSelectElement && field.selectedIndex < 0) field.value = DEFAULTS[n];
    }
    page = Math.floor(Number(view.get("page")) || 1) - 1;
    range();
    apply();
    get("documents").scrollIntoView();
  }

  function changed() {
    page = 0;
    apply();
    remember();
  }

  /** @param {Element} select @param {string} words @param {string} value */
  function choice(select, words, value) {
    const option = /** @type {HTMLOptionElement} */ (add(select, "option", words));
    option.value = value;
  }

  /** @param {Element} select @param {string[]} labels @param {number[]} column */
  function choices(select, labels, column) {
    const counts = labels.map(() => 0);
    for (const place of column) counts[place] += 1;
    labels.forEach((label, n) => {
      choice(select, `${label.replaceAll("_", " ")} (${count(counts[n])})`, label);
    });
  }

  choices(fields.stratum, data.strata, docs.stratum);
  choices(fields.domain, data.domains, docs.domain);
  for (const { name, higher } of data.criteria) {
    const words = `score ${name} (${higher ? "higher" : "lower"} = better)`;
    for (const select of [fields.by, fields.sort]) choice(select, words, "score:" + name);
  }
  for (const n of names) fields[n].addEventListener("input", changed);
  fields.by.addEventListener("input", range);
  get("filters").addEventListener("submit", (event) => event.preventDefault());
  get("reset").addEventListener("click", () => {
    for (const n of names) fields[n].value = DEFAULTS[n];
    range();
    changed();
  });
  before.addEventListener("click", () => turn(-1));
  after.addEventListener("click", () => turn(1));
  window.addEventListener("hashchange", () => {
    if (location.hash.startsWith(SHARED)) recall();
  });
  range();
  if (location.hash.startsWith(SHARED)) recall();
  else apply();
})();
