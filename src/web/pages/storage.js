// The browser storage of the console. Without access to it nothing is stored, and nothing fails.

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

  /** Deletes all entries of the console. */
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

/** Until the tab is closed. */
export const tab = new Storage(() => sessionStorage);
/** On this device. */
export const device = new Storage(() => localStorage);
