// The page as a function of the state. Text only ever becomes text: nothing here makes markup of it.

import { h } from "./vendor/preact.module.js";
import { section, split, told, versus } from "./bits.js";
import { engineCard, gpuCard } from "./cards.js";
import {
  DASH,
  clock,
  count,
  duration,
  figure,
  joules,
  known,
  percent,
  shown,
  unitOf,
  watts,
} from "./format.js";
import * as figures from "./figures.js";
import { hostPanel, lossPanel, powerPanel, serverPanel, sharesPanel, trendPanel } from "./panels.js";
import { problems } from "./problems.js";
import { requestTables } from "./requests.js";

/** @typedef {import("./types.d.ts").State} State */
/** @typedef {import("./types.d.ts").Snapshot} Snapshot */
/** @typedef {import("./types.d.ts").Acts} Acts */

const STALE_MS = 6000;
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
      trouble(s, cut || stale),
      h("div", { class: "figures" }, tiles(s, snapshot)),
      h("div", { class: "two" }, powerPanel(s, snapshot, acts), trendPanel(s, snapshot, acts)),
      h(
        "div",
        { class: "halves" },
        section(
          "Engines",
          "engines",
          h(
            "div",
            { class: "cards" },
            snapshot.engines.map((engine) => engineCard(s, engine)),
          ),
          snapshot.engines.length === 0 && "No engine has connected yet.",
        ),
        section(
          "GPUs",
          "gpus",
          h("div", { class: "cards" }, snapshot.gpus.map(gpuCard)),
          snapshot.gpus.length === 0 && "No GPU is being measured.",
        ),
      ),
      requestTables(s, acts),
      lossPanel(s, snapshot),
      sharesPanel(snapshot, "adapters", "By adapter", "base"),
      sharesPanel(snapshot, "tenants", "By tenant", "none"),
      sharesPanel(snapshot, "tasks", "By task", "none"),
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
  const pieces = [
    parts && watts(figures.sum(parts)),
    ratio !== null && `${figure(ratio)} J/${unitOf(s.envelope.snapshot.engines)}`,
  ];
  return [...pieces.filter(Boolean), "joulescope"].join(" · ");
}

/** @param {State} s @param {Acts} acts @param {number} nowMs @param {boolean} stale */
function head(s, acts, nowMs, stale) {
  const link = linkText(s, nowMs, stale);
  return h(
    "header",
    { class: "top" },
    h(
      "h1",
      null,
      h(
        "svg",
        { viewBox: "0 0 32 32", width: 22, height: 22, "aria-hidden": "true" },
        h("rect", { width: 32, height: 32, rx: 7, class: "mark-back" }),
        h("path", { class: "mark-decode", d: "M5 24V17l6-4 6 5 5-8 5 3v11z" }),
        h("path", { class: "mark-prefill", d: "M5 24v-3l6-2 6 2 5-3 5 1v5z" }),
      ),
      "joulescope",
    ),
    h(
      "p",
      { class: `link ${link.kind}`, role: "status" },
      h("i", { class: "lamp", "aria-hidden": "true" }),
      h("span", null, link.text),
    ),
    // The seconds go on outside the status, or a screen reader would read each of them.
    h("span", { class: "since soft", "aria-hidden": "true" }, link.since),
    h(
      "div",
      { class: "buttons" },
      s.newVersion &&
        h("button", { type: "button", class: "strong", onClick: acts.reload }, "Another version: reload"),
      link.kind === "down" && h("button", { type: "button", onClick: acts.retry }, "Try now"),
      h(
        "button",
        {
          type: "button",
          id: "pause",
          "aria-pressed": String(s.link.state === "paused"),
          "aria-keyshortcuts": "p",
          onClick: acts.pause,
        },
        s.link.state === "paused" ? "Go on" : "Pause",
      ),
    ),
  );
}

/** @param {State} s @param {number} nowMs @param {boolean} stale */
function linkText(s, nowMs, stale) {
  const seconds = Math.round((nowMs - s.heardMs) / 1000);
  const ago = seconds < 10 ? `${seconds} s` : duration(seconds);
  const of = s.envelope ? `figures of ${clock(s.envelope.snapshot.wall_seconds)}` : "";
  if (s.link.state === "paused") return { kind: "paused", text: "paused", since: of };
  if (s.link.state === "denied")
    return { kind: "down", text: "not allowed any more: reload the page", since: of };
  if (s.link.state === "down") return { kind: "down", text: "disconnected", since: `for ${ago}, ${of}` };
  if (stale) return { kind: "down", text: "the sidecar answers, but its figures stand still", since: of };
  if (s.link.state === "busy") return { kind: "busy", text: "the sidecar is busy", since: of };
  return { kind: "live", text: "live", since: "" };
}

/** What is wrong; of old figures nobody can say that. @param {State} s @param {boolean} old */
function trouble(s, old) {
  const found = old ? [] : problems(s);
  const grave = found.filter((each) => each.level !== "note").length;
  const wrong = grave === 1 ? "1 thing is wrong" : `${grave} things are wrong`;
  const said = old ? "Not known: there are no fresh figures" : grave ? wrong : "Nothing is wrong";
  const measured = s.envelope?.snapshot.gpus.length ?? 0;
  return h(
    "section",
    {
      class: `trouble ${old ? "old" : grave ? found[0].level : "fine"}`,
      id: "trouble",
      "aria-labelledby": "trouble-title",
    },
    h(
      "h2",
      { id: "trouble-title" },
      h("i", { class: "sign", "aria-hidden": "true" }, old ? "?" : grave ? "!" : "✓"),
      h("span", { role: "status" }, said),
    ),
    !old &&
      grave === 0 &&
      measured > 0 &&
      h("p", { class: "soft" }, "Every measured joule is accounted for: residual 0 J."),
    found.length > 0 &&
      h(
        "ul",
        null,
        found
          .slice(0, 12)
          .map((each) =>
            h(
              "li",
              { class: each.level, key: each.text },
              h("b", null, { bad: "Wrong", warn: "Look", note: "Note" }[each.level]),
              ` ${each.text}`,
            ),
          ),
        found.length > 12 && h("li", { class: "note" }, `and ${found.length - 12} more`),
      ),
  );
}

