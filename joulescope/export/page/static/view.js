// The page as a function of the state. Text only ever becomes text: nothing here makes markup of it.

import { h } from "./vendor/preact.module.js";
import { areas, lines, Measured, spark } from "./charts.js";
import { DASH, bytes, clock, count, duration, figure, joules, known, megahertz, percent, shown, unitOf, watts } from "./format.js";
import * as figures from "./figures.js";
import { THROTTLE, gpuName, meaning, problems } from "./problems.js";
import { requestTables } from "./requests.js";

/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./types.d.ts").Snapshot} Snapshot */
/** @typedef {import("./types.d.ts").Gpu} Gpu */
/** @typedef {import("./types.d.ts").Engine} Engine */
/** @typedef {{setCursor(t: number | null): void, pause(): void, retry(): void, reload(): void,
 *             sort(table: "open" | "finished", column: string): void, all(table: "open" | "finished"): void}} Acts */

const { PARTS } = figures;
const STALE_MS = 6000;
const INDEX_SECONDS = 120;
const HOUR = 3600;

/** @param {{s: State, acts: Acts, now: number}} about */
export function page({ s, acts, now: nowMs }) {
  if (!s.envelope) return null;
  const snapshot = s.envelope.snapshot;
  const cut = s.link.state === "down" || s.link.state === "denied";
  const stale = !cut && s.link.state !== "paused" && nowMs - s.movedMs > STALE_MS;
  return h(
    "div",
    { class: `page ${cut || stale ? "cut" : ""}` },
    head(s, acts, nowMs, stale),
    h(
      "main",
      { id: "main" },
      trouble(s),
      h("div", { class: "figures" }, tiles(s, snapshot)),
      h("div", { class: "two" }, powerPanel(s, snapshot, acts), trendPanel(s, snapshot, acts)),
      h(
        "div",
        { class: "halves" },
        section("Engines", "engines", h("div", { class: "cards" }, snapshot.engines.map((engine) => engineCard(s, engine))), snapshot.engines.length === 0 && "No engine has connected yet."),
        section("GPUs", "gpus", h("div", { class: "cards" }, snapshot.gpus.map(gpuCard)), snapshot.gpus.length === 0 && "No GPU is being measured."),
      ),
      requestTables(s, acts),
      lossPanel(s, snapshot),
      sharesPanel(snapshot, "adapters", "By adapter", "base"),
      sharesPanel(snapshot, "tenants", "By tenant", "none"),
      snapshot.host.domains.length > 0 && hostPanel(snapshot),
      snapshot.servers.length > 0 && serverPanel(snapshot),
    ),
    foot(s, snapshot),
  );
}

/** The two figures that a tab in the background tells. @param {State} s */
export function title(s) {
  if (!s.envelope || s.link.state === "down") return "joulescope: disconnected";
  const until = s.envelope.snapshot.wall_seconds;
  const parts = figures.meanWatts(figures.within(s.points, figures.NOW_SECONDS + s.stepSeconds, until));
  const ratio = figures.perOutput(figures.within(s.points, figures.TREND_SECONDS, until));
  const told = [parts && watts(figures.sum(parts)), ratio !== null && `${figure(ratio)} J/${unitOf(s.envelope.snapshot.engines)}`];
  return [...told.filter(Boolean), "joulescope"].join(" · ");
}

/** @param {string} title @param {string} id @param {any} content @param {any} [empty] */
export function section(title, id, content, empty) {
  return h("section", { "aria-labelledby": `${id}-title`, id }, h("h2", { id: `${id}-title` }, title), empty ? h("p", { class: "soft" }, empty) : content);
}

