import { follow } from './events.js';

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

/** After a refusal it is tried again after so long (milliseconds). */
const REFUSED_MS = 30_000;

/** @type {Map<string, Tabs>} */
const all = new Map();

/** The tabs of whoever calls with this client.
 * @param {import('./client.js').Lockhouse} client @returns {Tabs} */
export function tabsOf(client) {
  const name = 'lockhouse ' + JSON.stringify([client.url, client.userId]);
  const tabs = all.get(name) ?? new Tabs(name, client);
  all.set(name, tabs);
  // The latest one has the latest token.
  tabs.client = client;
  return tabs;
}

const page = globalThis.window;

export class Tabs {
  /** @type {Set<Listener>} */ #listeners = new Set();
  /** What the other tabs want, by tab. @type {Map<string, string[]>} */ #others = new Map();
  /** @type {BroadcastChannel | undefined} */ #channel;
  #tab = crypto.getRandomValues(new Uint32Array(2)).join('-');
  /** The last revision that any of the tabs heard. @type {number | undefined} */ #last;
  /** Ends this tab's turn. @type {AbortController | undefined} */ #turn;
  /** Ends the stream. @type {AbortController | undefined} */ #stream;
  #following = '';
  /** Whether this tab's stream is there. */ #isConnected = false;
  #isLeading = false;
  #isHidden = false;

  /** @param {string} name @param {import('./client.js').Lockhouse} client */
  constructor(name, client) {
    this.name = name;
    this.client = client;
    page?.addEventListener('pagehide', () => this.#hide());
    page?.addEventListener('pageshow', (event) => event.persisted && this.#show());
    page?.addEventListener('online', () => this.#each((listener) => listener.onShow()));
    const { document } = globalThis;
    document?.addEventListener('freeze', () => this.#leave());
    document?.addEventListener('resume', () => this.#enter());
    document?.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#each((listener) => listener.onShow());
    });
  }

  /** @param {Listener} listener @returns {() => void} what ends it */
  add(listener) {
    this.#listeners.add(listener);
    this.#enter();
    this.#want();
    return () => {
      this.#listeners.delete(listener);
      this.#want();
      if (!this.#listeners.size) this.#leave();
    };
  }

  /** Tells the other tabs that this one has the lock.
   * @param {string} id @param {string} session @param {number} fence */
  hold(id, session, fence) {
    // More of them may be in this very tab.
    this.#pass({ kind: 'holder', id, session, fence });
  }

  /** @param {Word} word */
  #say(word) {
    this.#channel?.postMessage(word);
  }

  /** Says it to the other tabs, and to this one.
   * @param {Word} word */
  #pass(word) {
    this.#say(word);
    this.#hear(word);
  }

  /** @param {(listener: Listener) => void} tell @param {string[]} [ids] */
  #each(tell, ids) {
    for (const listener of [...this.#listeners]) {
      if (!ids || ids.includes(listener.workspaceId)) tell(listener);
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
        if (told.id) this.#last = told.id;
        return this.#each((listener) => listener.onEvent(told), told.data?.workspace_id ? [told.data.workspace_id] : undefined);
      }
      case 'connection':
        return this.#each((listener) => listener.onConnection(word.connected), word.ids);
      case 'holder':
        return this.#each((listener) => listener.onHolder(word), [word.id]);
    }
  }

  #ids() {
    return [...new Set([...this.#listeners].map((listener) => listener.workspaceId))];
  }

  #want() {
    const ids = this.#isHidden ? [] : this.#ids();
    this.#say({ kind: 'want', tab: this.#tab, ids });
    this.#refollow(ids);
  }

  #enter() {
    if (this.#turn || this.#isHidden || !this.#listeners.size) return;
    const turn = new AbortController();
    this.#turn = turn;
    if (!navigator.locks) {
      this.#refollow();
      return;
    }
    this.#channel = new BroadcastChannel(this.name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    const lead = () =>
      new Promise((resolve) => {
        turn.signal.addEventListener('abort', resolve);
        this.#isLeading = true;
        this.#say({ kind: 'who' });
        this.#refollow();
      });
    navigator.locks.request(this.name, { signal: turn.signal }, lead).catch(() => {});
  }

  #leave() {
    this.#turn?.abort();
    this.#turn = undefined;
    this.#isLeading = false;
    this.#refollow();
    this.#channel?.close();
    this.#channel = undefined;
    this.#others.clear();
    this.#each((listener) => listener.onConnection(false));
  }

  #hide() {
    this.#each((listener) => listener.onHide());
    this.#isHidden = true;
    this.#want();
    this.#leave();
  }

  #show() {
    this.#isHidden = false;
    this.#enter();
    this.#want();
    this.#each((listener) => listener.onShow());
  }

  /** Follows what is wanted now, if it is this tab's turn.
   * @param {string[]} [news] what somebody has just said that they want */
  #refollow(news = []) {
    const leads = this.#turn && (this.#isLeading || !navigator.locks);
    const ids = leads ? [...new Set([...this.#ids(), ...[...this.#others.values()].flat()])].sort() : [];
    const wanted = JSON.stringify(ids);
    if (wanted === this.#following) {
      // Nothing has to begin anew for it: whoever has come is told how it stands.
      if (this.#isConnected && news.length) this.#pass({ kind: 'connection', ids: news, connected: true });
      return;
    }
    this.#isConnected = false;
    this.#following = wanted;
    this.#stream?.abort();
    this.#stream = undefined;
    if (!ids.length) return;
    const stream = new AbortController();
    this.#stream = stream;
    /** @param {Word} word */
    const pass = (word) => stream.signal.aborted || this.#pass(word);
    follow(this.client, {
      workspaceIds: ids,
      ...(this.#last !== undefined && { since: this.#last }),
      signal: stream.signal,
      onEvent: (told) => pass({ kind: 'told', told }),
      onConnection: (connected) => {
        this.#isConnected = connected && !stream.signal.aborted;
        pass({ kind: 'connection', ids, connected });
      },
    }).catch(() => {
      // The server refuses, perhaps until the person has signed in again.
      setTimeout(() => {
        if (this.#stream !== stream) return;
        this.#following = '';
        this.#refollow();
      }, REFUSED_MS);
    });
  }
}
