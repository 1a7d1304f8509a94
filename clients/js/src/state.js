import { isHere, isMine, read } from './api.js';
import { holderOf } from './snapshot.js';

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./client.js').Knock} Knock */
/** @typedef {import('./snapshot.js').Loss} Loss */
/** @typedef {import('./snapshot.js').State} State */
/** @typedef {import('./snapshot.js').View} View */

/** The state of a workspace's lock in this tab. An answer that is older than a known event is ignored. */
export class LockState {
  // The public fields are part of the view.
  /** @type {State} */ state = 'unknown';
  /** @type {Lock | null} */ holder = null;
  /** @type {Loss | null} */ loss = null;
  /** @type {Knock | null} */ knock = null;
  hasAsked = false;
  isConnected = false;
  /** Whether the server keeps a place in the queue for this tab, while it waits. */
  hasPlace = true;
  /** Length of the queue for the lease of this tab. */
  waiting = 0;
  /** Fence of the lease that this tab released last. */ #releasedFence = 0;
  /** Whether this person may take over the lease with this fence, according to the server's last refusal. */
  #mayTakeOver = { fence: 0, is: true };
  /** Newest revision of an event. */ #revision = 0;
  /** Number of reads started. */ #readsStarted = 0;
  /** Newest read that was answered or superseded by an event. */ #readsDone = 0;
  /** @type {import('./api.js').Caller} */ #caller;
  /** @type {() => void} */ #onChange;

  /** @param {import('./api.js').Caller} caller @param {() => void} onChange */
  constructor(caller, onChange) {
    this.#caller = caller;
    this.#onChange = onChange;
  }

  /** What to show. @returns {View} */
  get view() {
    const { holder, isOtherTab } = this;
    const { fence, is } = this.#mayTakeOver;
    const held = this.state === 'held' ? holder : null;
    return { ...this, isOtherTab, kind: holder && (holder.kind ?? 'edit'), fence: held?.fence ?? null, mayTakeOver: is || fence !== holder?.fence };
  }

  get revision() {
    return this.#revision;
  }

  /** Whether another tab of this person holds the lock.
   * @param {Lock | null} lock */
  isInOtherTab(lock) {
    return isMine(this.#caller, lock) && lock?.session_id !== null && !isHere(this.#caller, lock);
  }

  get isOtherTab() {
    return this.isInOtherTab(this.holder);
  }

  /** Whether another tab of this person holds the lock. If so, the state shows it. Reads the lock if the state is unknown. */
  async isHeldByOtherTab() {
    if (this.state === 'unknown') await this.read();
    const { holder, isOtherTab } = this;
    if (isOtherTab) this.setHolder(holder, true);
    return isOtherTab;
  }

  /** Reads the lock, and applies the answer unless something newer is known.
   * @param {import('./client.js').Asked} [asked] */
  async read(asked) {
    const number = ++this.#readsStarted;
    const lock = await read(this.#caller, asked);
    if (number > this.#readsDone) {
      this.#readsDone = number;
      this.setHolder(lock);
    }
    return lock;
  }

  /** Records the revision of an event; false if it is not newer than the last one. Reads that were started before are ignored.
   * @param {number} revision @param {boolean} isReset events were missed */
  acceptRevision(revision, isReset) {
    if (!isReset && revision <= this.#revision) return false;
    this.#revision = revision;
    this.#readsDone = this.#readsStarted;
    return true;
  }

  /** Sets the holder, unless this tab holds the lock. The states `waiting` and `lost` stay, unless the person has chosen something new.
   * @param {Lock | null | undefined} lock @param {boolean} [hasChosen] */
  setHolder(lock, hasChosen = false) {
    if (this.state === 'held') return;
    this.holder = lock && lock.fence > this.#releasedFence ? lock : null;
    if (hasChosen) this.loss = null;
    if (hasChosen || (this.state !== 'waiting' && this.state !== 'lost')) {
      // A lease of this session, from before a reload or by a handover, can be acquired.
      const isFree = !this.holder || (isMine(this.#caller, this.holder) && !this.isOtherTab);
      this.state = isFree ? 'free' : 'held-by-other';
    }
    this.#onChange();
  }

  /** @param {boolean} [hasPlace] */
  setWaiting(hasPlace = true) {
    this.state = 'waiting';
    this.hasPlace = hasPlace;
    this.#onChange();
  }

  stopWaiting() {
    if (this.state === 'waiting') this.setHolder(this.holder, true);
  }

  /** @param {boolean} isConnected whether events are received */
  setConnected(isConnected) {
    this.isConnected = isConnected;
    this.#onChange();
  }

  /** The holder cannot be read. A lock that may have been acquired meanwhile is not shown as free. */
  setUnreachable() {
    if (this.isConnected || this.state !== 'free') return;
    this.state = 'unknown';
    this.#onChange();
  }

  /** The server refused to grant the lock.
   * @param {import('./refusal.js').Problem} problem */
  setRefusal({ lock, takeover_allowed = true }) {
    this.#mayTakeOver = { fence: lock?.fence ?? 0, is: takeover_allowed };
  }

  /** @param {number} count */
  setWaitingCount(count) {
    if (count === this.waiting) return;
    this.waiting = count;
    this.#onChange();
  }

  /** Sets the pending request for the lock. Returns whether it is a new one.
   * @param {Knock | null} knock */
  setKnock(knock) {
    const before = this.knock;
    if (JSON.stringify(knock) === JSON.stringify(before)) return false;
    this.knock = knock;
    this.#onChange();
    return knock && (knock.user_id !== before?.user_id || knock.knocked_at !== before.knocked_at);
  }

  /** This tab holds the lock.
   * @param {Lock} lock */
  setHeld(lock) {
    this.holder = lock;
    this.state = 'held';
    this.waiting = 0;
    this.loss = null;
    this.knock = lock.knock;
    this.hasAsked = false;
    this.#onChange();
  }

  /** This tab lost the lock.
   * @param {Loss} loss @param {Lock | null} holder */
  setLost(loss, holder) {
    this.knock = null;
    this.loss = loss;
    this.holder = holder;
    this.state = this.isOtherTab ? 'held-by-other' : 'lost';
    this.#onChange();
  }

  /** A lost lease could not be reclaimed.
   * @param {{ holder: Lock | null, changed: boolean }} result */
  setNotReclaimed({ holder, changed }) {
    const loss = { ...this.loss, by: holderOf(holder), changed, comesBack: false };
    this.setLost({ reason: 'expired', at: new Date().toISOString(), ...loss }, holder);
  }

  /** The person released the lock or handed it over.
   * @param {number} fence @param {Lock | null} lock the new holder */
  setReleased(fence, lock) {
    this.#releasedFence = fence;
    this.knock = null;
    this.state = 'unknown';
    this.setHolder(lock, true);
  }

  /** The page is being hidden, and its lease is released.
   * @param {number} fence */
  setSuspended(fence) {
    this.#releasedFence = fence;
    this.knock = null;
    this.holder = null;
    this.loss = { reason: 'released', by: null, changed: false, comesBack: true, at: new Date().toISOString() };
    this.state = 'unknown';
    this.#onChange();
  }
}
