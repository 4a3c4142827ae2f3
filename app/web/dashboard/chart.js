// Transactions per second and the sum over the window, for as long as the page is open, at most five minutes.

import { approximate } from "./exact.js";
import { clock } from "./figures.js";

/* global uPlot */

const POINTS_MAX = 300;
const SPAN_SECONDS_MIN = 60;
const HEIGHT = 240;
// A second is the least there is to tell apart, and half a transaction is none.
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const WHOLE = Array.from({ length: 30 }, (_, n) => [1, 2, 5][n % 3] * 10 ** Math.floor(n / 3));
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const PLAIN = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });

export class Chart {
  constructor(place, legend, said) {
    this.place = place;
    this.legend = legend;
    this.said = said;
    this.data = [[], [], []];
    this.saidAt = 0;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    new ResizeObserver(() => this.plot?.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
    this.#draw();
  }

  /** Begin anew: another question has other answers. */
  clear() {
    this.data = [[], [], []];
    this.plot.setData(this.data);
  }

  /** Add a second; what is not known leaves a gap. */
  add(instant, perSecond, sum) {
    const at = Date.parse(instant) / 1000;
    const [times] = this.data;
    if (times.length && at <= times[times.length - 1]) return;
    const gap = times.length && at - times[times.length - 1] > 2.5;
    if (gap) this.#push(times[times.length - 1] + 0.001, null, null);
    this.#push(at, perSecond === null ? null : approximate(perSecond), approximate(sum));
    this.plot.setData(this.data);
    if (this.plot.cursor.idx == null) this.#tell(times.length - 1);
    this.#describe(at);
  }

  #push(...point) {
    this.data.forEach((column, place) => {
      column.push(point[place]);
      if (column.length > POINTS_MAX) column.shift();
    });
  }

  #tell(place) {
    const [times, rates, sums] = this.data.map((column) => column[place]);
    if (times === undefined || rates == null) return;
    this.legend.replaceChildren(
      key("first"), `${PLAIN.format(rates)} a second`, key("second"), `sum ${SHORT.format(sums)}`,
      ` at ${clock(times * 1000)}`,
    );
  }

  /** Says in words what the lines show; not so often that it would be read out all the time. */
  #describe(at) {
    this.saidAt ||= at;
    if (at - this.saidAt < 10) return;
    this.saidAt = at;
    const rates = this.data[1].filter((rate) => rate !== null);
    const span = Math.round(at - this.data[0][0]);
    this.said.textContent = `Over ${span} seconds: ${PLAIN.format(Math.min(...rates))} to ` +
      `${PLAIN.format(Math.max(...rates))} transactions a second.`;
  }

  #draw() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const font = `12px ${style.fontFamily}`;
    const axis = { stroke: color("quiet"), font, ticks: { show: false }, grid: { stroke: color("line"), width: 1 } };
    const values = (_, splits) => splits.map((value) => (value === null ? "" : SHORT.format(value)));
    this.plot?.destroy();
    this.plot = new uPlot({
      width: this.place.clientWidth, height: HEIGHT, legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: {
        x: { range: (_, low, high) => [Math.min(low ?? 0, (high ?? 0) - SPAN_SECONDS_MIN), high ?? 0] },
        rate: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] },
        sum: { range: (_, low, high) => [Math.min(low * 1.1, 0), Math.max(high * 1.1, 1)] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 80, size: 28, incrs: STEPS,
          values: (_, splits) => splits.map((value) => clock(value * 1000)) },
        { ...axis, scale: "rate", values, size: 52, incrs: WHOLE, stroke: color("accent") },
        { ...axis, scale: "sum", values, side: 1, size: 56, stroke: color("second"), grid: { show: false } },
      ],
      series: [
        {},
        { label: "a second", scale: "rate", stroke: color("accent"), fill: `${color("accent")}22`, width: 2,
          points: { show: false } },
        { label: "sum", scale: "sum", stroke: color("second"), width: 2, points: { show: false } },
      ],
      hooks: {
        setCursor: [(plot) => this.#tell(plot.cursor.idx ?? this.data[0].length - 1)],
      },
    }, this.data, this.place);
  }
}

function key(name) {
  const key = document.createElement("span");
  key.className = `key ${name}`;
  return key;
}
