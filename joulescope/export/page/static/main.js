// Begins with the snapshot that is in the page, then asks again and again. If anything here fails before the first
// view, what the server drew stays.

import { h, render } from "./vendor/preact.module.js";
import { joined, sameRun } from "./figures.js";
import { Poller, Refusal, ask } from "./poll.js";
import { page, title } from "./view.js";

/** @typedef {import("./types.d.ts").State} State */

const PERIOD_MS = 1000;
const READY_EVERY = 5;
const FINISHED_EVERY = 5;
const MOST_REQUESTS = 256;
const FEW_REQUESTS = 16;
const PAST_SECONDS = 65;
const PAST_STEP_NS = 2e9;
const CUT_AFTER_FAILURES = 2;

/** @type {State} */
const state = {
  envelope: null,
  past: [],
  points: [],
  stepSeconds: 2,
  requests: null,
  requestsTold: true,
  ready: null,
  link: { state: "live", why: "", sinceMs: performance.now() },
  heardMs: performance.now(),
  movedMs: performance.now(),
  newVersion: false,
  sort: { open: { column: "joules", down: true }, finished: { column: "joules", down: true } },
  all: { open: false, finished: false },
  cursor: null,
};
let turns = 0;
let historyStart = 0;

const live = /** @type {HTMLElement} */ (document.getElementById("live"));

function draw() {
  document.title = title(state);
  render(h(page, { s: state, acts, now: performance.now() }), live);
}

/** @param {import("./types.d.ts").Envelope} envelope */
function take(envelope) {
  const old = state.envelope?.snapshot;
  const now = envelope.snapshot;
  if (old && !sameRun(old, now)) state.past = [];
  else if (old && old.time_ns < now.time_ns) {
    const last = state.past[state.past.length - 1];
    if (!last || old.time_ns - last.time_ns >= PAST_STEP_NS) state.past.push(old);
    state.past = state.past.filter((each) => now.time_ns - each.time_ns <= PAST_SECONDS * 1e9);
  }
  if (!old || old.time_ns !== now.time_ns) state.movedMs = performance.now();
  if (state.envelope && state.envelope.joulescope_version !== envelope.joulescope_version)
    state.newVersion = true;
  state.envelope = envelope;
  state.heardMs = performance.now();
}

async function takeHistory() {
  const last = state.points[state.points.length - 1];
  const since = last && historyStart === state.envelope?.snapshot.sidecar.start_wall_seconds ? last.t : 0;
  /** @type {import("./types.d.ts").History} */
  const history = JSON.parse((await ask(`api/history?since=${since}`)).text);
  historyStart = history.start;
  state.stepSeconds = history.step_seconds;
  state.points = joined(state.points, history.points);
}

async function takeRequests() {
  // All that are told only where they can be seen, and the finished ones not each time.
  const { sort, all } = state;
  const open = all.open || sort.open.column !== "joules" || !sort.open.down ? MOST_REQUESTS : FEW_REQUESTS;
  const finished = turns % FINISHED_EVERY === 0 ? MOST_REQUESTS : 0;
  const answer = await ask(`api/requests?open=${open}&finished=${finished}`, [404]);
  state.requestsTold = answer.status !== 404;
  const old = state.requests?.finished ?? [];
  state.requests = state.requestsTold ? JSON.parse(answer.text) : null;
  if (state.requests && !finished) state.requests.finished = old;
}

async function takeReadiness() {
  const answer = await ask("-/ready", [503]);
  state.ready = { ok: answer.status === 200, text: answer.text.trim() };
}

async function turn() {
  take(JSON.parse((await ask("api/snapshot")).text));
  await takeHistory();
  await takeRequests();
  if (turns % READY_EVERY === 0) await takeReadiness();
  turns += 1;
  if (state.link.state !== "paused") state.link = { state: "live", why: "", sinceMs: performance.now() };
  draw();
}

/** @param {unknown} error */
function failed(error) {
  if (state.link.state === "paused") return;
  const status = error instanceof Refusal ? error.status : 0;
  const kind =
    status === 401 || status === 403 ? "denied" : status === 503 || status === 429 ? "busy" : "down";
  if (kind === "down" && poller.failures < CUT_AFTER_FAILURES && status === 0 && state.link.state === "live")
    return;
  state.link = { state: kind, why: String(error), sinceMs: performance.now() };
  draw();
}

const poller = new Poller(turn, failed, PERIOD_MS);

/** @type {import("./types.d.ts").Acts} */
const acts = {
  setCursor(t) {
    if (state.cursor === t) return;
    state.cursor = t;
    draw();
  },
  pause() {
    const paused = state.link.state !== "paused";
    state.link = { state: paused ? "paused" : "live", why: "", sinceMs: performance.now() };
    state.movedMs = performance.now();
    poller.pause(paused);
    draw();
  },
  retry: () => poller.wake(),
  reload: () => location.reload(),
  sort(table, column) {
    const sort = state.sort[table];
    state.sort[table] = { column, down: sort.column === column ? !sort.down : true };
    draw();
  },
  all(table) {
    state.all[table] = !state.all[table];
    draw();
  },
};

function begin() {
  const first = document.getElementById("first")?.textContent;
  if (!first) return;
  take(JSON.parse(first));
  draw();
  live.hidden = false;
  document.getElementById("drawn")?.remove();
  addEventListener("keydown", (event) => {
    if (event.key === "p" && !event.ctrlKey && !event.metaKey && !event.altKey) acts.pause();
  });
  // "Disconnected for N s" goes on while nothing arrives.
  setInterval(() => {
    if (!document.hidden && state.link.state !== "live") draw();
    else if (!document.hidden && performance.now() - state.movedMs > 5000) draw();
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) state.movedMs = performance.now();
  });
  poller.wake();
}

begin();
