import { sleep } from './retry.js';

/** Called before the lock is handed over, released, or granted automatically to the user who asked.
 * @typedef {(why: 'handover' | 'release' | 'grant') => unknown} BeforeRelease */

/** Time limit for saving (milliseconds). */
const SAVE_MS = 5_000;

/** Calls `beforeRelease` in time. */
export class ReleaseHook {
  /** The call in progress. @type {Promise<unknown> | null} */ #running = null;
  /** Fires before an automatic grant. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** Time of the automatic grant. @type {string | null} */ #grantAt = null;
  /** @type {() => BeforeRelease | undefined} */ #hook;

  /** @param {() => BeforeRelease | undefined} hook */
  constructor(hook) {
    this.#hook = hook;
  }

  /** Calls the hook. Rejects if the hook does.
   * @param {Parameters<BeforeRelease>[0]} why */
  run(why) {
    this.#running ??= Promise.race([(async () => this.#hook()?.(why))(), sleep(SAVE_MS)]).finally(() => (this.#running = null));
    return this.#running;
  }

  /** Schedules the call before the automatic grant of a pending request; null cancels it.
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
