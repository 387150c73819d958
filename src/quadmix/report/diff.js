"use strict";
// Documents are untrusted: every string enters the page through textContent, never as markup.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("docs");
  if (!list) return;
  const STEP = 20;
  const field = (name) => document.getElementById("f-" + name);
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  let matches = [];
  let shown = 0;

  function add(parent, tag, text, css) {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (css) element.className = css;
    parent.appendChild(element);
    return element;
  }

  function scores(parent, card) {
    const scroll = add(parent, "div", null, "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Scores");
    const table = add(scroll, "table");
    const head = add(add(table, "thead"), "tr");
    for (const title of ["criterion", "score", "normalised", "weight"]) {
      add(head, "th", title, title === "criterion" ? "" : "n").scope = "col";
    }
    const body = add(table, "tbody");
    for (const [name, note, ...numbers] of card.scores) {
      const row = add(body, "tr");
      const first = add(row, "th", name);
      first.scope = "row";
      first.title = note;
      for (const number of numbers) add(row, "td", number, "n");
    }
  }

  function side(parent, letter, card) {
    const box = add(parent, "div", null, "why " + letter.toLowerCase());
    add(box, "h4", letter + ": " + card.head);
    if (card.scores.length) scores(box, card);
    const steps = add(box, "ol");
    for (const step of card.steps) add(steps, "li", step);
  }

  function fill(element, doc) {
    const inside = add(element, "div", null, "inside stacked");
    if (doc.text !== null) {
      const cut = doc.more ? "\n… " + doc.more + " more characters" : "";
      const text = add(inside, "div", doc.text + cut, "text wide-text");
      text.dir = "auto";
      text.tabIndex = 0;
    }
    if (doc.note) add(inside, "p", doc.note, "absent");
    const pair = add(inside, "div", null, "pair");
    side(pair, "A", doc.a);
    side(pair, "B", doc.b);
    add(inside, "div", "id " + doc.id, "dim");
  }

  function card(doc) {
    const element = add(list, "details", null, "doc");
    const line = add(element, "summary");
    add(line, "span", "only in " + doc.only, "chip " + doc.only.toLowerCase());
    add(line, "span", doc.domain).dir = "auto";
    add(line, "span", doc.tokens + " tokens", "dim");
    const preview = doc.text === null ? doc.id : doc.text.slice(0, 160).replace(/\s+/g, " ");
    add(line, "span", preview, "preview").dir = "auto";
    element.addEventListener("toggle", () => {
      if (element.open && element.childElementCount === 1) fill(element, doc);
    });
  }

  function page() {
    for (const doc of matches.slice(shown, shown + STEP)) card(doc);
    shown = Math.min(shown + STEP, matches.length);
    more.hidden = shown >= matches.length;
    found.textContent = matches.length + " of " + data.docs.length + " documents; " + shown + " shown.";
  }

  function apply() {
    const only = field("only").value;
    const domain = field("domain").value;
    const words = field("text").value.toLowerCase();
    matches = data.docs.filter((doc) =>
      (!only || doc.only === only) &&
      (!domain || doc.domain === domain) &&
      (!words || (doc.text || "").toLowerCase().includes(words) || doc.id.toLowerCase().includes(words)));
    list.replaceChildren();
    shown = 0;
    page();
  }

  for (const name of [...new Set(data.docs.map((doc) => doc.domain))].sort()) {
    add(field("domain"), "option", name).value = name;
  }
  for (const name of ["only", "domain", "text"]) field(name).addEventListener("input", apply);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", page);
  apply();
})();
