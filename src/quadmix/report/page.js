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

  function options(select, key) {
    const counts = new Map();
    for (const doc of data.docs) counts.set(doc[key], (counts.get(doc[key]) || 0) + 1);
    add(select, "option", "all (" + data.docs.length + ")").value = "";
    const names = key === "domain" ? [...counts.keys()].sort() : [...counts.keys()];
    for (const name of names) add(select, "option", name.replaceAll("_", " ") + " (" + counts.get(name) + ")").value = name;
  }

  function scores(parent, doc) {
    const table = add(add(parent, "div", null, "scroll"), "table");
    const head = add(add(table, "thead"), "tr");
    for (const title of ["criterion", "score", "normalised", "weight"]) {
      add(head, "th", title, title === "criterion" ? "" : "n").scope = "col";
    }
    const body = add(table, "tbody");
    data.criteria.forEach((criterion, n) => {
      const row = add(body, "tr");
      const name = add(row, "th", criterion.name);
      name.scope = "row";
      name.title = criterion.note;
      for (const value of [doc.scores[n], doc.norms[n], doc.weights[n]]) add(row, "td", value, "n");
    });
  }

  function fill(card, doc) {
    const inside = add(card, "div", null, "inside");
    const text = add(inside, "div", doc.text + (doc.more ? "\n… " + doc.more + " more characters" : ""), "text");
    text.dir = "auto";
    text.tabIndex = 0;
    const why = add(inside, "div", null, "why");
    add(why, "h4", "Why " + doc.copies + (doc.copies === 1 ? " copy?" : " copies?"));
    scores(why, doc);
    const steps = add(why, "ol");
    for (const step of doc.why) add(steps, "li", step);
    add(why, "div", "id " + doc.id + " · " + doc.tokens + " tokens", "dim");
  }

  function card(doc) {
    const element = add(list, "details", null, "doc");
    const line = add(element, "summary");
    add(line, "span", doc.stratum.replaceAll("_", " "), "chip");
    add(line, "span", doc.domain).dir = "auto";
    add(line, "span", doc.copies + (doc.copies === 1 ? " copy" : " copies"), "dim");
    add(line, "span", doc.text.slice(0, 160).replace(/\s+/g, " "), "preview").dir = "auto";
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
    const stratum = field("stratum").value;
    const domain = field("domain").value;
    const copies = field("copies").value;
    const words = field("text").value.toLowerCase();
    matches = data.docs.filter((doc) =>
      (!stratum || doc.stratum === stratum) &&
      (!domain || doc.domain === domain) &&
      (!copies || (copies === "2" ? doc.copies >= 2 : doc.copies === Number(copies))) &&
      (!words || doc.text.toLowerCase().includes(words) || doc.id.toLowerCase().includes(words)));
    list.replaceChildren();
    shown = 0;
    page();
  }

  options(field("stratum"), "stratum");
  options(field("domain"), "domain");
  for (const name of ["stratum", "domain", "copies", "text"]) field(name).addEventListener("input", apply);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", page);
  apply();
})();
