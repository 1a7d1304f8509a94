import { sleep } from './retry.js';

/** Why the lock is about to go: the person hands it over or releases it, or it passes to who asked.
 * @typedef {(why: 'handover' | 'release' | 'grant') => unknown} BeforeRelease */

/** Time that the app has to save before the lock goes (milliseconds). */
const SAVE_MS = 5_000;

/** Calls `beforeRelease` before the lock goes. */
export class ReleaseHook {
  /** The app saves. @type {Promise<unknown> | null} */ #running = null;
  /** Ends shortly before an automatic grant. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** When the automatic grant is. @type {string | null} */ #grantAt = null;
  /** @type {() => BeforeRelease | undefined} */ #hook;

  /** @param {() => BeforeRelease | undefined} hook */
  constructor(hook) {
    this.#hook = hook;
  }

  /** Lets the app save. Rejects if the app cannot.
   * @param {Parameters<BeforeRelease>[0]} why */
  run(why) {
    this.#running ??= Promise.race([(async () => this.#hook()?.(why))(), sleep(SAVE_MS)]).finally(() => (this.#running = null));
    return this.#running;
  }

  /** Runs it in time before the lock passes to who asks; null when nobody asks.
   * @param {import('./client.js').Knock | null} knock */
  schedule(knock) {
    const at = knock?.auto_grant_at ?? null;
    if (at !== this.#grantAt) {
      clearTimeout(this.#timer);
      if (knock && at) this.#timer = setTimeout(() => this.run('grant').catch(() => {}), Math.max(0, (knock.auto_grant_in_ms ?? 0) - SAVE_MS));
    }
    this.#grantAt = at;
  }
}