/** @param {State} s @param {Acts} acts @param {number} nowMs @param {boolean} stale */
function head(s, acts, nowMs, stale) {
  const link = linkText(s, nowMs, stale);
  return h(
    "header",
    { class: "top" },
    h("h1", null, h("svg", { viewBox: "0 0 32 32", width: 22, height: 22, "aria-hidden": "true" }, h("rect", { width: 32, height: 32, rx: 7, class: "mark-back" }), h("path", { class: "mark-decode", d: "M5 24V17l6-4 6 5 5-8 5 3v11z" }), h("path", { class: "mark-prefill", d: "M5 24v-3l6-2 6 2 5-3 5 1v5z" })), "joulescope"),
    h("p", { class: `link ${link.kind}`, role: "status" }, h("i", { class: "lamp", "aria-hidden": "true" }), h("span", null, link.text)),
    // The seconds go on outside the status, or a screen reader would read each of them.
    h("span", { class: "since soft", "aria-hidden": "true" }, link.since),
    h("div", { class: "buttons" }, s.newVersion && h("button", { type: "button", class: "strong", onClick: acts.reload }, "Another version: reload"), link.kind === "down" && h("button", { type: "button", onClick: acts.retry }, "Try now"), h("button", { type: "button", id: "pause", "aria-pressed": String(s.link.state === "paused"), "aria-keyshortcuts": "p", onClick: acts.pause }, s.link.state === "paused" ? "Go on" : "Pause")),
  );
}

/** @param {State} s @param {number} nowMs @param {boolean} stale */
function linkText(s, nowMs, stale) {
  const ago = duration(Math.round((nowMs - s.heardMs) / 1000));
  const of = s.envelope ? `figures of ${clock(s.envelope.snapshot.wall_seconds)}` : "";
  if (s.link.state === "paused") return { kind: "paused", text: "paused", since: of };
  if (s.link.state === "denied") return { kind: "down", text: "not allowed any more: reload the page", since: of };
  if (s.link.state === "down") return { kind: "down", text: "disconnected", since: `for ${ago}, ${of}` };
  if (stale) return { kind: "down", text: "the sidecar answers, but its figures stand still", since: of };
  if (s.link.state === "busy") return { kind: "busy", text: "the sidecar is busy", since: of };
  return { kind: "live", text: "live", since: "" };
}

/** @param {State} s */
function trouble(s) {
  const found = problems(s);
  const grave = found.filter((each) => each.level !== "note").length;
  const title = grave === 0 ? "Nothing is wrong" : grave === 1 ? "1 thing is wrong" : `${grave} things are wrong`;
  const measured = s.envelope?.snapshot.gpus.length ?? 0;
  return h(
    "section",
    { class: `trouble ${grave ? found[0].level : "fine"}`, id: "trouble", "aria-labelledby": "trouble-title" },
    h("h2", { id: "trouble-title", role: "status" }, h("i", { class: "sign", "aria-hidden": "true" }, grave ? "!" : "✓"), title),
    grave === 0 && measured > 0 && h("p", { class: "soft" }, "Every measured joule is accounted for: residual 0 J."),
    found.length > 0 && h("ul", null, found.slice(0, 12).map((each) => h("li", { class: each.level, key: each.text }, h("b", null, { bad: "Wrong", warn: "Look", note: "Note" }[each.level]), ` ${each.text}`)), found.length > 12 && h("li", { class: "note" }, `and ${found.length - 12} more`)),
  );
}

/** @param {string} name @param {any} value @param {any} under @param {string} [kind] */
function tile(name, value, under, kind = "") {
  return h("div", { class: `tile ${kind}` }, h("h3", null, name), h("p", { class: "big" }, value), h("p", { class: "under" }, under));
}

/** A figure and its unit apart, so that the figure stands out. @param {string} text */
function split(text) {
  const at = text.lastIndexOf(" ");
  return at < 0 ? text : [text.slice(0, at), h("small", null, ` ${text.slice(at + 1)}`)];
}

