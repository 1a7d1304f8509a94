import { acquire, giveBack, hasEnded, heartbeat, isHere, read } from './claim.js';
import { Refusal, isRefusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';

/** What may take its time, until its signal says that nobody wants it any more. */

/** The longest that the server lets anybody wait at a time, and when to ask again so as to keep one's place (milliseconds). */
const WAIT_MS = 60_000;
const ASK_AGAIN_MS = 45_000;
/** Until it is tried again by somebody who has to sign in first (milliseconds). */
const SIGNED_OUT_MS = 30_000;

/** @typedef {import('./claim.js').Claim} Claim */
/** @typedef {import('./claim.js').Grant} Grant */
/** @typedef {import('./client.js').Lock} Lock */

/** What the person, or what happens, has begun. It ends when something else is begun, and when the tab has the lock. */
export class Effort extends AbortController {
  /** Standing in line. @type {Promise<import('./view.js').State> | undefined} */ line;
  isComingBack = false;

  /** @param {boolean} isWanted */
  constructor(isWanted) {
    super();
    /** Whether the person wants the lock: what is granted too late for what they asked is theirs all the same. */
    this.isWanted = isWanted;
  }
}

/** Stands in line until it is our turn, and claims what is granted: it is not known when that was, so it counts from a
 * heartbeat on.
 * @param {Claim} claim @param {AbortSignal} signal @returns {Promise<Grant>} */
export async function standInLine(claim, signal) {
  for (;;) {
    const lock = await stand(claim, signal);
    try {
      const { value: { expires_in_ms, knock, session_id = lock.session_id }, sentAt } = await heartbeat(claim, lock.fence, true);
      return { lock: { ...lock, expires_in_ms, knock, session_id }, sentAt };
    } catch (error) {
      // It took too long, or it is not known what became of it: once more.
      if (!hasEnded(error) && !isPassing(error)) throw error;
    }
  }
}

/** Whoever asks again before their time is up keeps their place, and what they asked
 * before is answered with 409.
 * @param {Claim} claim @param {AbortSignal} signal @returns {Promise<Lock>} */
function stand(claim, signal) {
  const asked = { signal, timeoutMs: WAIT_MS + 15_000, retryForMs: 0 };
  return new Promise((resolve, reject) => {
    // The answer may be to what was asked before.
    let isGranted = false;
    const ask = async () => {
      let again = ASK_AGAIN_MS;
      for (let failures = 0; !isGranted; ) {
        const began = performance.now();
        const answer = acquire(claim, { wait_ms: WAIT_MS }, asked).then(({ lock }) => {
          isGranted = true;
          resolve(lock);
        });
        try {
          await Promise.race([answer, sleep(again, signal)]);
          answer.catch(() => {});
          failures = 0;
        } catch (error) {
          if (isRefusal(error, 'lock_held')) {
            // The server lets nobody wait so long: ask again earlier.
            const waited = performance.now() - began;
            again = Math.max(500, Math.min(again, waited * 0.75));
            // Somebody else with our name waits, too.
            if (waited < 250) await sleep(backoff(failures++), signal);
          } else if (isPassing(error)) {
            await sleep(backoff(failures++, error), signal);
          } else {
            throw error;
          }
        }
      }
    };
    ask().catch(reject);
  });
}

/** Comes back to a lease that ended while nobody looked, unless somebody else had the lock since.
 * @param {Claim} claim @param {number} fence @param {AbortSignal} signal
 * @returns {Promise<Grant | { holder: Lock | null, changed: boolean }>} */
export async function comeBack(claim, fence, signal) {
  for (let failures = 0; ; failures++) {
    try {
      const holder = await read(claim, { retryForMs: 0 });
      signal.throwIfAborted();
      if (holder && !isHere(claim, holder)) return { holder, changed: true };
      const grant = await acquire(claim, {}, { retryForMs: 0 });
      const after = grant.lock.fence;
      // If the person has begun something else meanwhile, it is for that to say what becomes of it.
      if (after === fence || signal.aborted || (await isNext(claim, fence, after)) || signal.aborted) return grant;
      giveBack(claim, after);
      return { holder: null, changed: true };
    } catch (error) {
      if (isRefusal(error, 'lock_held')) return { holder: error.problem.lock ?? null, changed: true };
      const isSignedOut = error instanceof Refusal && error.status === 401;
      if (!isPassing(error) && !isSignedOut) throw error;
      await sleep(isSignedOut ? SIGNED_OUT_MS : backoff(failures, error), signal);
    }
  }
}

/** Whether nobody had it between these two leases, and nobody else ended the first.
 * @param {Claim} claim @param {number} before @param {number} after */
async function isNext({ client, workspaceId, wish }, before, after) {
  const { events } = await client.history(workspaceId, { limit: 100 });
  const ended = events.find((event) => event.fence !== null && event.fence !== after);
  const isOurs = ended?.fence === before && ended.session_id === wish.session_id
    && events.some(({ type, fence, session_id }) => type === 'lock.acquired' && fence === after && session_id === wish.session_id);
  return isOurs && ['lock.expired', 'lock.released'].includes(ended.type) && (ended.by_user_id ?? client.userId) === client.userId;
}
