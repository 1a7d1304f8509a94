import { comeBack, isHeld, standInLine } from './efforts.js';
import { Keeper } from './keeper.js';
import { Refusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';
import { tabSession } from './session.js';
import { tabsOf } from './tabs.js';
import { ENDINGS, Sight, holderOf, who } from './view.js';

/** @typedef {import('./client.js').Lock} Lock */
/** @typedef {import('./view.js').Loss} Loss */
/** @typedef {import('./view.js').State} State */
/** @typedef {import('./view.js').View} View */
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
  /** What it has. @type {Keeper | null} */ #lease = null;
  /** The fence that it had last. */ #last = 0;
  /** What it knows. @type {Sight} */ #now;
  /** Whether the person wants it: what is granted too late for what they asked is theirs all the same. */
  #isWanted = false;
  /** What is taken up again when the page comes back. @type {'' | 'held' | 'waiting'} */ #before = '';
  #isComingBack = false;
  #isClosed = false;
  /** Standing in line. @type {Promise<State> | undefined} */ #line;
  #revision = 0;
  /** Ends what the person has begun: waiting, or coming back. @type {AbortController | undefined} */ #effort;
  /** @type {() => void} */ #leave;
  #round = 0;

  /** @param {import('./client.js').Lockhouse} client @param {string} workspaceId @param {LockOptions} [options] */
  constructor(client, workspaceId, { ttlMs, note, metadata, sessionId, releaseOnClose = true } = {}) {
    super();
    // What cannot be an id is refused here, and not later.
    client.lockPath(workspaceId);
    this.client = client;
    this.workspaceId = workspaceId;
    this.sessionId = sessionId ?? tabSession();
    this.#now = new Sight(client.userId, this.sessionId);
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
    this.view = this.#now.view(null);
    this.#leave = this.tabs.add({
      workspaceId,
      onEvent: (told) => this.#hear(told),
      onConnection: (connected) => {
        this.#now.isConnected = connected;
        if (connected) this.#lookAgain();
        this.#changed();
      },
      onHolder: ({ session, fence }) => {
        // Where both were given the same lease, it is for the server to say whose it is.
        if (fence !== this.#lease?.fence) this.#yieldTo(session, fence);
        else if (session !== this.sessionId) this.#lease.hurry();
      },
      onHide: () => this.#hide(releaseOnClose),
      onShow: () => this.#wake(),
    });
    this.#reach();
  }

  /** Where it stands now. It is found out anew each time: no timer has to run for a lease to be over. */
  get state() {
    if (this.#lease?.leftMs === 0) this.#over();
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
    const effort = this.#begin(true);
    if (!(await this.#isElsewhere())) await this.#ask({}, effort);
    return this.state;
  }

  /** Stands in line until it is this tab's turn, or {@link cancel} is called.
   * @returns {Promise<State>} */
  async wait() {
    if (this.state === 'held') return 'held';
    if (this.#line) return this.#line;
    const effort = this.#begin(true);
    if (await this.#isElsewhere()) return this.state;
    return effort.aborted ? this.state : this.#standIn(effort);
  }

  /** Asks the holder to hand it over, and stands in line meanwhile.
   * @param {string} [message] @returns {Promise<State>} */
  async ask(message) {
    if (this.state === 'held') return 'held';
    const line = this.#line;
    const effort = line && this.#effort ? this.#effort.signal : this.#begin(true);
    if (!line && (await this.#isElsewhere())) return this.state;
    if (effort.aborted) return this.state;
    this.#now.hasAsked = true;
    this.#now.state = 'waiting';
    this.#changed();
    try {
      const { userName: name } = this.client;
      await this.client.knock(this.workspaceId, { session_id: this.sessionId, ...(message && { message }), ...(name && { name }) });
    } catch (error) {
      // Where there is nobody any more to ask, it can be had.
      if (!(error instanceof Refusal && error.code === 'lock_not_found')) {
        if (!effort.aborted) this.cancel();
        throw error;
      }
    }
    return effort.aborted ? this.state : (line ?? this.#standIn(effort));
  }

  /** Waits no longer. */
  cancel() {
    this.#begin(false);
    if (this.#now.state === 'waiting') this.#see(this.#now.holder, true);
  }

  /** Takes it from its holder, if that is still whom the person saw; from another tab of the same person, too.
   * @returns {Promise<State>} */
  async takeOver() {
    const effort = this.#begin(true);
    const seen = this.#now.holder;
    const isMine = this.#now.isOtherTab;
    try {
      await this.#ask(seen && !isMine ? { force: true, expected_fence: seen.fence } : {}, effort);
      // Where sessions are kept apart, this person's other tab is somebody else.
      if (isMine && seen && this.state !== 'held') await this.#ask({ force: true, expected_fence: seen.fence }, effort);
    } catch (error) {
      if (!(error instanceof Refusal && error.code === 'fence_mismatch')) throw error;
      // It has moved on: the person is to see to whom.
      if (!effort.aborted) this.#see(error.problem.lock ?? null, true);
    }
    return this.state;
  }

  /** Gives it to somebody; without a name, to the one who asks.
   * @param {string} [userId] */
  async handOver(userId) {
    const fence = this.#fence();
    const { lock } = await this.client.handover(this.workspaceId, { fence, ...(userId !== undefined && { to_user_id: userId }) });
    if (this.#lease?.fence === fence) this.#give(fence, lock);
  }

  /** The person has given it away.
   * @param {number} fence @param {Lock | null} lock who has it now */
  #give(fence, lock) {
    this.#begin(false);
    this.#drop(fence);
    this.#see(lock, true);
  }

  /** Keeps it, though somebody asks. */
  async decline() {
    const knock = this.#now.knock;
    await this.client.decline(this.workspaceId, { fence: this.#fence() });
    if (this.#now.knock === knock) this.#asked(null);
    // Others may have asked, too.
    this.#lease?.hurry();
  }

  /** Releases it. */
  async release() {
    this.#begin(false);
    const lease = this.#lease;
    if (!lease) return this.#see(this.#now.holder, true);
    this.#drop(lease.fence);
    this.#see(null, true);
    await this.client.release(this.workspaceId, { fence: lease.fence });
  }

  /** Has nothing more to do with it: releases what it has, and is told nothing more. */
  async close() {
    if (this.#isClosed) return;
    this.#leave();
    const released = this.release();
    this.#isClosed = true;
    await released;
  }

  /** Looks again who has it: something may have been missed. */
  async refresh() {
    // Of what this tab has, the answer to a heartbeat says most.
    if (this.#lease) this.#lease.hurry();
    else await this.#read();
  }

  /** @returns {Promise<Lock | null>} */
  async #read() {
    const round = ++this.#round;
    const { lock } = await this.client.read(this.workspaceId);
    // Unless something newer is known by now.
    if (round === this.#round) this.#see(lock);
    return lock;
  }

  #lookAgain() {
    this.refresh().catch(() => {});
  }

  /** Looks until the server is reached. */
  async #reach() {
    for (let failures = 0; this.#now.state === 'unknown' && !this.#isClosed && !this.#before; failures++) {
      try {
        await this.#read();
      } catch (error) {
        if (!isPassing(error)) return;
        await sleep(backoff(failures, error));
      }
    }
  }

  /** Whether another tab of this person has it; nothing is taken from there unasked. */
  async #isElsewhere() {
    const holder = this.#now.state === 'unknown' ? await this.#read() : this.#now.holder;
    if (!this.#now.isElsewhere(holder)) return false;
    this.#see(holder, true);
    return true;
  }

  #fence() {
    const { fence } = this;
    if (fence === null) throw new NotHeld();
    return fence;
  }

  #changed() {
    this.view = this.#now.view(this.#lease?.fence ?? null);
    this.dispatchEvent(new CustomEvent('change', { detail: this.view }));
  }

  /** The person, or what happens, begins something new: what was begun before ends.
   * @param {boolean} isWanted */
  #begin(isWanted) {
    if (this.#isClosed && isWanted) throw new Error('This was closed: make another WorkspaceLock.');
    this.#isWanted = isWanted;
    this.#effort?.abort();
    this.#effort = new AbortController();
    this.#line = undefined;
    this.#now.hasAsked = false;
    return this.#effort.signal;
  }

  /** @param {object} more @param {AbortSignal} effort */
  async #ask(more, effort) {
    const body = { ...this.wish, ...more };
    const path = this.client.lockPath(this.workspaceId);
    const revision = this.#revision;
    try {
      const { value, sentAt } = await this.client.ask('POST', path, { body });
      this.#granted(value.lock, sentAt);
      // What has happened since may be what ended it.
      if (revision !== this.#revision) this.#lease?.hurry();
    } catch (error) {
      const isHere = !effort.aborted;
      if (!(error instanceof Refusal) || !isHeld(error)) {
        if (isHere && this.#now.state === 'waiting') this.#see(this.#now.holder, true);
        throw error;
      }
      const { lock = null, takeover_allowed: is = true } = error.problem;
      this.#now.mayTakeOver = { fence: lock?.fence ?? 0, is };
      if (isHere) this.#see(revision === this.#revision ? lock : this.#now.holder, true);
    }
  }

  /** It was granted, perhaps when it was not wanted any more.
   * @param {Lock} lock @param {import('./clock.js').Moment} sentAt */
  #granted(lock, sentAt) {
    const { fence } = lock;
    if (this.#isWanted) {
      if (!this.#lease || this.#lease.fence < fence) this.#hold(lock, sentAt);
    } else if (this.#lease?.fence !== fence) {
      this.client.release(this.workspaceId, { fence }).catch(() => {});
    }
  }

  /** @param {AbortSignal} effort @returns {Promise<State>} */
  #standIn(effort) {
    this.#now.state = 'waiting';
    this.#changed();
    const line = this.#stand(effort).then(() => this.state);
    this.#line = line;
    const end = () => {
      if (this.#line === line) this.#line = undefined;
    };
    line.then(end, end);
    return line;
  }

  /** @param {AbortSignal} effort */
  async #stand(effort) {
    try {
      const { lock, sentAt } = await standInLine(this.client, this.workspaceId, this.wish, effort);
      this.#granted(lock, sentAt);
    } catch (error) {
      if (effort.aborted) return;
      this.#see(this.#now.holder, true);
      throw error;
    }
  }

  /** This tab has it.
   * @param {Lock} lock @param {import('./clock.js').Moment} sentAt */
  #hold(lock, sentAt) {
    this.#lease?.stop();
    // Whatever else was begun to get it is done.
    this.#effort?.abort();
    const { client, workspaceId, wish } = this;
    const lease = new Keeper(lock.fence, sentAt, lock.expires_in_ms, {
      client,
      workspaceId,
      wish,
      onKnock: (knock) => this.#asked(knock),
      onElsewhere: (session) => this.#yieldTo(session, lock.fence),
      onEnded: (problem) => this.#ended(problem),
      onOver: () => this.#over(),
    });
    this.#lease = lease;
    this.#last = lock.fence;
    this.#now.have(lock);
    this.tabs.hold(this.workspaceId, this.sessionId, lock.fence);
    this.#changed();
    lease.tick();
  }

  /** As {@link Sight#see}.
   * @param {Lock | null} lock @param {boolean} [anew] */
  #see(lock, anew = false) {
    if (this.#lease) return;
    this.#now.see(lock, anew);
    this.#changed();
  }

  /** @param {number} fence */
  #drop(fence) {
    this.#lease?.stop();
    this.#lease = null;
    this.#now.knock = null;
    this.#now.given = fence;
  }

  /** @param {Loss} loss @param {Lock | null} holder */
  #lose(loss, holder) {
    if (!this.#lease) return;
    this.#lease.stop();
    this.#lease = null;
    this.#now.lose(loss, holder);
    // Before anybody is told, since they may want something else then.
    if (loss.reason === 'expired' && !holder) this.#comeBack();
    this.#changed();
    this.dispatchEvent(new CustomEvent('lost', { detail: loss }));
  }

  /** Another tab of this person has it now.
   * @param {string} session @param {number} fence */
  #yieldTo(session, fence) {
    const lease = this.#lease;
    if (session === this.sessionId || (lease && fence < lease.fence)) return;
    if (!lease) return this.#lookAgain();
    const { userId, userName } = this.client;
    const by = { userId, name: userName ?? null };
    const holder = this.#now.holder && { ...this.#now.holder, session_id: session, fence };
    this.#lose({ reason: 'taken_over', by, changed: true }, holder);
  }

  /** Nothing is believed of a lease whose time may be up, whether or not a heartbeat is on its way. */
  #over() {
    this.#lose({ reason: 'expired', by: null, changed: false }, null);
  }

  /** The server says that it has ended.
   * @param {import('./refusal.js').Problem} problem */
  #ended({ lost, lock = null }) {
    const reason = lost?.reason ?? (lock ? 'taken_over' : 'expired');
    this.#lose({ reason, by: who(lost?.by_user_id, lost?.by_name) ?? holderOf(lock), changed: Boolean(lock) }, lock);
  }

  /** Somebody asks the holder, or nobody does any more.
   * @param {import('./client.js').Knock | null} knock */
  #asked(knock) {
    const isNew = knock && (knock.user_id !== this.#now.knock?.user_id || knock.knocked_at !== this.#now.knock.knocked_at);
    if (JSON.stringify(knock) === JSON.stringify(this.#now.knock)) return;
    this.#now.knock = knock;
    this.#changed();
    if (isNew) this.dispatchEvent(new CustomEvent('knock', { detail: knock }));
  }

  /** It was lost, and nobody ended it: if nobody else had it since, it comes back quietly. */
  async #comeBack() {
    if (this.#isClosed) return;
    const effort = this.#begin(true);
    const { client, workspaceId, wish } = this;
    this.#isComingBack = true;
    try {
      const found = await comeBack(client, workspaceId, wish, this.#last, effort);
      if ('lock' in found) this.#granted(found.lock, found.sentAt);
      else if (!effort.aborted) this.#contested(found.holder, true);
    } catch {
      if (!effort.aborted) this.#contested(null, false);
    } finally {
      if (this.#effort?.signal === effort) this.#isComingBack = false;
    }
  }

  /** It does not come back; this is who has it now.
   * @param {Lock | null} lock @param {boolean} changed somebody else had it meanwhile */
  #contested(lock, changed) {
    if (this.#lease) return;
    this.#isWanted = false;
    this.#now.lose({ reason: this.#now.loss?.reason ?? 'expired', by: holderOf(lock), changed }, lock);
    this.#changed();
  }

  /** @param {import('./events.js').Told} told */
  #hear({ id, type, data: event }) {
    const lease = this.#lease;
    if (type === 'reset' || !event) {
      this.#revision = id;
      return this.#lookAgain();
    }
    if (event.workspace_id !== this.workspaceId || event.revision <= this.#revision) return;
    this.#revision = event.revision;
    // What was asked for before may be answered with what was true before.
    this.#round++;
    if (lease) this.#hearOfOurs(lease, type, event);
    else this.#hearOfOthers(type, event);
  }

  /** @param {Keeper} lease @param {string} type @param {import('./events.js').LockEvent} event */
  #hearOfOurs(lease, type, event) {
    const { lock, by_user_id, session_id, detail } = event;
    if (event.fence !== lease.fence) return;
    const { userId } = this.client;
    const reason = ENDINGS[type];
    if (!reason) {
      // Where it is not there any more, another event will say why.
      if (lock?.fence === lease.fence) this.#asked(lock.knock);
    } else if (reason === 'handed_over' && by_user_id === userId && session_id === this.sessionId && detail.to_user_id !== userId) {
      // Of what passed on by itself it says that it was done by whoever has it now.
      this.#give(lease.fence, lock);
    } else {
      this.#endedBy(reason, event);
    }
  }

  /** @param {string} type @param {import('./events.js').LockEvent} event */
  #hearOfOthers(type, { detail, lock }) {
    const isDeclined = type === 'lock.knock_declined' && detail.to_user_id === this.client.userId && this.#now.hasAsked;
    if (isDeclined) this.#begin(false);
    this.#see(lock, isDeclined);
    if (isDeclined) this.dispatchEvent(new CustomEvent('declined'));
    // This tab asked, and then did not want it any more.
    const isOurs = type === 'lock.handed_over' && this.#now.isMine(lock) && lock?.session_id === this.sessionId;
    if (isOurs && !this.#isWanted) this.client.release(this.workspaceId, { fence: lock.fence }).catch(() => {});
  }

  /** @param {Loss['reason']} reason @param {import('./events.js').LockEvent} event */
  #endedBy(reason, { lock, by_user_id, by_name }) {
    const name = by_name ?? (lock?.locked_by_user_id === by_user_id ? lock?.locked_by_name : null);
    this.#lose({ reason, by: who(by_user_id, name), changed: Boolean(lock) }, lock);
  }

  /** @param {boolean} release */
  #hide(release) {
    const lease = this.#lease;
    this.#effort?.abort();
    this.#line = undefined;
    if (this.#now.state === 'waiting') this.#before = 'waiting';
    if (this.#isComingBack) this.#before = 'held';
    if (!lease || !release) return;
    this.client.releaseByBeacon(this.workspaceId, { fence: lease.fence });
    this.#drop(lease.fence);
    this.#now.state = 'unknown';
    this.#now.holder = null;
    this.#now.loss = { reason: 'released', by: null, changed: false };
    this.#before = 'held';
    this.#changed();
  }

  #wake() {
    const before = this.#before;
    this.#before = '';
    if (before === 'held') {
      this.#comeBack();
    } else if (before === 'waiting') {
      this.#now.state = 'unknown';
      this.wait().catch(() => {});
    } else {
      this.#lookAgain();
    }
  }
}