/** @param {State} s @param {Snapshot} snapshot */
function tiles(s, snapshot) {
  const until = snapshot.wall_seconds;
  const lately = figures.within(s.points, figures.NOW_SECONDS + s.stepSeconds, until);
  const parts = figures.meanWatts(lately);
  const now = parts && figures.sum(parts);
  const limit = figures.limitWatts(snapshot);
  const unit = unitOf(snapshot.engines);
  const nowRatio = figures.perOutput(figures.within(s.points, figures.TREND_SECONDS, until));
  const made = figures.taken(lately);
  const rate = made.seconds > 0 ? made.output / made.seconds : null;
  const running = told(snapshot.engines.map((engine) => engine.running));
  const waiting = told(snapshot.engines.map((engine) => engine.waiting));
  const useful = parts && now ? (parts[0] + parts[1]) / now : null;
  const span = `mean of ${figures.NOW_SECONDS} s`;
  return [
    tile("Power", split(watts(now)), [span, limit && known(now) ? `${percent(now / limit)} of limit` : null].filter(Boolean).join(" · ")),
    tile(`Joules per ${unit === "token" ? "output token" : unit}`, split(`${figure(nowRatio)} J`), ratioText(s, nowRatio, until), "main"),
    tile(unit === "token" ? "Output" : "Made", split(`${figure(rate)} ${unit === "token" ? "tok" : unit}/s`), span),
    tile("Requests", [count(running), h("small", null, " running")], waiting === null ? "queue not known" : `${count(waiting)} waiting`),
    tile("Goes to requests", split(percent(useful)), parts && now ? `idle ${percent(parts[2] / now)} · overhead ${percent(parts[3] / now)} · nobody ${percent(parts[4] / now)}` : "no energy accounted lately"),
    wasteTile(snapshot),
    priceTile(snapshot, now),
  ];
}

/** @param {(number | null)[]} values */
const told = (values) => (values.some(known) ? figures.sum(values.filter(known)) : null);

/** Against what the same work should cost where a baseline tells, else against the minutes before.
 * @param {State} s @param {number | null} now @param {number} until */
function ratioText(s, now, until) {
  const mean = `mean of ${figures.TREND_SECONDS} s`;
  const index = figures.index(figures.within(s.points, INDEX_SECONDS, until));
  if (index !== null) return `${mean} · ${versus(index, "what the same work should cost")}`;
  const long = figures.perOutput(s.points);
  if (now === null || long === null || until - s.points[0].t < 4 * figures.TREND_SECONDS) return mean;
  return `${mean} · ${versus(now / long, `the last ${Math.round((until - s.points[0].t) / 60)} min`)}`;
}

/** @param {number} ratio @param {string} what */
function versus(ratio, what) {
  if (Math.abs(ratio - 1) < 0.02) return `as ${what}`;
  return `${percent(Math.abs(ratio - 1))} ${ratio > 1 ? "above" : "below"} ${what}`;
}

/** @param {Snapshot} snapshot */
function wasteTile(snapshot) {
  const wasted = figures.losses(snapshot).filter((each) => each.kind === "wasted" && each.joules > 0);
  const joulesWasted = figures.sum(wasted.map((each) => each.joules));
  const attributed = figures.sum(snapshot.gpus.map((gpu) => gpu.attributed_joules));
  const most = wasted.length ? `${joules(joulesWasted)} since the start, most by ${shown(wasted[0].reason).replaceAll("_", " ")}` : "since the start";
  return tile("Wasted", split(percent(attributed > 0 ? joulesWasted / attributed : null)), most);
}

/** @param {Snapshot} snapshot @param {number | null} now */
function priceTile(snapshot, now) {
  const { carbon_grams_per_joule: grams, price_per_joule: price, pue_ratio: pue, currency } = snapshot.multipliers;
  if (grams === null && price === null) return null;
  const power = now === null ? null : now * (pue ?? 1);
  const money = price === null || power === null ? null : `${figure(power * price * HOUR)} ${shown(currency)}/h`;
  const carbon = grams === null || power === null ? null : `${figure(power * grams * HOUR)} g CO₂/h`;
  return tile(money ? "Electricity" : "Carbon", split(money ?? carbon ?? DASH), [money && carbon, pue && `PUE ${figure(pue)}`].filter(Boolean).join(" · ") || "at the power of now");
}