/** @param {string} name @param {any} value @param {any} under @param {string} [kind] */
function tile(name, value, under, kind = "") {
  return h(
    "div",
    { class: `tile ${kind}` },
    h("h3", null, name),
    h("p", { class: "big" }, value),
    h("p", { class: "under" }, under),
  );
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
  const here = snapshot.engines.filter((engine) => engine.up);
  const running = told(here.map((engine) => engine.running));
  const waiting = told(here.map((engine) => engine.waiting));
  const useful = parts && now ? (parts[0] + parts[1]) / now : null;
  const span = `mean of ${figures.NOW_SECONDS} s`;
  return [
    tile(
      "Power",
      split(watts(now)),
      [span, limit && known(now) ? `${percent(now / limit)} of limit` : null].filter(Boolean).join(" · "),
    ),
    tile(
      `Joules per ${unit === "token" ? "output token" : unit}`,
      split(`${figure(nowRatio)} J`),
      ratioText(s, nowRatio, until),
      "main",
    ),
    tile(
      unit === "token" ? "Output" : "Made",
      split(`${figure(rate)} ${unit === "token" ? "tok" : unit}/s`),
      span,
    ),
    tile(
      "Requests",
      [count(running), h("small", null, " running")],
      waiting === null ? "queue not known" : `${count(waiting)} waiting`,
    ),
    tile(
      "Goes to requests",
      split(percent(useful)),
      parts && now
        ? `idle ${percent(parts[2] / now)} · overhead ${percent(parts[3] / now)} · nobody ${percent(parts[4] / now)}`
        : "no energy accounted lately",
    ),
    wasteTile(snapshot),
    priceTile(snapshot, now),
  ];
}

/** Against what the same work should cost where a baseline tells, else against the minutes before.
 * @param {State} s @param {number | null} now @param {number} until */
function ratioText(s, now, until) {
  const mean = `mean of ${figures.TREND_SECONDS} s`;
  const index = figures.index(figures.within(s.points, figures.INDEX_SECONDS, until));
  if (index !== null) return `${mean} · ${versus(index, "the baseline")}`;
  const long = figures.perOutput(s.points);
  if (now === null || long === null || until - s.points[0].t < 4 * figures.TREND_SECONDS) return mean;
  return `${mean} · ${versus(now / long, `the last ${Math.round((until - s.points[0].t) / 60)} min`)}`;
}

/** @param {Snapshot} snapshot */
function wasteTile(snapshot) {
  const wasted = figures.losses(snapshot).filter((each) => each.kind === "wasted" && each.joules > 0);
  const joulesWasted = figures.sum(wasted.map((each) => each.joules));
  const attributed = figures.sum(snapshot.gpus.map((gpu) => gpu.attributed_joules));
  const most = wasted.length
    ? `${joules(joulesWasted)} since the start, most by ${shown(wasted[0].reason).replaceAll("_", " ")}`
    : "since the start";
  return tile("Wasted", split(percent(attributed > 0 ? joulesWasted / attributed : null)), most);
}

/** @param {Snapshot} snapshot @param {number | null} now */
function priceTile(snapshot, now) {
  const {
    carbon_grams_per_joule: grams,
    price_per_joule: price,
    pue_ratio: pue,
    currency,
  } = snapshot.multipliers;
  if (grams === null && price === null) return null;
  const power = now === null ? null : now * (pue ?? 1);
  const money =
    price === null || power === null ? null : `${figure(power * price * HOUR)} ${shown(currency)}/h`;
  const carbon = grams === null || power === null ? null : `${figure(power * grams * HOUR)} g CO₂/h`;
  return tile(
    money ? "Electricity" : "Carbon",
    split(money ?? carbon ?? DASH),
    [money && carbon, pue && `PUE ${figure(pue)}`].filter(Boolean).join(" · ") || "at the power of now",
  );
}

/** @param {State} s @param {Snapshot} snapshot */
function foot(s, snapshot) {
  const { sidecar } = snapshot;
  const links = /** @type {[string, string][]} */ ([
    ["metrics", "metrics for Prometheus"],
    ["api/snapshot", "figures as JSON"],
    ["-/ready", "readiness"],
    ["-/healthy", "health"],
  ]);
  const lag = sidecar.attribution_lag_seconds;
  return h(
    "footer",
    null,
    h(
      "p",
      null,
      `joulescope ${shown(s.envelope?.joulescope_version)}, joules divided by ${shown(s.envelope?.method)} version ${shown(s.envelope?.method_version)}. `,
      `Up for ${duration(snapshot.wall_seconds - sidecar.start_wall_seconds)}`,
      known(lag) && `; the account is ${duration(lag)} behind`,
      ".",
    ),
    h(
      "nav",
      { "aria-label": "Other pages" },
      links.map(([path, text]) => h("a", { href: path, key: path }, text)),
    ),
  );
}
