// What is wrong right now, in words. Pure: from the state to a list, worst first.

import { count, duration, joules, percent, shown } from "./format.js";
import { INDEX_SECONDS, before, index, losses, sum, total, within } from "./figures.js";

/** @typedef {import("./types.d.ts").Problem} Problem */
/** @typedef {import("./types.d.ts").Snapshot} Snapshot */

const LATE_SECONDS = 15;
const RECENT_SECONDS = 60;
const METERS_AGREE = 0.05;
const MUCH_UNATTRIBUTED = 0.02;
const MUCH_DEARER = 0.1;
/** Requests that an exporter lost; other outcomes are nobody's trouble. As `top` and the alert have it. */
const LOST_OUTCOMES = ["failed", "dropped", "rejected"];
const LEVELS = ["bad", "warn", "note"];

/** What a reason means, in plain words. @type {Record<string, string>} */
export const MEANING = {
  idle: "no step was running",
  startup: "loading, warm-up and graph capture",
  dummy_batch: "empty steps that keep data-parallel ranks together",
  preemption: "computed again after a request was pushed out of the KV cache",
  rejected_draft: "speculative tokens that were not accepted",
  abort: "work for requests that were aborted",
  no_engine: "no engine was connected",
  records_lost: "records were dropped or a connection broke",
  engine_silent: "an engine stopped reporting",
  unmapped: "no engine says that it uses this GPU",
  mig_instance: "a MIG instance without a meter",
  mig_rest: "the split among MIG instances gave them to none",
};

/** What holds clocks back, in plain words. @type {Record<string, string>} */
const THROTTLE = {
  power_cap: "power cap",
  thermal: "too hot",
  hardware_slowdown: "hardware slowdown",
  power_brake: "power brake",
  sync_boost: "sync boost",
  application_clocks: "clocks set by application",
  board_limit: "board limit",
  reliability: "reliability limit",
};

/** @param {string} reason */
export const meaning = (reason) => MEANING[reason] ?? shown(reason).replaceAll("_", " ");

/** @param {import("./types.d.ts").Gpu} gpu */
export const gpuName = (gpu) => (gpu.info.index === null ? shown(gpu.info.gpu, 14) : `GPU ${gpu.info.index}`);

/** @param {string} reason */
export const throttle = (reason) => THROTTLE[reason] ?? shown(reason);

/** @param {import("./types.d.ts").State} state @returns {Problem[]} */
export function problems(state) {
  if (!state.envelope) return [];
  const now = state.envelope.snapshot;
  const then = before(state.past, now, RECENT_SECONDS);
  const found = [
    ...readiness(state),
    ...ofGpus(now),
    ...ofEngines(now, then),
    ...dear(state, now),
    ...ofAccount(now, then),
    ...ofSidecar(now, then),
  ];
  return found.sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
}

/** @param {import("./types.d.ts").State} state @returns {Problem[]} */
function readiness(state) {
  return state.ready && !state.ready.ok
    ? [{ level: "bad", text: `Not ready: ${shown(state.ready.text, 300)}` }]
    : [];
}

/** One line for all GPUs of which the same is wrong. @param {Snapshot} now @returns {Problem[]} */
function ofGpus(now) {
  /** @type {Map<string, {level: Problem["level"], what: string, names: string[]}>} */
  const found = new Map();
  for (const gpu of now.gpus)
    for (const { level, text } of ofGpu(gpu)) {
      const line = found.get(text) ?? { level, what: text, names: [] };
      line.names.push(gpuName(gpu));
      found.set(text, line);
    }
  /** @type {Problem[]} */
  const lines = [...found.values()].map(({ level, what, names }) => ({
    level,
    text: `${listed(names)}: ${what}`,
  }));
  for (const domain of now.host.domains)
    if (!domain.up)
      lines.push({
        level: "warn",
        text: `Host domain ${shown(domain.info.domain)}: its sensor does not answer.`,
      });
  return lines;
}

/** @param {string[]} names */
const listed = (names) =>
  names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");

/** @param {import("./types.d.ts").Gpu} gpu @returns {Problem[]} */
function ofGpu(gpu) {
  /** @type {Problem[]} */
  const found = [];
  if (!gpu.up) found.push({ level: "bad", text: "the sensor does not answer; joules are not measured." });
  else if (!gpu.reading) found.push({ level: "warn", text: "no fresh reading." });
  if (gpu.residual_joules !== 0)
    found.push({
      level: "bad",
      text: `the account does not add up, ${joules(gpu.residual_joules)} are left over. Please report it.`,
    });
  const ratio = gpu.comparison?.ratio;
  if (typeof ratio === "number" && Math.abs(ratio - 1) > METERS_AGREE)
    found.push({ level: "warn", text: `counter and power readings differ, ratio ${ratio.toFixed(2)}.` });
  const reasons = (gpu.up && gpu.reading?.status?.throttle_reasons) || [];
  if (reasons.length)
    found.push({ level: "note", text: `clocks are held back (${reasons.map(throttle).join(", ")}).` });
  return found;
}

