// @ts-check
"use strict";
// Why a document has its copies: every number from its scores to the draw. Names are untrusted: every string
// enters the page through textContent, never as markup, and attributes get fixed names and words only.

/**
 * @typedef {{weights: number[], steepness: number, cutoff: number, exponent: number, floor: number,
 *   scale: number}} Curve
 * @typedef {{id: string[], stratum: number[], domain: number[], tokens: number[], copies: number[],
 *   merged: (number|null)[], low: (number|null)[], high: (number|null)[], expected: (number|null)[],
 *   uniform: (number|null)[], factor: (number|null)[], more: number[]}} Columns
 * @typedef {Pick<Columns, "domain"|"copies"|"merged"|"low"|"high"|"expected"|"uniform"|"factor">
 *   & {excluded?: (string|null)[]}} Ways the columns of a why card; excluded: the reason, where it is known
 * @typedef {{domains: string[], criteria: {name: string, higher: boolean}[], curves: (Curve|null)[],
 *   applied: boolean, docs: Ways, scores: (number|null)[][], norms: (number|null)[][]}} Reasons
 * @typedef {Reasons & {strata: string[], docs: Columns, chunk: number, redacted: boolean}} Data
 */

/** @param {Element} parent @param {string} tag @param {string|null} [text] @param {string} [css] */
function add(parent, tag, text, css) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (css) element.className = css;
  parent.appendChild(element);
  return element;
}

/** @param {number|null|undefined} x @param {number} digits */
function fixed(x, digits) {
  return x === null || x === undefined ? "–" : x.toFixed(digits).replace("-", "−");
}
/** @param {number|null|undefined} x @param {number} [digits] */
function sig(x, digits = 5) {
  return x === null || x === undefined ? "–" : String(Number(x.toPrecision(digits))).replaceAll("-", "−");
}
/** @param {number} n */
function count(n) {
  return n.toLocaleString("en");
}
/** @param {number} n */
function copies(n) {
  return n + (n === 1 ? " copy" : " copies");
}

/** Equation 3 at a rank. @param {Curve} c @param {number} rank */
function curveAt(c, rank) {
  const height = (2 / (1 + Math.exp(-c.steepness * (c.cutoff - rank)))) ** c.exponent;
  return c.scale * ((rank <= c.cutoff ? height : 0) + c.floor);
}

/** Does nothing of the interval lie in the window? One that begins at the cutoff shares no width with it, so
 *  its mean is the floor; a point on the cutoff is inside (equation 3 has r <= ω).
 *  @param {Curve} c @param {number} low @param {number} high */
function isBeyond(c, low, high) {
  return low > c.cutoff || (low === c.cutoff && high > low);
}

/** Return the function that fills an element with the reasons of document i. @param {Reasons} data
 *  @param {string} [run] its name, where there are several @returns {(parent: Element, i: number) => void} */
