import { acquire, releaseUnwanted, hasEnded, heartbeat, isHere, isMine, read } from './api.js';
import { moment } from './clock.js';
import { Refusal, isRefusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';
import { place } from './web-locks.js';

/** Long-running calls: waiting in the queue and reclaiming a lease. A signal aborts them. */

/** The server's limit for a long poll, and the time after which it is sent again to keep the place in the queue (milliseconds). */
const WAIT_MS = 60_000;
const RENEW_WAIT_MS = 45_000;
/** Limit of long polls per browser and server. Each uses one of the browser's six connections. */
const PLACES = 2;
/** Time until a tab without a place reports it, and until it tries again if no event tells it to (milliseconds). */
const NO_PLACE_MS = 1_500;
const TRY_AGAIN_MS = 20_000;
/** Time until the next attempt while the person is not signed in (milliseconds). */
const SIGNED_OUT_MS = 30_000;

/** @typedef {import('./api.js').Caller} Caller */
/** @typedef {import('./api.js').Grant} Grant */
/** @typedef {import('./client.js').Lock} Lock */

/** What the person chose last, or what the client does by itself. It is aborted by the next one, and when the lock is granted. */
export class Attempt extends AbortController {
  /** Pending while this attempt is in the queue. @type {Promise<import('./snapshot.js').State> | undefined} */ waiting;
  isReclaiming = false;
  /** Tries again, without a place in the queue: the lock may be free. */
  retryNow = () => {};

  /** @param {boolean} isWanted */
  constructor(isWanted) {
    super();
    /** Whether the person wants the lock. If so, even a late grant is used. */
    this.isWanted = isWanted;
  }
}

/** `onPlace`: whether the server keeps a place for this tab. `onGranted` may be called after the attempt was aborted; `onFailed` is not.
 * @typedef {{ onPlace: (hasPlace: boolean) => void, onGranted: (grant: Grant) => void, onFailed: () => void }} QueueCallbacks */

/** Waits in the queue until the lock is granted. At most two requests per browser wait at the server, so that heartbeats and saves
 * have connections left. A tab without a place tries again when the lock may be free.
 * @param {Caller} caller @param {Attempt} attempt @param {QueueCallbacks} callbacks */
export async function waitInQueue(caller, attempt, callbacks) {
  const over = new AbortController();
  const signal = AbortSignal.any([attempt.signal, over.signal]);
  const trying = new AbortController();
  const waiting = (async () => {
    await place('lockhouse wait ' + caller.client.address.origin, PLACES, signal);
    trying.abort();
    callbacks.onPlace(true);
    callbacks.onGranted(await wait(caller, signal));
  })();
  const tries = tryAgain(caller, attempt, AbortSignal.any([signal, trying.signal]), callbacks).catch((error) => {
    if (!trying.signal.aborted) throw error;
    return waiting;
  });
  try {
    await Promise.race([waiting, tries]);
  } catch (error) {
    if (attempt.signal.aborted) return;
    callbacks.onFailed();
    throw error;
  } finally {
    over.abort();
    attempt.waiting = undefined;
  }
}

/** Tries to acquire the lock each time it may be free.
 * @param {Caller} caller @param {Attempt} attempt @param {AbortSignal} signal @param {QueueCallbacks} callbacks */
async function tryAgain(caller, attempt, signal, callbacks) {
  await sleep(NO_PLACE_MS, signal);
  callbacks.onPlace(false);
  for (;;) {
    const retried = new Promise((resolve) => (attempt.retryNow = () => resolve(undefined)));
    try {
      const holder = await read(caller, { signal });
      if (!holder || isHere(caller, holder)) return callbacks.onGranted(await acquire(caller));
      // Another tab of this person holds it.
      if (isMine(caller, holder)) return callbacks.onGranted({ lock: holder, sentAt: moment() });
    } catch (error) {
      if (signal.aborted || !(isPassing(error) || isRefusal(error, 'lock_held'))) throw error;
    }
    await Promise.race([retried, sleep(TRY_AGAIN_MS * (1 + Math.random() / 2), signal)]);
    // The queue is served first.
    await sleep(50 + 200 * Math.random(), signal);
  }
}

/** Waits at the server, and confirms the grant by a heartbeat. The time of the grant is unknown, so the lease counts from that heartbeat.
 * @param {Caller} caller @param {AbortSignal} signal @returns {Promise<Grant>} */
async function wait(caller, signal) {
  for (;;) {
    const lock = await longPoll(caller, signal);
    try {
      const { value: { expires_in_ms, knock, session_id = lock.session_id }, sentAt } = await heartbeat(caller, lock.fence, true);
      return { lock: { ...lock, expires_in_ms, knock, session_id }, sentAt };
    } catch (error) {
      // The lease ended before the heartbeat, or its result is unknown: wait again.
      if (!hasEnded(error) && !isPassing(error)) throw error;
    }
  }
}

/** Sends overlapping long polls until one is granted. A new request before the old one ends keeps the place in the queue; the server
 * answers the old one with 409.
 * @param {Caller} caller @param {AbortSignal} signal @returns {Promise<Lock>} */
function longPoll(caller, signal) {
  const options = { signal, timeoutMs: WAIT_MS + 15_000, retryForMs: 0 };
  return new Promise((resolve, reject) => {
    // The older request may be the one that is granted.
    let isGranted = false;
    const poll = async () => {
      let renewAfterMs = RENEW_WAIT_MS;
      for (let failures = 0; !isGranted; ) {
        const startedAt = performance.now();
        const answer = acquire(caller, { wait_ms: WAIT_MS }, options).then(({ lock }) => {
          isGranted = true;
          resolve(lock);
        });
        try {
          await Promise.race([answer, sleep(renewAfterMs, signal)]);
          answer.catch(() => {});
          failures = 0;
        } catch (error) {
          if (isRefusal(error, 'lock_held')) {
            // The server's limit is lower: send the next request earlier.
            const waitedMs = performance.now() - startedAt;
            renewAfterMs = Math.max(500, Math.min(renewAfterMs, waitedMs * 0.75));
            // Another page with the same session waits, too.
            if (waitedMs < 250) await sleep(backoff(failures++), signal);
          } else if (isPassing(error)) {
            await sleep(backoff(failures++, error), signal);
          } else {
            throw error;
          }
        }
      }
    };
    poll().catch(reject);
  });
}

/** Gets back a lease that expired, unless somebody else held the lock since. A final refusal counts as unchanged.
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
      // An aborted attempt leaves the decision to the next one.
      if (after === fence || signal.aborted || (await isNext(caller, fence, after)) || signal.aborted) return grant;
      releaseUnwanted(caller, after);
      return { holder: null, changed: true };
    } catch (error) {
      if (isRefusal(error, 'lock_held')) return { holder: error.problem.lock ?? null, changed: true };
      const isSignedOut = error instanceof Refusal && error.status === 401;
      if (signal.aborted || (!isPassing(error) && !isSignedOut)) return { holder: null, changed: false };
      await sleep(isSignedOut ? SIGNED_OUT_MS : backoff(failures, error), signal).catch(() => {});
    }
  }
}

/** Whether nobody held the lock between these two leases, and nobody else ended the first.
 * @param {Caller} caller @param {number} before @param {number} after */
async function isNext({ client, workspaceId, params }, before, after) {
  const { events } = await client.history(workspaceId, { limit: 100 });
  const ended = events.find((event) => event.fence !== null && event.fence !== after);
  const isOurs = ended?.fence === before && ended.session_id === params.session_id
    && events.some(({ type, fence, session_id }) => type === 'lock.acquired' && fence === after && session_id === params.session_id);
  return isOurs && ['lock.expired', 'lock.released'].includes(ended.type) && (ended.by_user_id ?? client.userId) === client.userId;
}
