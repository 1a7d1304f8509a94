import { Lease } from './lease.js';
import { Refusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';
import { tabSession } from './session.js';
import { tabsOf } from './tabs.js';

/** The longest that the server lets anybody wait at a time, and when to ask again so as to keep one's place (milliseconds). */
const WAIT_MS = 60_000;
const ASK_AGAIN_MS = 45_000;

/** @typedef {import('./client.js').Lock} Lock */
/** `free`: nobody has it. `held`: this tab has it. `held-by-other`: somebody else has it, or another tab of this person.
 * `waiting`: the same, and this tab stands in line. `lost`: this tab had it, until the person chooses what to do.
 * `unknown`: the server has not been reached yet.
 * @typedef {'free' | 'held' | 'held-by-other' | 'waiting' | 'lost' | 'unknown'} State */
/** How it was lost. `by` is whoever has it, or ended it; `changed` means that somebody else had it in between.
 * @typedef {{
 *   reason: import('./client.js').Lost['reason'], by: { userId: string, name: string | null } | null, changed: boolean,
 * }} Loss */
/** What there is to show; a new object after each change.
 * @typedef {{
 *   state: State, holder: Lock | null, isOtherTab: boolean, loss: Loss | null, knock: import('./client.js').Knock | null,
 *   hasAsked: boolean, isConnected: boolean, fence: number | null,
 * }} View */
/** @typedef {object} LockOptions
 * @property {number} [ttlMs] how long a lease is; without it, as long as the server says.
 * @property {string} [note] what others are shown.
 * @property {Record<string, unknown>} [metadata]
 * @property {string} [sessionId] what tells this tab from others; made up without it.
 * @property {boolean} [releaseOnClose] release when the page is closed: true, unless it says false.
 */

/** Thrown by a save that must not go out: this tab does not have the lock. */
export class NotHeld extends Error {
  constructor() {
    super('This is not locked by this tab, so nothing is saved.');
    this.name = 'NotHeld';
  }
}

/** One workspace, as this tab sees it. It renews what it has by itself until it is told to release or to close.
 *
 * Events: `change` (after every change of {@link WorkspaceLock#view}), `lost` (detail: {@link Loss}), `knock` (somebody
 * asks for it; detail: the knock), `declined` (the holder keeps it). */
export class WorkspaceLock extends EventTarget {
  /** @type {Lease | null} */ #lease = null;
  /** The fence that it had last. */ #last = 0;
  /** @type {State} */ #state = 'unknown';
  /** @type {Lock | null} */ #holder = null;
  /** @type {Loss | null} */ #loss = null;
  /** @type {import('./client.js').Knock | null} */ #knock = null;
  #hasAsked = false;
  #isConnected = false;
  #isActive = false;
  #isBeating = false;
  #failures = 0;
  #revision = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** Ends what the person has begun: waiting, or coming back. @type {AbortController | undefined} */ #effort;
  /** @type {() => void} */ #leave;
  /** @type {Promise<void> | undefined} */ #refreshing;

  /** @param {import('./client.js').Lockhouse} client @param {string} workspaceId @param {LockOptions} [options] */
  constructor(client, workspaceId, { ttlMs, note, metadata, sessionId, releaseOnClose = true } = {}) {
    super();
    this.client = client;
    this.workspaceId = workspaceId;
    this.sessionId = sessionId ?? tabSession();
    /** @private */
    this.wish = {
      session_id: this.sessionId,
      ...(ttlMs !== undefined && { ttl_ms: ttlMs }),
      ...(note !== undefined && { note }),
      ...(metadata !== undefined && { metadata }),
    };
    /** @private */
    this.tabs = tabsOf(client);
    /** What there is to show. @type {View} */
    this.view = this.#look();
    this.#leave = this.tabs.add({
      workspaceId,
      onEvent: (told) => this.#hear(told),
      onConnection: (connected) => {
        this.#isConnected = connected;
        if (connected) this.refresh().catch(() => {});
        this.#changed();
      },
      onHolder: ({ session, fence }) => this.#yieldTo(session, fence),
      onHide: () => this.#hide(releaseOnClose),
      onShow: () => this.#wake(),
    });
    this.refresh().catch(() => {});
  }

  /** Where it stands now. It is found out anew each time: no timer has to run for a lease to be over. */
  get state() {
    this.#check();
    return this.#state;
  }

  /** The fencing token of the lease, for whoever stores what is saved; null unless this tab has the lock now. */
  get fence() {
    return this.state === 'held' && this.#lease ? this.#lease.fence : null;
  }

  /** The headers that name the lease, for a request that saves.
   * @returns {Record<string, string>} @throws {NotHeld} */
  headers() {
    const { fence } = this;
    if (fence === null) throw new NotHeld();
    return { 'X-Lock-Workspace': encodeURIComponent(this.workspaceId), 'X-Lock-Fence': String(fence) };
  }

  /** `fetch` for saving: with the headers that name the lease; nothing goes out without one.
   * @param {RequestInfo | URL} input @param {RequestInit} [init] @returns {Promise<Response>} */
  async fetch(input, init = {}) {
    const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
    for (const [name, value] of Object.entries(this.headers())) headers.set(name, value);
    return fetch(input, { ...init, headers });
  }

  /** The person did something: it goes with the next heartbeat. */
  activity() {
    this.#isActive = true;
  }

  /** Locks it if that is possible now. What another tab of the same person has stays there: see {@link takeOver}.
   * @returns {Promise<State>} */
  async acquire() {
    if (this.state === 'held') return 'held';
    const effort = this.#begin();
    if (this.#state === 'unknown') await this.refresh();
    if (this.#isOtherTab) return this.#see(this.#holder);
    await this.#ask({}, effort);
    return this.state;
  }

  /** Stands in line until it is this tab's turn, or {@link cancel} is called.
   * @returns {Promise<State>} */
  async wait() {
    if (this.state === 'held') return 'held';
    const effort = this.#begin();
    this.#state = 'waiting';
    this.#changed();
    await this.#stand(effort);
    return this.state;
  }

  /** Asks the holder to hand it over, and stands in line meanwhile.
   * @param {string} [message] @returns {Promise<State>} */
  async ask(message) {
    if (this.state === 'held') return 'held';
    const effort = this.#begin();
    const { userName } = this.client;
    await this.client.knock(this.workspaceId, {
      session_id: this.sessionId,
      ...(message && { message }),
      ...(userName && { name: userName }),
    });
    this.#hasAsked = true;
    this.#state = 'waiting';
    this.#changed();
    await this.#stand(effort);
    return this.state;
  }

  /** Waits no longer. */
  cancel() {
    this.#begin();
    if (this.#state === 'waiting') this.#see(this.#holder);
  }

  /** Takes it from its holder, if that is still whom the person saw; from another tab of the same person, too.
   * @returns {Promise<State>} */
  async takeOver() {
    const effort = this.#begin();
    const seen = this.#holder;
    const isMine = this.#isOtherTab;
    try {
      await this.#ask(seen && !isMine ? { force: true, expected_fence: seen.fence } : {}, effort);
      if (isMine && seen && this.state !== 'held') await this.#ask({ force: true, expected_fence: seen.fence }, effort);
    } catch (error) {
      // It has moved on: the person is to see to whom.
      if (!(error instanceof Refusal && error.code === 'fence_mismatch')) throw error;
      this.#see(error.problem.lock ?? null);
    }
    return this.state;
  }

  /** Gives it to somebody; without a name, to the one who asks.
   * @param {string} [userId] */
  async handOver(userId) {
    const fence = this.headers() && this.#fence();
    const { lock } = await this.client.handover(this.workspaceId, { fence, ...(userId !== undefined && { to_user_id: userId }) });
    this.#drop(fence);
    this.#see(lock);
  }

  /** Keeps it, though somebody asks. */
  async decline() {
    await this.client.decline(this.workspaceId, { fence: this.#fence() });
    this.#knock = null;
    this.#changed();
  }

  /** Releases it. */
  async release() {
    this.#begin();
    const lease = this.#lease;
    if (!lease) return this.#see(this.#holder);
    this.#drop(lease.fence);
    this.#see(null);
    await this.client.release(this.workspaceId, { fence: lease.fence });
  }

  /** Has nothing more to do with it: releases what it has, and is told nothing more. */
  async close() {
    this.#leave();
    await this.release();
  }

  /** Reads who has it. */
  async refresh() {
    this.#refreshing ??= this.client
      .read(this.workspaceId)
      .then(({ lock }) => {
        if (!this.#lease) this.#see(lock);
      })
      .finally(() => {
        this.#refreshing = undefined;
      });
    return this.#refreshing;
  }

  #fence() {
    if (!this.#lease) throw new NotHeld();
    return this.#lease.fence;
  }

  /** @returns {View} */
  #look() {
    return {
      state: this.#state,
      holder: this.#holder,
      isOtherTab: this.#isOtherTab,
      loss: this.#loss,
      knock: this.#knock,
      hasAsked: this.#hasAsked,
      isConnected: this.#isConnected,
      fence: this.#lease?.fence ?? null,
    };
  }

  #changed() {
    this.view = this.#look();
    this.dispatchEvent(new CustomEvent('change', { detail: this.view }));
  }

  /** Whether the holder is this person in another tab. */
  get #isOtherTab() {
    const holder = this.#holder;
    return holder?.locked_by_user_id === this.client.userId && holder.session_id !== this.sessionId;
  }

  /** The person, or what happens, begins something new: what was begun before ends. */
  #begin() {
    this.#effort?.abort();
    this.#effort = new AbortController();
    this.#hasAsked = false;
    return this.#effort.signal;
  }

  /** @param {object} more @param {AbortSignal} effort */
  async #ask(more, effort) {
    const body = { ...this.wish, ...more };
    const path = this.client.lockPath(this.workspaceId);
    try {
      const { value, sentAt } = await this.client.ask('POST', path, { body });
      if (effort.aborted) return this.#giveBack(value.lock);
      this.#hold(value, sentAt);
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== 'lock_held') throw error;
      if (!effort.aborted) this.#see(error.problem.lock ?? null);
    }
  }

  /** Somebody waited, and then did not want it any more.
   * @param {Lock} lock */
  #giveBack(lock) {
    if (this.#lease?.fence !== lock.fence) this.client.release(this.workspaceId, { fence: lock.fence }).catch(() => {});
  }

  /** Stands in line. Each time it asks again before its time is up it keeps its place, and what it asked before is
   * answered with 409.
   * @param {AbortSignal} effort */
  async #stand(effort) {
    for (let failures = 0; !effort.aborted && this.#state === 'waiting'; ) {
      const again = new AbortController();
      try {
        const body = { ...this.wish, wait_ms: WAIT_MS };
        const path = this.client.lockPath(this.workspaceId);
        const asked = this.client.ask('POST', path, { body, signal: effort, timeoutMs: WAIT_MS + 15_000, retryForMs: 0 });
        const answer = asked.then(({ value, sentAt }) => {
          if (this.#lease) return;
          // It was granted somewhere in between; what is left of it is counted from when the answer came.
          if (value.lock.expires_in_ms > 0) this.#grant(value, sentAt, effort);
        });
        const answered = await Promise.race([answer.then(() => true), sleep(ASK_AGAIN_MS, again.signal).then(() => false)]);
        failures = 0;
        if (!answered) answer.catch(() => {});
      } catch (error) {
        if (effort.aborted) return;
        if (error instanceof Refusal && error.code === 'lock_held') continue;
        if (!isPassing(error)) {
          this.#see(this.#holder, true);
          throw error;
        }
        await sleep(backoff(failures++, error), effort).catch(() => {});
      } finally {
        again.abort();
      }
    }
  }
}
