// The latest transactions, as they arrive, and all that one of them says of itself.

import { format, parse } from "./exact.js";

const LIMIT = 20;
const EVERY_MS = 2000;
const TYPING_MS = 300;
const WAIT_MS = 10000;
const TODAY = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const EARLIER = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export class Feed {
  /** `headers()` are sent along. */
  constructor(headers, { list, said, user, search }) {
    this.headers = headers;
    this.list = list;
    this.said = said;
    this.user = user;
    this.search = search;
    this.currency = "";
    this.asked = "";
    for (const input of [user, search]) {
      input.addEventListener("input", () => this.#soon(TYPING_MS));
    }
    list.addEventListener("toggle", () => this.#soon(0), true);
    document.addEventListener("visibilitychange", () => this.#soon(0));
  }

  /** Ask now, and go on asking; with nothing of what was shown to another before. */
  begin() {
    this.list.replaceChildren();
    this.asked = "";
    this.#soon(0);
  }

  /** Only that currency; all without one. */
  only(currency) {
    this.currency = currency;
    this.#soon(0);
  }

  #soon(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#look(), delay);
  }

  get #query() {
    const query = new URLSearchParams({ limit: LIMIT });
    if (this.search.value.trim()) query.set("search_query", this.search.value.trim());
    if (this.user.value.trim()) query.set("user_id", this.user.value.trim());
    if (this.currency) query.set("currency", this.currency);
    return query.toString();
  }

  async #look() {
    const query = this.#query;
    if (document.hidden) return; // Looked at again when it is seen.
    const isSame = query === this.asked;
    if (isSame && this.list.querySelector("details[open]")) {
      this.said.textContent = "New ones are held back while one is open.";
      return;
    }
    this.abort?.abort();
    this.abort = new AbortController();
    let next = EVERY_MS;
    try {
      const answer = await fetch(`/transactions?${query}`, {
        headers: this.headers(), cache: "no-store",
        signal: AbortSignal.any([this.abort.signal, AbortSignal.timeout(WAIT_MS)]),
      });
      const body = parse(await answer.text());
      if (answer.ok) {
        this.asked = query;
        this.#show(body.items, isSame);
      } else {
        this.list.replaceChildren();
        this.asked = "";
        this.said.textContent = refusal(answer.status, body);
        next = answer.status >= 500 || answer.status === 429 ? EVERY_MS : Infinity;
      }
    } catch (error) {
      if (error.name === "AbortError") return; // Another question was asked meanwhile.
      this.said.textContent = "They cannot be asked for now; trying again.";
    }
    if (next !== Infinity) this.#soon(next);
  }

  #show(items, isSame) {
    this.said.textContent = items.length ? "" : this.#nothing();
    const shown = new Map([...this.list.children].map((item) => [item.dataset.id, item]));
    // Where most of them are new, to point at each would be a flicker.
    const isCalm = isSame && items.filter((each) => !shown.has(each.id)).length <= LIMIT / 2;
    this.list.replaceChildren(...items.map((each) => shown.get(each.id) ?? makeItem(each, isCalm)));
  }

  #nothing() {
    if (this.search.value.trim()) return "No transaction has all of these words in its details.";
    return this.user.value.trim() ? "There is none of this user." : "There is none yet.";
  }
}

function refusal(status, problem) {
  if (status === 401) return "They are shown with a token that has the scope transactions:read.";
  const errors = (problem.errors ?? []).map((each) => `${each.pointer.slice(1)} ${each.detail}`);
  return [problem.detail ?? `The service answers ${status}`, ...errors].join(": ").replace(/([^.])$/, "$1.");
}

function makeItem(transaction, isFresh) {
  const item = document.createElement("li");
  item.dataset.id = transaction.id;
  if (isFresh) item.className = "is-fresh";
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.append(
    part("when", when(new Date(transaction.timestamp))),
    part("amount", `${format(transaction.amount)} ${transaction.currency}`),
    part("who", transaction.user_id ?? ""),
    part("what", aboutIt(transaction)),
    part("state", transaction.status),
  );
  summary.lastChild.dataset.status = transaction.status;
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(makeDetails(transaction));
  });
  item.append(details);
  return item;
}

function when(instant) {
  const isToday = instant.toDateString() === new Date().toDateString();
  return (isToday ? TODAY : EARLIER).format(instant);
}

function aboutIt({ transaction_type: type, product, metadata }) {
  const name = metadata.merchant_name ?? metadata.peer_name ?? metadata.description;
  return [name, type ?? product].filter((each) => typeof each === "string").join(", ");
}

function makeDetails({ metadata, ...fields }) {
  const list = document.createElement("dl");
  // One behind the other: what metadata says must not stand in the place of a field of that name.
  for (const [name, value] of [...Object.entries(fields), ...Object.entries(metadata)]) {
    if (value === null) continue;
    const term = document.createElement("dt");
    const told = document.createElement("dd");
    term.textContent = name.replaceAll("_", " ");
    told.textContent = typeof value === "object" ? JSON.stringify(value) : String(value);
    list.append(term, told);
  }
  return list;
}

function part(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}
