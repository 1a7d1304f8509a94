import { moment, since } from './clock.js';
import { SILENCE_MS, follow } from './events.js';
import { randomName } from './random.js';
import { Refusal } from './refusal.js';
import { isPassing, sleep } from './retry.js';
import { hold, place } from './web-locks.js';

/** One event stream for all tabs of a person. The tab that holds a browser-wide lock is the leader: it follows the events for all tabs
 * and passes them on by BroadcastChannel. When it closes, is refused or goes silent, another tab leads and resumes after the last
 * event. Tabs form a group if they call the same server as the same user with the same scope. */

/** Callbacks for one workspace.
 * @typedef {object} Listener
 * @property {string} workspaceId
 * @property {(event: import('./events.js').StreamEvent) => void} onEvent
 * @property {(connected: boolean) => void} onConnection the stream has begun or ended.
 * @property {() => void} onPoll called at intervals; a listener without a connection reads the lock.
 * @property {(holder: { session: string, fence: number }) => void} onHolder a tab of this person holds the lock.
 * @property {() => void} onHide the page is being hidden, perhaps for ever.
 * @property {() => void} onShow the page is shown again.
 */
/** Messages between tabs. The leader sends `leader`, `event`, `connection` and `alive`.
 * @typedef {{ kind: 'leader' } | { kind: 'subscribe', tab: string, ids: string[] }
 *   | { kind: 'event', event: import('./events.js').StreamEvent } | { kind: 'connection', ids: string[], connected: boolean }
 *   | { kind: 'alive' } | { kind: 'holder', id: string, session: string, fence: number }} Message */

/** Limit of workspaces in one request for events, and of tabs that the leader serves. */
const LIMIT = 100;
/** Time until the next attempt after a refusal (milliseconds). */
const REFUSED_MS = 30_000;
/** A leader answers within this time (milliseconds). */
const ANSWER_MS = 2_000;
/** Without a connection: time until the first poll, and between polls (milliseconds). */
const FIRST_POLL_MS = 1_000;
const POLL_MS = 15_000;
/** Limit of streams per browser and server. Each uses one of six connections. One person uses one; two persons may share a browser. */
const STREAMS = 2;

/** Whether the refusal concerns the workspaces, and not the caller or the rate of calls.
 * @param {unknown} error */
const isOfWorkspace = (error) => error instanceof Refusal && !isPassing(error) && [400, 403, 404].includes(error.status);

/** @type {WeakMap<import('./client.js').Lockhouse, TabLeader>} */
const all = new WeakMap();

/** The instance that all locks of a client share.
 * @param {import('./client.js').Lockhouse} client @returns {TabLeader} */
export function tabLeaderOf(client) {
  const tabs = all.get(client) ?? new TabLeader(client);
  all.set(client, tabs);
  return tabs;
}

export class TabLeader {
  /** @type {Set<Listener>} */ #listeners = new Set();
  /** Workspaces that the other tabs subscribe to, by tab. @type {Map<string, string[]>} */ #others = new Map();
  /** @type {BroadcastChannel | undefined} */ #channel;
  #tab = randomName();
  /** The last revision that any of the tabs received. @type {number | undefined} */ #last;
  /** Aborted when this tab leaves the group. @type {AbortController | undefined} */ #membership;
  /** Aborted when this tab stops leading, or stops trying to. @type {AbortController | undefined} */ #candidacy;
  #isLeading = false;
  /** @type {AbortController | undefined} */ #stream;
  /** Workspaces of the stream, as JSON; empty if there is no stream. */ #following = '';
  /** Whether this tab's stream is connected. */ #isConnected = false;
  /** Time of the last message from the stream or the leader. */ #heardAt = moment();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #silenceTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #pollTimer;
  /** Workspaces that the server does not show to this person. @type {Set<string>} */ #refused = new Set();
  /** When those are tried again. @type {ReturnType<typeof setTimeout> | undefined} */ #refusedTimer;
  /** Aborted to remove the page's listeners. */ #pageListeners = new AbortController();

