import { moment, since } from './clock.js';
import { SILENCE_MS, follow } from './events.js';
import { randomName } from './random.js';
import { Refusal } from './refusal.js';
import { isPassing, sleep } from './retry.js';
import { hold, place } from './web-locks.js';

/** One stream of events for all tabs of a person. The tab that has the browser-wide lock leads: it follows, for itself and for the
 * others, and passes on what it hears (BroadcastChannel). When it is closed, refused or silent, another one goes on from what was
 * heard last. TabLeader belong together if they call the same server as the same user with the same scope, as the server says. */

/** What somebody in this tab wants to know of a workspace.
 * @typedef {object} Listener
 * @property {string} workspaceId
 * @property {(told: import('./events.js').Told) => void} onEvent
 * @property {(connected: boolean) => void} onConnection when the stream begins, with what has happened before, or ends.
 * @property {() => void} onLook it is time to look by itself, if it is not connected.
 * @property {(holder: { session: string, fence: number }) => void} onHolder a tab of this person has the lock.
 * @property {() => void} onHide the page goes away, perhaps for ever.
 * @property {() => void} onShow it is back, or is seen again.
 */
/** `who`, `told`, `connection` and `alive` are said by the tab that leads.
 * @typedef {{ kind: 'who' } | { kind: 'want', tab: string, ids: string[] }
 *   | { kind: 'told', told: import('./events.js').Told } | { kind: 'connection', ids: string[], connected: boolean }
 *   | { kind: 'alive' } | { kind: 'holder', id: string, session: string, fence: number }} Word */

/** Most workspaces that the server lets one name, and most tabs that are heard. */
const MOST = 100;
/** After a refusal it is tried again after so long (milliseconds). */
const REFUSED_MS = 30_000;
/** A leading tab that is asked whether it is there answers within this time (milliseconds). */
const ANSWER_MS = 2_000;
/** What is not connected looks by itself: first so soon, then so often (milliseconds). */
const FIRST_LOOK_MS = 1_000;
const LOOK_MS = 15_000;
/** Most streams from a browser to one server: each keeps one of its six connections. A person has one; two persons may share a browser. */
const STREAMS = 2;

/** Whether a refusal is about what was asked for, and not about who asks, or how often.
 * @param {unknown} error */
const isOfThem = (error) => error instanceof Refusal && !isPassing(error) && [400, 403, 404].includes(error.status);

/** @type {WeakMap<import('./client.js').Lockhouse, TabLeader>} */
const all = new WeakMap();

/** The tabs of the person who calls with this client.
 * @param {import('./client.js').Lockhouse} client @returns {TabLeader} */
export function tabLeaderOf(client) {
  const tabs = all.get(client) ?? new TabLeader(client);
  all.set(client, tabs);
  return tabs;
}

export class TabLeader {
  /** @type {Set<Listener>} */ #listeners = new Set();
  /** What the other tabs want, by tab. @type {Map<string, string[]>} */ #others = new Map();
  /** @type {BroadcastChannel | undefined} */ #channel;
  #tab = randomName();
  /** The last revision that any of the tabs heard. @type {number | undefined} */ #last;
  /** Ends the membership of this tab, from `#enter` to `#leave`. @type {AbortController | undefined} */ #turn;
  /** Ends what it does to lead, and its leading. @type {AbortController | undefined} */ #candidacy;
  #isLeading = false;
  /** Ends the stream. @type {AbortController | undefined} */ #stream;
  /** What the stream is about, as JSON; empty where it has to begin anew. */ #following = '';
  /** Whether this tab's stream is there. */ #isConnected = false;
  /** When the stream, or the tab that leads, said something. */ #heardAt = moment();
  /** When a follower has heard nothing for too long. @type {ReturnType<typeof setTimeout> | undefined} */ #silence;
  /** When it is time to look. @type {ReturnType<typeof setTimeout> | undefined} */ #look;
  /** Those that the server does not show. @type {Set<string>} */ #refused = new Set();
  /** When they are asked for again. @type {ReturnType<typeof setTimeout> | undefined} */ #later;
  /** Ends the listening to the page. */ #ears = new AbortController();

