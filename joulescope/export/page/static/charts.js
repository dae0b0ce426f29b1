// Charts as SVG: a stacked area, lines, and small lines beside a figure. Sizes are pixels; Measured tells them.

import { Component, h } from "./vendor/preact.module.js";
import { DASH, clock, figure, percent, watts } from "./format.js";
import { PARTS } from "./figures.js";

/** @typedef {import("./types.d.ts").Point} Point */
/** @typedef {{t: number, y: number | null, expected: number | null}} Spot */

const LEFT = 54;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 22;

/** A box that knows its width, and draws again when that changes. */
export class Measured extends Component {
  constructor() {
    super();
    this.state = { width: 0 };
    /** @type {HTMLElement | null} */
    this.box = null;
    this.observer = new ResizeObserver(([entry]) =>
      this.setState({ width: Math.floor(entry.contentRect.width) }),
    );
  }

  componentDidMount() {
    if (!this.box) return;
    this.setState({ width: Math.floor(this.box.clientWidth) });
    this.observer.observe(this.box);
  }

  componentWillUnmount() {
    this.observer.disconnect();
  }

  render() {
    const { height, draw } = /** @type {any} */ (this.props);
    const width = this.state.width;
    return h(
      "div",
      { class: "measured", style: { height: `${height}px` }, ref: (element) => (this.box = element) },
      width > 40 && draw(width),
    );
  }
}

/** A round figure at or above a value, and the step of the marks below it. @param {number} most @param {number} marks */
export function roundUp(most, marks = 4) {
  if (!(most > 0)) return { top: 1, step: 0.25 };
  const rough = most / marks;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((each) => each * size >= rough) ?? 10) * size;
  return { top: Math.ceil(most / step - 1e-9) * step, step };
}

/** Points in stretches without a hole. @template {{t: number}} T @param {T[]} points @param {number} longestSeconds
 * @param {(point: T) => boolean} there @returns {T[][]} */
export function stretches(points, longestSeconds, there) {
  /** @type {T[][]} */
  const found = [];
  /** @type {T | null} */
  let last = null;
  for (const point of points) {
    if (!there(point)) {
      last = null;
      continue;
    }
    if (last && point.t - last.t <= longestSeconds) found[found.length - 1].push(point);
    else found.push([point]);
    last = point;
  }
  return found;
}

/** @param {number} width @param {number} height @param {number} top @param {number} until @param {number} span */
function scales(width, height, top, until, span) {
  const inner = width - LEFT - RIGHT;
  const high = height - TOP - BOTTOM;
  return {
    /** @param {number} t */
    x: (t) => LEFT + inner * (1 - (until - t) / span),
    /** @param {number} y */
    y: (y) => TOP + high * (1 - y / top),
    /** @param {number} x */
    t: (x) => until - span * (1 - (x - LEFT) / inner),
  };
}

/** @param {number} value */
const px = (value) => value.toFixed(1);

/** Grid, marks and their text. @param {number} width @param {number} height @param {{top: number, step: number}} round
 * @param {ReturnType<typeof scales>} scale @param {number} until @param {number} span @param {(y: number) => string} text */
function axes(width, height, round, scale, until, span, text) {
  const rows = Array.from(
    { length: Math.round(round.top / round.step) + 1 },
    (_, number) => number * round.step,
  );
  const marks = span === 180 ? 3 : width <= 480 ? 2 : span % 50 ? 4 : 5;
  const times = Array.from({ length: marks + 1 }, (_, number) => (number * span) / marks);
  return [
    ...rows.map((y) =>
      h("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: px(scale.y(y)), y2: px(scale.y(y)) }),
    ),
    ...rows.map((y) =>
      h("text", { class: "mark", x: LEFT - 6, y: px(scale.y(y) + 4), "text-anchor": "end" }, text(y)),
    ),
    ...times.map((ago) =>
      h(
        "text",
        {
          class: "mark",
          x: px(scale.x(until - ago)),
          y: height - 5,
          "text-anchor": ago === 0 ? "end" : ago === span ? "start" : "middle",
        },
        ago === 0 ? "now" : `−${span > 120 ? `${ago / 60} min` : `${ago} s`}`,
      ),
    ),
  ];
}

/** Pointer, touch and arrow keys move a mark along the time. @param {ReturnType<typeof scales>} scale @param {{t: number}[]} points
 * @param {number | null} cursor @param {(t: number | null) => void} move */
function handles(scale, points, cursor, move) {
  const nearest = (/** @type {number} */ t) =>
    points.reduce((best, point) => (Math.abs(point.t - t) < Math.abs(best.t - t) ? point : best)).t;
  const step = (/** @type {number} */ by) => {
    const at = points.findIndex((point) => point.t === cursor);
    const next = at < 0 ? points.length - 1 : Math.min(Math.max(at + by, 0), points.length - 1);
    move(points[next].t);
  };
  return {
    tabIndex: 0,
    onPointerMove: (/** @type {PointerEvent} */ event) => {
      const place = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
      if (points.length) move(nearest(scale.t(event.clientX - place.left)));
    },
    onPointerLeave: () => move(null),
    onBlur: () => move(null),
    onKeyDown: (/** @type {KeyboardEvent} */ event) => {
      /** @type {Record<string, number>} */
      const keys = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15, Home: -1e6, End: 1e6 };
      if (event.key === "Escape") move(null);
      if (!(event.key in keys) || !points.length) return;
      event.preventDefault();
      step(keys[event.key]);
    },
  };
}

