// From snapshots and points to the figures that are shown. Pure functions; a figure that is a difference says
// over which time. null means: not known.

/** @typedef {import("./types.d.ts").Point} Point */
/** @typedef {import("./types.d.ts").Snapshot} Snapshot */
/** @typedef {import("./types.d.ts").Engine} Engine */
/** @typedef {import("./types.d.ts").Share} Share */
/** @typedef {import("./types.d.ts").ByReason} ByReason */

export const PARTS = ["prefill", "decode", "idle", "overhead", "unattributed"];
export const KEPT_SECONDS = 600;
export const NOW_SECONDS = 10;
export const TREND_SECONDS = 30;
export const INDEX_SECONDS = 120;
const SPANS = [60, 120, 180, 240, 300, 450, KEPT_SECONDS];
const FIRST_SECONDS = 6;

/** @param {Iterable<number>} values */
export const sum = (values) => Array.from(values).reduce((total, each) => total + each, 0);

/** @param {ByReason | undefined} byReason */
export const total = (byReason) => sum(Object.values(byReason ?? {}));

/** The points of the last so many seconds before an instant.
 * @param {Point[]} points @param {number} seconds @param {number} until */
export const within = (points, seconds, until) =>
  points.filter((point) => point.t > until - seconds && point.t <= until);

/** Joins points that came later to those at hand; the newest ten minutes of them.
 * @param {Point[]} old @param {Point[]} more @param {number} keptSeconds @returns {Point[]} */
export function joined(old, more, keptSeconds = KEPT_SECONDS) {
  if (!more.length) return old;
  const first = more[0].t;
  const all = old.filter((point) => point.t < first).concat(more);
  const until = all[all.length - 1].t;
  return all.filter((point) => point.t > until - keptSeconds);
}

/** Mean watts by part over some points; null where nothing was accounted. @param {Point[]} points */
export function meanWatts(points) {
  const told = points.filter((point) => point.w);
  const seconds = sum(told.map((point) => point.s));
  if (!(seconds > 0)) return null;
  return PARTS.map((_, part) => sum(told.map((point) => (point.w?.[part] ?? 0) * point.s)) / seconds);
}

/** Joules, output and accounted seconds of one engine, or of all. @param {Point[]} points @param {string} [engine] */
export function taken(points, engine) {
  const found = { joules: 0, output: 0, seconds: 0 };
  for (const point of points) {
    const rows = engine === undefined ? Object.values(point.e) : engine in point.e ? [point.e[engine]] : [];
    for (const row of rows) {
      found.joules += row[0] ?? 0;
      found.output += row[1] ?? 0;
    }
    if (rows.length) found.seconds += point.s;
  }
  return found;
}

/** @param {Point[]} points @param {string} [engine] */
export function perOutput(points, engine) {
  const { joules, output } = taken(points, engine);
  return output > 0 ? joules / output : null;
}

/** Joules per output over time: at each point the ratio of the points of the last half minute.
 * @param {Point[]} points @param {string} [engine] @returns {{t: number, y: number | null, expected: number | null}[]} */
export function trend(points, engine) {
  let from = 0;
  let [joules, output] = [0, 0];
  /** @param {Point} point @param {1 | -1} sign */
  const add = (point, sign) => {
    const one = taken([point], engine);
    joules += sign * one.joules;
    output += sign * one.output;
  };
  return points.map((point, at) => {
    add(point, 1);
    while (points[from].t <= point.t - TREND_SECONDS) add(points[from++], -1);
    // The first seconds are prompts that have no output yet.
    const told = output > 0 && point.t - points[0].t >= FIRST_SECONDS;
    const y = told ? Math.max(joules, 0) / output : null;
    const ratio = y === null ? null : index(points.slice(from, at + 1), engine);
    return { t: point.t, y, expected: y === null || ratio === null ? null : y / ratio };
  });
}

/** What the work cost over what the same work should cost by the baseline; null where that is not known.
 * @param {Point[]} points @param {string} [engine] */
export function index(points, engine) {
  let [actual, expected] = [0, 0];
  for (const point of points)
    for (const [name, row] of Object.entries(point.e)) {
      if ((engine !== undefined && name !== engine) || row[2] === null || row[3] === null) continue;
      actual += row[2] ?? 0;
      expected += row[3] ?? 0;
    }
  return expected > 0 ? actual / expected : null;
}

/** How much of the past a chart shows: a young sidecar has little. @param {Point[]} points @param {number} until */
export function span(points, until) {
  const there = points.length ? until - points[0].t : 0;
  return SPANS.find((seconds) => seconds >= there) ?? KEPT_SECONDS;
}

