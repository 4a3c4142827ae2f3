// The figures of the window, and those of each currency.

import { format, fractionDigits, show } from "./exact.js";

const COLUMNS = ["count", "sum", "avg", "min", "max"];
// With more characters a figure needs more than its share of a line.
const LONG = 14;
const SPANS = [1, 5, 10, 30, 60, 300, 900, 1800];

const element = (id) => document.getElementById(id);

/** How a span is called. */
export function spanName(seconds) {
  const number = Number(seconds);
  if (number >= 3600) return `${number / 3600} h`;
  return number >= 120 ? `${number / 60} min` : `${format(String(seconds))} s`;
}

/** Offers the spans up to the whole window. */
export function offerWindows(select, wholeSeconds) {
  if (select.options.length) return;
  for (const span of SPANS.filter((each) => each < Number(wholeSeconds))) {
    select.add(new Option(spanName(span), `${span}s`));
  }
  select.add(new Option(spanName(wholeSeconds), "", true, true));
}

/** Offers the currencies there are; one that is chosen stays. */
export function offerCurrencies(select, codes) {
  const offered = new Set([...select.options].map((option) => option.value));
  for (const code of codes) {
    if (offered.has(code)) continue;
    const behind = [...select.options].find((option) => option.value > code);
    select.add(new Option(code, code), behind ?? null);
  }
}

/** Shows an answer. */
export function showFigures(figures, chosen) {
  for (const name of COLUMNS) show(element(name), figures[name]);
  const longest = Math.max(...["avg", "min", "max"].map((name) => element(name).textContent.length));
  element("figures").querySelector("dl").classList.toggle("is-long", longest > LONG);
  const codes = Object.keys(figures.by_currency);
  let unit = chosen || (codes.length === 1 ? codes[0] : "");
  if (!chosen && codes.length > 1) unit = `of ${codes.length} currencies, added as they are`;
  element("sum-unit").textContent = unit;
  element("freshness").textContent = freshness(figures);
  showCurrencies(figures.by_currency);
}

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** The time of day. */
export function clock(instant) {
  return CLOCK.format(new Date(instant));
}

function freshness(figures) {
  let text = `The last ${spanName(figures.window_seconds)} up to ${clock(figures.as_of)}, exact to the `;
  text += figures.resolution_ms === "1" ? "millisecond." : `${format(figures.resolution_ms)} ms.`;
  if (figures.nodes) {
    text += ` ${format(figures.nodes)} nodes, at most ${format(figures.max_lag_ms)} ms behind.`;
    if (figures.degraded) text += " More may be missing: a node, or what joins them, is gone.";
  }
  return text;
}

function showCurrencies(byCurrency) {
  const body = element("currencies");
  const codes = Object.keys(byCurrency).sort();
  const rows = new Map([...body.rows].map((row) => [row.dataset.code, row]));
  for (const [code, row] of rows) {
    if (!(code in byCurrency)) row.remove();
  }
  // In a column of one currency's digits and another's, points stand below points.
  const digits = Object.fromEntries(
    COLUMNS.map((name) => [name, Math.max(0, ...codes.map((code) => fractionDigits(byCurrency[code][name])))]),
  );
  codes.forEach((code, place) => {
    const row = rows.get(code) ?? makeRow(code);
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
    COLUMNS.forEach((name, column) => {
      show(row.cells[column + 1].firstChild, byCurrency[code][name], digits[name]);
    });
  });
}

function makeRow(code) {
  const row = document.createElement("tr");
  row.dataset.code = code;
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = code;
  row.append(head);
  for (const name of COLUMNS) {
    const data = document.createElement("data");
    data.className = name;
    row.insertCell().append(data);
  }
  return row;
}
