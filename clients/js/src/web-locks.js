/** `navigator.locks.request`, or its replacement on pages without Web Locks (no TLS).
 * @param {string} name @param {LockOptions} options @param {() => unknown} work @returns {Promise<unknown>} */
async function request(name, options, work) {
  try {
    return await navigator.locks.request(name, options, work);
  } catch (error) {
    // Web Locks are missing, or denied to an opaque origin.
    if (navigator.locks && /** @type {Error} */ (error).name !== 'SecurityError') throw error;
    return (await import('./election.js')).request(name, options, work);
  }
}

/** Holds the browser-wide lock `name` until `signal` is aborted. Resolves when it is held; rejects if that is not possible any more.
 * `onStolen` is called if another page steals it.
 * @param {string} name @param {AbortSignal} signal @param {{ steal?: boolean, onStolen?: () => void }} [more]
 * @returns {Promise<void>} */
export function hold(name, signal, { steal = false, onStolen } = {}) {
  return new Promise((resolve, reject) => {
    let isHeld = false;
    const until = new Promise((end) => signal.addEventListener('abort', end, { once: true }));
    const work = () => {
      // The lock may be granted after the abort.
      if (signal.aborted) return undefined;
      isHeld = true;
      resolve();
      return until;
    };
    request(name, steal ? { steal } : { signal }, work)
      .then(() => reject(signal.reason), (error) => {
        reject(error);
        if (isHeld && !signal.aborted) onStolen?.();
      });
  });
}

/** A semaphore: takes one of `count` places with this name when one is free, until `signal` is aborted.
 * @param {string} name @param {number} count @param {AbortSignal} signal */
export async function place(name, count, signal) {
  signal.throwIfAborted();
  const tries = Array.from({ length: count }, () => new AbortController());
  /** @param {AbortController} [but] */
  const end = (but) => tries.forEach((one) => one === but || one.abort());
  signal.addEventListener('abort', () => end(), { once: true });
  await Promise.any(tries.map((one, index) => hold(`${name} ${index}`, one.signal).then(() => end(one))));
  signal.throwIfAborted();
}

/** @typedef {{ signal?: AbortSignal, steal?: boolean }} LockOptions */
