import { isRefusal } from './refusal.js';
import { tabSession } from './session.js';

/** The calls that a tab makes for its own lease. */

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {object} LockOptions
 * @property {'edit' | 'agent' | 'run'} [kind] the kind of the lock; default: `edit`, a person's.
 * @property {number} [ttlMs] duration of a lease in milliseconds; default: the server's.
 * @property {string} [note] shown to others.
 * @property {Record<string, unknown>} [metadata]
 * @property {string} [sessionId] identifies this tab; default: a name that no other live page has.
 * @property {boolean} [releaseOnClose] release when the page closes; default: true.
 * @property {import('./release-hook.js').BeforeRelease} [beforeRelease] see `WorkspaceLock.beforeRelease`.
 */
/** The workspace and the parameters of each request for its lock. `ready` resolves when no other page has this session.
 * @typedef {{
 *   client: import('./client.js').Lockhouse, workspaceId: string, ready: () => Promise<void>,
 *   params: { kind: import('./client.js').Kind | undefined, session_id: string, ttl_ms: number | undefined, note: string | undefined, metadata: Record<string, unknown> | undefined },
 * }} Caller */
/** A granted lock, and when it was requested.
 * @typedef {{ lock: Lock, sentAt: import('./clock.js').Moment, outcome?: string }} Grant */

/** The caller, and the session of the page unless the options name one.
 * @param {import('./client.js').Lockhouse} client @param {string} workspaceId @param {LockOptions} options */
export function callerOf(client, workspaceId, { kind, sessionId, ttlMs, note, metadata }) {
  const session = sessionId === undefined ? tabSession() : null;
  const params = { kind, get session_id() { return sessionId ?? session?.name ?? '' }, ttl_ms: ttlMs, note, metadata };
  /** @type {Caller} */
  const caller = { client, workspaceId, params, ready: async () => session?.ready };
  return { caller, session };
}

/** Acquires the lock, or renews this tab's lease.
 * @param {Caller} caller @param {object} [more] @param {import('./client.js').Asked} [asked] @returns {Promise<Grant>} */
export async function acquire({ client, workspaceId, params, ready }, more, asked) {
  await ready();
  const { value, sentAt } = await client.ask('POST', client.lockPath(workspaceId), { ...asked, body: { ...params, ...more } });
  return { lock: value.lock, sentAt, outcome: value.outcome };
}

/** Reads the lock; null when it is free.
 * @param {Caller} caller @param {import('./client.js').Asked} [asked] @returns {Promise<Lock | null>} */
export async function read({ client, workspaceId, ready }, asked) {
  // The answer is compared with the name of this tab's session.
  await ready();
  return (await client.request('GET', client.lockPath(workspaceId), asked)).lock;
}

/** @param {Caller} caller @param {number} fence @param {boolean} active whether the person did something
 * @param {import('./client.js').Asked} [asked]
 * @returns {Promise<{ value: import('./client.js').Renewed, sentAt: import('./clock.js').Moment }>} */
export function heartbeat({ client, workspaceId, params: { session_id, ttl_ms } }, fence, active, asked) {
  return client.ask('POST', client.lockPath(workspaceId) + '/heartbeat', { ...asked, body: { fence, session_id, active, ttl_ms } });
}

/** Releases a lease that was granted after the person stopped wanting it.
 * @param {Caller} caller @param {number} fence */
export function releaseUnwanted({ client, workspaceId }, fence) {
  client.release(workspaceId, { fence }).catch(() => {});
}

/** Headers that name the lease, for a request that saves.
 * @param {string} workspaceId @param {number} fence @returns {Record<string, string>} */
export const leaseHeaders = (workspaceId, fence) => ({ 'X-Lock-Workspace': encodeURIComponent(workspaceId), 'X-Lock-Fence': String(fence) });

/** `fetch` with additional headers.
 * @param {RequestInfo | URL} input @param {RequestInit} init @param {Record<string, string>} more @returns {Promise<Response>} */
export function fetchWith(input, init, more) {
  const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
  for (const [name, value] of Object.entries(more)) headers.set(name, value);
  return fetch(input, { ...init, headers });
}

/** Whether this person holds the lock. An agent or a process of theirs is somebody else.
 * @param {Caller} caller @param {Lock | null} lock */
export const isMine = ({ client, params }, lock) =>
  lock?.locked_by_user_id === client.userId && (lock.kind ?? 'edit') === (params.kind ?? 'edit');

/** Whether this tab's session holds the lock: from before a reload, or by a handover.
 * @param {Caller} caller @param {Lock | null} lock */
export const isHere = (caller, lock) => isMine(caller, lock) && lock?.session_id === caller.params.session_id;

/** Whether the server says that the lease has ended.
 * @param {unknown} error @returns {error is import('./refusal.js').Refusal} */
export const hasEnded = (error) => isRefusal(error, 'not_holder', 'lock_not_found');
