import { isHere, isMine, read } from './api.js';

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./client.js').Knock} Knock */
/** @typedef {import('./snapshot.js').Loss} Loss */
/** @typedef {import('./snapshot.js').State} State */
/** @typedef {import('./snapshot.js').View} View */

/** What a tab knows of a workspace. An answer that comes late is not believed over what has happened since. */
export class LockState {
  // What is not private is shown.
  /** @type {State} */ state = 'unknown';
  /** Who has it. @type {Lock | null} */ holder = null;
  /** @type {Loss | null} */ loss = null;
  /** @type {Knock | null} */ knock = null;
  hasAsked = false;
  isConnected = false;
  /** Whether the server keeps a place in line for this tab, while it waits. */
  hasPlace = true;
  /** How many stand in line for what this tab has. */
  waiting = 0;
  /** The fence of what this tab gave away last. */ #given = 0;
  /** Whether the server lets this person take over the lease with this fence, as far as it has said so. */
  #mayTakeOver = { fence: 0, is: true };
  /** The newest of what happened. */ #revision = 0;
  /** How often it was read, and the latest reading of which the answer, or something newer, is known. */ #asked = 0;
  #answered = 0;
  /** @type {import('./api.js').Caller} */ #caller;
  /** @type {() => void} */ #onChange;

  /** @param {import('./api.js').Caller} caller @param {() => void} onChange */
  constructor(caller, onChange) {
    this.#caller = caller;
    this.#onChange = onChange;
  }

  /** What there is to show. @returns {View} */
  get view() {
    const { holder, isOtherTab } = this;
    const { fence, is } = this.#mayTakeOver;
    const held = this.state === 'held' ? holder : null;
    return { ...this, isOtherTab, fence: held?.fence ?? null, mayTakeOver: is || fence !== holder?.fence };
  }

  get revision() {
    return this.#revision;
  }

  /** Whether another tab of this person has it.
   * @param {Lock | null} lock */
  isElsewhere(lock) {
    return isMine(this.#caller, lock) && lock?.session_id !== null && !isHere(this.#caller, lock);
  }

  get isOtherTab() {
    return this.isElsewhere(this.holder);
  }

  /** Whether another tab of this person has it: that is shown then, and nothing is taken from there unasked. */
  async findsElsewhere() {
    if (this.state === 'unknown') await this.read();
    const { holder, isOtherTab: isElsewhere } = this;
    if (isElsewhere) this.see(holder, true);
    return isElsewhere;
  }

  /** Reads who has it.
   * @param {import('./client.js').Asked} [asked] */
  async read(asked) {
    const reading = ++this.#asked;
    const lock = await read(this.#caller, asked);
    // Unless something newer is known by now.
    if (reading > this.#answered) {
      this.#answered = reading;
      this.see(lock);
    }
    return lock;
  }

  /** Whether what happened is new to this tab. What it asked for before may be answered with what was true before.
   * @param {number} revision @param {boolean} isReset whether it is not known what has happened */
  hears(revision, isReset) {
    if (!isReset && revision <= this.#revision) return false;
    this.#revision = revision;
    this.#answered = this.#asked;
    return true;
  }

  /** If this tab does not have it, this is who has. What the person has been told stays until they have chosen, unless `anew`.
   * @param {Lock | null | undefined} lock @param {boolean} [anew] */
  see(lock, anew = false) {
    if (this.state === 'held') return;
    this.holder = lock && lock.fence > this.#given ? lock : null;
    if (anew) this.loss = null;
    if (anew || (this.state !== 'waiting' && this.state !== 'lost')) {
      // What this tab had before it was loaded again, or what was handed to this person, can be had.
      const isFree = !this.holder || (isMine(this.#caller, this.holder) && !this.isOtherTab);
      this.state = isFree ? 'free' : 'held-by-other';
    }
    this.#onChange();
  }

  /** This tab stands in line.
   * @param {boolean} [hasPlace] */
  wait(hasPlace = true) {
    this.state = 'waiting';
    this.hasPlace = hasPlace;
    this.#onChange();
  }

  waitNoLonger() {
    if (this.state === 'waiting') this.see(this.holder, true);
  }

  /** Whether the events are heard.
   * @param {boolean} isConnected */
  connect(isConnected) {
    this.isConnected = isConnected;
    this.#onChange();
  }

  /** It cannot be found out who has it. What may have been taken meanwhile is not shown as free. */
  forget() {
    if (this.isConnected || this.state !== 'free') return;
    this.state = 'unknown';
    this.#onChange();
  }

  /** The server does not give it to this person.
   * @param {import('./refusal.js').Problem} problem */
  refuse({ lock, takeover_allowed = true }) {
    this.#mayTakeOver = { fence: lock?.fence ?? 0, is: takeover_allowed };
  }

  /** @param {number} count */
  queue(count) {
    if (count === this.waiting) return;
    this.waiting = count;
    this.#onChange();
  }

  /** Somebody asks the holder, or nobody does any more. Returns whether they have just begun to.
   * @param {Knock | null} knock */
  ask(knock) {
    const before = this.knock;
    if (JSON.stringify(knock) === JSON.stringify(before)) return false;
    this.knock = knock;
    this.#onChange();
    return knock && (knock.user_id !== before?.user_id || knock.knocked_at !== before.knocked_at);
  }

  /** This tab has it.
   * @param {Lock} lock */
  have(lock) {
    this.holder = lock;
    this.state = 'held';
    this.waiting = 0;
    this.loss = null;
    this.knock = lock.knock;
    this.hasAsked = false;
    this.#onChange();
  }

  /** This tab has it no more, and did not want that.
   * @param {Loss} loss @param {Lock | null} holder */
  lose(loss, holder) {
    this.knock = null;
    this.loss = loss;
    this.holder = holder;
    this.state = this.isOtherTab ? 'held-by-other' : 'lost';
    this.#onChange();
  }

  /** The person gave back or away what this tab had; this is who has it now.
   * @param {number} fence @param {Lock | null} lock */
  give(fence, lock) {
    this.#given = fence;
    this.knock = null;
    this.state = 'unknown';
    this.see(lock, true);
  }

  /** The page goes away, and what this tab had is released.
   * @param {number} fence */
  leave(fence) {
    this.#given = fence;
    this.knock = null;
    this.holder = null;
    this.loss = { reason: 'released', by: null, changed: false, comesBack: true, at: new Date().toISOString() };
    this.state = 'unknown';
    this.#onChange();
  }
}
