import { follow } from './events.js';
import { Refusal } from './refusal.js';
import { randomName } from './session.js';

/** One stream of events for all tabs of a person: the tab that has the browser's lock (Web Locks) follows, for itself
 * and for the others, and passes on what it hears (BroadcastChannel). When it is closed, another one goes on from what
 * was heard last. Where the browser has no Web Locks (pages without TLS), each tab follows for itself.
 */

/** What somebody in this tab wants to know of a workspace.
 * @typedef {object} Listener
 * @property {string} workspaceId
 * @property {(told: import('./events.js').Told) => void} onEvent
 * @property {(connected: boolean) => void} onConnection when the stream begins, with what has happened before, or ends.
 * @property {(holder: { session: string, fence: number }) => void} onHolder a tab of this person has the lock.
 * @property {() => void} onHide the page goes away, perhaps for ever.
 * @property {() => void} onShow it is back, or is seen again.
 */
/** @typedef {{ kind: 'who' } | { kind: 'want', tab: string, ids: string[] }
 *   | { kind: 'told', told: import('./events.js').Told } | { kind: 'connection', ids: string[], connected: boolean }
 *   | { kind: 'holder', id: string, session: string, fence: number }} Word */

/** Most workspaces that the server lets one name. */
const MOST = 100;
/** After a refusal it is tried again after so long (milliseconds). */
const REFUSED_MS = 30_000;

/** Whether a refusal is about what was asked for, and not about who asks, or how often.
 * @param {unknown} error */
const isOfThem = (error) => error instanceof Refusal && [400, 403, 404].includes(error.status);

/** @type {Map<string, Tabs>} */
const all = new Map();

/** The tabs of whoever calls with this client.
 * @param {import('./client.js').Lockhouse} client @returns {Tabs} */
export function tabsOf(client) {
  // With the version of what is said between them.
  const name = 'lockhouse 1 ' + JSON.stringify([client.url, client.userId]);
  const tabs = all.get(name) ?? new Tabs(name, client);
  all.set(name, tabs);
  tabs.use(client);
  return tabs;
}

export class Tabs {
  /** @type {Set<Listener>} */ #listeners = new Set();
  /** What the other tabs want, by tab. @type {Map<string, string[]>} */ #others = new Map();
  /** @type {BroadcastChannel | undefined} */ #channel;
  #tab = randomName();
  /** The last revision that any of the tabs heard. @type {number | undefined} */ #last;
  /** Ends this tab's turn. @type {AbortController | undefined} */ #turn;
  /** Ends the stream. @type {AbortController | undefined} */ #stream;
  /** What it is about, as JSON; empty where it has to begin anew. */ #following = '';
  /** Whether this tab's stream is there. */ #isConnected = false;
  #isLeading = false;
  /** Whether the tabs have one stream together. */ #shares = true;
  /** Those that the server does not show. @type {Set<string>} */ #refused = new Set();
  /** When they are asked for again. @type {ReturnType<typeof setTimeout> | undefined} */ #later;
  /** Ends the listening to the page. */ #ears = new AbortController();

  /** @param {string} name @param {import('./client.js').Lockhouse} client */
  constructor(name, client) {
    this.name = name;
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

  /** From now on it is asked as this one: the latest has the latest token.
   * @param {import('./client.js').Lockhouse} client */
  use(client) {
    if (client === this.client) return;
    this.client = client;
    this.#refused.clear();
    this.#following = '';
    this.#refollow();
  }

  #wake() {
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
      all.delete(this.name);
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
    if (this.#shares) this.#say(word);
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
        return this.#want();
      case 'want':
        if (word.ids.length) this.#others.set(word.tab, word.ids);
        else this.#others.delete(word.tab);
        return this.#refollow(word.ids);
      case 'told': {
        const { told } = word;
        this.#last = told.id || undefined;
        return this.#each((listener) => listener.onEvent(told), told.data?.workspace_id ? [told.data.workspace_id] : undefined);
      }
      case 'connection':
        return this.#each((listener) => listener.onConnection(word.connected), word.ids);
      case 'holder':
        return this.#each((listener) => listener.onHolder(word), [word.id]);
    }
  }

  #ids() {
    return [...this.#listeners].map((listener) => listener.workspaceId);
  }

  #want(ids = this.#ids()) {
    this.#say({ kind: 'want', tab: this.#tab, ids });
    this.#refollow(ids);
  }

  #enter() {
    if (this.#turn) return;
    this.#turn = new AbortController();
    const { signal } = this.#turn;
    const channel = new BroadcastChannel(this.name);
    this.#channel = channel;
    channel.onmessage = ({ data }) => {
      if (typeof data?.kind === 'string') this.#hear(data);
    };
    const lead = () =>
      new Promise((resolve) => {
        // It may come when this tab does not want it any more.
        if (signal.aborted) return resolve(undefined);
        signal.addEventListener('abort', resolve);
        this.#isLeading = true;
        this.#say({ kind: 'who' });
        this.#refollow();
      });
    const takeTurn = async () => navigator.locks.request(this.name, { signal }, lead);
    takeTurn().catch(() => {
      if (signal.aborted) return;
      // Where the browser has none, or none for this page, each tab follows for itself.
      this.#shares = false;
      lead();
    });
  }

  #leave() {
    this.#turn?.abort();
    this.#turn = undefined;
    clearTimeout(this.#later);
    this.#later = undefined;
    this.#refused.clear();
    this.#isLeading = false;
    this.#refollow();
    this.#channel?.close();
    this.#channel = undefined;
    this.#others.clear();
    this.#each((listener) => listener.onConnection(false));
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
    const others = this.#shares ? [...this.#others.values()].flat() : [];
    return [...new Set([...this.#ids(), ...others])].sort();
  }

  /** Follows what is wanted now, if it is this tab's turn.
   * @param {string[]} [news] what somebody has just said that they want */
  #refollow(news = []) {
    const ids = this.#wanted().filter((id) => !this.#refused.has(id));
    const wanted = JSON.stringify(ids);
    if (wanted === this.#following) {
      // Nothing has to begin anew for it: whoever has come is told how it stands.
      if (this.#isConnected && news.length) this.#tell({ kind: 'connection', ids: news, connected: true });
      return;
    }
    this.#isConnected = false;
    this.#following = wanted;
    this.#stream?.abort();
    this.#stream = undefined;
    if (!ids.length) return;
    this.#stream = new AbortController();
    const { signal } = this.#stream;
    follow(this.client, {
      // Of more than it lets one name, the server tells of all.
      workspaceIds: ids.length > MOST ? [] : ids,
      ...(this.#last !== undefined && { since: this.#last }),
      signal,
      onEvent: (told) => signal.aborted || this.#tell({ kind: 'told', told }),
      onConnection: (connected) => {
        if (signal.aborted) return;
        this.#isConnected = connected;
        this.#tell({ kind: 'connection', ids, connected });
      },
    }).catch((error) => this.#sort(ids, signal, error));
  }

  /** The server refuses to tell of these. Those that it does not show either are left out for a while; if there are none,
   * all of it is tried again later: perhaps the person has signed in by then.
   * @param {string[]} ids @param {AbortSignal} signal @param {unknown} error */
  async #sort(ids, signal, error) {
    const refused = isOfThem(error) ? await this.#refusedOf(ids) : [];
    if (signal.aborted) return;
    refused.forEach((id) => this.#refused.add(id));
    this.#tryLater();
    if (refused.length) this.#refollow();
    else this.#following = '';
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
