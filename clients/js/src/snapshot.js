/** The types of a lock's view. */

/** @typedef {import('./client.js').Lock} Lock */
/** `free`: nobody holds the lock. `held`: this tab holds it. `held-by-other`: another user, or another tab of this person, holds it.
 * `waiting`: the same, and this tab waits in the queue. `lost`: this tab held it, and the person has not chosen what to do.
 * `unknown`: the server has not been reached.
 * @typedef {'free' | 'held' | 'held-by-other' | 'waiting' | 'lost' | 'unknown'} State */
/** How and when (RFC 3339) the lock was lost. `by`: the new holder, or the user who ended the lease. `changed`: somebody else held the
 * lock since. `comesBack`: the lease expired, and this tab tries to get it back. `unansweredMs`: it was granted automatically, because
 * the person did not answer the request for so long.
 * @typedef {{
 *   reason: import('./client.js').Lost['reason'], by: { userId: string, name: string | null } | null, changed: boolean,
 *   comesBack: boolean, at: string, unansweredMs?: number,
 * }} Loss */
/** A new object after each change. `kind`: the kind of the holder's lock. `waiting`: length of the queue for this tab's lease. `hasPlace`: false while this tab waits without
 * a place in the server's queue, because other tabs of this browser use the places; then it tries when the lock becomes free.
 * @typedef {{
 *   state: State, holder: Lock | null, kind: import('./client.js').Kind | null, isOtherTab: boolean, loss: Loss | null, knock: import('./client.js').Knock | null,
 *   hasAsked: boolean, waiting: number, isConnected: boolean, hasPlace: boolean, fence: number | null, mayTakeOver: boolean,
 * }} View */

/** Events that end a lease.
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
export const userOf = (userId, name) => (userId ? { userId, name: name ?? null } : null);

/** @param {Lock | null} lock */
export const holderOf = (lock) => userOf(lock?.locked_by_user_id, lock?.locked_by_name);
