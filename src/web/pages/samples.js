// The samples of the last hour, stored for this tab, so that they survive a reload.

import { now } from './clock.js';
import { tab } from './storage.js';

const KEPT = 'health';
/** Maximum age (milliseconds). */
export const LONGEST_MS = 3_600_000;

export class Samples {
  /** Oldest first, each as `[at, value, …]`: milliseconds since 1970, and a value or null for each chart. */
  #all = read();

  add(values) {
    this.#all.push([Math.round(now()), ...values.map((value) => (Number.isFinite(value) ? Number(value.toPrecision(4)) : null))]);
    const first = this.#all.findIndex(([at]) => at > now() - LONGEST_MS);
    this.#all.splice(0, first);
  }

  /** The samples of one chart since an instant, as `[at, value]`. */
  of(chart, since) {
    return this.#all.filter(([at]) => at >= since).map((sample) => [sample[0], sample[chart + 1]]);
  }

  keep() {
    tab.set(KEPT, JSON.stringify(this.#all));
  }
}

function read() {
  try {
    return JSON.parse(tab.get(KEPT)) ?? [];
  } catch {
    return [];
  }
}
