// The lamp: how the service is, and what is not as it should be.

import { format, parse } from "./exact.js";

const EVERY_MS = 5000;
const WAIT_MS = 2500;
const WORDS = { healthy: "Healthy", degraded: "Degraded", unhealthy: "Unhealthy", lost: "No connection" };

export class Health {
  constructor(place) {
    this.place = place;
    this.word = place.querySelector("#health-word");
    this.details = place.querySelector("#health-details");
  }

  /** Look now, and every few seconds. */
  watch() {
    clearInterval(this.timer);
    this.timer = setInterval(() => this.#look(), EVERY_MS);
    this.#look();
  }

  /** There is nobody to ask. */
  lose() {
    this.#show("lost", [["The service does not answer.", ""]]);
  }

  async #look() {
    try {
      const answer = await fetch("/api/v1/health", { cache: "no-store", signal: AbortSignal.timeout(WAIT_MS) });
      const health = parse(await answer.text());
      const lines = Object.entries(health.dependencies).map(([name, each]) => [
        `${name}: ${each.status}`, each.detail ?? "",
      ]);
      for (const node of health.nodes ?? []) {
        lines.push([`${node.node}: ${node.status}`, `${format(node.lag_ms)} ms behind`]);
      }
      this.#show(health.status, lines);
    } catch {
      this.lose();
    }
  }

  #show(condition, lines) {
    this.place.dataset.condition = condition;
    const word = WORDS[condition] ?? condition;
    if (this.word.textContent !== word) this.word.textContent = word;
    const list = document.createElement("ul");
    for (const [text, detail] of lines) {
      const item = document.createElement("li");
      item.textContent = detail ? `${text} – ${detail}` : text;
      list.append(item);
    }
    this.details.replaceChildren(list);
  }
}
