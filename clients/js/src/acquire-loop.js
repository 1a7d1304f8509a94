import { acquire, releaseUnwanted, hasEnded, heartbeat, isHere, isMine, read } from './api.js';
import { moment } from './clock.js';
import { Refusal, isRefusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';
import { place } from './web-locks.js';

/** What may take its time, until its signal says that nobody wants it any more. */

/** The longest that the server lets anybody wait at a time, and when to ask again so as to keep one's place (milliseconds). */
const WAIT_MS = 60_000;
const ASK_AGAIN_MS = 45_000;
/** Most requests of a browser that wait at one server: each keeps one of its six connections. */
const PLACES = 2;
/** A tab without a place is told so after this time, and tries again after this one, if it hears nothing (milliseconds). */
const NO_PLACE_MS = 1_500;
const TRY_AGAIN_MS = 20_000;
/** Until it is tried again by somebody who has to sign in first (milliseconds). */
const SIGNED_OUT_MS = 30_000;

/** @typedef {import('./api.js').Caller} Caller */
/** @typedef {import('./api.js').Grant} Grant */
/** @typedef {import('./client.js').Lock} Lock */

/** What the person, or what happens, has begun. It ends when something else is begun, and when the tab has the lock. */
export class Attempt extends AbortController {
  /** Standing in line. @type {Promise<import('./snapshot.js').State> | undefined} */ line;
  isReclaiming = false;
  /** Tries again, without a place in line: the lock may be free. */
  retryNow = () => {};

  /** @param {boolean} isWanted */
  constructor(isWanted) {
    super();
    /** Whether the person wants the lock: what is granted too late for what they asked is theirs all the same. */
    this.isWanted = isWanted;
  }
}

/** What becomes of standing in line: whether the server keeps a place for this tab, and what was granted, perhaps when it is no longer
 * wanted.
 * @typedef {{ onPlace: (hasPlace: boolean) => void, granted: (grant: Grant) => void }} Told */

/** Stands in line until it is this tab's turn. At most two requests of a browser wait at the server, so that heartbeats and saves always
 * have a connection; a tab without a place there tries again when the lock may be free.
 * @param {Caller} caller @param {Attempt} attempt @param {Told} told */
export async function waitInQueue(caller, attempt, told) {
  const over = new AbortController();
  const signal = AbortSignal.any([attempt.signal, over.signal]);
  const trying = new AbortController();
  const waiting = (async () => {
    await place('lockhouse wait ' + caller.client.address.origin, PLACES, signal);
    trying.abort();
    told.onPlace(true);
    told.granted(await wait(caller, signal));
  })();
  const tries = tryAgain(caller, attempt, AbortSignal.any([signal, trying.signal]), told).catch((error) => {
    if (!trying.signal.aborted) throw error;
    return waiting;
  });
  await Promise.race([waiting, tries]).finally(() => over.abort());
}

/** Tries again when the lock may be free.
 * @param {Caller} caller @param {Attempt} attempt @param {AbortSignal} signal @param {Told} told */
async function tryAgain(caller, attempt, signal, told) {
  await sleep(NO_PLACE_MS, signal);
  told.onPlace(false);
  for (;;) {
    const nudged = new Promise((resolve) => (attempt.retryNow = () => resolve(undefined)));
    try {
      const holder = await read(caller, { signal });
      if (!holder || isHere(caller, holder)) return told.granted(await acquire(caller));
      // Another tab of this person has it.
      if (isMine(caller, holder)) return told.granted({ lock: holder, sentAt: moment() });
    } catch (error) {
      if (signal.aborted || !(isPassing(error) || isRefusal(error, 'lock_held'))) throw error;
    }
    await Promise.race([nudged, sleep(TRY_AGAIN_MS * (1 + Math.random() / 2), signal)]);
    // Those who have a place come first.
    await sleep(50 + 200 * Math.random(), signal);
  }
}

/** Waits at the server, and claims what is granted: it is not known when that was, so it counts from a heartbeat on.
 * @param {Caller} caller @param {AbortSignal} signal @returns {Promise<Grant>} */
async function wait(caller, signal) {
  for (;;) {
    const lock = await stand(caller, signal);
    try {
      const { value: { expires_in_ms, knock, session_id = lock.session_id }, sentAt } = await heartbeat(caller, lock.fence, true);
      return { lock: { ...lock, expires_in_ms, knock, session_id }, sentAt };
    } catch (error) {
      // It took too long, or it is not known what became of it: once more.
      if (!hasEnded(error) && !isPassing(error)) throw error;
    }
  }
}

/** Whoever asks again before their time is up keeps their place, and what they asked
 * before is answered with 409.
 * @param {Caller} caller @param {AbortSignal} signal @returns {Promise<Lock>} */
function stand(caller, signal) {
  const asked = { signal, timeoutMs: WAIT_MS + 15_000, retryForMs: 0 };
  return new Promise((resolve, reject) => {
    // The answer may be to what was asked before.
    let isGranted = false;
    const ask = async () => {
      let again = ASK_AGAIN_MS;
      for (let failures = 0; !isGranted; ) {
        const began = performance.now();
        const answer = acquire(caller, { wait_ms: WAIT_MS }, asked).then(({ lock }) => {
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
 * @param {Caller} caller @param {number} fence @param {AbortSignal} signal
 * @returns {Promise<Grant | { holder: Lock | null, changed: boolean }>} */
export async function reclaim(caller, fence, signal) {
  for (let failures = 0; ; failures++) {
    try {
      const holder = await read(caller, { signal });
      signal.throwIfAborted();
      if (holder && !isHere(caller, holder)) return { holder, changed: true };
      const grant = await acquire(caller);
      const after = grant.lock.fence;
      // If the person has begun something else meanwhile, it is for that to say what becomes of it.
      if (after === fence || signal.aborted || (await isNext(caller, fence, after)) || signal.aborted) return grant;
      releaseUnwanted(caller, after);
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
 * @param {Caller} caller @param {number} before @param {number} after */
async function isNext({ client, workspaceId, wish }, before, after) {
  const { events } = await client.history(workspaceId, { limit: 100 });
  const ended = events.find((event) => event.fence !== null && event.fence !== after);
  const isOurs = ended?.fence === before && ended.session_id === wish.session_id
    && events.some(({ type, fence, session_id }) => type === 'lock.acquired' && fence === after && session_id === wish.session_id);
  return isOurs && ['lock.expired', 'lock.released'].includes(ended.type) && (ended.by_user_id ?? client.userId) === client.userId;
}