function whyCard(data, run) {
  const docs = data.docs;

  /** S at both ends of an interval. @param {Curve} c @param {number} low @param {number} high */
  function ends(c, low, high) {
    if (isBeyond(c, low, high)) return [c.scale * c.floor, c.scale * c.floor];
    return [curveAt(c, low), curveAt(c, high)];
  }

  /** Weights after leaving out the criteria without a score. @param {Curve} c @param {number} i */
  function usedWeights(c, i) {
    const known = data.norms.map((column) => column[i] !== null);
    const kept = c.weights.map((w, n) => (known[n] ? w : 0));
    const sum = kept.reduce((a, b) => a + b, 0);
    const count = known.filter(Boolean).length;
    return kept.map((w, n) => (sum > 0 ? w / sum : known[n] ? 1 / count : 0));
  }

  /** @param {Element} parent @param {string[]} cells @param {string} tag */
  function row(parent, cells, tag) {
    const line = add(parent, "tr");
    cells.forEach((cell, n) => {
      const element = add(line, n ? tag : "th", cell, n ? "n" : "");
      if (element instanceof HTMLTableCellElement && element.tagName === "TH") {
        element.scope = n || tag === "th" ? "col" : "row";
      }
    });
  }

  /** Scores to merged score. @param {Element} parent @param {number} i @param {Curve|null} c */
  function merging(parent, i, c) {
    const region = add(parent, "div", null, "scroll");
    region.tabIndex = 0;
    region.setAttribute("role", "group");
    region.setAttribute("aria-label", "Scores of this document" + (run ? " in " + run : ""));
    const table = add(region, "table");
    row(add(table, "thead"), ["criterion", "score", "normalised", "× weight", "= part"], "th");
    const body = add(table, "tbody");
    const used = c ? usedWeights(c, i) : null;
    data.criteria.forEach((criterion, n) => {
      const [score, norm] = [data.scores[n][i], data.norms[n][i]];
      const part = used && norm !== null ? norm * used[n] : null;
      const name = criterion.name + (criterion.higher ? " ↑" : " ↓");
      const given = score === null ? "missing" : sig(score);
      row(body, [name, given, fixed(norm, 4), fixed(used && used[n], 4), fixed(part, 4)], "td");
    });
    row(add(table, "tfoot"), ["merged score", "", "", "", fixed(docs.merged[i], 4)], "td");
    const some = data.norms.some((column) => column[i] === null);
    add(parent, "p", "↑ higher is better, ↓ lower is better; normalised and merged: 0 = best."
      + (some && used ? " The weight of what is missing goes to the others." : ""), "hint");
  }

  /** The domain's curve with the document's place. @param {Element} parent @param {Curve} c
   *  @param {number} low @param {number} high */
  function picture(parent, c, low, high) {
    const [width, height, pad] = [260, 70, 6];
    const [rank, floor, open] = [(low + high) / 2, c.scale * c.floor, c.cutoff > 0];
    const reach = Math.min(1, Math.max(2 * c.cutoff, rank * 1.1, 1e-9));
    const top = Math.max(open ? curveAt(c, 0) : 2 * floor, 1e-9);
    /** Copies at a rank; an empty window has no height. @param {number} r */
    const at = (r) => (open ? curveAt(c, r) : floor);
    /** @param {number} r */
    const x = (r) => pad + ((width - 2 * pad) * r) / reach;
    /** @param {number} s */
    const y = (s) => height - pad - ((height - 2 * pad) * s) / top;
    const steps = Array.from({ length: 81 }, (_, k) => (reach * k) / 80);
    steps.push(Math.min(reach, c.cutoff), Math.min(reach, c.cutoff + reach * 1e-6)); // the edge is upright
    steps.sort((a, b) => a - b);
    const points = steps.map((r) => x(r).toFixed(1) + "," + y(at(r)).toFixed(1)).join(" ");
    /** @param {Element} under @param {string} tag @param {Record<string, string|number>} attributes */
    const draw = (under, tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
      return under.appendChild(element);
    };
    const shape = { viewBox: `0 0 ${width} ${height}`, class: "curve", "aria-hidden": "true" };
    const svg = draw(parent, "svg", shape);
    draw(svg, "line", { x1: pad, y1: y(0), x2: width - pad, y2: y(0), class: "axis" });
    draw(svg, "polyline", { points });
    draw(svg, "line", { x1: x(rank), y1: pad, x2: x(rank), y2: y(0), class: "here" });
    draw(svg, "circle", { cx: x(rank), cy: y(isBeyond(c, low, high) ? floor : curveAt(c, rank)), r: 3.5 });
    add(parent, "span", `Copies over the ranks 0 to ${sig(reach, 3)}; the dot is this document.`, "hint");
  }

  /** From rank to expected copies. @param {HTMLElement} steps @param {number} i @param {Curve|null} c
   *  @param {number} low @param {number} high */
  function sampling(steps, i, c, low, high) {
    const domain = data.domains[docs.domain[i]];
    const covered = `${fixed(low, 6)} to ${fixed(high, 6)}`;
    step(steps, "Rank", `covers ${covered} of the tokens of domain ${domain}, 0 = best.`);
    if (!c) {
      step(steps, "Curve", "the parameters of this domain are not in the run folder.");
      return;
    }
    const parameters = `steepness λ ${sig(c.steepness)}, cutoff ω ${sig(c.cutoff)}, exponent η `
      + `${sig(c.exponent)}, floor ε ${sig(c.floor)}, scale ${sig(c.scale)}`;
    const beyond = isBeyond(c, low, high);
    const place = !beyond ? `The rank lies ${high <= c.cutoff ? "inside" : "across the edge of"} the window`
      : c.cutoff > 0 ? "The rank lies beyond the cutoff, where only the floor remains"
        : "The window is empty, only the floor remains";
    const [first, last] = ends(c, low, high).map((s) => fixed(s, 6));
    const value = beyond ? `S = scale · ε = ${first}`
      : first === last ? `S = ${first}` : `S goes from ${first} to ${last} over the interval`;
    const early = data.applied ? "" : " These are from before the cutoffs were scaled to the budget.";
    const where = step(steps, "Curve", `${parameters}. ${place}: ${value}.${early}`);
    picture(where, c, low, high);
  }

  /** @param {Element} parent @param {string} name @param {string} words */
  function step(parent, name, words) {
    const item = add(parent, "li");
    add(item, "b", name);
    add(item, "span", " " + words);
    return item;
  }

  /** @param {Element} parent @param {number} i */
  function why(parent, i) {
    add(parent, "h3", (run ? run + ": why " : "Why ") + copies(docs.copies[i]) + "?");
    const c = data.curves[docs.domain[i]];
    merging(parent, i, c);
    const steps = add(parent, "ol");
    const [low, high, expected] = [docs.low[i], docs.high[i], docs.expected[i]];
    if (low === null || high === null || expected === null) {
      const reason = docs.excluded && docs.excluded[i];
      step(steps, "No rank", reason ? `it was excluded before the selection (${reason}).`
        : "it was held out or excluded before the selection.");
      return;
    }
    sampling(steps, i, c, low, high);
    const [whole, drawn] = drawing(steps, i, expected);
    step(steps, "Copies", `${docs.copies[i]}.`);
    const [most, least] = c ? ends(c, low, high) : [];
    const mean = !c || !data.applied || (expected <= most + 1e-9 && expected >= least - 1e-9);
    if (!mean || (drawn === null ? Math.abs(docs.copies[i] - whole - 0.5) > 0.5 : drawn !== docs.copies[i])) {
      const doubt = "These numbers do not lead to the stored ones: was a file of the run changed?";
      add(parent, "p", doubt + " quadmix verify tells.", "bad");
    }
  }

  /** From expected copies to copies; returns the certain ones, and all if the draw is known.
   *  @param {HTMLElement} steps @param {number} i @param {number} expected
   *  @returns {[number, number|null]} */
  function drawing(steps, i, expected) {
    const whole = Math.floor(expected);
    const rest = expected - whole;
    const chance = `${whole} for certain, one more with a chance of ${sig(100 * rest, 4)} %`;
    step(steps, "Expected copies", `${fixed(expected, 6)}, the mean of S over the interval: ${chance}.`);
    const [uniform, factor] = [docs.uniform[i], docs.factor[i]];
    if (uniform === null || factor === null) {
      step(steps, "Hash draw", "not in this samples.parquet; quadmix explain computes it.");
      return [whole, null];
    }
    const one = uniform < rest * factor;
    const limit = `${fixed(rest, 6)} × the domain's factor ${fixed(factor, 6)} = ${fixed(rest * factor, 6)}`;
    const outcome = `${one ? "<" : "≥"} ${limit}: ${one ? "one more" : "no more"}`;
    step(steps, "Hash draw", `the hash of seed and id is ${fixed(uniform, 6)} ${outcome}.`);
    return [whole, whole + Number(one)];
  }

  return why;
}
