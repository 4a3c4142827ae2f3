// The stream of figures: read by fetch, as an EventSource cannot send a token; begun anew when it breaks.

import { parse } from "./exact.js";

// An event is due every second. A server that says nothing for so long is taken for lost.
const SILENCE_MS = 2500;
const RETRY_MS = 1000;
const REFUSED_RETRY_MS = 5000;

export const State = Object.freeze({
  CONNECTING: "connecting", LIVE: "live", UNREADY: "unready", LOST: "lost", REFUSED: "refused",
});

export class Live {
  /** `headers()` are sent along; `onFigures(figures)` and `onState(state, problem, status)` are told. */
  constructor(headers, onFigures, onState) {
    this.headers = headers;
    this.onFigures = onFigures;
    this.onState = onState;
    this.query = "";
    this.run = 0;
  }

  /** Follow the answer to this query from now on. */
  follow(query) {
    this.query = query;
    this.abort?.abort();
    clearTimeout(this.retry);
    this.#connect(++this.run);
  }

  async #connect(run) {
    const abort = (this.abort = new AbortController());
    let silence = setTimeout(() => abort.abort(), SILENCE_MS);
    const stillThere = () => {
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE_MS);
    };
    let wait = RETRY_MS;
    try {
      const answer = await fetch(`/stats/stream${this.query}`, {
        headers: { accept: "text/event-stream", ...this.headers() }, signal: abort.signal, cache: "no-store",
      });
      if (answer.ok) {
        await this.#read(answer.body.getReader(), stillThere, () => run === this.run);
        if (run === this.run) this.onState(State.LOST);
      } else {
        const problem = await answer.json().catch(() => ({}));
        if (run === this.run) this.onState(State.REFUSED, problem, answer.status);
        wait = REFUSED_RETRY_MS;
        // Nothing changes that but another token or another question.
        if (answer.status < 500 && answer.status !== 429) wait = Infinity;
      }
    } catch {
      if (run === this.run) this.onState(State.LOST);
    } finally {
      clearTimeout(silence);
    }
    if (run === this.run && wait !== Infinity) {
      this.retry = setTimeout(() => run === this.run && this.#connect(run), wait);
    }
  }

  async #read(reader, stillThere, isWanted) {
    const decoder = new TextDecoder();
    let unread = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done || !isWanted()) return;
      stillThere();
      unread += decoder.decode(value, { stream: true });
      const events = unread.split("\n\n");
      unread = events.pop();
      for (const event of events) this.#take(event);
    }
  }

  #take(event) {
    let name = "message";
    let data = "";
    for (const line of event.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (!data) return;
    if (name === "message") {
      this.onState(State.LIVE);
      this.onFigures(parse(data));
    } else {
      this.onState(State.UNREADY, parse(data));
    }
  }
}
