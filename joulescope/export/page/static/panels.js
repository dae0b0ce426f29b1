// Charts with their legends, and tables.

import { h } from "./vendor/preact.module.js";
import { section, stack } from "./bits.js";
import { areas, lines, Measured } from "./charts.js";
import { DASH, count, duration, figure, joules, percent, shown, unitOf, watts } from "./format.js";
import * as figures from "./figures.js";
import { meaning } from "./problems.js";

/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./types.d.ts").Snapshot} Snapshot */
/** @typedef {import("./types.d.ts").Acts} Acts */

const { PARTS } = figures;

/** @param {State} s @param {Snapshot} snapshot @param {Acts} acts */
export function powerPanel(s, snapshot, acts) {
  const until = snapshot.wall_seconds;
  const parts = figures.meanWatts(figures.within(s.points, figures.NOW_SECONDS + s.stepSeconds, until));
  const about = {
    points: s.points,
    until,
    step: s.stepSeconds,
    span: figures.span(s.points, until),
    limit: figures.limitWatts(snapshot),
    cursor: s.cursor,
    move: acts.setCursor,
    height: 260,
  };
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
  return h(
    "ul",
    { class: "key" },
    PARTS.map((part, number) =>
      h(
        "li",
        null,
        h("i", { class: `swatch ${part}` }),
        part,
        " ",
        h("b", null, parts ? watts(parts[number]) : DASH),
      ),
    ),
  );
}

/** @param {State} s @param {Snapshot} snapshot @param {Acts} acts */
export function trendPanel(s, snapshot, acts) {
  const unit = unitOf(snapshot.engines);
  const name = `Joules per ${unit === "token" ? "output token" : unit}`;
  const until = snapshot.wall_seconds;
  const line = figures.trend(s.points);
  const expected = line.some((spot) => spot.expected !== null);
  const about = {
    line,
    until,
    span: figures.span(s.points, until),
    step: s.stepSeconds,
    name,
    cursor: s.cursor,
    move: acts.setCursor,
    height: 150,
  };
  const { parts, measured } = figures.balance(snapshot);
  return h(
    "section",
    { class: "panel", "aria-labelledby": "trend-title" },
    h("h2", { id: "trend-title" }, name),
    h(
      "p",
      { class: "soft" },
      `each point the mean of ${figures.TREND_SECONDS} s`,
      expected && "; dashed: what the same work should cost by the baseline",
    ),
    h(Measured, { height: 150, draw: (/** @type {number} */ width) => lines({ ...about, width }) }),
    h("h3", { class: "balance-title" }, `Since the start: ${joules(measured)} measured`),
    measured > 0
      ? [
          stack(parts, measured),
          h(
            "ul",
            { class: "key two-columns" },
            PARTS.map((part, number) =>
              h(
                "li",
                null,
                h("i", { class: `swatch ${part}` }),
                part,
                " ",
                h("b", null, joules(parts[number])),
                " ",
                h("span", { class: "soft" }, percent(parts[number] / measured)),
              ),
            ),
          ),
        ]
      : h("p", { class: "soft" }, "No energy measured yet."),
  );
}

