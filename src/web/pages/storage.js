// What the console keeps in the browser. A browser may forbid that: then nothing is kept, and nothing fails.

const PREFIX = 'lockhouse-console-';

class Storage {
  #area;

  /** @param {() => globalThis.Storage} area throws where it is forbidden */
  constructor(area) {
    this.#area = area;
  }

  get(name) {
    return attempt(() => this.#area().getItem(PREFIX + name));
  }

  set(name, value) {
    attempt(() => this.#area().setItem(PREFIX + name, value));
  }

  /** Forgets all that the console keeps here. */
  clear() {
    attempt(() => {
      for (const key of Object.keys(this.#area())) if (key.startsWith(PREFIX)) this.#area().removeItem(key);
    });
  }
}

function attempt(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

/** Kept until the tab is closed. */
export const tab = new Storage(() => sessionStorage);
/** Kept on this device. */
export const device = new Storage(() => localStorage);
