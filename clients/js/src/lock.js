import { acquire, callerOf, fetchWith, isHere, isMine, leaseHeaders, releaseUnwanted } from './api.js';
import { Attempt, reclaim, waitInQueue } from './acquire-loop.js';
import { Lease } from './lease.js';
import { LeaseHistory } from './lease-history.js';
import { LockEventTarget } from './lock-events.js';
import { NotHeld, isRefusal } from './refusal.js';
import { ReleaseHook } from './release-hook.js';
import { LockState } from './state.js';
import { tabLeaderOf } from './tab-leader.js';

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./snapshot.js').Loss} Loss */
/** @typedef {import('./snapshot.js').State} State */
/** @typedef {import('./snapshot.js').View} View */
/** @typedef {import('./api.js').LockOptions} LockOptions */

/** The lock of one workspace in this tab. It renews its lease until it is released or closed.
 * For its events see {@link import('./lock-events.js').LockEvents}. */
export class WorkspaceLock extends LockEventTarget {
  /** @type {import('./api.js').Caller} */ #caller;
  /** @type {LockState} */ #state;
  /** @type {Lease | null} */ #lease = null;
  #history = new LeaseHistory();
  #attempt = new Attempt(false);
  /** What to resume when the page is shown again. @type {'' | 'held' | 'waiting'} */ #resume = '';
  #closing = new AbortController();
  #hook = new ReleaseHook(() => this.beforeRelease);

