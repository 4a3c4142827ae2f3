// Figures are exact decimals, longer than a binary float can hold: they stay the text they came as.

const NUMBER = /("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;

/** JSON with every number as the text it was written as. */
export function parse(text) {
  return JSON.parse(text.replace(NUMBER, (whole, string) => string ?? `"${whole}"`));
}

/** How many fraction digits a decimal is written with. */
export function fractionDigits(decimal) {
  return decimal.length - (decimal.indexOf(".") + 1 || decimal.length);
}

const formats = new Map();

function formatOf(digits) {
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat(undefined, {
      minimumFractionDigits: digits, maximumFractionDigits: digits,
    }));
  }
  return formats.get(digits);
}

/** A decimal as its reader writes them, with all its digits.
 *  The whole part goes through a BigInt, the fraction through a number too short to be rounded. */
export function format(decimal) {
  const [whole, fraction = ""] = decimal.split(".");
  const written = formatOf(0).formatToParts(BigInt(whole));
  if (decimal.startsWith("-") && BigInt(whole) === 0n && /[1-9]/.test(fraction)) {
    written.unshift({ type: "minusSign", value: "-" });
  }
  if (fraction) {
    const parts = formatOf(fraction.length).formatToParts(Number(`0.${fraction}`));
    // Behind the last digit of the whole, as some write a sign there.
    const last = written.findLastIndex((part) => part.type === "integer");
    written.splice(last + 1, 0, ...parts.filter(({ type }) => type === "decimal" || type === "fraction"));
  }
  return written.map((part) => part.value).join("");
}

/** About how much it is: for the height of a line on a screen, and nothing else. */
export function approximate(decimal) {
  return Number(decimal);
}

const FIGURE_SPACE = "\u2007";

/** Shows a decimal in a <data> element, which has it exactly as its value. In a column whose longest
 *  fraction has `digits`, spaces as wide as digits keep the points below each other. */
export function show(element, decimal, digits = 0) {
  const missing = FIGURE_SPACE.repeat(Math.max(digits - fractionDigits(decimal), 0));
  const text = format(decimal) + missing;
  if (element.textContent === text && element.value === decimal) return;
  element.value = decimal;
  element.textContent = text;
  element.style.setProperty("--characters", Math.max(text.length, 4));
}
