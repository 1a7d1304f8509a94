import { Refusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';

/** What may take its time, until its signal says that nobody wants it any more. */

/** The longest that the server lets anybody wait at a time, and when to ask again so as to keep one's place (milliseconds). */
const WAIT_MS = 60_000;
const ASK_AGAIN_MS = 45_000;

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./client.js').Lockhouse} Lockhouse */

/** @param {unknown} error */
export const isHeld = (error) => error instanceof Refusal && error.code === 'lock_held';

/** Stands in line until it is our turn. Whoever asks again before their time is up keeps their place, and what they asked
 * before is answered with 409.
 * @param {Lockhouse} client @param {string} workspaceId @param {object} wish @param {AbortSignal} signal
 * @returns {Promise<Lock>} */
export function standInLine(client, workspaceId, wish, signal) {
  const asked = { body: { ...wish, wait_ms: WAIT_MS }, signal, timeoutMs: WAIT_MS + 15_000, retryForMs: 0 };
  return new Promise((resolve, reject) => {
    const stand = async () => {
      let again = ASK_AGAIN_MS;
      for (let failures = 0; !signal.aborted; ) {
        const began = performance.now();
        const pause = new AbortController();
        const answer = client.request('POST', client.lockPath(workspaceId), asked).then(({ lock }) => resolve(lock));
        try {
          const isGranted = await Promise.race([answer.then(() => true), sleep(again, pause.signal)]);
          if (isGranted) return;
          answer.catch(() => {});
          failures = 0;
        } catch (error) {
          if (isHeld(error)) {
            // The server lets nobody wait so long: ask again earlier.
            again = Math.max(500, Math.min(again, (performance.now() - began) * 0.75));
          } else if (isPassing(error) && !signal.aborted) {
            await sleep(backoff(failures++, error), signal);
          } else {
            throw error;
          }
        } finally {
          pause.abort();
        }
      }
      throw signal.reason;
    };
    stand().catch(reject);
  });
}

/** Comes back to a lease that ended while nobody looked, unless somebody else had the lock since.
 * @param {Lockhouse} client @param {string} workspaceId @param {{ session_id: string }} wish @param {number} fence
 * @param {AbortSignal} signal
 * @returns {Promise<{ lock: Lock, sentAt: import('./clock.js').Moment } | { holder: Lock | null }>} */
export async function comeBack(client, workspaceId, wish, fence, signal) {
  const path = client.lockPath(workspaceId);
  for (let failures = 0; ; failures++) {
    try {
      const { lock: found } = await client.read(workspaceId);
      signal.throwIfAborted();
      const isOurs = found?.locked_by_user_id === client.userId && found.session_id === wish.session_id;
      if (found && !isOurs) return { holder: found };
      const { value, sentAt } = await client.ask('POST', path, { body: wish, retryForMs: 0 });
      /** @type {Lock} */
      const lock = value.lock;
      // If the person has begun something else meanwhile, it is for that to say what becomes of it.
      if (signal.aborted || lock.fence === fence || (await isNext(client, workspaceId, fence, lock.fence))) return { lock, sentAt };
      client.release(workspaceId, { fence: lock.fence }).catch(() => {});
      return { holder: null };
    } catch (error) {
      if (error instanceof Refusal && isHeld(error)) return { holder: error.problem.lock ?? null };
      if (signal.aborted || !isPassing(error)) throw error;
      await sleep(backoff(failures, error), signal);
    }
  }
}

/** Whether nobody had it between these two leases.
 * @param {Lockhouse} client @param {string} workspaceId @param {number} before @param {number} after */
async function isNext(client, workspaceId, before, after) {
  const { events } = await client.history(workspaceId, { limit: 100 });
  return events.find((event) => event.fence !== null && event.fence !== after)?.fence === before;
}
