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
  state: 'unknown', holder: null, isOtherTab: false, loss: null, knock: null, hasAsked: false, isConnected: false,
  hasPlace: true, waiting: 0, fence: null, mayTakeOver: true,
};

/** The lock of a workspace while a component shows it: what there is to show, and what can be done, which stays the same
 * from one rendering to the next. Components with the same client (keep it: not a new one for each rendering) and the same
 * workspace share it; when the last of them is gone it is released and closed. The options count when it begins; `beforeRelease`
 * is that of the latest rendering.
 * `lock` is null until the component is there.
 * @param {Lockhouse} client @param {string} workspaceId @param {import('./lock.js').LockOptions} [options]
 * @returns {View & Actions & { lock: WorkspaceLock | null }} */
export function useWorkspaceLock(client, workspaceId, options) {
  const shared = sharedLock(client, workspaceId);
  // A component that gives none does not take away those of another one.
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

/** A lock that is there while somebody looks at it. */
class Shared {
  /** @type {WorkspaceLock | null} */ lock = null;
  /** @type {import('./lock.js').LockOptions} */ options = {};
  #lookers = 0;

  /** @param {Lockhouse} client @param {string} workspaceId */
  constructor(client, workspaceId) {
    this.client = client;
    this.workspaceId = workspaceId;
    /** @type {Actions} */
    this.actions = {
      acquire: () => this.#there().acquire(),
      wait: () => this.#there().wait(),
      ask: (message) => this.#there().ask(message),
      cancel: () => this.#there().cancel(),
      takeOver: () => this.#there().takeOver(),
      handOver: (userId) => this.#there().handOver(userId),
      decline: () => this.#there().decline(),
      release: () => this.#there().release(),
      refresh: () => this.#there().refresh(),
      activity: () => this.#there().activity(),
      fetch: (input, init) => this.#there().fetch(input, init),
    };
  }

  view = () => this.lock?.view ?? NOTHING;

  /** @param {() => void} onChange */
  subscribe = (onChange) => {
    const { beforeRelease, ...options } = this.options;
    const latest = beforeRelease && { beforeRelease: (/** @type {'handover' | 'release' | 'grant'} */ why) => this.options.beforeRelease?.(why) };
    const lock = this.lock ?? new WorkspaceLock(this.client, this.workspaceId, { ...options, ...latest });
    this.lock = lock;
    this.#lookers++;
    lock.addEventListener('change', onChange);
    return () => {
      lock.removeEventListener('change', onChange);
      this.#lookers--;
      // In strict mode, and when it moves within the page, a component is gone and back at once.
      queueMicrotask(() => {
        if (this.#lookers || this.lock !== lock) return;
        this.lock = null;
        lock.close().catch(() => {});
      });
    };
  };

  #there() {
    if (!this.lock) throw new Error('There is no lock before the component is in the page, nor after.');
    return this.lock;
  }
}
