import { randomName } from './random.js';

/** A replacement for Web Locks on pages without TLS. The pages negotiate by BroadcastChannel: a candidate asks, and takes the lock if
 * no page objects in time. While the holder is frozen, another page may take the lock. When the old holder resumes, it receives the
 * newer term and gives the lock up.
 *
 * @typedef {{ kind: 'ask', rank: string } | { kind: 'held', term: number, id: string } | { kind: 'free' }} Message */

/** The lock is free if no page objects within this time (milliseconds). */
const OBJECT_MS = 500;
/** A waiting page asks again after this time, because the holder may have crashed (milliseconds). */
const AGAIN_MS = 4_000;

/** Like `navigator.locks.request`, with `signal` or `steal`.
 * @param {string} name @param {import('./web-locks.js').LockOptions} options @param {() => unknown} work @returns {Promise<unknown>} */
export function request(name, { signal, steal }, work) {
  const channel = new BroadcastChannel('lockhouse election ' + name);
  const id = randomName();
  // Of two candidates, the lower rank wins.
  const rank = Date.now() + ' ' + id;
  /** The time when this page took the lock; 0 if it does not hold it. */
  let term = 0;
  let newestTerm = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @param {Message} message */
  const send = (message) => channel.postMessage(message);
  /** @param {() => void} act @param {number} ms */
  const later = (act, ms) => {
    clearTimeout(timer);
    timer = setTimeout(act, ms);
  };

  return new Promise((resolve, reject) => {
    /** @param {unknown} [reason] */
    const stop = (reason) => {
      clearTimeout(timer);
      channel.close();
      signal?.removeEventListener('abort', abort);
      reject(reason);
    };
    const abort = () => stop(signal?.reason);
    const ask = () => {
      send({ kind: 'ask', rank });
      later(take, OBJECT_MS);
    };
    const take = async () => {
      clearTimeout(timer);
      // The lock is held until `work` ends.
      signal?.removeEventListener('abort', abort);
      const mine = (term = Math.max(newestTerm + 1, Date.now()));
      send({ kind: 'held', term, id });
      await Promise.resolve(work()).then(resolve, reject);
      if (term !== mine) return;
      send({ kind: 'free' });
      stop();
    };
    channel.onmessage = ({ data }) => {
      /** @type {Message} */
      const message = data;
      if (message.kind === 'held') newestTerm = Math.max(newestTerm, message.term);
      if (term) {
        if (message.kind === 'held' && (message.term > term || (message.term === term && message.id > id))) {
          term = 0;
          stop(new DOMException('Another page has the lock.', 'AbortError'));
        } else if (message.kind !== 'free') {
          send({ kind: 'held', term, id });
        }
      } else if (message.kind === 'held') {
        later(ask, AGAIN_MS);
      } else if (message.kind === 'free') {
        ask();
      } else if (message.rank < rank) {
        later(ask, 2 * OBJECT_MS);
      } else {
        send({ kind: 'ask', rank });
      }
    };
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    else if (steal) take();
    else ask();
  });
}
