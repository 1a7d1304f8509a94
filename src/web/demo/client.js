import { Lockhouse } from '/client/index.js';

/** The client of one person, that can be watched, and be cut off as if its tab had crashed. */
export class WatchedClient extends Lockhouse {
  /** Nothing leaves it, and nothing is answered. */
  isCutOff = false;
  /** How long the lease is, and since when: what the server said last. */
  lease = { sinceMs: 0, forMs: 0 };
  onBeat = () => {};

  open(...asked) {
    return this.isCutOff ? new Promise(() => {}) : super.open(...asked);
  }

  async ask(method, path, asked) {
    const answer = await super.ask(method, path, asked);
    const { value, sentAt } = answer;
    const forMs = path.endsWith('/heartbeat') ? value.expires_in_ms : value?.outcome && value.lock.expires_in_ms;
    if (forMs) {
      this.lease = { sinceMs: sentAt.monotonic, forMs };
      this.onBeat();
    }
    return answer;
  }

  /** How long the server will keep the lease if it hears nothing more, in milliseconds. */
  get leftMs() {
    return Math.max(0, this.lease.sinceMs + this.lease.forMs - performance.now());
  }
}