/** Sum over engines and GPUs by phase. @param {Engine[]} engines */
export function byPhase(engines) {
  /** @type {ByReason} */
  const found = { prefill: 0, decode: 0 };
  for (const engine of engines)
    for (const phases of Object.values(engine.attributed_joules))
      for (const [phase, joules] of Object.entries(phases)) found[phase] = (found[phase] ?? 0) + joules;
  return found;
}

/** The whole account since the sidecar started, in the order of PARTS. @param {Snapshot} snapshot */
export function balance(snapshot) {
  const phases = byPhase(snapshot.engines);
  const parts = [
    phases.prefill,
    phases.decode,
    sum(snapshot.gpus.map((gpu) => gpu.idle_joules)),
    sum(snapshot.gpus.map((gpu) => total(gpu.overhead_joules))),
    sum(snapshot.gpus.map((gpu) => total(gpu.unattributed_joules))),
  ];
  return { parts, measured: sum(snapshot.gpus.map((gpu) => gpu.measured_joules)) };
}

/** Sums of many records by reason. @param {(ByReason | undefined)[]} many @returns {ByReason} */
export function merged(many) {
  /** @type {ByReason} */
  const found = {};
  for (const each of many)
    for (const [reason, value] of Object.entries(each ?? {})) found[reason] = (found[reason] ?? 0) + value;
  return found;
}

/** Joules that went to nobody or came to nothing, by kind and reason, greatest first.
 * @param {Snapshot} snapshot */
export function losses(snapshot) {
  const { gpus, engines } = snapshot;
  const kinds = /** @type {[string, ByReason][]} */ ([
    ["idle", { idle: sum(gpus.map((gpu) => gpu.idle_joules)) }],
    ["overhead", merged(gpus.map((gpu) => gpu.overhead_joules))],
    ["unattributed", merged(gpus.map((gpu) => gpu.unattributed_joules))],
    ["wasted", merged(engines.map((engine) => engine.wasted_joules))],
  ]);
  return kinds
    .flatMap(([kind, reasons]) =>
      Object.entries(reasons).map(([reason, joules]) => ({ kind, reason, joules })),
    )
    .sort((a, b) => b.joules - a.joules);
}

/** What cache hits saved. @param {Engine[]} engines */
export const avoided = (engines) => sum(engines.map((engine) => total(engine.avoided_joules)));

/** Joules by adapter, tenant or task, summed over engines, greatest first; nothing where only one is known.
 * @param {Engine[]} engines @param {"adapters" | "tenants" | "tasks"} which @param {string} nobody */
export function shares(engines, which, nobody) {
  /** @type {Map<string, Share>} */
  const found = new Map();
  for (const engine of engines)
    for (const [name, totals] of Object.entries(engine[which] ?? {})) {
      const one = found.get(name) ?? { name, joules: 0, tokens: 0, requests: 0, whole: 0, counted: 0 };
      one.joules += total(totals.joules);
      one.tokens += totals.generated_tokens;
      one.requests += totals.requests_finished;
      one.whole += totals.joules_per_request?.total ?? 0;
      one.counted += sum(totals.joules_per_request?.counts ?? []);
      found.set(name, one);
    }
  const rows = [...found.values()].filter((each) => each.joules > 0 || each.requests > 0);
  return rows.some((each) => each.name !== nobody) ? rows.sort((a, b) => b.joules - a.joules) : [];
}

/** Sum of what GPUs may draw; null unless each tells its limit. @param {Snapshot} snapshot */
export function limitWatts(snapshot) {
  const limits = snapshot.gpus
    .filter((gpu) => !gpu.info.parent)
    .map((gpu) => gpu.reading?.status?.power_limit_watts ?? gpu.info.power_limit_watts);
  return limits.length && limits.every((limit) => typeof limit === "number")
    ? sum(/** @type {number[]} */ (limits))
    : null;
}

/** The oldest snapshot that is at most so many seconds older than the last. @param {Snapshot[]} past
 * @param {Snapshot} now @param {number} seconds */
export const before = (past, now, seconds) =>
  past.find((each) => now.time_ns - each.time_ns <= seconds * 1e9 && each.time_ns < now.time_ns);

/** Whether two snapshots are of one run of the sidecar. @param {Snapshot} a @param {Snapshot} b */
export const sameRun = (a, b) =>
  a.sidecar.start_wall_seconds === b.sidecar.start_wall_seconds && a.time_ns <= b.time_ns;
