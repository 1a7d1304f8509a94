import { Refusal } from './refusal.js';

/** Limit of the pause between attempts, and of the server's `Retry-After` (milliseconds). */
const LONGEST_MS = 10_000;
const LONGEST_RETRY_AFTER_MS = 60_000;

/** Milliseconds to wait before the next attempt: exponential backoff with jitter, so that clients that were disconnected together
 * do not reconnect together.
 * @param {number} attempt from 0 @param {unknown} [error] */
export function backoff(attempt, error) {
  const most = Math.min(LONGEST_MS, 250 * 2 ** attempt);
  const asked = error instanceof Refusal ? error.retryAfterMs ?? 0 : 0;
  return Math.max(Math.min(LONGEST_RETRY_AFTER_MS, asked), most / 2) + Math.random() * (most / 2);
}

/** Whether the same request may succeed later. Lockhouse's own 4xx responses are final, except 429. All else is temporary: its 5xx, a
 * proxy's response, no response. An aborted request counts as temporary, too: check the signal.
 * @param {unknown} error */
export const isPassing = (error) => !(error instanceof Refusal && error.isOwn && error.status < 500 && error.status !== 429);

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
