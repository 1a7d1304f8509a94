import { acquire, releaseUnwanted, isHere, isMine } from './api.js';
import { Attempt, reclaim, waitInQueue } from './acquire-loop.js';
import { Lease } from './lease.js';
import { LeaseHistory } from './lease-history.js';
import { LockEventTarget } from './lock-events.js';
import { NotHeld, isRefusal } from './refusal.js';
import { ReleaseHook } from './release-hook.js';
import { tabSession } from './session.js';
import { LockState } from './state.js';
import { tabLeaderOf } from './tab-leader.js';
import { holderOf } from './snapshot.js';

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./snapshot.js').Loss} Loss */
/** @typedef {import('./snapshot.js').State} State */
/** @typedef {import('./snapshot.js').View} View */
/** @typedef {import('./release-hook.js').BeforeRelease} BeforeRelease */
/** @typedef {object} LockOptions
 * @property {number} [ttlMs] how long a lease is; without it, as long as the server says.
 * @property {string} [note] what others are shown.
 * @property {Record<string, unknown>} [metadata]
 * @property {string} [sessionId] what tells this tab from others; without it the client has a name that no other live page has.
 * @property {boolean} [releaseOnClose] release when the page is closed: true, unless it says false.
 * @property {BeforeRelease} [beforeRelease] see {@link WorkspaceLock.beforeRelease}.
 */
/** One workspace, as this tab sees it. It renews what it has by itself until it is told to release or to close.
 * For its events see {@link import('./lock-events.js').LockEvents}. */
export class WorkspaceLock extends LockEventTarget {
  /** @type {import('./api.js').Caller} */ #caller;
  /** What it knows. @type {LockState} */ #now;
  /** What it has. @type {Lease | null} */ #lease = null;
  /** What this tab knows of its earlier leases. */ #history = new LeaseHistory();
  /** What was begun last. */ #attempt = new Attempt(false);
  /** What is taken up again when the page comes back. @type {'' | 'held' | 'waiting'} */ #before = '';
  #closing = new AbortController();
  #hook = new ReleaseHook(() => this.beforeRelease);

