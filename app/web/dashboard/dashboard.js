// Joins the parts of the page. The token is a variable in here, and nowhere else.

import { Chart } from "./chart.js";
import { parse, show } from "./exact.js";
import { Feed } from "./feed.js";
import { clock, offerCurrencies, offerWindows, showFigures, spanName } from "./figures.js";
import { Health } from "./health.js";
import { Live, State } from "./live.js";

const element = (id) => document.getElementById(id);
const RATE_WAIT_MS = 2500;

let token = "";
let state = State.CONNECTING;
let lastSeen = null;
let isAsking = false;

const headers = () => (token ? { authorization: `Bearer ${token}` } : {});
const health = new Health(element("health"));
const chart = new Chart(element("chart"), element("chart-legend"), element("chart-said"));
const feed = new Feed(headers, {
  list: element("feed"), said: element("feed-said"), user: element("feed-user"), search: element("feed-search"),
});
const live = new Live(headers, take, become);

function query(more = {}) {
  const wanted = new URLSearchParams(more);
  if (element("currency").value) wanted.set("currency", element("currency").value);
  return wanted.size ? `?${wanted}` : "";
}

function follow() {
  const span = element("window").value;
  chart.clear();
  live.follow(query(span ? { window: span } : {}));
}

function take(figures) {
  lastSeen = figures.as_of;
  offerWindows(element("window"), figures.window_seconds);
  offerCurrencies(element("currency"), Object.keys(figures.by_currency));
  showFigures(figures, element("currency").value);
  showEmpty(figures);
  takeRate(figures);
}

/** Asks for the last second beside the window, and has both drawn. */
async function takeRate(figures) {
  if (isAsking) return;
  isAsking = true;
  const asked = query({ window: "1s" });
  try {
    const signal = AbortSignal.timeout(RATE_WAIT_MS);
    const answer = await fetch(`/stats${asked}`, { headers: headers(), cache: "no-store", signal });
    if (!answer.ok || asked !== query({ window: "1s" })) return;
    const { count } = parse(await answer.text());
    show(element("rate"), count);
    chart.add(figures.as_of, count, figures.sum);
  } catch {
    // The stream will say what is the matter.
  } finally {
    isAsking = false;
  }
}

function showEmpty(figures) {
  const isEmpty = figures.count === "0";
  element("empty").hidden = !isEmpty;
  element("currency-table").hidden = isEmpty;
  if (!isEmpty) return;
  const chosen = element("currency").value;
  element("empty-word").textContent =
    `No transactions${chosen ? ` in ${chosen}` : ""} in the last ${spanName(figures.window_seconds)}. To post one:`;
  const bearer = token ? ` -H 'Authorization: Bearer …'` : "";
  element("empty-example").textContent =
    `curl ${location.origin}/transactions${bearer} -H 'Content-Type: application/json' \\\n` +
    `     -d '{"amount": "12.50", "currency": "EUR", "timestamp": '$(date +%s)'}'`;
}

function become(next, problem, status) {
  const before = state;
  state = next;
  const isOld = next !== State.LIVE;
  document.body.classList.toggle("is-old", isOld && lastSeen !== null);
  document.body.classList.toggle("is-locked", next === State.REFUSED && status === 401 && lastSeen === null);
  if (next === State.LIVE) {
    say("");
    element("token-form").hidden = true;
    element("forget").hidden = !token;
    if (before !== State.LIVE) health.watch();
    if (before === State.REFUSED) feed.begin();
  } else if (next === State.LOST) {
    health.lose();
    say(lastSeen ? `No connection since ${clock(lastSeen)}; the figures are of then. Trying again.`
      : "The service does not answer. Trying again.");
  } else if (next === State.UNREADY) {
    say(`${problem.detail}. The figures will be back.`);
  } else if (status === 401 || status === 403) {
    askForToken(status);
  } else {
    say(`${problem.detail ?? `The service answers ${status}`}.`);
  }
}

function askForToken(status) {
  const form = element("token-form");
  form.hidden = false;
  element("forget").hidden = !token;
  if (status === 403) say("This token lacks the scope stats:read.");
  else say(token ? "This token is not valid, or no longer." : "These figures are shown with a token.");
  element("token").value = "";
}

/** Says something to everyone, those included who have it read to them; nothing twice. */
function say(text) {
  const notice = element("notice");
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = !text;
}

function useToken(next) {
  token = next;
  state = State.CONNECTING;
  feed.begin();
  follow();
}

element("window").addEventListener("change", follow);
element("currency").addEventListener("change", () => {
  feed.only(element("currency").value);
  follow();
});
element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(element("token").value.trim());
});
element("forget").addEventListener("click", () => location.reload());

health.watch();
feed.begin();
follow();
