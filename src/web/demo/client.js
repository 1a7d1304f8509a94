import { Lockhouse } from '/client/index.js';

/** The client of one person. Its traffic can be observed, and cut off as in a crash of the tab. */
export class WatchedClient extends Lockhouse {
  /** Requests are neither sent nor answered. */
  isCutOff = false;
  /** The server's last answer about the lease: its duration, and when it began. */
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

  /** Milliseconds until the lease ends on the server without another heartbeat. */
  get leftMs() {
    return Math.max(0, this.lease.sinceMs + this.lease.forMs - performance.now());
  }
}