/** @param {State} s @param {Snapshot} snapshot @param {Acts} acts */
function powerPanel(s, snapshot, acts) {
  const until = snapshot.wall_seconds;
  const parts = figures.meanWatts(figures.within(s.points, figures.NOW_SECONDS + s.stepSeconds, until));
  const about = { points: s.points, until, step: s.stepSeconds, span: figures.span(s.points, until), limit: figures.limitWatts(snapshot), cursor: s.cursor, move: acts.setCursor, height: 260 };
  return h(
    "section",
    { class: "panel wide", "aria-labelledby": "power-title" },
    h("h2", { id: "power-title" }, "Where the watts go"),
    legend(parts),
    h(Measured, { height: 260, draw: (/** @type {number} */ width) => areas({ ...about, width }) }),
  );
}

/** @param {number[] | null} parts */
function legend(parts) {
  return h("ul", { class: "key" }, PARTS.map((part, number) => h("li", null, h("i", { class: `swatch ${part}` }), part, " ", h("b", null, parts ? watts(parts[number]) : DASH))));
}

/** @param {State} s @param {Snapshot} snapshot @param {Acts} acts */
function trendPanel(s, snapshot, acts) {
  const unit = unitOf(snapshot.engines);
  const name = `Joules per ${unit === "token" ? "output token" : unit}`;
  const until = snapshot.wall_seconds;
  const line = figures.trend(s.points);
  const expected = line.some((spot) => spot.expected !== null);
  const about = { line, until, span: figures.span(s.points, until), step: s.stepSeconds, name, cursor: s.cursor, move: acts.setCursor, height: 150 };
  const { parts, measured } = figures.balance(snapshot);
  return h(
    "section",
    { class: "panel", "aria-labelledby": "trend-title" },
    h("h2", { id: "trend-title" }, name),
    h("p", { class: "soft" }, `each point the mean of ${figures.TREND_SECONDS} s`, expected && "; dashed: what the same work should cost by the baseline"),
    h(Measured, { height: 150, draw: (/** @type {number} */ width) => lines({ ...about, width }) }),
    h("h3", { class: "balance-title" }, `Since the start: ${joules(measured)} measured`),
    measured > 0 ? [stack(parts, measured), h("ul", { class: "key two-columns" }, PARTS.map((part, number) => h("li", null, h("i", { class: `swatch ${part}` }), part, " ", h("b", null, joules(parts[number])), " ", h("span", { class: "soft" }, percent(parts[number] / measured)))))] : h("p", { class: "soft" }, "No energy measured yet."),
  );
}

/** A bar of parts; the text beside it says the same. @param {number[]} parts @param {number} whole */
function stack(parts, whole) {
  return h("div", { class: "stack", "aria-hidden": "true" }, PARTS.map((part, number) => h("i", { class: part, style: { width: `${whole > 0 ? (100 * Math.max(parts[number], 0)) / whole : 0}%` } })));
}

/** @param {string} name @param {number | null | undefined} ratio @param {string} text @param {string} [kind] */
function meter(name, ratio, text, kind = "") {
  const there = known(ratio);
  const value = there ? Math.min(Math.max(/** @type {number} */ (ratio), 0), 1) : 0;
  const about = there ? { role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(value * 100), "aria-valuetext": text } : {};
  return h("div", { class: "gauge" }, h("span", { class: "soft" }, name), h("div", { class: `meter ${kind}`, ...about }, there && h("i", { style: { width: `${100 * value}%` } })), h("span", { class: "num" }, text));
}