/** @param {State} s @param {Snapshot} snapshot */
export function lossPanel(s, snapshot) {
  const then = figures.before(s.past, snapshot, 60);
  const rows = figures.losses(snapshot).filter((each) => each.joules > 0);
  const olds = new Map(
    (then ? figures.losses(then) : []).map((each) => [`${each.kind} ${each.reason}`, each.joules]),
  );
  const gone = then ? (snapshot.time_ns - then.time_ns) / 1e9 : 0;
  const seconds = gone > 1 ? gone : 0;
  const measured = figures.sum(snapshot.gpus.map((gpu) => gpu.measured_joules));
  const saved = figures.avoided(snapshot.engines);
  const table = h(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Joules that served no request" },
    h(
      "table",
      null,
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          ["what", "why", "since the start", "of all", seconds ? `last ${duration(seconds)}` : "lately"].map(
            (title, number) => h("th", { scope: "col", class: number > 1 ? "num" : "" }, title),
          ),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map((each) => {
          const lately =
            seconds > 1 ? (each.joules - (olds.get(`${each.kind} ${each.reason}`) ?? 0)) / seconds : null;
          return h(
            "tr",
            { key: each.kind + each.reason },
            h("th", { scope: "row" }, h("i", { class: `swatch ${each.kind}` }), each.kind),
            h("td", { class: "why" }, meaning(each.reason)),
            h("td", { class: "num" }, joules(each.joules)),
            h("td", { class: "num" }, measured > 0 ? percent(each.joules / measured) : DASH),
            h("td", { class: "num" }, lately === null ? DASH : watts(lately)),
          );
        }),
      ),
    ),
  );
  return section("Idle, overhead and waste", "losses", [
    rows.length ? table : h("p", { class: "soft" }, "None so far: every joule went to a request."),
    h(
      "p",
      { class: "soft small" },
      "Wasted joules are part of the other figures: work that was paid for and came to nothing.",
      saved > 0 && ` Prefix-cache hits saved an estimated ${joules(saved)}, in no other figure.`,
    ),
  ]);
}

/** @param {string[]} titles @param {any[][]} rows @param {string} label */
function plainTable(titles, rows, label) {
  return h(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": label },
    h(
      "table",
      null,
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          titles.map((title, number) => h("th", { scope: "col", class: number ? "num" : "" }, title)),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map((row) =>
          h(
            "tr",
            { key: row[0] },
            row.map((cell, number) =>
              number ? h("td", { class: "num" }, cell) : h("th", { scope: "row" }, cell),
            ),
          ),
        ),
      ),
    ),
  );
}

/** @param {Snapshot} snapshot @param {"adapters" | "tenants" | "tasks"} which @param {string} title @param {string} nobody */
export function sharesPanel(snapshot, which, title, nobody) {
  const rows = figures.shares(snapshot.engines, which, nobody);
  if (!rows.length) return null;
  const all = figures.sum(rows.map((each) => each.joules));
  const cells = rows.map((each) => [
    shown(each.name, 60),
    joules(each.joules),
    all > 0 ? percent(each.joules / all) : DASH,
    figure(each.tokens > 0 ? each.joules / each.tokens : null),
    ...(which === "tasks" ? [figure(each.counted > 0 ? each.whole / each.counted : null)] : []),
    count(each.requests),
  ]);
  const perRequest = which === "tasks" ? ["J per request"] : [];
  return section(
    title,
    which,
    plainTable(
      [which.slice(0, -1), "joules", "of all", "J per output", ...perRequest, "finished"],
      cells,
      title,
    ),
  );
}

/** @param {Snapshot} snapshot */
export function hostPanel(snapshot) {
  const rows = snapshot.host.domains.map((domain) => [
    shown(domain.info.domain),
    domain.up ? "up" : "down",
    joules(domain.measured_joules),
    joules(figures.total(domain.attributed_joules)),
    joules(domain.other_joules),
    joules(domain.idle_joules),
    joules(figures.total(domain.unattributed_joules)),
  ]);
  return section(
    "CPU packages and DRAM",
    "host",
    plainTable(
      ["domain", "sensor", "measured", "engines", "other", "idle", "unattributed"],
      rows,
      "Energy of the host",
    ),
  );
}

/** @param {Snapshot} snapshot */
export function serverPanel(snapshot) {
  const rows = snapshot.servers.map((server) => [
    shown(server.server),
    shown(server.kind) || DASH,
    server.up ? "up" : "down",
    count(server.running),
    count(server.waiting),
    percent(server.kv_usage_ratio),
    count(server.generated_tokens),
  ]);
  return section(
    "Servers without a hook",
    "servers",
    plainTable(
      ["server", "kind", "page", "running", "waiting", "KV cache", "tokens"],
      rows,
      "Servers without a hook",
    ),
  );
}
