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

/** A decimal as its reader writes them, with all its digits, and zeros up to `digits` of a fraction.
 *  The whole part goes through a BigInt, the fraction through a number too small to be rounded. */
export function format(decimal, digits = 0) {
  const [whole, fraction = ""] = decimal.split(".");
  const length = Math.max(fraction.length, digits);
  const written = formatOf(0).formatToParts(BigInt(whole));
  if (decimal.startsWith("-") && BigInt(whole) === 0n && /[1-9]/.test(fraction)) {
    written.unshift({ type: "minusSign", value: "-" });
  }
  if (length === 0) return written.map((part) => part.value).join("");
  const parts = formatOf(length).formatToParts(Number(`0.${fraction || "0"}`));
  const behind = parts.filter((part) => part.type === "decimal" || part.type === "fraction");
  // Behind the last digit of the whole, as some put a sign there.
  const last = written.findLastIndex((part) => part.type === "integer");
  written.splice(last + 1, 0, ...behind);
  return written.map((part) => part.value).join("");
}

/** About how much it is: for the height of a line on a screen, and nothing else. */
export function approximate(decimal) {
  return Number(decimal);
}

/** Shows a decimal in a <data> element, which has it exactly as its value. */
export function show(element, decimal, digits = 0) {
  if (element.value === decimal && element.dataset.digits === String(digits)) return;
  const text = format(decimal, digits);
  element.value = decimal;
  element.dataset.digits = digits;
  element.textContent = text;
  element.style.setProperty("--characters", Math.max(text.length, 4));
}
