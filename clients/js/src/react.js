import { useSyncExternalStore } from 'react';
import { WorkspaceLock } from './lock.js';

/** @typedef {import('./client.js').Lockhouse} Lockhouse */
/** @typedef {import('./lock.js').View} View */
/** @typedef {import('./lock.js').State} State */
/** @typedef {object} Actions
 * @property {() => Promise<State>} acquire
 * @property {() => Promise<State>} wait
 * @property {(message?: string) => Promise<State>} ask
 * @property {() => void} cancel
 * @property {() => Promise<State>} takeOver
 * @property {(userId?: string) => Promise<void>} handOver
 * @property {() => Promise<void>} decline
 * @property {() => Promise<void>} release
 * @property {() => Promise<void>} refresh
 * @property {() => void} activity
 * @property {(input: RequestInfo | URL, init?: RequestInit) => Promise<Response>} fetch
 */

/** @type {View} */
const NOTHING = {
  state: 'unknown', holder: null, kind: null, isOtherTab: false, loss: null, knock: null, hasAsked: false, isConnected: false,
  hasPlace: true, waiting: 0, fence: null, mayTakeOver: true,
};

/** The lock of a workspace while a component is mounted: its view and its actions. The actions keep their identity between renders.
 * Components with the same client (create it once, not in each render) and the same workspace share one lock. When the last of them
 * unmounts, the lock is released and closed. The options are read when the lock is created; `beforeRelease` is that of the latest
 * render. `lock` is null until the component is mounted.
 * @param {Lockhouse} client @param {string} workspaceId @param {import('./lock.js').LockOptions} [options]
 * @returns {View & Actions & { lock: WorkspaceLock | null }} */
export function useWorkspaceLock(client, workspaceId, options) {
  const shared = sharedLock(client, workspaceId);
  // A component without options keeps those of another one.
  if (options) shared.options = options;
  const view = useSyncExternalStore(shared.subscribe, shared.view, () => NOTHING);
  return { ...view, ...shared.actions, lock: shared.lock };
}

/** @type {WeakMap<Lockhouse, Map<string, Shared>>} */
const all = new WeakMap();

/** @param {Lockhouse} client @param {string} workspaceId */
function sharedLock(client, workspaceId) {
  const mine = all.get(client) ?? new Map();
  all.set(client, mine);
  const shared = mine.get(workspaceId) ?? new Shared(client, workspaceId);
  mine.set(workspaceId, shared);
  return shared;
}

/** A lock that exists while components subscribe to it. */
class Shared {
  /** @type {WorkspaceLock | null} */ lock = null;
  /** @type {import('./lock.js').LockOptions} */ options = {};
  #subscribers = 0;

  /** @param {Lockhouse} client @param {string} workspaceId */
  constructor(client, workspaceId) {
    this.client = client;
    this.workspaceId = workspaceId;
    /** @type {Actions} */
    this.actions = {
      acquire: () => this.#mounted().acquire(),
      wait: () => this.#mounted().wait(),
      ask: (message) => this.#mounted().ask(message),
      cancel: () => this.#mounted().cancel(),
      takeOver: () => this.#mounted().takeOver(),
      handOver: (userId) => this.#mounted().handOver(userId),
      decline: () => this.#mounted().decline(),
      release: () => this.#mounted().release(),
      refresh: () => this.#mounted().refresh(),
      activity: () => this.#mounted().activity(),
      fetch: (input, init) => this.#mounted().fetch(input, init),
    };
  }

  view = () => this.lock?.view ?? NOTHING;

  /** @param {() => void} onChange */
  subscribe = (onChange) => {
    const { beforeRelease, ...options } = this.options;
    const latest = beforeRelease && { beforeRelease: (/** @type {'handover' | 'release' | 'grant'} */ why) => this.options.beforeRelease?.(why) };
    const lock = this.lock ?? new WorkspaceLock(this.client, this.workspaceId, { ...options, ...latest });
    this.lock = lock;
    this.#subscribers++;
    lock.addEventListener('change', onChange);
    return () => {
      lock.removeEventListener('change', onChange);
      this.#subscribers--;
      // In strict mode, and when it is moved, a component unmounts and mounts again at once.
      queueMicrotask(() => {
        if (this.#subscribers || this.lock !== lock) return;
        this.lock = null;
        lock.close().catch(() => {});
      });
    };
  };

  #mounted() {
    if (!this.lock) throw new Error('There is no lock before the component is in the page, nor after.');
    return this.lock;
  }
}
