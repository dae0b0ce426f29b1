// As much of preact's types as the page uses; only the type check reads this file.

export type Child = Node | string | number | bigint | boolean | null | undefined | Child[];
export interface Node {
  type: unknown;
  props: unknown;
  key: unknown;
}
export function h(
  type: unknown,
  props: Record<string, unknown> | { ref: (box: HTMLElement | null) => void } | null,
  ...children: unknown[]
): Node;
export function render(node: Node | null, parent: Element): void;
export class Component {
  props: unknown;
  state: Record<string, number>;
  setState(state: Record<string, number>): void;
}
