// The event stream of the console, and the state of its connection.

import { learnFrom } from './clock.js';

export class Live {
  #ears = new Set();
  #watchers = new Set();
  /** `connecting`, `live` or `lost` */
  state = 'connecting';

  /** Follows until `signal` is aborted, while the page is visible: a stream uses one of the browser's six connections.
   * `onRefused` receives a final error. */
  async follow(client, signal, onRefused) {
    try {
      while (!signal.aborted) {
        await becomes(false, signal);
        const hidden = new AbortController();
        becomes(true, signal).then(() => hidden.abort());
        await client.follow({
          signal: AbortSignal.any([signal, hidden.signal]),
          onEvent: (told) => {
            learnFrom(told.data?.lock, performance.now());
            this.#tell(told);
          },
          onConnection: (connected) => {
            // Data was read before the stream began, and heartbeats are not events, so read again.
            if (connected) this.#tell({ id: 0, type: 'reset', data: null });
            this.#become(connected ? 'live' : document.hidden ? 'connecting' : 'lost');
          },
        });
      }
    } catch (error) {
      this.#become('lost');
      onRefused(error);
    }
  }

  #tell(told) {
    for (const ear of this.#ears) ear(told);
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    for (const watcher of this.#watchers) watcher(state);
  }

  /** `hear` receives every event until `signal` is aborted. */
  hear(hear, signal) {
    this.#add(this.#ears, hear, signal);
  }

  /** `watch` receives every change of the connection until `signal` is aborted. */
  watch(watch, signal) {
    this.#add(this.#watchers, watch, signal);
  }

  #add(set, member, signal) {
    set.add(member);
    signal.addEventListener('abort', () => set.delete(member));
  }
}

/** Resolves when the page is hidden or shown, or `signal` is aborted. */
function becomes(isHidden, signal) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const look = () => {
      if (document.hidden !== isHidden && !signal.aborted) return;
      over.abort();
      resolve();
    };
    document.addEventListener('visibilitychange', look, { signal: over.signal });
    signal.addEventListener('abort', look, { signal: over.signal });
    look();
  });
}

/** Calls `work` at once, every `ms`, and on request. Calls never overlap, and are skipped while the page is hidden.
 * Returns the function that requests a call. */
export function repeat(work, ms, signal) {
  let timer;
  let running = false;
  let again = false;
  const run = async () => {
    if (signal.aborted) return;
    if (running) {
      again = true;
      return;
    }
    clearTimeout(timer);
    running = true;
    try {
      await work();
    } finally {
      running = false;
      if (!signal.aborted) timer = setTimeout(() => (document.hidden ? undefined : run()), again ? 50 : ms);
      again = false;
    }
  };
  const look = () => document.hidden || run();
  document.addEventListener('visibilitychange', look);
  signal.addEventListener('abort', () => {
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', look);
  });
  run();
  return run;
}

/** Calls `work` every second until `signal` is aborted. */
export function eachSecond(work, signal) {
  const timer = setInterval(work, 1000);
  signal.addEventListener('abort', () => clearInterval(timer));
}