/** Watts by part over the kept time, one upon the other.
 * @param {{points: Point[], until: number, span: number, step: number, limit: number | null, cursor: number | null,
 *          move: (t: number | null) => void, width: number, height: number}} about */
export function areas({ points, until, span, step, limit, cursor, move, width, height }) {
  const drawn = points.filter((point) => point.t > until - span);
  const told = drawn.filter((point) => point.w);
  const heap = (/** @type {Point} */ point, /** @type {number} */ parts) =>
    (point.w ?? []).slice(0, parts).reduce((all, each) => all + each, 0);
  const most = Math.max(0, ...told.map((point) => heap(point, PARTS.length)));
  const round = roundUp(limit && limit < most * 2 ? Math.max(limit, most) : most * 1.05);
  const scale = scales(width, height, round.top, until, span);
  const whole = stretches(drawn, 3 * step, (point) => point.w !== null);
  const shapes = PARTS.map((part, number) => {
    const paths = whole.map((stretch) => {
      const up = stretch.map((point) => `${px(scale.x(point.t))},${px(scale.y(heap(point, number + 1)))}`);
      const down = stretch
        .map((point) => `${px(scale.x(point.t))},${px(scale.y(heap(point, number)))}`)
        .reverse();
      return `M${up.join("L")}L${down.join("L")}Z`;
    });
    return h("path", { class: `area ${part}`, d: paths.join("") });
  });
  const at = cursor === null ? undefined : told.find((point) => point.t === cursor);
  return h(
    "div",
    { class: "chart" },
    h(
      "svg",
      { width, height, role: "img", "aria-label": summary(told), ...handles(scale, told, cursor, move) },
      axes(width, height, round, scale, until, span, (y) => (y === 0 ? "0" : watts(y))),
      shapes,
      limit &&
        limit <= round.top &&
        h("line", {
          class: "limit",
          x1: LEFT,
          x2: width - RIGHT,
          y1: px(scale.y(limit)),
          y2: px(scale.y(limit)),
        }),
      limit &&
        limit <= round.top &&
        h(
          "text",
          { class: "mark limit-text", x: width - RIGHT - 4, y: px(scale.y(limit) - 5), "text-anchor": "end" },
          `limit ${watts(limit)}`,
        ),
      at &&
        h("line", {
          class: "cursor",
          x1: px(scale.x(at.t)),
          x2: px(scale.x(at.t)),
          y1: TOP,
          y2: height - BOTTOM,
        }),
    ),
    at && readout(at, scale.x(at.t), width),
    !told.length && h("p", { class: "empty" }, "No energy accounted yet."),
  );
}

/** @param {Point[]} told */
function summary(told) {
  const last = told[told.length - 1];
  if (!last?.w) return "Watts by part: none yet.";
  const parts = PARTS.map((part, number) => `${part} ${watts(last.w?.[number])}`).join(", ");
  return `Watts by part over time. The latest: ${parts}. Arrow keys read other times.`;
}

