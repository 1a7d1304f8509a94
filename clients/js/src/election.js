import { randomName } from './random.js';

/** Stands in for Web Locks on pages without TLS. The pages agree by messages (BroadcastChannel): a candidate asks, and takes the
 * lock if nobody objects in time. While a page is stopped, another one may take what it has; when it goes on, it hears of the
 * newer holder and gives way.
 *
 * @typedef {{ kind: 'ask', rank: string } | { kind: 'held', term: number, id: string } | { kind: 'free' }} Word */

/** If nobody objects within this time, the lock is free (milliseconds). */
const QUIET_MS = 500;
/** A waiting page asks again after this time, because the holder may have crashed (milliseconds). */
const AGAIN_MS = 4_000;

/** As `navigator.locks.request`, with `signal` or `steal`.
 * @param {string} name @param {import('./web-locks.js').LockOptions} options @param {() => unknown} work @returns {Promise<unknown>} */
export function request(name, { signal, steal }, work) {
  const channel = new BroadcastChannel('lockhouse election ' + name);
  const id = randomName();
  // Of two candidates, the earlier one goes on.
  const rank = Date.now() + ' ' + id;
  /** When it was taken; 0 while it is not held. */
  let term = 0;
  let newest = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @param {Word} word */
  const say = (word) => channel.postMessage(word);
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
      say({ kind: 'ask', rank });
      later(take, QUIET_MS);
    };
    const take = async () => {
      clearTimeout(timer);
      // From now on it lasts as long as the work.
      signal?.removeEventListener('abort', abort);
      const mine = (term = Math.max(newest + 1, Date.now()));
      say({ kind: 'held', term, id });
      await Promise.resolve(work()).then(resolve, reject);
      if (term !== mine) return;
      say({ kind: 'free' });
      stop();
    };
    channel.onmessage = ({ data }) => {
      /** @type {Word} */
      const word = data;
      if (word.kind === 'held') newest = Math.max(newest, word.term);
      if (term) {
        if (word.kind === 'held' && (word.term > term || (word.term === term && word.id > id))) {
          term = 0;
          stop(new DOMException('Another page has the lock.', 'AbortError'));
        } else if (word.kind !== 'free') {
          say({ kind: 'held', term, id });
        }
      } else if (word.kind === 'held') {
        later(ask, AGAIN_MS);
      } else if (word.kind === 'free') {
        ask();
      } else if (word.rank < rank) {
        later(ask, 2 * QUIET_MS);
      } else {
        say({ kind: 'ask', rank });
      }
    };
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    else if (steal) take();
    else ask();
  });
}