  /** @param {import('./client.js').Lockhouse} client @param {string} workspaceId @param {LockOptions} [options] */
  constructor(client, workspaceId, options = {}) {
    super();
    // Throws for an invalid id.
    client.lockPath(workspaceId);
    this.client = client;
    this.workspaceId = workspaceId;
    /** Called and awaited (at most 5 s) before this tab hands the lock over or releases it, and called 5 s before an automatic grant: save here.
     * If it throws, the lock is kept, except by `close()`. A closing page does not wait for it. @type {LockOptions['beforeRelease']} */
    this.beforeRelease = options.beforeRelease;
    /** The unsaved text, if a {@link import('./draft.js').Draft} is used. @type {import('./draft.js').Draft | null} */
    this.draft = null;
    const { caller, session } = callerOf(client, workspaceId, options);
    this.#caller = caller;
    this.#state = new LockState(caller, () => this.#onChange());
    /** @private */
    this.tabs = tabLeaderOf(client);
    /** What to show. @type {View} */
    this.view = this.#state.view;
    const { signal } = this.#closing;
    this.tabs.add({
      workspaceId,
      onEvent: (event) => this.#onEvent(event),
      onConnection: (isConnected) => {
        if (isConnected) this.#refresh();
        this.#state.setConnected(isConnected);
      },
      onPoll: () => this.#state.isConnected || this.refresh().catch(() => this.#state.setUnreachable()),
      onHolder: ({ session, fence }) => session === this.sessionId || (this.#lease ? this.#lease.onOtherTab(session, fence) : this.#refresh()),
      onHide: () => this.#onHide(options.releaseOnClose ?? true),
      onShow: () => this.#onShow(),
    }, signal);
    session?.onRename(() => (this.#lease ? this.#lease.renewNow() : this.#state.setHolder(this.#state.holder)), signal);
    this.#state.read({ retryForMs: Infinity, signal }).catch(() => {});
  }

  /** Identifies this tab. It may change when the page was just opened or restored from the back-forward cache, if another tab has
   * the same name. */
  get sessionId() {
    return this.#caller.params.session_id;
  }

  /** The current state. It is computed at each read, so an ended lease is noticed without a timer. */
  get state() {
    if (this.#lease?.leftMs === 0) this.#lease.tick();
    return this.#state.state;
  }

  /** The fencing token of the lease, to be stored with what is saved; null unless this tab holds the lock. */
  get fence() {
    return this.state === 'held' && this.#lease ? this.#lease.fence : null;
  }

  /** Remaining time of the lease in milliseconds, less a safety margin. The lease is renewed long before it ends. */
  get leftMs() {
    return this.#lease?.leftMs ?? 0;
  }

  /** Headers that name the lease, for a request that saves.
   * @returns {Record<string, string>} @throws {NotHeld} */
  headers() {
    return leaseHeaders(this.workspaceId, this.#fence());
  }

  /** `fetch` for saving, with {@link headers}. Rejects with {@link NotHeld}, and sends nothing, unless this tab holds the lock.
   * @param {RequestInfo | URL} input @param {RequestInit} [init] @returns {Promise<Response>} */
  async fetch(input, init = {}) {
    return fetchWith(input, init, this.headers());
  }

  /** Reports activity of the person with the next heartbeat. */
  activity() {
    this.#lease?.activity();
  }

  /** Acquires the lock if it is free. A lock in another tab of the same person stays there: see {@link takeOver}.
   * @returns {Promise<State>} */
  async acquire() {
    if (['held', 'waiting'].includes(this.state)) return this.#state.state;
    const attempt = this.#startAttempt(true);
    if (!(await this.#state.isHeldByOtherTab())) await this.#tryAcquire({}, attempt);
    return this.state;
  }

  /** Waits in the queue until the lock is granted or {@link cancel} is called. @returns {Promise<State>} */
  async wait() {
    if (this.state === 'held') return 'held';
    if (this.#attempt.waiting) return this.#attempt.waiting;
    const attempt = this.#startAttempt(true);
    if ((await this.#state.isHeldByOtherTab()) || attempt.signal.aborted) return this.state;
    return this.#waitInQueue(attempt);
  }

  /** Asks the holder to hand the lock over, and waits in the queue.
   * @param {string} [message] @returns {Promise<State>} */
  async ask(message) {
    if (this.state === 'held') return 'held';
    const { waiting } = this.#attempt;
    const attempt = waiting ? this.#attempt : this.#startAttempt(true);
    if ((!waiting && (await this.#state.isHeldByOtherTab())) || attempt.signal.aborted) return this.state;
    this.#state.hasAsked = true;
    this.#state.setWaiting();
    try {
      const { userName: name } = this.client;
      await this.client.knock(this.workspaceId, { session_id: this.sessionId, ...(message && { message }), ...(name && { name }) });
    } catch (error) {
      // lock_not_found: the lock is free, and the queue grants it.
      if (isRefusal(error, 'knock_too_soon')) {
        this.#state.hasAsked = false;
        if (!attempt.signal.aborted) (waiting ?? this.#waitInQueue(attempt)).catch(() => {});
        throw error;
      } else if (!isRefusal(error, 'lock_not_found')) {
        if (!attempt.signal.aborted) this.cancel();
        throw error;
      }
    }
    return attempt.signal.aborted ? this.state : (waiting ?? this.#waitInQueue(attempt));
  }

  /** Stops waiting. */
  cancel() {
    this.#startAttempt(false);
    this.#state.stopWaiting();
  }

  /** Takes the lock from the holder that is shown, or from another tab of the same person. Does nothing if the holder has changed.
   * @returns {Promise<State>} */
  async takeOver() {
    const attempt = this.#startAttempt(true);
    const { holder, isOtherTab } = this.#state;
    const force = holder ? { force: true, expected_fence: holder.fence } : {};
    await this.#tryAcquire(isOtherTab ? {} : force, attempt);
    // With separate sessions on the server, another tab of this person needs `force`, too.
    if (isOtherTab && this.state !== 'held') await this.#tryAcquire(force, attempt);
    return this.state;
  }

  /** Hands the lock over.
   * @param {string} [userId] default: the user whose request is pending */
  async handOver(userId) {
    const fence = this.#fence();
    await this.#hook.run('handover');
    const { lock } = await this.client.handover(this.workspaceId, { fence, ...(userId !== undefined && { to_user_id: userId }) });
    if (this.#lease?.fence === fence) this.#onReleased(lock);
  }

  /** Declines the pending request for the lock. */
  async decline() {
    const { knock } = this.#state;
    await this.client.decline(this.workspaceId, { fence: this.#fence() });
    if (this.#state.knock === knock) this.#state.setKnock(null);
    // The answer tells of the next request, if there is one.
    this.#lease?.renewNow();
  }

  /** Releases the lock. */
  async release() {
    if (this.#lease && this.beforeRelease) await this.#hook.run('release');
    await this.#release();
  }

  async #release() {
    if (this.#lease) {
      const { fence } = this.#lease;
      this.#onReleased(null);
      await this.client.release(this.workspaceId, { fence });
    } else {
      this.#startAttempt(false);
      this.#state.setHolder(this.#state.holder, true);
    }
  }

  /** Releases the lock and stops following events. The object cannot be used again. */
  async close() {
    if (this.#lease && this.beforeRelease) await this.#hook.run('release').catch(() => {});
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    await this.#release();
  }

  /** Reads the lock again, in case an event was missed. */
  async refresh() {
    // A heartbeat's answer says more about an own lease than a read.
    if (this.#lease) this.#lease.renewNow();
    else await this.#state.read();
  }

  #refresh() {
    this.refresh().catch(() => {});
  }

  /** @param {import('./client.js').Knock | null} knock the pending request, if there is one */
  #setKnock(knock) {
    this.#hook.schedule(knock);
    if (this.#state.setKnock(knock)) this.#dispatch('knock', knock);
  }

  #fence() {
    const { fence } = this;
    if (fence === null) throw new NotHeld();
    return fence;
  }

  #onChange() {
    this.view = this.#state.view;
    this.#dispatch('change', this.view);
  }

  /** @param {string} type @param {unknown} [detail] */
  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Starts a new attempt and aborts the previous one. @param {boolean} isWanted */
  #startAttempt(isWanted) {
    if (this.#closing.signal.aborted && isWanted) throw new Error('This WorkspaceLock is closed.');
    this.#attempt.abort();
    this.#state.hasAsked = false;
    return (this.#attempt = new Attempt(isWanted));
  }

  /** @param {object} more @param {Attempt} attempt */
  async #tryAcquire(more, attempt) {
    const { revision } = this.#state;
    try {
      this.#onGranted(await acquire(this.#caller, more));
      // An event since the request may have ended this lease.
      if (revision !== this.#state.revision) this.#lease?.renewNow();
    } catch (error) {
      const isCurrent = !attempt.signal.aborted;
      if (!isRefusal(error, 'lock_held', 'fence_mismatch')) {
        if (isCurrent) this.#state.stopWaiting();
        throw error;
      }
      this.#state.setRefusal(error.problem);
      if (isCurrent) this.#state.setHolder(revision === this.#state.revision ? error.problem.lock : this.#state.holder, true);
    }
  }

  /** Handles a grant, which may arrive after the attempt was cancelled.
   * @param {import('./api.js').Grant} grant @param {boolean} [isBack] whether nobody held the lock since this tab did */
  #onGranted(grant, isBack = false) {
    const { fence } = grant.lock;
    if (this.#state.isInOtherTab(grant.lock)) {
      // Another tab of this person waited, too, and received the same lease.
      this.#state.setHolder(grant.lock, true);
    } else if (this.#history.hasEnded(fence)) {
      // An event that ended this lease arrived before its grant.
      this.#state.setHolder(this.#state.holder, true);
    } else if (this.#attempt.isWanted) {
      if (!this.#lease || this.#lease.fence < fence) this.#startLease(grant, isBack);
    } else if (this.#lease?.fence !== fence) {
      releaseUnwanted(this.#caller, fence);
    }
  }

  /** @param {Attempt} attempt @returns {Promise<State>} */
  #waitInQueue(attempt) {
    this.#state.setWaiting();
    attempt.waiting = waitInQueue(this.#caller, attempt, {
      onPlace: (hasPlace) => attempt.signal.aborted || hasPlace === this.#state.hasPlace || this.#state.setWaiting(hasPlace),
      onGranted: (grant) => this.#onGranted(grant),
      onFailed: () => this.#state.stopWaiting(),
    }).then(() => this.state);
    return attempt.waiting;
  }

  /** @param {import('./api.js').Grant} grant @param {boolean} isBack */
  #startLease(grant, isBack) {
    const isNew = this.#history.begin(grant, isBack);
    this.#lease?.stop();
    this.#attempt.abort();
    const lease = new Lease(this.#caller, grant, {
      onKnock: (knock) => this.#setKnock(knock),
      onWaiting: (count) => this.#lease === lease && this.#state.setWaitingCount(count),
      onHandedOver: (holder) => this.#onReleased(holder),
      onLost: (loss, holder) => this.#onLost(loss, holder),
    });
    this.#lease = lease;
    this.tabs.announceHolder(this.workspaceId, this.sessionId, lease.fence);
    this.#state.setHeld(grant.lock);
    this.#setKnock(grant.lock.knock);
    this.#dispatch('held', { fence: lease.fence, isNew });
    lease.tick();
  }

  /** Stops renewing. Returns the fence of the lease. */
  #stopLease() {
    this.#lease?.stop();
    this.#lease = null;
    this.#hook.schedule(null);
    return this.#history.fence;
  }

  /** The person released the lock or handed it over. @param {Lock | null} holder the new holder */
  #onReleased(holder) {
    this.#startAttempt(false);
    this.#history.isIntact = false;
    this.#state.setReleased(this.#stopLease(), holder);
  }

  /** @param {Loss} loss @param {Lock | null} holder */
  #onLost(loss, holder) {
    const attempt = this.#attempt;
    this.#stopLease();
    this.#history.isIntact = !loss.changed;
    this.#state.setLost(loss, holder);
    this.#dispatch('lost', loss);
    // A listener of `lost` may have started another attempt.
    if (loss.comesBack && this.#attempt === attempt) this.#reclaim();
  }

  /** Gets an expired lease back, unless somebody else held the lock since. */
  async #reclaim() {
    const attempt = this.#startAttempt(true);
    attempt.isReclaiming = true;
    const result = await reclaim(this.#caller, this.#history.fence, attempt.signal);
    attempt.isReclaiming = false;
    if ('lock' in result) return this.#onGranted(result, !attempt.signal.aborted);
    if (attempt.signal.aborted) return;
    attempt.isWanted = false;
    this.#history.isIntact &&= !result.changed;
    this.#state.setNotReclaimed(result);
  }

  /** @param {import('./events.js').StreamEvent} event */
  #onEvent({ id, type, data }) {
    const isReset = type === 'reset' || !data;
    if (!this.#state.acceptRevision(id, isReset)) return;
    this.#history.onEvent(type, data?.fence);
    if (isReset) this.#refresh();
    else if (this.#lease) this.#lease.onEvent(type, data);
    else this.#onForeignEvent(type, data);
  }

  /** Handles an event while this tab has no lease. @param {string} type @param {import('./events.js').LockEvent} event */
  #onForeignEvent(type, { fence, detail, lock }) {
    // The removed member was not the holder, so the event does not carry the lock.
    if (type === 'member.removed' && fence === null) return this.#refresh();
    const isDeclined = type === 'lock.knock_declined' && detail.to_user_id === this.client.userId && this.#state.hasAsked;
    if (isDeclined) this.#state.hasAsked = false;
    this.#state.setHolder(lock);
    if (isDeclined) this.#dispatch('declined', { againInMs: detail.again_in_ms ?? 0 });
    // The request of this tab was granted after it was cancelled.
    if (lock && type === 'lock.handed_over' && isHere(this.#caller, lock) && !this.#attempt.isWanted) releaseUnwanted(this.#caller, lock.fence);
    if (!lock || isMine(this.#caller, lock)) this.#attempt.retryNow();
  }

  /** @param {boolean} isReleased */
  #onHide(isReleased) {
    if (this.#state.state === 'waiting') this.#resume = 'waiting';
    if (this.#attempt.isReclaiming) this.#resume = 'held';
    this.#startAttempt(this.#attempt.isWanted);
    if (!this.#lease || !isReleased) return;
    this.client.releaseOnClose(this.workspaceId, { fence: this.#lease.fence });
    this.#resume = 'held';
    this.#state.setSuspended(this.#stopLease());
  }

  #onShow() {
    const resume = this.#resume;
    this.#resume = '';
    if (this.#lease || !resume) return this.#refresh();
    if (resume === 'held') return this.#reclaim();
    this.#state.state = 'unknown';
    this.wait().catch(() => {});
  }
}
