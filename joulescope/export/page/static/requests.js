// Tables of requests: those that run, and those that ended lately; sorted by any column.

import { h } from "./vendor/preact.module.js";
import { DASH, count, duration, figure, joules, known, percent, shown } from "./format.js";

/** @typedef {import("./types.d.ts").RequestRow} Row */
/** @typedef {import("./types.d.ts").Requests} Requests */
/** @typedef {{id: string, title: string, value: (row: Row, about: Requests) => number | string | null,
 *             text?: (row: Row, about: Requests) => any, left?: boolean, rank?: number}} Column */

const FEW = 10;
const MOST = 256;
const NS = 1e9;

/** @param {Row} row */
const name = (row) => row.external_id || row.request_id;
/** @param {Row} row */
const perOutput = (row) =>
  known(row.attributed_joules) && row.output_tokens > 0 ? row.attributed_joules / row.output_tokens : null;

/** @type {Column} */
const REQUEST = {
  id: "request",
  title: "request",
  value: name,
  text: (row) => h("span", { class: "mono id", title: shown(name(row), 300) }, shown(name(row), 40)),
  left: true,
};
/** @type {Column[]} */
const COMMON = [
  {
    id: "joules",
    title: "joules",
    value: (row) => row.attributed_joules,
    text: (row) => h("b", null, joules(row.attributed_joules)),
  },
  { id: "per", title: "J per output", value: perOutput, text: (row) => figure(perOutput(row)) },
  {
    id: "output",
    title: "output",
    value: (row) => row.output_tokens,
    text: (row) => count(row.output_tokens),
  },
  {
    id: "prompt",
    title: "prompt",
    value: (row) => row.prompt_tokens,
    text: (row) => count(row.prompt_tokens),
    rank: 2,
  },
  {
    id: "cached",
    title: "cached",
    value: (row) => (row.prompt_tokens > 0 ? row.cached_tokens / row.prompt_tokens : null),
    text: (row) => (row.prompt_tokens > 0 ? percent(row.cached_tokens / row.prompt_tokens) : DASH),
    rank: 3,
  },
  {
    id: "marginal",
    title: "marginal",
    value: (row) => row.marginal_joules,
    text: (row) => joules(row.marginal_joules),
    rank: 3,
  },
  {
    id: "engine",
    title: "engine",
    value: (row) => row.engine,
    text: (row) => [
      shown(row.engine, 24),
      row.lora && h("span", { class: "soft" }, ` ${shown(row.lora, 24)}`),
    ],
    left: true,
    rank: 3,
  },
];
/** @type {Column[]} */
const OPEN = [
  REQUEST,
  {
    id: "phase",
    title: "phase",
    value: (row) => row.phase ?? "",
    text: (row) =>
      h(
        "span",
        {
          class: `chip phase ${["waiting", "prefill", "decode"].includes(row.phase ?? "") ? row.phase : ""}`,
        },
        shown(row.phase, 12),
      ),
    left: true,
  },
  ...COMMON.slice(0, 3),
  {
    id: "age",
    title: "age",
    value: (row, about) => about.time_ns - row.start_ns,
    text: (row, about) => duration((about.time_ns - row.start_ns) / NS),
    rank: 2,
  },
  ...COMMON.slice(3),
];
/** @type {Column[]} */
const FINISHED = [
  REQUEST,
  {
    id: "end",
    title: "end",
    value: (row) => row.finish_reason ?? "",
    text: (row) =>
      h(
        "span",
        { class: `chip ${["abort", "error"].includes(row.finish_reason ?? "") ? "bad" : ""}` },
        shown(row.finish_reason, 16),
      ),
    left: true,
  },
  ...COMMON.slice(0, 3),
  {
    id: "took",
    title: "took",
    value: (row) => (row.end_ns ?? row.start_ns) - row.start_ns,
    text: (row) => duration(((row.end_ns ?? row.start_ns) - row.start_ns) / NS),
    rank: 2,
  },
  ...COMMON.slice(3),
];