/** @param {boolean} up @param {string} yes @param {string} no */
const chip = (up, yes, no) => h("span", { class: `chip ${up ? "good" : "bad"}` }, up ? yes : no);

/** @param {string} name @param {any} value */
const pair = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));

/** @param {State} s @param {Engine} engine */
function engineCard(s, engine) {
  const { info } = engine;
  const until = s.envelope?.snapshot.wall_seconds ?? 0;
  const unit = unitOf([engine]);
  const points = figures.within(s.points, figures.TREND_SECONDS, until);
  const ratio = figures.perOutput(points, info.engine);
  const made = figures.taken(points, info.engine);
  const phases = figures.byPhase([engine]);
  const attributed = phases.prefill + phases.decode;
  const tokens = engine.tokens;
  const hits = (tokens.cached_local ?? 0) + (tokens.cached_external ?? 0);
  const prompts = hits + (tokens.prefill ?? 0);
  const model = shown(info.served_model || info.model || "model not known", 80);
  return h(
    "article",
    { class: `card ${engine.up ? "" : "off"}`, key: info.engine },
    h("header", null, h("div", null, h("h3", null, shown(info.engine, 60)), h("p", { class: "soft name", title: model }, model)), chip(engine.up, "connected", "gone")),
    h("div", { class: "lead" }, h("p", { class: "big" }, figure(ratio), h("small", null, ` J per ${unit}`)), spark(figures.trend(s.points, info.engine), until, figures.span(s.points, until), s.stepSeconds)),
    h(
      "dl",
      null,
      pair("running", count(engine.running) + (known(info.max_num_seqs) ? ` of ${count(info.max_num_seqs)}` : "")),
      pair("waiting", count(engine.waiting)),
      pair(unit === "token" ? "tokens/s" : "output/s", made.seconds > 0 ? figure(made.output / made.seconds) : DASH),
      pair("to requests", made.seconds > 0 ? watts(made.joules / made.seconds) : DASH),
      pair("finished", count(figures.total(engine.requests_finished))),
      pair("cache hits", prompts > 0 ? percent(hits / prompts) : DASH),
      known(engine.batch_tokens) && pair("batch", `${count(engine.batch_tokens)} tokens`),
      known(engine.next_token_joules) && pair(`next ${unit}`, joules(engine.next_token_joules)),
    ),
    engine.baseline && baselineLine(s, engine, until),
    meter("KV cache", engine.kv_usage_ratio, percent(engine.kv_usage_ratio), (engine.kv_usage_ratio ?? 0) > 0.95 ? "high" : ""),
    attributed > 0 && h("div", { class: "gauge" }, h("span", { class: "soft" }, "prefill"), stack([phases.prefill, phases.decode, 0, 0, 0], attributed), h("span", { class: "num" }, percent(phases.prefill / attributed))),
    h("p", { class: "soft small" }, `${shown(`${info.software} ${info.vllm_version}`.trim() || "software not known", 60)}, ${joules(attributed)} since it was met`),
  );
}

/** @param {State} s @param {Engine} engine @param {number} until */
function baselineLine(s, engine, until) {
  const { baseline } = engine;
  if (!baseline) return null;
  const index = figures.index(figures.within(s.points, INDEX_SECONDS, until), engine.info.engine);
  if (index === null) {
    const learned = baseline.learned_ratio < 1 ? `its baseline is learned to ${percent(baseline.learned_ratio)}` : "nothing to compare with its baseline";
    return h("p", { class: "soft small" }, learned);
  }
  const high = index > 1.05;
  return h("p", { class: "small" }, h("span", { class: `chip ${high ? "warn" : "good"}` }, `index ${index.toFixed(2)}`), ` ${versus(index, "what the same work should cost")} (${shown(baseline.source)} baseline)`);
}

