// Small parts of the page that several others use.

import { h } from "./vendor/preact.module.js";
import { known, percent } from "./format.js";
import { PARTS, sum } from "./figures.js";

/** @param {string} title @param {string} id @param {any} content @param {any} [empty] */
export function section(title, id, content, empty) {
  return h(
    "section",
    { "aria-labelledby": `${id}-title`, id },
    h("h2", { id: `${id}-title` }, title),
    empty ? h("p", { class: "soft" }, empty) : content,
  );
}

/** A figure and its unit apart, so that the figure stands out. @param {string} text */
export function split(text) {
  const at = text.lastIndexOf(" ");
  return at < 0 ? text : [text.slice(0, at), h("small", null, ` ${text.slice(at + 1)}`)];
}

/** @param {(number | null)[]} values */
export const told = (values) => (values.some(known) ? sum(values.filter(known)) : null);

/** @param {number} ratio @param {string} what */
export function versus(ratio, what) {
  if (Math.abs(ratio - 1) < 0.02) return `level with ${what}`;
  return `${percent(Math.abs(ratio - 1))} ${ratio > 1 ? "above" : "below"} ${what}`;
}

/** A bar of parts; the text beside it says the same. @param {number[]} parts @param {number} whole */
export function stack(parts, whole) {
  return h(
    "div",
    { class: "stack", "aria-hidden": "true" },
    PARTS.map((part, number) =>
      h("i", {
        class: part,
        style: { width: `${whole > 0 ? (100 * Math.max(parts[number], 0)) / whole : 0}%` },
      }),
    ),
  );
}
