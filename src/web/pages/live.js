// What happens, as it happens, for whoever wants to hear of it; and whether the connection is there.

import { learnFrom } from './clock.js';

export class Live {
  #ears = new Set();
  #watchers = new Set();
  /** `connecting`, `live` or `lost` */
  state = 'connecting';

  /** Follows until `signal` says so, while the page is seen: a stream keeps one of the six connections of the browser. `onRefused` hears
   * why it may not. */
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
            // What is shown was read before what is told from now on, and heartbeats are no events.
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

  /** `hear` gets every event until `signal`. */
  hear(hear, signal) {
    this.#add(this.#ears, hear, signal);
  }

  /** `watch` gets every change of the connection until `signal`. */
  watch(watch, signal) {
    this.#add(this.#watchers, watch, signal);
  }

  #add(set, member, signal) {
    set.add(member);
    signal.addEventListener('abort', () => set.delete(member));
  }
}

/** Until the page is hidden, or seen, or `signal` says so. */
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

/** Calls `work` at once, after `ms` again and again, and when it is asked to, but never twice at the same time, and not
 * while nobody looks at the page. Returns what asks. */
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

/** Calls `work` every second until `signal`. */
export function eachSecond(work, signal) {
  const timer = setInterval(work, 1000);
  signal.addEventListener('abort', () => clearInterval(timer));
}
