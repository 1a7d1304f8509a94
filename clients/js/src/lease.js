import { hasEnded, heartbeat } from './api.js';
import { moment, since } from './clock.js';
import { backoff, isPassing } from './retry.js';
import { ENDINGS, holderOf, userOf } from './snapshot.js';

/** Longest interval between heartbeats, and the timeout of one (milliseconds). */
const LONGEST_MS = 30_000;
const TIMEOUT_MS = 10_000;
/** Longest interval while a request for the lock is pending: the server makes no automatic grant while the holder is active. */
const KNOCKED_MS = 10_000;

/** Safety margin: the client's lease ends this much before the server's, so that a save sent in its last moment arrives in time. In
 * milliseconds.
 * @param {number} durationMs of the lease */
const margin = (durationMs) => Math.min(1_000, durationMs / 10);

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./snapshot.js').Loss} Loss */
/** Not called for a lease that was stopped or has ended.
 * @typedef {object} LeaseCallbacks
 * @property {(knock: import('./client.js').Knock | null) => void} onKnock the pending request for the lock, each time the server sends it.
 * @property {(count: number) => void} onWaiting length of the queue.
 * @property {(holder: Lock | null) => void} onHandedOver this person handed it over, to this holder.
 * @property {(loss: Loss, holder: Lock | null) => void} onLost it ended in another way; the new holder, if known.
 */

/** One lease, from its grant to its end. Sends the heartbeats. The lease counts from when the last successful request was sent, so the
 * client never believes in it for longer than the server does. */
export class Lease {
  #isActive = false;
  #isSending = false;
  /** Whether an event of this lease arrived since the last heartbeat was sent. */ #hadEvent = false;
  /** Whether another heartbeat follows when this one is answered. */ #sendsAgain = false;
  #failures = 0;
  /** The pending request for the lock. @type {import('./client.js').Knock | null} */ #knock = null;
  /** Duration from `#sentAt`; 0 when the lease has ended. */ #durationMs = 0;
  /** The next heartbeat is due this long after `#scheduledAt`. */ #delayMs = 0;
  #scheduledAt = moment();
  /** @type {import('./clock.js').Moment} */ #sentAt;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {import('./api.js').Caller} */ #caller;
  /** @type {Lock} */ #lock;
  /** @type {LeaseCallbacks} */ #callbacks;

  /** @param {import('./api.js').Caller} caller @param {import('./api.js').Grant} grant @param {LeaseCallbacks} callbacks */
  constructor(caller, { lock, sentAt }, callbacks) {
    this.fence = lock.fence;
    this.#caller = caller;
    this.#lock = lock;
    this.#callbacks = callbacks;
    this.#sentAt = sentAt;
    this.#setRenewed(sentAt, lock.expires_in_ms);
  }