  /** @param {import('./client.js').Lockhouse} client */
  constructor(client) {
    this.client = client;
    const { window, document } = globalThis;
    /** @param {EventTarget | undefined} target @param {string} type @param {(event: any) => void} act */
    const on = (target, type, act) => target?.addEventListener(type, act, { signal: this.#ears.signal });
    on(window, 'pagehide', () => this.#hide());
    on(window, 'pageshow', (event) => event.persisted && this.#show());
    on(window, 'online', () => this.#wake());
    on(document, 'freeze', () => this.#leave());
    on(document, 'resume', () => this.#show());
    on(document, 'visibilitychange', () => document.hidden || this.#wake());
  }

  #wake() {
    if (since(this.#heardAt) > SILENCE_MS) this.#missed();
    this.#each((listener) => listener.onShow());
  }

  /** @param {Listener} listener @returns {() => void} what ends it */
  add(listener) {
    this.#listeners.add(listener);
    this.#enter();
    this.#want();
    return () => {
      this.#listeners.delete(listener);
      this.#want();
      if (this.#listeners.size) return;
      this.#leave();
      this.#ears.abort();
      all.delete(this.client);
    };
  }

  /** Tells the other tabs that this one has the lock.
   * @param {string} id @param {string} session @param {number} fence */
  hold(id, session, fence) {
    /** @type {Word} */
    const word = { kind: 'holder', id, session, fence };
    this.#say(word);
    // More of them may be in this very tab.
    this.#hear(word);
  }

  /** @param {Word} word */
  #say(word) {
    this.#channel?.postMessage(word);
  }

  /** Says what the stream brings, to all for whom it is.
   * @param {Word} word */
  #tell(word) {
    this.#say(word);
    this.#hear(word);
  }

  /** @param {(listener: Listener) => void} tell @param {string[]} [ids] */
  #each(tell, ids) {
    for (const listener of [...this.#listeners]) {
      // One of them may have ended the listening of another.
      if (this.#listeners.has(listener) && (!ids || ids.includes(listener.workspaceId))) tell(listener);
    }
  }

  /** @param {Word} word */
  #hear(word) {
    switch (word.kind) {
      case 'who':
        this.#heard();
        return this.#want();
      case 'alive':
        return this.#heard();
      case 'want':
        this.#others.delete(word.tab);
        if (word.ids.length) this.#others.set(word.tab, word.ids);
        // Those that were heard last are more likely to be there still.
        for (const tab of this.#others.keys()) if (this.#others.size > MOST) this.#others.delete(tab);
        return this.#refollow(word.ids);
      case 'told': {
        this.#heard();
        const { told } = word;
        this.#last = told.id || undefined;
        return this.#each((listener) => listener.onEvent(told), told.data?.workspace_id ? [told.data.workspace_id] : undefined);
      }
      case 'connection':
        this.#heard();
        return this.#connect(word.connected, word.ids);
      case 'holder':
        return this.#each((listener) => listener.onHolder(word), [word.id]);
    }
  }

  /** Says whether the events are heard.
   * @param {boolean} connected @param {string[]} [ids] */
  #connect(connected, ids) {
    if (!connected && this.#turn) this.#lookIn(FIRST_LOOK_MS);
    this.#each((listener) => listener.onConnection(connected), ids);
  }

  /** @param {number} ms */
  #lookIn(ms) {
    clearTimeout(this.#look);
    this.#look = setTimeout(() => {
      this.#lookIn(LOOK_MS);
      this.#each((listener) => listener.onLook());
    }, ms * (1 + Math.random() / 3));
  }

  /** Something was heard: of the stream, if this tab leads. */
  #heard() {
    this.#heardAt = moment();
    clearTimeout(this.#silence);
    // A stream ends by itself when it is silent.
    if (!this.#isLeading && this.#turn) this.#silence = setTimeout(() => this.#missed(), SILENCE_MS);
  }

  /** Nothing was heard for too long. */
  #missed() {
    const { signal } = this.#turn ?? {};
    if (!signal) return;
    const heardAt = this.#heardAt;
    this.#connect(false);
    if (this.#isLeading) return this.#refollow();
    // A tab that leads, and is not stopped, answers.
    this.#want();
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      if (signal.aborted || this.#heardAt !== heardAt) return;
      this.#silence = setTimeout(() => this.#missed(), SILENCE_MS);
      this.#campaign(signal, true);
    }, ANSWER_MS * (1 + Math.random()));
  }

  #ids() {
    return [...this.#listeners].map((listener) => listener.workspaceId);
  }

  #want(ids = this.#ids()) {
    this.#say({ kind: 'want', tab: this.#tab, ids });
    this.#refollow(ids);
  }

  async #enter() {
    if (this.#turn) return;
    const { signal } = (this.#turn = new AbortController());
    this.#lookIn(LOOK_MS);
    while (!signal.aborted) {
      try {
        const { user_id, scope } = await this.client.whoami({ signal, retryForMs: Infinity });
        signal.throwIfAborted();
        // With the version of what is said between them.
        return this.#join('lockhouse 2 ' + JSON.stringify([this.client.address, user_id ?? this.client.userId, scope]), signal);
      } catch {
        // The person is not signed in, perhaps.
        await sleep(REFUSED_MS, signal).catch(() => {});
      }
    }
  }

  /** @param {string} name @param {AbortSignal} signal */
  #join(name, signal) {
    const channel = new BroadcastChannel(name);
    this.#channel = channel;
    channel.onmessage = ({ data }) => {
      if (typeof data?.kind === 'string') this.#hear(data);
    };
    this.#heard();
    this.#want();
    this.#campaign(signal);
  }

  /** Leads when it is this tab's turn; or at once, if the tab that leads does not answer.
   * @param {AbortSignal} turn @param {boolean} [steal] */
  #campaign(turn, steal = false) {
    const channel = this.#channel;
    if (!channel || this.#isLeading) return;
    this.#candidacy?.abort();
    const candidacy = (this.#candidacy = new AbortController());
    const { signal } = candidacy;
    const onStolen = () => {
      // This tab was stopped, and another one leads now: that one says how it stands.
      this.#resign();
      this.#connect(false);
      this.#want();
      this.#campaign(turn);
    };
    hold(channel.name, signal, { steal, onStolen }).then(() => {
      if (signal.aborted) return;
      this.#isLeading = true;
      clearTimeout(this.#silence);
      this.#say({ kind: 'who' });
      this.#refollow();
    }, () => {});
  }

  /** Leads no more; the others are told, and one of them goes on. */
  #stepDown() {
    const ids = this.#wanted();
    this.#resign();
    this.#tell({ kind: 'connection', ids, connected: false });
  }

  #resign() {
    this.#candidacy?.abort();
    this.#candidacy = undefined;
    this.#isLeading = false;
    this.#refollow();
    this.#others.clear();
  }

  #leave() {
    this.#turn?.abort();
    this.#turn = undefined;
    for (const timer of [this.#later, this.#silence, this.#look]) clearTimeout(timer);
    this.#later = undefined;
    this.#refused.clear();
    this.#resign();
    this.#channel?.close();
    this.#channel = undefined;
    this.#connect(false);
  }

  #hide() {
    this.#each((listener) => listener.onHide());
    this.#want([]);
    this.#leave();
  }

  #show() {
    this.#enter();
    this.#want();
    this.#wake();
  }

  /** What this tab is to follow. */
  #wanted() {
    if (!this.#isLeading) return [];
    return [...new Set([...this.#ids(), ...[...this.#others.values()].flat()])].sort();
  }

  /** Follows what is wanted now, if it is this tab's turn.
   * @param {string[]} [news] what somebody has just said that they want */
  #refollow(news = []) {
    const ids = this.#wanted().filter((id) => !this.#refused.has(id));
    const wanted = JSON.stringify(ids);
    if (wanted === this.#following && since(this.#heardAt) < SILENCE_MS) {
      // Nothing has to begin anew for it: whoever has come is told how it stands.
      if (this.#isLeading && news.length) this.#tell({ kind: 'connection', ids: news, connected: this.#isConnected });
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
        // Of more than it lets one name, the server tells of all.
        workspaceIds: ids.length > MOST ? [] : ids,
        ...(this.#last !== undefined && { since: this.#last }),
        signal,
        onEvent: (told) => signal.aborted || this.#tell({ kind: 'told', told }),
        onAlive: () => signal.aborted || this.#tell({ kind: 'alive' }),
        onConnection: (connected) => {
          if (signal.aborted) return;
          this.#isConnected = connected;
          this.#tell({ kind: 'connection', ids, connected });
        },
      });
    } catch (error) {
      this.#sort(ids, signal, error);
    }
  }

  /** The server refuses to tell of these. Those that it does not show either are left out for a while; if there are none, the refusal is
   * about who asks: another tab may lead, and this one tries again later.
   * @param {string[]} ids @param {AbortSignal} signal @param {unknown} error */
  async #sort(ids, signal, error) {
    const refused = isOfThem(error) ? await this.#refusedOf(ids) : [];
    if (signal.aborted) return;
    refused.forEach((id) => this.#refused.add(id));
    if (refused.length) {
      this.#tryLater();
      return this.#refollow();
    }
    const turn = this.#turn?.signal;
    this.#stepDown();
    await sleep(REFUSED_MS, turn).then(() => turn && this.#campaign(turn), () => {});
  }

  /** @param {string[]} ids @returns {Promise<string[]>} */
  async #refusedOf(ids) {
    const { client } = this;
    const isRefused = await Promise.all(ids.map((id) => client.read(id).then(() => false, isOfThem)));
    return ids.filter((_, index) => isRefused[index]);
  }

  #tryLater() {
    this.#later ??= setTimeout(async () => {
      this.#later = undefined;
      const wanted = this.#wanted();
      const before = [...this.#refused];
      const refused = await this.#refusedOf(before.filter((id) => wanted.includes(id)));
      before.forEach((id) => refused.includes(id) || this.#refused.delete(id));
      if (this.#refused.size) this.#tryLater();
      this.#refollow();
    }, REFUSED_MS);
  }
}
