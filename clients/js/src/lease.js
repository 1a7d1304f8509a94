import { hasEnded, heartbeat } from './api.js';
import { moment, since } from './clock.js';
import { backoff, isPassing } from './retry.js';
import { ENDINGS, holderOf, who } from './snapshot.js';

/** Longest time between two heartbeats, and how long one may take (milliseconds). */
const LONGEST_MS = 30_000;
const BEAT_MS = 10_000;
/** Longest time between two heartbeats while somebody asks for the lock: the server does not give away what its holder is at work on. */
const KNOCKED_MS = 10_000;

/** How much earlier than the server's the lease ends for us, in milliseconds: what is done in its last moment must arrive,
 * too.
 * @param {number} forMs how long the lease is */
const margin = (forMs) => Math.min(1_000, forMs / 10);

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./snapshot.js').Loss} Loss */
/** What becomes of a lease. Of one that was stopped, or that has ended, nothing more is told.
 * @typedef {object} Told
 * @property {(knock: import('./client.js').Knock | null) => void} onKnock who asks for it, as often as the server says so.
 * @property {(count: number) => void} onQueue how many stand in line.
 * @property {(holder: Lock | null) => void} onGiven the person gave it to this holder.
 * @property {(loss: Loss, holder: Lock | null) => void} onLost it has ended otherwise; whoever has it now.
 */

/** A lease, from when it is granted until it ends, and each way in which it can end. It is kept alive, as its holder may
 * believe in it: it began, at the latest, when what was granted was asked for. That does not depend on when, or whether, an
 * answer comes. */
export class Lease {
  #isActive = false;
  #isBeating = false;
  /** Whether something was heard of it since the last heartbeat went out. */ #hasHeard = false;
  /** Whether another heartbeat goes out when this one is answered. */ #isHurried = false;
  #failures = 0;
  /** Who asks for the lock. @type {import('./client.js').Knock | null} */ #knock = null;
  /** How long it is from when it was asked for; 0 when it is over. */ #forMs = 0;
  /** The next heartbeat is due so long after this moment. */ #nextMs = 0;
  #from = moment();
  /** @type {import('./clock.js').Moment} */ #sentAt;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {import('./api.js').Caller} */ #caller;
  /** @type {Lock} */ #lock;
  /** @type {Told} */ #told;

  /** @param {import('./api.js').Caller} caller @param {import('./api.js').Grant} grant @param {Told} told */
  constructor(caller, { lock, sentAt }, told) {
    this.fence = lock.fence;
    this.#caller = caller;
    this.#lock = lock;
    this.#told = told;
    this.#sentAt = sentAt;
    this.#renewed(sentAt, lock.expires_in_ms);
  }