  /** Remaining time in milliseconds, less the margin; 0 when the lease may have ended. */
  get leftMs() {
    return Math.max(0, this.#durationMs - margin(this.#durationMs) - since(this.#sentAt));
  }

  /** Reports activity of the person with the next heartbeat. */
  activity() {
    this.#isActive = true;
  }

  /** Sends a heartbeat at once, or after the one in flight, whose answer may be out of date. */
  renewNow() {
    this.#sendsAgain = this.#isSending;
    this.#schedule(0);
    this.tick();
  }

  /** Stops renewing. */
  stop() {
    clearTimeout(this.#timer);
    this.#durationMs = 0;
  }

  /** Ends the lease or sends a heartbeat, if due. Does nothing after {@link stop}. */
  tick() {
    clearTimeout(this.#timer);
    if (!this.#durationMs) return;
    const { leftMs } = this;
    // A heartbeat in flight does not count: its answer may never come.
    if (!leftMs) return this.#end('expired', null, null);
    const dueInMs = this.#delayMs - since(this.#scheduledAt);
    if (dueInMs <= 0 && !this.#isSending) this.#heartbeat();
    this.#timer = setTimeout(() => this.tick(), Math.min(dueInMs > 0 ? dueInMs : LONGEST_MS, leftMs));
  }

  /** Handles an event of the workspace.
   * @param {string} type @param {import('./events.js').LockEvent} event */
  onEvent(type, { at, fence, lock, session_id, by_user_id, by_name, detail: { to_user_id } }) {
    if (fence !== this.fence) return;
    const { client: { userId }, params } = this.#caller;
    const reason = ENDINGS[type];
    this.#hadEvent = true;
    if (reason === 'expired') {
      // The client's lease ends before the server's, so this event is from before the lease was reclaimed.
      this.renewNow();
    } else if (!reason) {
      // Without the lease in the event, a later event says how it ended.
      if (lock?.fence === fence) this.#setKnock(lock.knock);
    } else if (reason === 'handed_over' && by_user_id === userId && session_id === params.session_id && to_user_id !== userId) {
      // For an automatic grant, `by_user_id` is the new holder.
      this.stop();
      this.#callbacks.onHandedOver(lock);
    } else {
      this.#end(reason, userOf(by_user_id, by_name), lock, at);
    }
  }

  /** Another tab of this person says that it holds the lock.
   * @param {string} session @param {number} fence */
  onOtherTab(session, fence) {
    // If both received the same lease, the server decides whose it is.
    if (fence === this.fence) this.renewNow();
    else if (fence > this.fence) this.#endInTab(session, fence);
  }

  /** @param {string} session_id @param {number} fence */
  #endInTab(session_id, fence) {
    const { userId, userName } = this.#caller.client;
    this.#end('taken_over', userOf(userId, userName), { ...this.#lock, session_id, fence });
  }

  /** @param {Loss['reason']} reason @param {Loss['by']} by @param {Lock | null} holder @param {string} [at] */
  #end(reason, by, holder, at = new Date().toISOString()) {
    this.stop();
    // For an automatic grant, `by` is the user who asked.
    const knock = reason === 'handed_over' && by?.userId === this.#knock?.user_id ? this.#knock : null;
    const unansweredMs = Date.parse(knock?.auto_grant_at ?? '') - Date.parse(knock?.knocked_at ?? '');
    this.#callbacks.onLost({ reason, by, at, ...(unansweredMs > 0 && { unansweredMs }), changed: Boolean(holder), comesBack: reason === 'expired' && !holder }, holder);
  }

  /** @param {import('./clock.js').Moment} sentAt @param {number} durationMs */
  #setRenewed(sentAt, durationMs) {
    this.#sentAt = sentAt;
    this.#durationMs = durationMs;
    this.#failures = 0;
    // Jitter, so that clients that started together spread their heartbeats.
    this.#schedule(this.#intervalMs * (0.8 + 0.2 * Math.random()));
  }

  get #intervalMs() {
    const grantInMs = this.#knock?.auto_grant_in_ms;
    return Math.min(this.#knock ? KNOCKED_MS : LONGEST_MS, this.#durationMs / 3, grantInMs ? Math.max(300, grantInMs / 3) : Infinity);
  }

  /** @param {import('./client.js').Knock | null} knock the pending request, if there is one */
  #setKnock(knock) {
    const isNew = knock && knock.knocked_at !== this.#knock?.knocked_at;
    this.#knock = knock;
    this.#callbacks.onKnock(knock);
    // Tells the server at once whether the person is active.
    if (isNew && this.#durationMs) this.renewNow();
  }

  /** @param {number} delayMs until the next heartbeat */
  #schedule(delayMs) {
    this.#scheduledAt = moment();
    this.#delayMs = delayMs;
  }

  async #heartbeat() {
    const isActive = this.#isActive;
    this.#isActive = false;
    this.#isSending = true;
    this.#hadEvent = false;
    try {
      const { value, sentAt } = await heartbeat(this.#caller, this.fence, isActive, { retryForMs: 0, timeoutMs: TIMEOUT_MS });
      if (!this.#durationMs) return;
      this.#setRenewed(sentAt, value.expires_in_ms);
      if (value.session_id && value.session_id !== this.#caller.params.session_id) this.#endInTab(value.session_id, this.fence);
      // The answer may be older than the event.
      else if (this.#hadEvent) this.#sendsAgain = true;
      else this.#setKnock(value.knock);
      this.#callbacks.onWaiting(value.waiting ?? 0);
    } catch (error) {
      if (!this.#durationMs) return;
      this.#isActive ||= isActive;
      this.#schedule(isPassing(error) ? backoff(this.#failures++, error) : this.#intervalMs);
      if (hasEnded(error)) this.#endRefused(error.problem);
    } finally {
      this.#isSending = false;
      if (this.#sendsAgain) this.renewNow();
      else this.tick();
    }
  }

  /** The server refused the heartbeat because the lease has ended.
   * @param {import('./refusal.js').Problem} problem */
  #endRefused({ lost, lock = null }) {
    const reason = lost?.reason ?? (lock ? 'taken_over' : 'expired');
    this.#end(reason, userOf(lost?.by_user_id, lost?.by_name) ?? holderOf(lock), lock, lost?.at);
  }
}
