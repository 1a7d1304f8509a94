/** What there is to show of a workspace. */

/** @typedef {import('./client.js').Lock} Lock */
/** `free`: nobody has it. `held`: this tab has it. `held-by-other`: somebody else has it, or another tab of this person.
 * `waiting`: the same, and this tab stands in line. `lost`: this tab had it, until the person chooses what to do.
 * `unknown`: the server has not been reached yet.
 * @typedef {'free' | 'held' | 'held-by-other' | 'waiting' | 'lost' | 'unknown'} State */
/** How it was lost, and when it was (RFC 3339). `unansweredMs`: it passed on by itself, since the person did not answer for so long. `by` is whoever has it, or ended it; `changed` means that somebody else had it in between; `comesBack`
 * that nobody ended it, and this tab tries to get it back.
 * @typedef {{
 *   reason: import('./client.js').Lost['reason'], by: { userId: string, name: string | null } | null, changed: boolean,
 *   comesBack: boolean, at: string, unansweredMs?: number,
 * }} Loss */
/** A new object after each change. `waiting`: how many stand in line for what this tab has. `hasPlace` is false while this tab waits without a place in the server's line, because other tabs of
 * this browser wait already: then it tries as soon as the lock is free.
 * @typedef {{
 *   state: State, holder: Lock | null, isOtherTab: boolean, loss: Loss | null, knock: import('./client.js').Knock | null,
 *   hasAsked: boolean, waiting: number, isConnected: boolean, hasPlace: boolean, fence: number | null, mayTakeOver: boolean,
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