  /** How long it can still be believed in, in milliseconds; 0 when it may be over. */
  get leftMs() {
    return Math.max(0, this.#forMs - margin(this.#forMs) - since(this.#sentAt));
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
    // Nothing is believed of a lease whose time may be up, whether or not a heartbeat is on its way.
    if (!leftMs) return this.#lose('expired', null, null);
    const beatInMs = this.#nextMs - since(this.#from);
    if (beatInMs <= 0 && !this.#isBeating) this.#beat();
    this.#timer = setTimeout(() => this.tick(), Math.min(beatInMs > 0 ? beatInMs : LONGEST_MS, leftMs));
  }

  /** Something has happened on the workspace.
   * @param {string} type @param {import('./events.js').LockEvent} event */
  hear(type, { at, fence, lock, session_id, by_user_id, by_name, detail: { to_user_id } }) {
    if (fence !== this.fence) return;
    const { client: { userId }, wish } = this.#caller;
    const reason = ENDINGS[type];
    this.#hasHeard = true;
    if (reason === 'expired') {
      // For us it is over before it is for the server: this is of before it came back.
      this.hurry();
    } else if (!reason) {
      // Where it is not there any more, another event will say why.
      if (lock?.fence === fence) this.#heed(lock.knock);
    } else if (reason === 'handed_over' && by_user_id === userId && session_id === wish.session_id && to_user_id !== userId) {
      // Of what passed on by itself it says that it was done by whoever has it now.
      this.stop();
      this.#told.onGiven(lock);
    } else {
      this.#lose(reason, who(by_user_id, by_name), lock, at);
    }
  }

  /** Another tab of this person says that it has the lock.
   * @param {string} session @param {number} fence */
  rival(session, fence) {
    // Where both were given the same lease, it is for the server to say whose it is.
    if (fence === this.fence) this.hurry();
    else if (fence > this.fence) this.#goElsewhere(session, fence);
  }

  /** @param {string} session_id @param {number} fence */
  #goElsewhere(session_id, fence) {
    const { userId, userName } = this.#caller.client;
    this.#lose('taken_over', who(userId, userName), { ...this.#lock, session_id, fence });
  }

  /** @param {Loss['reason']} reason @param {Loss['by']} by @param {Lock | null} holder @param {string} [at] */
  #lose(reason, by, holder, at = new Date().toISOString()) {
    this.stop();
    // What passed on by itself was done by who asked.
    const knock = reason === 'handed_over' && by?.userId === this.#knock?.user_id ? this.#knock : null;
    const unansweredMs = Date.parse(knock?.auto_grant_at ?? '') - Date.parse(knock?.knocked_at ?? '');
    this.#told.onLost({ reason, by, at, ...(unansweredMs > 0 && { unansweredMs }), changed: Boolean(holder), comesBack: reason === 'expired' && !holder }, holder);
  }

  /** @param {import('./clock.js').Moment} sentAt @param {number} forMs */
  #renewed(sentAt, forMs) {
    this.#sentAt = sentAt;
    this.#forMs = forMs;
    this.#failures = 0;
    // A random part earlier, so that those who came together do not all beat together.
    this.#postpone(this.#everyMs * (0.8 + 0.2 * Math.random()));
  }

  get #everyMs() {
    const grantInMs = this.#knock?.auto_grant_in_ms;
    return Math.min(this.#knock ? KNOCKED_MS : LONGEST_MS, this.#forMs / 3, grantInMs ? Math.max(300, grantInMs / 3) : Infinity);
  }

  /** Somebody asks for it, or nobody does any more. @param {import('./client.js').Knock | null} knock */
  #heed(knock) {
    const isNew = knock && knock.knocked_at !== this.#knock?.knocked_at;
    this.#knock = knock;
    this.#told.onKnock(knock);
    // At once, so that the server knows whether the person is at work.
    if (isNew && this.#forMs) this.hurry();
  }

  /** @param {number} ms */
  #postpone(ms) {
    this.#from = moment();
    this.#nextMs = ms;
  }

  async #beat() {
    const isActive = this.#isActive;
    this.#isActive = false;
    this.#isBeating = true;
    this.#hasHeard = false;
    try {
      const { value, sentAt } = await heartbeat(this.#caller, this.fence, isActive, { retryForMs: 0, timeoutMs: BEAT_MS });
      if (!this.#forMs) return;
      this.#renewed(sentAt, value.expires_in_ms);
      if (value.session_id && value.session_id !== this.#caller.wish.session_id) this.#goElsewhere(value.session_id, this.fence);
      // The answer may be of before what was heard.
      else if (this.#hasHeard) this.#isHurried = true;
      else this.#heed(value.knock);
      this.#told.onQueue(value.waiting ?? 0);
    } catch (error) {
      if (!this.#forMs) return;
      this.#isActive ||= isActive;
      this.#postpone(isPassing(error) ? backoff(this.#failures++, error) : this.#everyMs);
      if (hasEnded(error)) this.#end(error.problem);
    } finally {
      this.#isBeating = false;
      if (this.#isHurried) this.hurry();
      else this.tick();
    }
  }

  /** The server says that it has ended.
   * @param {import('./refusal.js').Problem} problem */
  #end({ lost, lock = null }) {
    const reason = lost?.reason ?? (lock ? 'taken_over' : 'expired');
    this.#lose(reason, who(lost?.by_user_id, lost?.by_name) ?? holderOf(lock), lock, lost?.at);
  }
}
