// Figures as text. Units stand beside every figure; what is not known is a dash, never a zero.

export const DASH = "–";
const NARROW_SPACE = "\u202f";
const LONGEST_UNIT = 8;

/** @type {[number, string][]} */
const JOULES = [
  [1e9, "GJ"],
  [1e6, "MJ"],
  [1e3, "kJ"],
  [1, "J"],
  [1e-3, "mJ"],
];
/** @type {[number, string][]} */
const WATTS = [
  [1e6, "MW"],
  [1e3, "kW"],
  [1, "W"],
];
/** @type {[number, string][]} */
const BYTES = [
  [2 ** 40, "TiB"],
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
  [1, "B"],
];

/** @param {unknown} value @returns {value is number} */
export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Three digits that matter, thousands apart. @param {number} value */
function three(value) {
  const size = Math.abs(Number(value.toPrecision(3)));
  const digits = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return grouped(value.toFixed(digits));
}

/** @param {string} digits */
function grouped(digits) {
  const [whole, part] = digits.split(".");
  const apart = whole.replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE);
  return part === undefined ? apart : `${apart}.${part}`;
}

/** @param {number | null | undefined} value @param {[number, string][]} units */
function scaled(value, units) {
  if (!known(value)) return DASH;
  const fitting = units.find(([size]) => Math.abs(value) >= size * 0.9995);
  const [size, unit] = fitting ??
    (value === 0 ? units.find(([each]) => each === 1) : units[units.length - 1]) ?? [1, ""];
  return `${three(value / size)} ${unit}`;
}

/** @param {number | null | undefined} value */
export const joules = (value) => scaled(value, JOULES);
/** @param {number | null | undefined} value */
export const watts = (value) =>
  known(value) && value < 1e4
    ? `${grouped(value.toFixed(value !== 0 && value < 10 ? 1 : 0))} W`
    : scaled(value, WATTS);
/** @param {number | null | undefined} value */
export const bytes = (value) => scaled(value, BYTES);
/** @param {number | null | undefined} value */
export const count = (value) => (known(value) ? grouped(value.toFixed(0)) : DASH);
/** @param {number | null | undefined} value */
export const figure = (value) => (known(value) ? three(value) : DASH);
/** @param {number | null | undefined} value */
export const megahertz = (value) => (known(value) ? `${grouped((value / 1e6).toFixed(0))} MHz` : DASH);

/** A part of one as a percentage; a tenth only where it says something. @param {number | null | undefined} value */
export function percent(value) {
  if (!known(value)) return DASH;
  const hundredths = value * 100;
  return `${hundredths.toFixed(hundredths !== 0 && Math.abs(hundredths) < 9.95 ? 1 : 0)} %`;
}

/** A length of time, in the largest two units. @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** Time of day, as the browser's user writes it. @param {number} wallSeconds */
export const clock = (wallSeconds) => new Date(wallSeconds * 1000).toLocaleTimeString();

/** Text from outside as something to show: no control or direction characters, and not without end.
 * @param {unknown} text @param {number} longest */
export function shown(text, longest = 120) {
  const plain = String(text ?? "").replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "\ufffd");
  const letters = Array.from(plain.slice(0, 4 * longest));
  return letters.length > longest ? `${letters.slice(0, longest - 1).join("")}…` : letters.join("");
}

/** What all engines count their output in, or "output" where they differ or it is long.
 * @param {{info: {unit: string}}[]} engines */
export function unitOf(engines) {
  const units = new Set(engines.map((engine) => engine.info.unit));
  const [unit] = units.size ? units : ["token"];
  return units.size > 1 || unit.length > LONGEST_UNIT ? "output" : shown(unit);
}
