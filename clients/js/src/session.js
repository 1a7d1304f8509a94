import { randomName } from './random.js';
import { hold } from './web-locks.js';

const KEY = 'lockhouse session';
/** A page that is loaded again waits so long until its predecessor is gone (milliseconds). */
const PATIENCE_MS = 1_000;

/** @template T @param {(storage: Storage) => T} use @returns {T | undefined} */
function withStorage(use) {
  try {
    return use(sessionStorage);
  } catch {
    // The browser keeps nothing for this page. Then a reload is another tab.
    return undefined;
  }
}

/** What this page is called. The name is kept in `sessionStorage`, so it is the same when the page is loaded again, also after a
 * crash. A tab that is duplicated has a copy of it, so a page holds its name by a Web Lock while it lives, and takes another name if
 * somebody else has it. */
class Session {
  #kept = withStorage((storage) => storage.getItem(KEY));
  name = this.#kept ?? 'tab-' + randomName();
  /** @type {Set<() => void>} */ #told = new Set();
  #life = new AbortController();
  /** @type {Promise<void> | undefined} */ #ready;

  constructor() {
    globalThis.window?.addEventListener('pagehide', () => {
      // A page in the back-forward cache has no name: it takes one when it is back.
      this.#life.abort();
      this.#ready = undefined;
    });
  }

  /** Calls `tell` when the name has changed, until `signal` ends.
   * @param {() => void} tell @param {AbortSignal} signal */
  onRename(tell, signal) {
    this.#told.add(tell);
    signal.addEventListener('abort', () => this.#told.delete(tell));
  }

  /** Resolves when no other live page has the name. Nothing is to be locked before. */
  get ready() {
    return (this.#ready ??= this.#claim());
  }

  async #claim() {
    const life = (this.#life = new AbortController());
    const held = hold('lockhouse session ' + this.name, life.signal, { onStolen: () => this.#rename() });
    if (this.#kept === this.name) {
      const patience = setTimeout(() => life.abort(), PATIENCE_MS);
      await held.catch(() => {
        // Unless the page was hidden meanwhile.
        if (life === this.#life && this.#ready) this.#rename();
      });
      clearTimeout(patience);
    } else {
      // Nobody else can have a new name.
      held.catch(() => {});
      this.#kept = this.name;
      withStorage((storage) => storage.setItem(KEY, this.name));
    }
  }

  #rename() {
    this.name = 'tab-' + randomName();
    this.#ready = this.#claim();
    this.#told.forEach((tell) => tell());
  }
}

/** @type {Session | undefined} */
let mine;

/** The session of this page. */
export const tabSession = () => (mine ??= new Session());
