// Cards of engines and GPUs.

import { h } from "./vendor/preact.module.js";
import { stack, versus } from "./bits.js";
import { spark } from "./charts.js";
import {
  DASH,
  bytes,
  count,
  figure,
  joules,
  known,
  megahertz,
  percent,
  shown,
  unitOf,
  watts,
} from "./format.js";
import * as figures from "./figures.js";
import { gpuName, throttle } from "./problems.js";

/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./types.d.ts").Gpu} Gpu */
/** @typedef {import("./types.d.ts").Engine} Engine */

/** @param {string} name @param {number | null | undefined} ratio @param {string} text @param {string} [kind] */
function meter(name, ratio, text, kind = "") {
  const there = known(ratio);
  const value = there ? Math.min(Math.max(/** @type {number} */ (ratio), 0), 1) : 0;
  const about = there
    ? {
        role: "meter",
        "aria-label": name,
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": Math.round(value * 100),
        "aria-valuetext": text,
      }
    : {};
  return h(
    "div",
    { class: "gauge" },
    h("span", { class: "soft" }, name),
    h("div", { class: `meter ${kind}`, ...about }, there && h("i", { style: { width: `${100 * value}%` } })),
    h("span", { class: "num" }, text),
  );
}

/** @type {Pick<Engine, "running" | "waiting" | "kv_usage_ratio" | "batch_tokens" | "next_token_joules">} */
const NOTHING = { running: null, waiting: null, kv_usage_ratio: null };

/** @param {boolean} up @param {string} yes @param {string} no */
const chip = (up, yes, no) => h("span", { class: `chip ${up ? "good" : "bad"}` }, up ? yes : no);

/** @param {string} name @param {any} value */
const pair = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));

/** @param {State} s @param {Engine} engine */
export function engineCard(s, engine) {
  const { info } = engine;
  // What an engine that is gone said last is not how it is now.
  const now = engine.up ? engine : NOTHING;
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
    h(
      "header",
      null,
      h(
        "div",
        null,
        h("h3", null, shown(info.engine, 60)),
        h("p", { class: "soft name", title: model }, model),
      ),
      chip(engine.up, "connected", "gone"),
    ),
    h(
      "div",
      { class: "lead" },
      h("p", { class: "big" }, figure(ratio), h("small", null, ` J per ${unit}`)),
      spark(figures.trend(s.points, info.engine), until, figures.span(s.points, until), s.stepSeconds),
    ),
    h(
      "dl",
      null,
      pair(
        "running",
        count(now.running) + (known(info.max_num_seqs) ? ` of ${count(info.max_num_seqs)}` : ""),
      ),
      pair("waiting", count(now.waiting)),
      pair(
        unit === "token" ? "tokens/s" : "output/s",
        made.seconds > 0 ? figure(made.output / made.seconds) : DASH,
      ),
      pair("to requests", made.seconds > 0 ? watts(made.joules / made.seconds) : DASH),
      pair("finished", count(figures.total(engine.requests_finished))),
      pair("cache hits", prompts > 0 ? percent(hits / prompts) : DASH),
      known(now.batch_tokens) && pair("batch", `${count(now.batch_tokens)} tokens`),
      known(now.next_token_joules) && pair(`next ${unit}`, joules(now.next_token_joules)),
    ),
    engine.baseline && baselineLine(s, engine, until),
    meter(
      "KV cache",
      now.kv_usage_ratio,
      percent(now.kv_usage_ratio),
      (now.kv_usage_ratio ?? 0) > 0.95 ? "high" : "",
    ),
    attributed > 0 &&
      h(
        "div",
        { class: "gauge" },
        h("span", { class: "soft" }, "prefill"),
        stack([phases.prefill, phases.decode, 0, 0, 0], attributed),
        h("span", { class: "num" }, percent(phases.prefill / attributed)),
      ),
    h(
      "p",
      { class: "soft small" },
      `${shown(`${info.software} ${info.vllm_version}`.trim() || "software not known", 60)}, ${joules(attributed)} since it was met`,
    ),
  );
}

