import { moment, since } from './clock.js';
import { Refusal } from './refusal.js';
import { backoff, isPassing } from './retry.js';

/** Longest time between two heartbeats, and how long one may take (milliseconds). */
const LONGEST_MS = 30_000;
const BEAT_MS = 10_000;

/** How much earlier than the server's the lease ends for us, in milliseconds: what is done in its last moment must arrive,
 * too.
 * @param {number} forMs how long the lease is */
const margin = (forMs) => Math.min(1_000, forMs / 10);

/** @typedef {object} Kept
 * @property {import('./client.js').Lockhouse} client
 * @property {string} workspaceId
 * @property {{ session_id: string, ttl_ms?: number }} wish
 * @property {(knock: import('./client.js').Knock | null) => void} onKnock who asks for it, after each heartbeat.
 * @property {(session: string) => void} onElsewhere another session of this person has it now.
 * @property {(problem: import('./refusal.js').Problem) => void} onEnded the server says that it has ended.
 * @property {() => void} onOver its time is up.
 */

/** Whether the server says that the lease is over.
 * @param {unknown} error @returns {error is Refusal} */
export const hasEnded = (error) => error instanceof Refusal && ['not_holder', 'lock_not_found'].includes(error.code);

/** @param {import('./client.js').Lockhouse} client @param {string} workspaceId
 * @param {{ session_id: string, ttl_ms?: number }} wish @param {number} fence @param {boolean} active whether the person
 * did something @param {import('./client.js').Asked} [asked] */
export function heartbeat(client, workspaceId, { session_id, ttl_ms }, fence, active, asked) {
  const body = { fence, session_id, active, ...(ttl_ms !== undefined && { ttl_ms }) };
  return client.ask('POST', client.lockPath(workspaceId) + '/heartbeat', { ...asked, body });
}

/** A lease that is kept alive, as its holder may believe in it: it began, at the latest, when what was granted was asked
 * for. That does not depend on when, or whether, an answer comes. */
export class Keeper {
  #isActive = false;
  #isBeating = false;
  /** Whether another heartbeat goes out when this one is answered. */ #isHurried = false;
  #failures = 0;
  #forMs = 0;
  /** The next heartbeat is due so long after this moment. */ #nextMs = 0;
  #from = moment();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @param {number} fence @param {import('./clock.js').Moment} sentAt @param {number} forMs @param {Kept} kept */
  constructor(fence, sentAt, forMs, kept) {
    this.fence = fence;
    /** @private */
    this.kept = kept;
    /** @private */
    this.sentAt = sentAt;
    this.#renewed(sentAt, forMs);
  }

  /** @param {import('./clock.js').Moment} sentAt @param {number} forMs */
  #renewed(sentAt, forMs) {
    this.sentAt = sentAt;
    this.#forMs = forMs;
    this.#failures = 0;
    // A random part earlier, so that those who came together do not all beat together.
    this.#postpone(this.#everyMs * (0.8 + 0.2 * Math.random()));
  }

  get #everyMs() {
    return Math.min(LONGEST_MS, this.#forMs / 3);
  }

  /** @param {number} ms */
  #postpone(ms) {
    this.#from = moment();
    this.#nextMs = ms;
  }

  /** How long it can still be believed in, in milliseconds; 0 when it may be over. */
  get leftMs() {
    return Math.max(0, this.#forMs - margin(this.#forMs) - since(this.sentAt));
  }

  /** The person did something. */
  activity() {
    this.#isActive = true;
  }

  /** Sends a heartbeat at once. The answer to one that is on its way may say what was true before. */
  hurry() {
    this.#isHurried = this.#isBeating;
    this.#postpone(0);
    this.tick();
  }

  /** Keeps it no longer. */
  stop() {
    clearTimeout(this.#timer);
    this.#forMs = 0;
  }

  /** Does what is due; nothing when it is kept no longer. */
  tick() {
    clearTimeout(this.#timer);
    if (!this.#forMs) return;
    const { leftMs } = this;
    if (!leftMs) return this.kept.onOver();
    const beatInMs = this.#nextMs - since(this.#from);
    if (beatInMs <= 0 && !this.#isBeating) this.#beat();
    this.#timer = setTimeout(() => this.tick(), beatInMs > 0 ? Math.min(beatInMs, leftMs) : leftMs);
  }

  async #beat() {
    const { client, workspaceId, wish, onKnock, onElsewhere, onEnded } = this.kept;
    const active = this.#isActive;
    this.#isActive = false;
    this.#isBeating = true;
    try {
      const asked = { retryForMs: 0, timeoutMs: BEAT_MS };
      const { value, sentAt } = await heartbeat(client, workspaceId, wish, this.fence, active, asked);
      if (!this.#forMs) return;
      this.#renewed(sentAt, value.expires_in_ms);
      if (value.session_id && value.session_id !== wish.session_id) return onElsewhere(value.session_id);
      onKnock(value.knock);
    } catch (error) {
      if (!this.#forMs) return;
      this.#isActive ||= active;
      this.#postpone(isPassing(error) ? backoff(this.#failures++, error) : this.#everyMs);
      if (hasEnded(error)) onEnded(error.problem);
    } finally {
      this.#isBeating = false;
      if (this.#isHurried) this.hurry();
      else this.tick();
    }
  }
}
