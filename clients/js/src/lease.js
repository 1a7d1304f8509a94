import { moment, since } from './clock.js';

/** Longest time between two heartbeats, in milliseconds. */
const LONGEST_MS = 30_000;

/** How much earlier than the server's the lease ends for us, in milliseconds: what is done in its last moment must arrive,
 * too.
 * @param {number} forMs how long the lease is */
const margin = (forMs) => Math.min(1_000, forMs / 10);

/** A lease as its holder may believe in it: it began, at the latest, when what was granted was asked for. That does not
 * depend on when, or whether, an answer comes. */
export class Lease {
  /** @param {number} fence @param {import('./clock.js').Moment} sentAt @param {number} forMs */
  constructor(fence, sentAt, forMs) {
    this.fence = fence;
    this.sentAt = sentAt;
    this.forMs = forMs;
    this.#plan(forMs);
  }

  /** The server has confirmed what was sent then.
   * @param {import('./clock.js').Moment} sentAt @param {number} forMs */
  renew(sentAt, forMs) {
    this.sentAt = sentAt;
    this.forMs = forMs;
    this.#plan(forMs);
  }

  /** @param {number} forMs */
  #plan(forMs) {
    // A random part earlier, so that those who came together do not all beat together.
    const every = Math.min(LONGEST_MS, forMs / 3);
    this.nextMs = every * (0.8 + 0.2 * Math.random());
    this.asked = moment();
  }

  /** The next heartbeat is due in so many milliseconds from now.
   * @param {number} ms */
  postpone(ms) {
    this.asked = moment();
    this.nextMs = ms;
  }

  /** How long it is until the next heartbeat, in milliseconds. */
  get beatInMs() {
    return Math.max(0, this.nextMs - since(this.asked));
  }

  /** How long it can still be believed in, in milliseconds; 0 when it may be over. */
  get leftMs() {
    return Math.max(0, this.forMs - margin(this.forMs) - since(this.sentAt));
  }
}
