import { hasEnded, heartbeat } from './keeper.js';
import { Refusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';

/** What may take its time, until its signal says that nobody wants it any more. */

/** The longest that the server lets anybody wait at a time, and when to ask again so as to keep one's place (milliseconds). */
const WAIT_MS = 60_000;
const ASK_AGAIN_MS = 45_000;
/** Until it is tried again by somebody who has to sign in first (milliseconds). */
const SIGNED_OUT_MS = 30_000;

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./client.js').Lockhouse} Lockhouse */

/** @param {unknown} error */
export const isHeld = (error) => error instanceof Refusal && error.code === 'lock_held';

/** Stands in line until it is our turn, and claims what is granted: it is not known when that was, so it counts from a
 * heartbeat on.
 * @param {Lockhouse} client @param {string} workspaceId @param {{ session_id: string, ttl_ms?: number }} wish
 * @param {AbortSignal} signal @returns {Promise<{ lock: Lock, sentAt: import('./clock.js').Moment }>} */
export async function standInLine(client, workspaceId, wish, signal) {
  for (;;) {
    const lock = await stand(client, workspaceId, wish, signal);
    try {
      const { value, sentAt } = await heartbeat(client, workspaceId, wish, lock.fence, true);
      return { lock: { ...lock, expires_in_ms: value.expires_in_ms, knock: value.knock }, sentAt };
    } catch (error) {
      // It took too long, or it is not known what became of it: once more.
      if (signal.aborted || !(hasEnded(error) || isPassing(error))) throw error;
    }
  }
}

/** Whoever asks again before their time is up keeps their place, and what they asked
 * before is answered with 409.
 * @param {Lockhouse} client @param {string} workspaceId @param {object} wish @param {AbortSignal} signal
 * @returns {Promise<Lock>} */
function stand(client, workspaceId, wish, signal) {
  const asked = { body: { ...wish, wait_ms: WAIT_MS }, signal, timeoutMs: WAIT_MS + 15_000, retryForMs: 0 };
  return new Promise((resolve, reject) => {
    // The answer may be to what was asked before.
    let isGranted = false;
    const ask = async () => {
      let again = ASK_AGAIN_MS;
      for (let failures = 0; !isGranted && !signal.aborted; ) {
        const began = performance.now();
        const pause = new AbortController();
        const answer = client.request('POST', client.lockPath(workspaceId), asked).then(({ lock }) => {
          isGranted = true;
          resolve(lock);
        });
        try {
          await Promise.race([answer, sleep(again, pause.signal)]);
          answer.catch(() => {});
          failures = 0;
        } catch (error) {
          if (isHeld(error)) {
            // The server lets nobody wait so long: ask again earlier.
            const waited = performance.now() - began;
            again = Math.max(500, Math.min(again, waited * 0.75));
            // Somebody else with our name waits, too.
            if (waited < 250) await sleep(backoff(failures++), signal);
          } else if (isPassing(error) && !signal.aborted) {
            await sleep(backoff(failures++, error), signal);
          } else {
            throw error;
          }
        } finally {
          pause.abort();
        }
      }
      if (!isGranted) throw signal.reason;
    };
    ask().catch(reject);
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
      const { lock: found } = await client.request('GET', path, { retryForMs: 0 });
      signal.throwIfAborted();
      const isOurs = found?.locked_by_user_id === client.userId && found.session_id === wish.session_id;
      if (found && !isOurs) return { holder: found };
      const { value, sentAt } = await client.ask('POST', path, { body: wish, retryForMs: 0 });
      /** @type {Lock} */
      const lock = value.lock;
      // If the person has begun something else meanwhile, it is for that to say what becomes of it.
      const isGood = signal.aborted || lock.fence === fence || (await isNext(client, workspaceId, wish, fence, lock.fence));
      if (isGood || signal.aborted) return { lock, sentAt };
      client.release(workspaceId, { fence: lock.fence }).catch(() => {});
      return { holder: null };
    } catch (error) {
      if (error instanceof Refusal && isHeld(error)) return { holder: error.problem.lock ?? null };
      const isSignedOut = error instanceof Refusal && error.status === 401;
      if (signal.aborted || !(isPassing(error) || isSignedOut)) throw error;
      await sleep(isSignedOut ? SIGNED_OUT_MS : backoff(failures, error), signal);
    }
  }
}

/** Whether nobody had it between these two leases, and nobody else ended the first.
 * @param {Lockhouse} client @param {string} workspaceId @param {{ session_id: string }} wish @param {number} before
 * @param {number} after */
async function isNext(client, workspaceId, wish, before, after) {
  const { events } = await client.history(workspaceId, { limit: 100 });
  const ended = events.find((event) => event.fence !== null && event.fence !== after);
  const isOurs = ended?.fence === before && ended.session_id === wish.session_id;
  return isOurs && ['lock.expired', 'lock.released'].includes(ended.type) && (ended.by_user_id ?? client.userId) === client.userId;
}