/** @param {Gpu} gpu */
function gpuCard(gpu) {
  const reading = gpu.up ? gpu.reading : null;
  const status = reading?.status ?? null;
  const limit = status?.power_limit_watts ?? gpu.info.power_limit_watts;
  const power = reading?.power_watts ?? null;
  const used = reading?.memory_used_bytes ?? null;
  const all = gpu.info.memory_total_bytes;
  const busy = reading?.sm_utilization_ratio ?? status?.sm_active_ratio ?? null;
  const parts = [gpu.attributed_joules, gpu.idle_joules, figures.total(gpu.overhead_joules), figures.total(gpu.unattributed_joules)];
  const clocked = known(status?.sm_clock_hertz) || known(status?.temperature_celsius) || known(status?.dram_active_ratio);
  const held = (status?.throttle_reasons ?? []).map((reason) => h("span", { class: "chip warn", key: reason }, THROTTLE[reason] ?? shown(reason)));
  return h(
    "article",
    { class: `card ${gpu.up ? "" : "off"}`, key: gpu.info.gpu },
    h("header", null, h("div", null, h("h3", null, `${gpuName(gpu)} `, h("span", { class: "soft" }, shown(gpu.info.name, 60))), h("p", { class: "soft name mono", title: shown(gpu.info.gpu) }, shown(gpu.info.gpu))), chip(gpu.up, "measured", "sensor down")),
    meter("power", known(power) && limit ? power / limit : null, known(power) ? `${watts(power)}${limit ? ` of ${watts(limit)}` : ""}` : DASH, "power"),
    meter("busy", busy, percent(busy)),
    meter("memory", known(used) && all ? used / all : null, known(used) ? `${bytes(used)}${all ? ` of ${bytes(all)}` : ""}` : DASH),
    clocked && h("dl", null, pair("SM clock", megahertz(status?.sm_clock_hertz)), pair("temperature", known(status?.temperature_celsius) ? `${count(status?.temperature_celsius)} °C` : DASH), pair("DRAM", percent(status?.dram_active_ratio))),
    held.length > 0 && h("p", { class: "chips" }, h("span", { class: "soft" }, "clocks held by "), held),
    gpu.measured_joules > 0 && h("div", { class: "gauge" }, h("span", { class: "soft" }, "went to"), stack([0, parts[0], parts[1], parts[2], parts[3]], gpu.measured_joules), h("span", { class: "num" }, `${percent(parts[0] / gpu.measured_joules)} requests`)),
    h("p", { class: "soft small" }, `${joules(gpu.measured_joules)} measured, residual ${joules(gpu.residual_joules)}, by ${shown({ counter: "energy counter", power: "integrated power", mig_gpm: "a split of its GPU" }[gpu.info.energy_source] ?? gpu.info.energy_source)} (${shown(gpu.info.sensor)})`),
  );
}

/** @param {State} s @param {Snapshot} snapshot */
function lossPanel(s, snapshot) {
  const then = figures.before(s.past, snapshot, 60);
  const rows = figures.losses(snapshot).filter((each) => each.joules > 0);
  const olds = new Map((then ? figures.losses(then) : []).map((each) => [`${each.kind} ${each.reason}`, each.joules]));
  const seconds = then ? (snapshot.time_ns - then.time_ns) / 1e9 : 0;
  const measured = figures.sum(snapshot.gpus.map((gpu) => gpu.measured_joules));
  const saved = figures.avoided(snapshot.engines);
  const table = h(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Joules that served no request" },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, ["what", "why", "since the start", "of all", seconds ? `last ${duration(seconds)}` : "lately"].map((title, number) => h("th", { scope: "col", class: number > 1 ? "num" : "" }, title)))),
      h("tbody", null, rows.map((each) => {
        const lately = seconds > 1 ? (each.joules - (olds.get(`${each.kind} ${each.reason}`) ?? 0)) / seconds : null;
        return h("tr", { key: each.kind + each.reason }, h("th", { scope: "row" }, h("i", { class: `swatch ${each.kind}` }), each.kind), h("td", { class: "why" }, meaning(each.reason)), h("td", { class: "num" }, joules(each.joules)), h("td", { class: "num" }, measured > 0 ? percent(each.joules / measured) : DASH), h("td", { class: "num" }, lately === null ? DASH : watts(lately)));
      })),
    ),
  );
  return section(
    "Idle, overhead and waste",
    "losses",
    [
      rows.length ? table : h("p", { class: "soft" }, "None so far: every joule went to a request."),
      h("p", { class: "soft small" }, "Wasted joules are part of the other figures: work that was paid for and came to nothing.", saved > 0 && ` Prefix-cache hits saved an estimated ${joules(saved)}, in no other figure.`),
    ],
  );
}