/** @param {Snapshot} now @param {Snapshot | undefined} then @returns {Problem[]} */
function ofEngines(now, then) {
  /** @type {Problem[]} */
  const found = [];
  if (!now.engines.length && !now.servers.length)
    found.push({ level: "note", text: "No engine has connected yet." });
  for (const engine of now.engines) {
    const name = `Engine ${shown(engine.info.engine, 60)}`;
    const old = then?.engines.find((each) => each.info.engine === engine.info.engine);
    if (!engine.up) found.push({ level: "warn", text: `${name} is not connected.` });
    if (engine.records_dropped)
      found.push(dropped(`${name}: its hook dropped`, engine.records_dropped, old?.records_dropped));
    if (engine.gaps > (old?.gaps ?? engine.gaps))
      found.push({ level: "warn", text: `${name}: records are missing; that energy is unattributed.` });
    const preempted = old ? engine.preemptions - old.preemptions : 0;
    if (preempted > 0)
      found.push({
        level: "warn",
        text: `${name}: ${count(preempted)} preemptions in the last minute; the KV cache is short.`,
      });
  }
  for (const server of now.servers)
    if (!server.up)
      found.push({ level: "warn", text: `Server ${shown(server.server)}: its page cannot be had.` });
  return found;
}

/** Engines whose work costs more than the same work should. @param {import("./types.d.ts").State} state @param {Snapshot} now
 * @returns {Problem[]} */
function dear(state, now) {
  const points = within(state.points, INDEX_SECONDS, now.wall_seconds);
  return now.engines.flatMap((engine) => {
    const ratio = index(points, engine.info.engine);
    const sure = MUCH_DEARER + 2 * (engine.baseline?.error_ratio ?? 0);
    if (ratio === null || ratio - 1 < sure) return [];
    return [
      {
        level: "warn",
        text: `Engine ${shown(engine.info.engine, 60)}: costs ${percent(ratio - 1)} more than the same work should (last two minutes).`,
      },
    ];
  });
}

/** Losses that grow are a warning, old ones a note. @param {string} who @param {number} ever
 * @param {number | undefined} old @returns {Problem} */
function dropped(who, ever, old) {
  const fresh = old === undefined ? 0 : ever - old;
  return fresh > 0
    ? { level: "warn", text: `${who} ${count(fresh)} records in the last minute.` }
    : { level: "note", text: `${who} ${count(ever)} records, none of them lately.` };
}

/** @param {Snapshot} now @param {Snapshot | undefined} then @returns {Problem[]} */
function ofAccount(now, then) {
  if (!then) return [];
  const measured =
    sum(now.gpus.map((gpu) => gpu.measured_joules)) - sum(then.gpus.map((gpu) => gpu.measured_joules));
  const [lost, old] = [now, then].map((each) => sum(each.gpus.map((gpu) => total(gpu.unattributed_joules))));
  const part = measured > 0 ? (lost - old) / measured : 0;
  if (!(part > MUCH_UNATTRIBUTED)) return [];
  const olds = new Map(losses(then).map((each) => [each.kind + each.reason, each.joules]));
  const [main] = losses(now)
    .filter((each) => each.kind === "unattributed")
    .map((each) => ({ reason: each.reason, grown: each.joules - (olds.get(each.kind + each.reason) ?? 0) }))
    .sort((a, b) => b.grown - a.grown);
  return [
    {
      level: "warn",
      text: `${percent(part)} of the last minute's joules are unattributed: ${meaning(main?.reason ?? "")}.`,
    },
  ];
}

/** @param {Snapshot} now @param {Snapshot | undefined} then @returns {Problem[]} */
function ofSidecar(now, then) {
  /** @type {Problem[]} */
  const found = [];
  const { attribution_lag_seconds: lag, rejected_records: rejected, exported } = now.sidecar;
  if (typeof lag === "number" && lag > LATE_SECONDS)
    found.push({ level: "warn", text: `The account is ${duration(lag)} behind.` });
  for (const [reason, records] of Object.entries(rejected)) {
    if (records)
      found.push(
        dropped(
          `The sidecar refused (${shown(reason).replaceAll("_", " ")})`,
          records,
          then && (then.sidecar.rejected_records[reason] ?? 0),
        ),
      );
  }
  for (const [exporter, outcomes] of Object.entries(exported))
    for (const [outcome, requests] of Object.entries(outcomes)) {
      const fresh = requests - (then?.sidecar.exported[exporter]?.[outcome] ?? requests);
      if (fresh > 0 && LOST_OUTCOMES.includes(outcome))
        found.push({
          level: "warn",
          text: `Exporter ${shown(exporter)}: ${count(fresh)} requests ${shown(outcome)} in the last minute.`,
        });
    }
  const { carbon_failures: failures, carbon_grams_per_joule: grams } = now.multipliers;
  if (failures && total(failures) > 0 && grams === null)
    found.push({ level: "warn", text: "The carbon intensity cannot be had." });
  return found;
}