  /** @param {import('./client.js').Lockhouse} client @param {string} workspaceId @param {LockOptions} [options] */
  constructor(client, workspaceId, { ttlMs, note, metadata, sessionId, releaseOnClose = true, beforeRelease } = {}) {
    super();
    // What cannot be an id is refused here, and not later.
    client.lockPath(workspaceId);
    this.client = client;
    this.workspaceId = workspaceId;
    /** Called and awaited, 5 s at most, before this tab hands the lock over or releases it, and 5 s before it passes on by itself: save here.
     * If it throws, the lock stays; `close()` does not mind. A page that closes does not wait for it. @type {BeforeRelease | undefined} */
    this.beforeRelease = beforeRelease;
    /** What was typed and not saved, if it is kept. @type {import('./draft.js').Draft | null} */
    this.draft = null;
    const session = sessionId === undefined ? tabSession() : null;
    const wish = { get session_id() { return sessionId ?? session?.name ?? '' }, ttl_ms: ttlMs, note, metadata };
    this.#caller = { client, workspaceId, wish, ready: async () => session?.ready };
    this.#now = new LockState(this.#caller, () => this.#changed());
    /** @private */
    this.tabs = tabLeaderOf(client);
    /** What there is to show. @type {View} */
    this.view = this.#now.view;
    const { signal } = this.#closing;
    const leave = this.tabs.add({
      workspaceId,
      onEvent: (told) => this.#hear(told),
      onConnection: (isConnected) => {
        if (isConnected) this.#lookAgain();
        this.#now.connect(isConnected);
      },
      onLook: () => this.#now.isConnected || this.refresh().catch(() => this.#now.forget()),
      onHolder: ({ session, fence }) => {
        if (session === this.sessionId) return;
        if (this.#lease) this.#lease.rival(session, fence);
        else this.#lookAgain();
      },
      onHide: () => this.#hide(releaseOnClose),
      onShow: () => this.#wake(),
    });
    signal.addEventListener('abort', leave);
    session?.onRename(() => (this.#lease ? this.#lease.hurry() : this.#now.see(this.#now.holder)), signal);
    // Until the server is reached.
    this.#now.read({ retryForMs: Infinity, signal }).catch(() => {});
  }

  /** What tells this tab from others. It may change when the page was just opened, or is back from the back-forward cache: then another
   * tab has the name. */
  get sessionId() {
    return this.#caller.wish.session_id;
  }

  /** Where it stands now. It is found out anew each time: no timer has to run for a lease to be over. */
  get state() {
    if (this.#lease?.leftMs === 0) this.#lease.tick();
    return this.#now.state;
  }

  /** The fencing token of the lease, for whoever stores what is saved; null unless this tab has the lock now. */
  get fence() {
    return this.state === 'held' && this.#lease ? this.#lease.fence : null;
  }

  /** How long the lease can still be believed in, in milliseconds; it is renewed long before it is over. */
  get leftMs() {
    return this.#lease?.leftMs ?? 0;
  }

  /** The headers that name the lease, for a request that saves.
   * @returns {Record<string, string>} @throws {NotHeld} */
  headers() {
    return { 'X-Lock-Workspace': encodeURIComponent(this.workspaceId), 'X-Lock-Fence': String(this.#fence()) };
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
    this.#lease?.activity();
  }

  /** Locks it if that is possible now. What another tab of the same person has stays there: see {@link takeOver}.
   * @returns {Promise<State>} */
  async acquire() {
    if (['held', 'waiting'].includes(this.state)) return this.#now.state;
    const attempt = this.#begin(true);
    if (!(await this.#now.findsElsewhere())) await this.#ask({}, attempt);
    return this.state;
  }

  /** Stands in line until it is this tab's turn, or {@link cancel} is called.
   * @returns {Promise<State>} */
  async wait() {
    if (this.state === 'held') return 'held';
    if (this.#attempt.line) return this.#attempt.line;
    const attempt = this.#begin(true);
    if ((await this.#now.findsElsewhere()) || attempt.signal.aborted) return this.state;
    return this.#waitInQueue(attempt);
  }

  /** Asks the holder to hand it over, and stands in line meanwhile.
   * @param {string} [message] @returns {Promise<State>} */
  async ask(message) {
    if (this.state === 'held') return 'held';
    const { line } = this.#attempt;
    const attempt = line ? this.#attempt : this.#begin(true);
    if ((!line && (await this.#now.findsElsewhere())) || attempt.signal.aborted) return this.state;
    this.#now.hasAsked = true;
    this.#now.wait();
    try {
      const { userName: name } = this.client;
      await this.client.knock(this.workspaceId, { session_id: this.sessionId, ...(message && { message }), ...(name && { name }) });
    } catch (error) {
      // Where there is nobody any more to ask, it can be had.
      if (isRefusal(error, 'knock_too_soon')) {
        // The place in line stays, or is taken all the same.
        this.#now.hasAsked = false;
        if (!attempt.signal.aborted) (line ?? this.#waitInQueue(attempt)).catch(() => {});
        throw error;
      } else if (!isRefusal(error, 'lock_not_found')) {
        if (!attempt.signal.aborted) this.cancel();
        throw error;
      }
    }
    return attempt.signal.aborted ? this.state : (line ?? this.#waitInQueue(attempt));
  }

  /** Waits no longer. */
  cancel() {
    this.#begin(false);
    this.#now.waitNoLonger();
  }

  /** Takes it from its holder, if that is still whom the person saw; from another tab of the same person, too.
   * @returns {Promise<State>} */
  async takeOver() {
    const attempt = this.#begin(true);
    const { holder, isOtherTab, revision } = this.#now;
    const force = holder ? { force: true, expected_fence: holder.fence } : {};
    try {
      await this.#ask(isOtherTab ? {} : force, attempt);
      // Where sessions are kept apart, this person's other tab is somebody else.
      if (isOtherTab && this.state !== 'held') await this.#ask(force, attempt);
    } catch (error) {
      if (!isRefusal(error, 'fence_mismatch')) throw error;
      // It has moved on: the person is to see to whom.
      if (!attempt.signal.aborted) this.#now.see(revision === this.#now.revision ? error.problem.lock : this.#now.holder, true);
    }
    return this.state;
  }

  /** Gives it to somebody; without a name, to the one who asks.
   * @param {string} [userId] */
  async handOver(userId) {
    const fence = this.#fence();
    await this.#hook.run('handover');
    const { lock } = await this.client.handover(this.workspaceId, { fence, ...(userId !== undefined && { to_user_id: userId }) });
    if (this.#lease?.fence === fence) this.#letGo(lock);
  }

  /** Keeps it, though somebody asks. */
  async decline() {
    const { knock } = this.#now;
    await this.client.decline(this.workspaceId, { fence: this.#fence() });
    if (this.#now.knock === knock) this.#now.ask(null);
    // Others may have asked, too.
    this.#lease?.hurry();
  }

  /** Releases it. */
  async release() {
    if (this.#lease && this.beforeRelease) await this.#hook.run('release');
    await this.#release();
  }

  async #release() {
    if (this.#lease) {
      const { fence } = this.#lease;
      this.#letGo(null);
      await this.client.release(this.workspaceId, { fence });
    } else {
      this.#begin(false);
      this.#now.see(this.#now.holder, true);
    }
  }

  /** Has nothing more to do with it: releases what it has, and is told nothing more. */
  async close() {
    if (this.#lease && this.beforeRelease) await this.#hook.run('release').catch(() => {});
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    await this.#release();
  }

  /** Looks again who has it: something may have been missed. */
  async refresh() {
    // Of what this tab has, the answer to a heartbeat says most.
    if (this.#lease) this.#lease.hurry();
    else await this.#now.read();
  }

  /** Somebody asks for it, or nobody does any more. @param {import('./client.js').Knock | null} knock */
  #heed(knock) {
    this.#hook.schedule(knock);
    if (this.#now.ask(knock)) this.#tell('knock', knock);
  }

  #lookAgain() {
    this.refresh().catch(() => {});
  }

  #fence() {
    const { fence } = this;
    if (fence === null) throw new NotHeld();
    return fence;
  }

  #changed() {
    this.view = this.#now.view;
    this.#tell('change', this.view);
  }

  /** @param {string} type @param {unknown} [detail] */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** The person, or what happens, begins something new: what was begun before ends.
   * @param {boolean} isWanted */
  #begin(isWanted) {
    if (this.#closing.signal.aborted && isWanted) throw new Error('This WorkspaceLock is closed.');
    this.#attempt.abort();
    this.#now.hasAsked = false;
    return (this.#attempt = new Attempt(isWanted));
  }

  /** @param {object} more @param {Attempt} attempt */
  async #ask(more, attempt) {
    const { revision } = this.#now;
    try {
      this.#granted(await acquire(this.#caller, more));
      // What has happened since may be what ended it.
      if (revision !== this.#now.revision) this.#lease?.hurry();
    } catch (error) {
      const isHere = !attempt.signal.aborted;
      if (!isRefusal(error, 'lock_held')) {
        if (isHere) this.#now.waitNoLonger();
        throw error;
      }
      this.#now.refuse(error.problem);
      if (isHere) this.#now.see(revision === this.#now.revision ? error.problem.lock : this.#now.holder, true);
    }
  }

  /** It was granted, perhaps when it was not wanted any more.
   * @param {import('./api.js').Grant} grant @param {boolean} [isBack] whether nobody had it since this tab did */
  #granted(grant, isBack = false) {
    const { fence } = grant.lock;
    if (this.#now.isElsewhere(grant.lock)) {
      // Another tab stood in line, too, and has the very same lease.
      this.#now.see(grant.lock, true);
    } else if (this.#history.hasEnded(fence)) {
      // It came late: it has been ended since.
      this.#now.see(this.#now.holder, true);
    } else if (this.#attempt.isWanted) {
      if (!this.#lease || this.#lease.fence < fence) this.#hold(grant, isBack);
    } else if (this.#lease?.fence !== fence) {
      releaseUnwanted(this.#caller, fence);
    }
  }

  /** @param {Attempt} attempt @returns {Promise<State>} */
  #waitInQueue(attempt) {
    this.#now.wait();
    attempt.line = waitInQueue(this.#caller, attempt, {
      onPlace: (hasPlace) => attempt.signal.aborted || hasPlace === this.#now.hasPlace || this.#now.wait(hasPlace),
      granted: (grant) => this.#granted(grant),
    })
      .catch((error) => {
        if (attempt.signal.aborted) return;
        this.#now.waitNoLonger();
        throw error;
      })
      .finally(() => (attempt.line = undefined))
      .then(() => this.state);
    return attempt.line;
  }

  /** This tab has it.
   * @param {import('./api.js').Grant} grant @param {boolean} isBack */
  #hold(grant, isBack) {
    const isNew = this.#history.begin(grant, isBack);
    this.#lease?.stop();
    // Whatever else was begun to get it is done.
    this.#attempt.abort();
    const lease = new Lease(this.#caller, grant, {
      onKnock: (knock) => this.#heed(knock),
      onQueue: (count) => this.#lease === lease && this.#now.queue(count),
      onGiven: (holder) => this.#letGo(holder),
      onLost: (loss, holder) => this.#lost(loss, holder),
    });
    this.#lease = lease;
    this.tabs.hold(this.workspaceId, this.sessionId, lease.fence);
    this.#now.have(grant.lock);
    this.#heed(grant.lock.knock);
    this.#tell('held', { fence: lease.fence, isNew });
    lease.tick();
  }

  /** Ends the lease on this side. Returns its fence. */
  #drop() {
    this.#lease?.stop();
    this.#lease = null;
    this.#hook.schedule(null);
    return this.#history.fence;
  }

  /** The person gives it back or away; this is who has it now.
   * @param {Lock | null} holder */
  #letGo(holder) {
    this.#begin(false);
    this.#history.isIntact = false;
    this.#now.give(this.#drop(), holder);
  }

  /** @param {Loss} loss @param {Lock | null} holder */
  #lost(loss, holder) {
    const attempt = this.#attempt;
    this.#drop();
    this.#history.isIntact = !loss.changed;
    this.#now.lose(loss, holder);
    this.#tell('lost', loss);
    // Unless whoever heard of it has begun something else.
    if (loss.comesBack && this.#attempt === attempt) this.#reclaim();
  }

  /** It was lost, and nobody ended it: if nobody else had it since, it comes back quietly. */
  async #reclaim() {
    const attempt = this.#begin(true);
    attempt.isReclaiming = true;
    // Where it is refused altogether, it is not known whether somebody had it.
    const found = await reclaim(this.#caller, this.#history.fence, attempt.signal).catch(() => ({ holder: null, changed: false }));
    attempt.isReclaiming = false;
    if ('lock' in found) return this.#granted(found, !attempt.signal.aborted);
    if (attempt.signal.aborted) return;
    attempt.isWanted = false;
    this.#history.isIntact &&= !found.changed;
    const loss = { ...this.#now.loss, by: holderOf(found.holder), changed: found.changed, comesBack: false };
    this.#now.lose({ reason: 'expired', at: new Date().toISOString(), ...loss }, found.holder);
  }

  /** @param {import('./events.js').Told} told */
  #hear({ id, type, data: event }) {
    const isReset = type === 'reset' || !event;
    if (!this.#now.hears(id, isReset)) return;
    this.#history.hear(type, event?.fence);
    if (isReset) this.#lookAgain();
    else if (this.#lease) this.#lease.hear(type, event);
    else this.#hearOfOthers(type, event);
  }

  /** @param {string} type @param {import('./events.js').LockEvent} event */
  #hearOfOthers(type, { fence, detail, lock }) {
    // Of somebody who did not have it: whoever has it still does.
    if (type === 'member.removed' && fence === null) return this.#lookAgain();
    const isDeclined = type === 'lock.knock_declined' && detail.to_user_id === this.client.userId && this.#now.hasAsked;
    // The place in line stays.
    if (isDeclined) this.#now.hasAsked = false;
    this.#now.see(lock);
    if (isDeclined) this.#tell('declined', { againInMs: detail.again_in_ms ?? 0 });
    // This tab asked, and then did not want it any more.
    if (lock && type === 'lock.handed_over' && isHere(this.#caller, lock) && !this.#attempt.isWanted) releaseUnwanted(this.#caller, lock.fence);
    if (!lock || isMine(this.#caller, lock)) this.#attempt.retryNow();
  }

  /** @param {boolean} isReleased */
  #hide(isReleased) {
    if (this.#now.state === 'waiting') this.#before = 'waiting';
    if (this.#attempt.isReclaiming) this.#before = 'held';
    this.#begin(this.#attempt.isWanted);
    if (!this.#lease || !isReleased) return;
    this.client.releaseOnClose(this.workspaceId, { fence: this.#lease.fence });
    this.#before = 'held';
    this.#now.leave(this.#drop());
  }

  #wake() {
    const before = this.#before;
    this.#before = '';
    if (this.#lease || !before) return this.#lookAgain();
    if (before === 'held') return this.#reclaim();
    this.#now.state = 'unknown';
    this.wait().catch(() => {});
  }
}