/** @param {string[]} titles @param {any[][]} rows @param {string} label */
function plainTable(titles, rows, label) {
  return h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": label }, h("table", null, h("thead", null, h("tr", null, titles.map((title, number) => h("th", { scope: "col", class: number ? "num" : "" }, title)))), h("tbody", null, rows.map((row) => h("tr", { key: row[0] }, row.map((cell, number) => (number ? h("td", { class: "num" }, cell) : h("th", { scope: "row" }, cell))))))));
}

/** @param {Snapshot} snapshot @param {"adapters" | "tenants"} which @param {string} title @param {string} nobody */
function sharesPanel(snapshot, which, title, nobody) {
  const rows = figures.shares(snapshot.engines, which, nobody);
  if (!rows.length) return null;
  const all = figures.sum(rows.map((each) => each.joules));
  const cells = rows.map((each) => [shown(each.name, 60), joules(each.joules), all > 0 ? percent(each.joules / all) : DASH, figure(each.tokens > 0 ? each.joules / each.tokens : null), count(each.requests)]);
  return section(title, which, plainTable([which === "adapters" ? "adapter" : "tenant", "joules", "of all", "J per output", "finished"], cells, title));
}

/** @param {Snapshot} snapshot */
function hostPanel(snapshot) {
  const rows = snapshot.host.domains.map((domain) => [shown(domain.info.domain), domain.up ? "up" : "down", joules(domain.measured_joules), joules(figures.total(domain.attributed_joules)), joules(domain.other_joules), joules(domain.idle_joules), joules(figures.total(domain.unattributed_joules))]);
  return section("CPU packages and DRAM", "host", plainTable(["domain", "sensor", "measured", "engines", "other", "idle", "unattributed"], rows, "Energy of the host"));
}

/** @param {Snapshot} snapshot */
function serverPanel(snapshot) {
  const rows = snapshot.servers.map((server) => [shown(server.server), shown(server.kind) || DASH, server.up ? "up" : "down", count(server.running), count(server.waiting), percent(server.kv_usage_ratio), count(server.generated_tokens)]);
  return section("Servers without a hook", "servers", plainTable(["server", "kind", "page", "running", "waiting", "KV cache", "tokens"], rows, "Servers without a hook"));
}

/** @param {State} s @param {Snapshot} snapshot */
function foot(s, snapshot) {
  const { sidecar } = snapshot;
  const links = /** @type {[string, string][]} */ ([["metrics", "metrics for Prometheus"], ["api/snapshot", "figures as JSON"], ["-/ready", "readiness"], ["-/healthy", "health"]]);
  const lag = sidecar.attribution_lag_seconds;
  return h(
    "footer",
    null,
    h("p", null, `joulescope ${shown(s.envelope?.joulescope_version)}, joules divided by ${shown(s.envelope?.method)} version ${shown(s.envelope?.method_version)}. `, `Up for ${duration(snapshot.wall_seconds - sidecar.start_wall_seconds)}`, known(lag) && `; the account is ${duration(lag)} behind`, "."),
    h("nav", { "aria-label": "Other pages" }, links.map(([path, text]) => h("a", { href: path, key: path }, text))),
  );
}