/** @param {Point} at @param {number} x @param {number} width */
function readout(at, x, width) {
  const whole = (at.w ?? []).reduce((all, each) => all + each, 0);
  return box(x, width, [
    h("b", null, `${clock(at.t)}  ${watts(whole)}`),
    [...PARTS.keys()]
      .reverse()
      .map((number) =>
        h(
          "div",
          null,
          h("i", { class: `swatch ${PARTS[number]}` }),
          h("span", null, PARTS[number]),
          h("span", { class: "num" }, watts(at.w?.[number])),
          h("span", { class: "num soft" }, whole ? percent((at.w?.[number] ?? 0) / whole) : DASH),
        ),
      ),
  ]);
}

/** What stands beside the mark, on the side where there is room. @param {number} x @param {number} width @param {any} inside */
function box(x, width, inside) {
  const side = x > width / 2 ? { right: `${width - x + 10}px` } : { left: `${x + 10}px` };
  return h("div", { class: "readout", style: side, "aria-live": "polite" }, inside);
}

/** One line over the kept time, with what is expected beside it where that is known.
 * @param {{line: Spot[], until: number, span: number, step: number, name: string, cursor: number | null,
 *          move: (t: number | null) => void, width: number, height: number}} about */
export function lines({ line, until, span, step, name, cursor, move, width, height }) {
  const drawn = line.filter((spot) => spot.t > until - span);
  const values = drawn.flatMap((spot) => [spot.y, spot.expected]).filter((y) => y !== null);
  // One bad moment would flatten the rest: the top is what nearly all points stay below.
  const round = roundUp(quantile(/** @type {number[]} */ (values), 0.98) * 1.25, 3);
  const scale = scales(width, height, round.top, until, span);
  const top = (/** @type {number | null} */ y) => px(scale.y(Math.min(y ?? 0, round.top)));
  const last = drawn.findLast((spot) => spot.y !== null);
  const label = last
    ? `${name}; the latest: ${figure(last.y)} joules. Arrow keys read other times.`
    : `${name}: none yet.`;
  const told = drawn.filter((spot) => spot.y !== null);
  const at = told.find((spot) => spot.t === cursor);
  return h(
    "div",
    { class: "chart" },
    h(
      "svg",
      { width, height, role: "img", "aria-label": label, ...handles(scale, told, cursor, move) },
      axes(width, height, round, scale, until, span, (y) =>
        y === 0 ? "0" : String(Number(y.toPrecision(3))),
      ),
      h("path", { class: "line", d: way(drawn, "y", scale, round.top, step) }),
      h("path", { class: "line expected", d: way(drawn, "expected", scale, round.top, step) }),
      last && h("circle", { class: "dot", cx: px(scale.x(last.t)), cy: top(last.y), r: 3.5 }),
      at &&
        h("line", {
          class: "cursor",
          x1: px(scale.x(at.t)),
          x2: px(scale.x(at.t)),
          y1: TOP,
          y2: height - BOTTOM,
        }),
    ),
    at &&
      box(scale.x(at.t), width, [
        h("b", null, `${clock(at.t)}  ${figure(at.y)} J`),
        at.expected !== null && h("p", { class: "soft" }, `expected ${figure(at.expected)} J`),
      ]),
    !told.length && h("p", { class: "empty" }, "Nothing came out yet."),
  );
}

/** @param {number[]} values @param {number} part */
function quantile(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(Math.floor(part * sorted.length), sorted.length - 1)] : 0;
}

/** @param {Spot[]} line @param {"y" | "expected"} which @param {{x: (t: number) => number, y: (y: number) => number}} scale
 * @param {number} top @param {number} step */
function way(line, which, scale, top, step) {
  return stretches(line, 3 * step, (spot) => spot[which] !== null)
    .map(
      (stretch) =>
        `M${stretch.map((spot) => `${px(scale.x(spot.t))},${px(scale.y(Math.min(spot[which] ?? 0, top)))}`).join("L")}`,
    )
    .join("");
}

/** A small line beside a figure. @param {Spot[]} line @param {number} until @param {number} span @param {number} step
 * @param {number} width @param {number} height */
export function spark(line, until, span, step, width = 120, height = 30) {
  const drawn = line.filter((spot) => spot.t > until - span);
  const most =
    quantile(/** @type {number[]} */ (drawn.map((spot) => spot.y).filter((y) => y !== null)), 0.98) * 1.15 ||
    1;
  const scale = {
    x: (/** @type {number} */ t) => width * (1 - (until - t) / span),
    y: (/** @type {number} */ y) => height - 1.5 - (height - 3) * (y / most),
  };
  return h(
    "svg",
    { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    h("path", { class: "line", d: way(drawn, "y", scale, most, step) }),
  );
}
