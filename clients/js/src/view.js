/** What there is to show of a workspace. */

/** @typedef {import('./client.js').Lock} Lock */
/** `free`: nobody has it. `held`: this tab has it. `held-by-other`: somebody else has it, or another tab of this person.
 * `waiting`: the same, and this tab stands in line. `lost`: this tab had it, until the person chooses what to do.
 * `unknown`: the server has not been reached yet.
 * @typedef {'free' | 'held' | 'held-by-other' | 'waiting' | 'lost' | 'unknown'} State */
/** How it was lost. `by` is whoever has it, or ended it; `changed` means that somebody else had it in between.
 * @typedef {{
 *   reason: import('./client.js').Lost['reason'], by: { userId: string, name: string | null } | null, changed: boolean,
 * }} Loss */
/** A new object after each change.
 * @typedef {{
 *   state: State, holder: Lock | null, isOtherTab: boolean, loss: Loss | null, knock: import('./client.js').Knock | null,
 *   hasAsked: boolean, isConnected: boolean, fence: number | null, mayTakeOver: boolean,
 * }} View */

/** What ends a lease, by the type of its event.
 * @type {Record<string, Loss['reason'] | undefined>} */
export const ENDINGS = {
  'lock.expired': 'expired',
  'lock.released': 'released',
  'lock.taken_over': 'taken_over',
  'lock.handed_over': 'handed_over',
  'lock.revoked': 'revoked',
  'member.removed': 'member_removed',
  'workspace.deleted': 'workspace_deleted',
};

/** @param {string | null | undefined} userId @param {string | null | undefined} name */
export const who = (userId, name) => (userId ? { userId, name: name ?? null } : null);

/** @param {Lock | null} lock */
export const holderOf = (lock) => who(lock?.locked_by_user_id, lock?.locked_by_name);

/** What a tab knows. */
export class Sight {
  /** @type {State} */ state = 'unknown';
  /** Who has it. @type {Lock | null} */ holder = null;
  /** @type {Loss | null} */ loss = null;
  /** @type {import('./client.js').Knock | null} */ knock = null;
  hasAsked = false;
  isConnected = false;
  /** The fence of what this tab gave away last. */ given = 0;
  /** Whether the server lets this person take over the lease with this fence, as far as it has said so. */
  mayTakeOver = { fence: 0, is: true };

  /** @param {string} userId @param {string} sessionId */
  constructor(userId, sessionId) {
    this.userId = userId;
    this.sessionId = sessionId;
  }

  /** Whether it is this person's.
   * @param {Lock | null} lock */
  isMine(lock) {
    return lock?.locked_by_user_id === this.userId;
  }

  /** Whether it is another tab's of this person.
   * @param {Lock | null} lock */
  isElsewhere(lock) {
    return this.isMine(lock) && lock?.session_id !== null && lock?.session_id !== this.sessionId;
  }

  get isOtherTab() {
    return this.isElsewhere(this.holder);
  }

  /** This tab does not have it: this is who has. What the person has been told stays until they have chosen, unless `anew`.
   * @param {Lock | null} lock @param {boolean} anew */
  see(lock, anew) {
    this.holder = lock && lock.fence > this.given ? lock : null;
    if (anew) this.loss = null;
    else if (this.state === 'waiting' || this.state === 'lost') return;
    // What this tab had before it was loaded again, or what was handed to this person, can be had.
    const isFree = !this.holder || (this.isMine(this.holder) && !this.isOtherTab);
    this.state = isFree ? 'free' : 'held-by-other';
  }

  /** This tab has it.
   * @param {Lock} lock */
  have(lock) {
    this.holder = lock;
    this.state = 'held';
    this.loss = null;
    this.knock = lock.knock;
    this.hasAsked = false;
  }

  /** This tab has it no more, and did not want that.
   * @param {Loss} loss @param {Lock | null} holder */
  lose(loss, holder) {
    this.knock = null;
    this.loss = loss;
    this.holder = holder;
    this.state = this.isOtherTab ? 'held-by-other' : 'lost';
  }

  /** @param {number | null} fence @returns {View} */
  view(fence) {
    const { state, holder, isOtherTab, loss, knock, hasAsked, isConnected, mayTakeOver } = this;
    const isKnown = mayTakeOver.fence === holder?.fence;
    return { state, holder, isOtherTab, loss, knock, hasAsked, isConnected, fence, mayTakeOver: mayTakeOver.is || !isKnown };
  }
}
