import { isRefusal } from './refusal.js';

/** What a tab asks of the server for itself. */

/** @typedef {import('./client.js').Lock} Lock */
/** Who wants what, and how: `wish` is what goes along whenever it is asked for. `ready` resolves when no other page has this session.
 * @typedef {{
 *   client: import('./client.js').Lockhouse, workspaceId: string, ready: () => Promise<void>,
 *   wish: { session_id: string, ttl_ms: number | undefined, note: string | undefined, metadata: Record<string, unknown> | undefined },
 * }} Caller */
/** What was granted, and when it was asked for.
 * @typedef {{ lock: Lock, sentAt: import('./clock.js').Moment, outcome?: string }} Grant */

/** Locks it, or renews what this tab has.
 * @param {Caller} caller @param {object} [more] @param {import('./client.js').Asked} [asked] @returns {Promise<Grant>} */
export async function acquire({ client, workspaceId, wish, ready }, more, asked) {
  await ready();
  const { value, sentAt } = await client.ask('POST', client.lockPath(workspaceId), { ...asked, body: { ...wish, ...more } });
  return { lock: value.lock, sentAt, outcome: value.outcome };
}

/** Reads who has it.
 * @param {Caller} caller @param {import('./client.js').Asked} [asked] @returns {Promise<Lock | null>} */
export async function read({ client, workspaceId, ready }, asked) {
  // Whether it is this tab's depends on how this tab is called.
  await ready();
  return (await client.request('GET', client.lockPath(workspaceId), asked)).lock;
}

/** @param {Caller} caller @param {number} fence @param {boolean} active whether the person did something
 * @param {import('./client.js').Asked} [asked]
 * @returns {Promise<{ value: import('./client.js').Renewed, sentAt: import('./clock.js').Moment }>} */
export function heartbeat({ client, workspaceId, wish: { session_id, ttl_ms } }, fence, active, asked) {
  return client.ask('POST', client.lockPath(workspaceId) + '/heartbeat', { ...asked, body: { fence, session_id, active, ttl_ms } });
}

/** Gives back what nobody wants.
 * @param {Caller} caller @param {number} fence */
export function releaseUnwanted({ client, workspaceId }, fence) {
  client.release(workspaceId, { fence }).catch(() => {});
}

/** Whether it is this person's.
 * @param {Caller} caller @param {Lock | null} lock */
export const isMine = ({ client }, lock) => lock?.locked_by_user_id === client.userId;

/** Whether it is this tab's: what it had before it was loaded again, or what was handed to it.
 * @param {Caller} caller @param {Lock | null} lock */
export const isHere = (caller, lock) => isMine(caller, lock) && lock?.session_id === caller.wish.session_id;

/** Whether the server says that the lease is over.
 * @param {unknown} error @returns {error is import('./refusal.js').Refusal} */
export const hasEnded = (error) => isRefusal(error, 'not_holder', 'lock_not_found');
