import { randomName } from './random.js';
import { hold } from './web-locks.js';

const KEY = 'lockhouse session';
/** After a reload: time limit for the previous page to give up the name (milliseconds). */
const CLAIM_MS = 1_000;

/** @template T @param {(storage: Storage) => T} use @returns {T | undefined} */
function withStorage(use) {
  try {
    return use(sessionStorage);
  } catch {
    // No storage: a reload counts as another tab.
    return undefined;
  }
}

/** The session name of this page. It is stored in `sessionStorage`, so it survives a reload and a crash. A duplicated tab has a copy
 * of it. Therefore each page holds a Web Lock with its name, and takes another name if a different page holds that. */
class Session {
  #stored = withStorage((storage) => storage.getItem(KEY));
  name = this.#stored ?? 'tab-' + randomName();
  /** @type {Set<() => void>} */ #listeners = new Set();
  #lifetime = new AbortController();
  /** @type {Promise<void> | undefined} */ #ready;

  constructor() {
    globalThis.window?.addEventListener('pagehide', () => {
      // A page in the back-forward cache gives up its name. It claims one when it is shown again.
      this.#lifetime.abort();
      this.#ready = undefined;
    });
  }

  /** Calls `listener` when the name has changed, until `signal` is aborted.
   * @param {() => void} listener @param {AbortSignal} signal */
  onRename(listener, signal) {
    this.#listeners.add(listener);
    signal.addEventListener('abort', () => this.#listeners.delete(listener));
  }

  /** Resolves when no other live page has the name. Await it before acquiring a lock. */
  get ready() {
    return (this.#ready ??= this.#claim());
  }

  async #claim() {
    const lifetime = (this.#lifetime = new AbortController());
    const held = hold('lockhouse session ' + this.name, lifetime.signal, { onStolen: () => this.#rename() });
    if (this.#stored === this.name) {
      const timeout = setTimeout(() => lifetime.abort(), CLAIM_MS);
      await held.catch(() => {
        // Not if the page was hidden meanwhile.
        if (lifetime === this.#lifetime && this.#ready) this.#rename();
      });
      clearTimeout(timeout);
    } else {
      // A new name is unique, so there is nothing to wait for.
      held.catch(() => {});
      this.#stored = this.name;
      withStorage((storage) => storage.setItem(KEY, this.name));
    }
  }

  #rename() {
    this.name = 'tab-' + randomName();
    this.#ready = this.#claim();
    this.#listeners.forEach((listener) => listener());
  }
}

/** @type {Session | undefined} */
let mine;

/** The session of this page. */
export const tabSession = () => (mine ??= new Session());
