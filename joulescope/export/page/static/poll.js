// Asks the sidecar, one request after the other, so that an open page holds one connection and one slot at most.
// Rests while the tab is hidden or the user paused; after failures it waits longer and longer, and goes on alone.

const LONGEST_PAUSE_MS = 10000;
const ANSWER_WITHIN_MS = 8000;

/** An answer that is not 200. */
export class Refusal extends Error {
  /** @param {string} path @param {number} status @param {number} retryMs */
  constructor(path, status, retryMs) {
    super(`${path} answered ${status}`);
    this.status = status;
    this.retryMs = retryMs;
  }
}

/** One answer as text; relative to the page, so that a prefix of a proxy holds.
 * @param {string} path @param {number[]} [also] further statuses that are answers */
export async function ask(path, also = []) {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), ANSWER_WITHIN_MS);
  try {
    const response = await fetch(path, {
      signal: ending.signal,
      cache: "no-store",
      credentials: "same-origin",
    });
    if (!response.ok && !also.includes(response.status))
      throw new Refusal(path, response.status, 1000 * Number(response.headers.get("Retry-After") ?? 0));
    return { status: response.status, text: await response.text() };
  } finally {
    clearTimeout(timer);
  }
}

/** Runs `turn` again and again. `failed` hears of each failure and how long it waits now. */
export class Poller {
  /** @param {() => Promise<void>} turn @param {(error: unknown, pauseMs: number) => void} failed
   * @param {number} periodMs @param {Document} page */
  constructor(turn, failed, periodMs, page = document) {
    this.turn = turn;
    this.failed = failed;
    this.periodMs = periodMs;
    this.page = page;
    this.paused = false;
    this.failures = 0;
    this.busy = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    page.addEventListener("visibilitychange", () => this.wake());
    addEventListener("online", () => this.wake());
  }

  /** Asks now, unless it is asking or shall rest. */
  wake() {
    clearTimeout(this.timer);
    if (!this.busy && !this.paused && !this.page.hidden) void this.once();
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    this.wake();
  }

  async once() {
    this.busy = true;
    const begun = performance.now();
    let pauseMs = this.periodMs;
    try {
      await this.turn();
      this.failures = 0;
      pauseMs -= performance.now() - begun;
    } catch (error) {
      this.failures += 1;
      pauseMs =
        Math.min(this.periodMs * 2 ** (this.failures - 1), LONGEST_PAUSE_MS) * (0.75 + 0.5 * Math.random());
      if (error instanceof Refusal) pauseMs = Math.max(pauseMs, Math.min(error.retryMs, LONGEST_PAUSE_MS));
      this.failed(error, pauseMs);
    } finally {
      this.busy = false;
    }
    clearTimeout(this.timer);
    if (!this.paused && !this.page.hidden) this.timer = setTimeout(() => this.wake(), Math.max(pauseMs, 50));
  }
}