/** @param {State} s @param {Engine} engine @param {number} until */
function baselineLine(s, engine, until) {
  const { baseline } = engine;
  if (!baseline) return null;
  const index = figures.index(figures.within(s.points, figures.INDEX_SECONDS, until), engine.info.engine);
  if (index === null) {
    const ratio = baseline.learned_ratio ?? null;
    if (ratio === null) return null;
    const learned =
      ratio < 1
        ? `its baseline is learned to ${percent(ratio)}`
        : "nothing to compare with its baseline";
    return h("p", { class: "soft small" }, learned);
  }
  const high = index > 1.05;
  return h(
    "p",
    { class: "small" },
    h("span", { class: `chip ${high ? "warn" : "good"}` }, `index ${index.toFixed(2)}`),
    ` ${versus(index, "what the same work should cost")} (${shown(baseline.source)} baseline)`,
  );
}

/** @param {Gpu} gpu */
export function gpuCard(gpu) {
  const reading = gpu.up ? gpu.reading : null;
  const status = reading?.status ?? null;
  const limit = status?.power_limit_watts ?? gpu.info.power_limit_watts;
  const power = reading?.power_watts ?? null;
  const used = reading?.memory_used_bytes ?? null;
  const all = gpu.info.memory_total_bytes;
  const busy = reading?.sm_utilization_ratio ?? status?.sm_active_ratio ?? null;
  const parts = [
    gpu.attributed_joules,
    gpu.idle_joules,
    figures.total(gpu.overhead_joules),
    figures.total(gpu.unattributed_joules),
  ];
  const clocked =
    known(status?.sm_clock_hertz) || known(status?.temperature_celsius) || known(status?.dram_active_ratio);
  const held = (status?.throttle_reasons ?? []).map((reason) =>
    h("span", { class: "chip warn", key: reason }, throttle(reason)),
  );
  return h(
    "article",
    { class: `card ${gpu.up ? "" : "off"}`, key: gpu.info.gpu },
    h(
      "header",
      null,
      h(
        "div",
        null,
        h("h3", null, `${gpuName(gpu)} `, h("span", { class: "soft" }, shown(gpu.info.name, 60))),
        h("p", { class: "soft name mono", title: shown(gpu.info.gpu) }, shown(gpu.info.gpu)),
      ),
      chip(gpu.up, "measured", "sensor down"),
    ),
    meter(
      "power",
      known(power) && limit ? power / limit : null,
      known(power) ? `${watts(power)}${limit ? ` of ${watts(limit)}` : ""}` : DASH,
      "power",
    ),
    meter("busy", busy, percent(busy)),
    meter(
      "memory",
      known(used) && all ? used / all : null,
      known(used) ? `${bytes(used)}${all ? ` of ${bytes(all)}` : ""}` : DASH,
    ),
    clocked &&
      h(
        "dl",
        null,
        pair("SM clock", megahertz(status?.sm_clock_hertz)),
        pair(
          "temperature",
          known(status?.temperature_celsius) ? `${count(status?.temperature_celsius)} °C` : DASH,
        ),
        pair("DRAM", percent(status?.dram_active_ratio)),
      ),
    held.length > 0 && h("p", { class: "chips" }, h("span", { class: "soft" }, "clocks held by "), held),
    gpu.measured_joules > 0 &&
      h(
        "div",
        { class: "gauge" },
        h("span", { class: "soft" }, "went to"),
        stack([0, parts[0], parts[1], parts[2], parts[3]], gpu.measured_joules),
        h("span", { class: "num" }, `${percent(parts[0] / gpu.measured_joules)} requests`),
      ),
    h(
      "p",
      { class: "soft small" },
      `${joules(gpu.measured_joules)} measured, residual ${joules(gpu.residual_joules)}, by ${shown({ counter: "energy counter", power: "integrated power", mig_gpm: "a split of its GPU" }[gpu.info.energy_source] ?? gpu.info.energy_source)} (${shown(gpu.info.sensor)})`,
    ),
  );
}
