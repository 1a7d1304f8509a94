import { Refusal } from './refusal.js';

/** Longest pause between two attempts, and the longest that a server may ask for, in milliseconds. */
const LONGEST_MS = 10_000;
const LONGEST_ASKED_MS = 60_000;

/** How long to wait before the next attempt: doubled each time, and a random part of it, so that those who were cut off
 * together do not all come back together. In milliseconds.
 * @param {number} attempt from 0 @param {unknown} [error] */
export function backoff(attempt, error) {
  const most = Math.min(LONGEST_MS, 250 * 2 ** attempt);
  const asked = error instanceof Refusal ? error.retryAfterMs ?? 0 : 0;
  return Math.max(Math.min(LONGEST_ASKED_MS, asked), most / 2) + Math.random() * (most / 2);
}

/** Whether the same request may go well later. Lockhouse's own refusals are final, except that it was called too often or could not
 * do it now. Any other answer (of a proxy, during a deploy) is passing, and so is no answer. Whether anybody still wants it, their
 * signal says.
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