  /** @param {import('./client.js').Lockhouse} client */
  constructor(client) {
    this.client = client;
    const { window, document } = globalThis;
    /** @param {EventTarget | undefined} target @param {string} type @param {(event: any) => void} act */
    const on = (target, type, act) => target?.addEventListener(type, act, { signal: this.#pageListeners.signal });
    on(window, 'pagehide', () => this.#onHide());
    on(window, 'pageshow', (event) => event.persisted && this.#onRestore());
    on(window, 'online', () => this.#onShow());
    on(document, 'freeze', () => this.#leave());
    on(document, 'resume', () => this.#onRestore());
    on(document, 'visibilitychange', () => document.hidden || this.#onShow());
  }

  #onShow() {
    if (since(this.#heardAt) > SILENCE_MS) this.#onSilence();
    this.#each((listener) => listener.onShow());
  }

  /** @param {Listener} listener @param {AbortSignal} signal removes it */
  add(listener, signal) {
    this.#listeners.add(listener);
    this.#enter();
    this.#subscribe();
    signal.addEventListener('abort', () => {
      this.#listeners.delete(listener);
      this.#subscribe();
      if (this.#listeners.size) return;
      this.#leave();
      this.#pageListeners.abort();
      all.delete(this.client);
    });
  }

  /** Tells all tabs, this one included, that this tab holds the lock.
   * @param {string} id @param {string} session @param {number} fence */
  announceHolder(id, session, fence) {
    this.#publish({ kind: 'holder', id, session, fence });
  }

  /** Sends to the other tabs. @param {Message} message */
  #send(message) {
    this.#channel?.postMessage(message);
  }

  /** Sends to the other tabs and handles it here, too. @param {Message} message */
  #publish(message) {
    this.#send(message);
    this.#onMessage(message);
  }

  /** @param {(listener: Listener) => void} call @param {string[]} [ids] */
  #each(call, ids) {
    for (const listener of [...this.#listeners]) {
      // A callback may have removed another listener.
      if (this.#listeners.has(listener) && (!ids || ids.includes(listener.workspaceId))) call(listener);
    }
  }

  /** @param {Message} message */
  #onMessage(message) {
    switch (message.kind) {
      case 'leader':
        this.#heard();
        return this.#subscribe();
      case 'alive':
        return this.#heard();
      case 'subscribe':
        this.#others.delete(message.tab);
        if (message.ids.length) this.#others.set(message.tab, message.ids);
        // The map is in order of the last message, so the tab that was silent longest goes first.
        for (const tab of this.#others.keys()) if (this.#others.size > LIMIT) this.#others.delete(tab);
        return this.#refollow(message.ids);
      case 'event': {
        this.#heard();
        const { event } = message;
        this.#last = event.id || undefined;
        return this.#each((listener) => listener.onEvent(event), event.data?.workspace_id ? [event.data.workspace_id] : undefined);
      }
      case 'connection':
        this.#heard();
        return this.#setConnected(message.connected, message.ids);
      case 'holder':
        return this.#each((listener) => listener.onHolder(message), [message.id]);
    }
  }

  /** @param {boolean} connected @param {string[]} [ids] */
  #setConnected(connected, ids) {
    if (!connected && this.#membership) this.#pollIn(FIRST_POLL_MS);
    this.#each((listener) => listener.onConnection(connected), ids);
  }

  /** @param {number} ms */
  #pollIn(ms) {
    clearTimeout(this.#pollTimer);
    this.#pollTimer = setTimeout(() => {
      this.#pollIn(POLL_MS);
      this.#each((listener) => listener.onPoll());
    }, ms * (1 + Math.random() / 3));
  }

  /** The stream or the leader has sent something. */
  #heard() {
    this.#heardAt = moment();
    clearTimeout(this.#silenceTimer);
    // The leader's own stream ends by itself after a silence.
    if (!this.#isLeading && this.#membership) this.#silenceTimer = setTimeout(() => this.#onSilence(), SILENCE_MS);
  }

  #onSilence() {
    const { signal } = this.#membership ?? {};
    if (!signal) return;
    const heardAt = this.#heardAt;
    this.#setConnected(false);
    if (this.#isLeading) return this.#refollow();
    // A leader that is not frozen answers.
    this.#subscribe();
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => {
      if (signal.aborted || this.#heardAt !== heardAt) return;
      this.#silenceTimer = setTimeout(() => this.#onSilence(), SILENCE_MS);
      this.#campaign(signal, true);
    }, ANSWER_MS * (1 + Math.random()));
  }

  #ids() {
    return [...this.#listeners].map((listener) => listener.workspaceId);
  }

  #subscribe(ids = this.#ids()) {
    this.#send({ kind: 'subscribe', tab: this.#tab, ids });
    this.#refollow(ids);
  }

  async #enter() {
    if (this.#membership) return;
    const { signal } = (this.#membership = new AbortController());
    this.#pollIn(POLL_MS);
    while (!signal.aborted) {
      try {
        const { user_id, scope } = await this.client.whoami({ signal, retryForMs: Infinity });
        signal.throwIfAborted();
        // The number is the version of the messages.
        return this.#join('lockhouse 3 ' + JSON.stringify([this.client.address, user_id ?? this.client.userId, scope]), signal);
      } catch {
        // The person may not be signed in yet.
        await sleep(REFUSED_MS, signal).catch(() => {});
      }
    }
  }

  /** @param {string} name @param {AbortSignal} signal */
  #join(name, signal) {
    const channel = new BroadcastChannel(name);
    this.#channel = channel;
    channel.onmessage = ({ data }) => {
      if (typeof data?.kind === 'string') this.#onMessage(data);
    };
    this.#heard();
    this.#subscribe();
    this.#campaign(signal);
  }

  /** Becomes the leader when the lock is free; at once with `steal`, if the leader does not answer.
   * @param {AbortSignal} membership @param {boolean} [steal] */
  #campaign(membership, steal = false) {
    const channel = this.#channel;
    if (!channel || this.#isLeading) return;
    this.#candidacy?.abort();
    const candidacy = (this.#candidacy = new AbortController());
    const { signal } = candidacy;
    const onStolen = () => {
      // This tab was frozen, and another tab leads now.
      this.#resign();
      this.#setConnected(false);
      this.#subscribe();
      this.#campaign(membership);
    };
    hold(channel.name, signal, { steal, onStolen }).then(() => {
      if (signal.aborted) return;
      this.#isLeading = true;
      clearTimeout(this.#silenceTimer);
      this.#send({ kind: 'leader' });
      this.#refollow();
    }, () => {});
  }

  /** Stops leading and tells the other tabs, of which one goes on. */
  #stepDown() {
    const ids = this.#wanted();
    this.#resign();
    this.#publish({ kind: 'connection', ids, connected: false });
  }

  #resign() {
    this.#candidacy?.abort();
    this.#candidacy = undefined;
    this.#isLeading = false;
    this.#refollow();
    this.#others.clear();
  }

  #leave() {
    this.#membership?.abort();
    this.#membership = undefined;
    for (const timer of [this.#refusedTimer, this.#silenceTimer, this.#pollTimer]) clearTimeout(timer);
    this.#refusedTimer = undefined;
    this.#refused.clear();
    this.#resign();
    this.#channel?.close();
    this.#channel = undefined;
    this.#setConnected(false);
  }

  #onHide() {
    this.#each((listener) => listener.onHide());
    this.#subscribe([]);
    this.#leave();
  }

  #onRestore() {
    this.#enter();
    this.#subscribe();
    this.#onShow();
  }

  /** The workspaces that this tab has to follow. */
  #wanted() {
    if (!this.#isLeading) return [];
    return [...new Set([...this.#ids(), ...[...this.#others.values()].flat()])].sort();
  }

  /** Starts a new stream if the wanted workspaces have changed, or if the stream is silent.
   * @param {string[]} [subscribed] workspaces that a tab has just subscribed to */
  #refollow(subscribed = []) {
    const ids = this.#wanted().filter((id) => !this.#refused.has(id));
    const wanted = JSON.stringify(ids);
    if (wanted === this.#following && since(this.#heardAt) < SILENCE_MS) {
      if (this.#isLeading && subscribed.length) this.#publish({ kind: 'connection', ids: subscribed, connected: this.#isConnected });
      return;
    }
    this.#following = wanted;
    this.#stream?.abort();
    this.#stream = undefined;
    this.#isConnected = false;
    if (!ids.length) return;
    this.#stream = new AbortController();
    this.#follow(ids, this.#stream.signal);
  }

  /** @param {string[]} ids @param {AbortSignal} signal */
  async #follow(ids, signal) {
    this.#heard();
    try {
      await place('lockhouse stream ' + this.client.address.origin, STREAMS, signal);
      await follow(this.client, {
        // Above the limit, without a filter: the server sends all that this person may see.
        workspaceIds: ids.length > LIMIT ? [] : ids,
        ...(this.#last !== undefined && { since: this.#last }),
        signal,
        onEvent: (event) => signal.aborted || this.#publish({ kind: 'event', event }),
        onAlive: () => signal.aborted || this.#publish({ kind: 'alive' }),
        onConnection: (connected) => {
          if (signal.aborted) return;
          this.#isConnected = connected;
          this.#publish({ kind: 'connection', ids, connected });
        },
      });
    } catch (error) {
      this.#onRefused(ids, signal, error);
    }
  }

  /** The server refused the stream. Workspaces that cannot be read either are left out for a while. If there are none, the refusal
   * concerns the caller: another tab may lead, and this one tries again later.
   * @param {string[]} ids @param {AbortSignal} signal @param {unknown} error */
  async #onRefused(ids, signal, error) {
    const refused = isOfWorkspace(error) ? await this.#refusedOf(ids) : [];
    if (signal.aborted) return;
    refused.forEach((id) => this.#refused.add(id));
    if (refused.length) {
      this.#retryRefused();
      return this.#refollow();
    }
    const membership = this.#membership?.signal;
    this.#stepDown();
    await sleep(REFUSED_MS, membership).then(() => membership && this.#campaign(membership), () => {});
  }

  /** @param {string[]} ids @returns {Promise<string[]>} */
  async #refusedOf(ids) {
    const { client } = this;
    const isRefused = await Promise.all(ids.map((id) => client.read(id).then(() => false, isOfWorkspace)));
    return ids.filter((_, index) => isRefused[index]);
  }

  #retryRefused() {
    this.#refusedTimer ??= setTimeout(async () => {
      this.#refusedTimer = undefined;
      const wanted = this.#wanted();
      const before = [...this.#refused];
      const refused = await this.#refusedOf(before.filter((id) => wanted.includes(id)));
      before.forEach((id) => refused.includes(id) || this.#refused.delete(id));
      if (this.#refused.size) this.#retryRefused();
      this.#refollow();
    }, REFUSED_MS);
  }
}