/** Sorted; what is not known comes last whichever way. @param {Row[]} rows @param {Column} column @param {boolean} down
 * @param {Requests} about */
export function sorted(rows, column, down, about) {
  const way = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a, about), column.value(b, about)];
    if (x === y) return a.request_id < b.request_id ? -1 : 1;
    if (x === null) return 1;
    if (y === null) return -1;
    return x < y ? -way : way;
  });
}

/** @param {import("./types.d.ts").State} s @param {import("./types.d.ts").Acts} acts */
export function requestTables(s, acts) {
  const about = s.requests;
  if (!about)
    return h(
      "section",
      { id: "requests", "aria-labelledby": "requests-title" },
      h("h2", { id: "requests-title" }, "Requests"),
      h(
        "p",
        { class: "soft" },
        s.requestsTold ? "Asking for them." : "This sidecar does not tell of single requests.",
      ),
    );
  const open = about.open_total ?? about.open.length;
  return [
    block(s, acts, {
      table: "open",
      title: `Running now: ${count(open)}`,
      columns: OPEN,
      rows: about.open,
      total: open,
      empty: "No request is open.",
    }),
    block(s, acts, {
      table: "finished",
      title: "Most expensive lately",
      columns: FINISHED,
      rows: about.finished,
      total: about.finished.length,
      empty: "No request has ended yet.",
      under: `of the last ${count(about.finished.length)} that ended`,
    }),
  ];
}

/** @param {import("./types.d.ts").State} s @param {import("./types.d.ts").Acts} acts
 * @param {{table: "open" | "finished", title: string, columns: Column[], rows: Row[], total: number, empty: string, under?: string}} one */
function block(s, acts, { table, title, columns, rows, total, empty, under = "" }) {
  const about = /** @type {Requests} */ (s.requests);
  const most = Math.min(total, MOST);
  const sort = s.sort[table];
  const column = columns.find((each) => each.id === sort.column) ?? columns[0];
  const order = sorted(rows, column, sort.down, about);
  const drawn = s.all[table] ? order : order.slice(0, FEW);
  const id = `${table}-title`;
  const body = h(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": title },
    h(
      "table",
      { class: "requests", id: table },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          columns.map((each) => heading(each, sort, () => acts.sort(table, each.id))),
        ),
      ),
      h(
        "tbody",
        null,
        drawn.map((row) =>
          h(
            "tr",
            { key: `${row.engine} ${row.request_id}` },
            columns.map((each, number) =>
              h(
                number ? "td" : "th",
                { key: each.id, scope: number ? undefined : "row", class: kind(each) },
                each.text ? each.text(row, about) : shown(each.value(row, about)),
              ),
            ),
          ),
        ),
      ),
    ),
  );
  return h(
    "section",
    { key: table, "aria-labelledby": id },
    h(
      "div",
      { class: "line" },
      h("h2", { id }, title),
      under && rows.length > 0 && h("span", { class: "soft" }, under),
    ),
    rows.length ? body : h("p", { class: "soft" }, empty),
    most > FEW &&
      h(
        "button",
        {
          type: "button",
          class: "more",
          "aria-expanded": String(s.all[table]),
          onClick: () => acts.all(table),
        },
        s.all[table] ? `Show ${FEW}` : `Show all ${count(most)}`,
      ),
  );
}

/** @param {Column} column */
const kind = (column) => `${column.left ? "" : "num"} ${column.rank ? `rank${column.rank}` : ""}`;

/** @param {Column} column @param {import("./types.d.ts").Sort} sort @param {() => void} act */
function heading(column, sort, act) {
  const here = column.id === sort.column;
  const order = here ? (sort.down ? "descending" : "ascending") : "none";
  return h(
    "th",
    { key: column.id, scope: "col", class: kind(column), "aria-sort": here ? order : undefined },
    h(
      "button",
      { type: "button", class: "sort", onClick: act },
      column.title,
      h("i", { "aria-hidden": "true" }, here ? (sort.down ? "▼" : "▲") : ""),
    ),
  );
}
