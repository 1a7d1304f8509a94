// The live locks that were read, by workspace, each with the moment when it ends.

import { learnFrom } from './clock.js';

/** Locks of a page. */
const PAGE = 200;

export class Store {
  #client;
  #query;
  /** Up to where the list was read; null when there is no more. */
  #cursor = null;
  /** @type {Map<string, { lock: object, ends: number }>} `ends` is by `performance.now()`. */
  locks = new Map();

  constructor(client, query = {}) {
    this.#client = client;
    this.#query = query;
  }

  /** Whether there are more than were read. */
  get hasMore() {
    return this.#cursor !== null;
  }

  put(lock, at) {
    // Counted down from what is left, from the moment at which it was asked for: never longer than it is.
    this.locks.set(lock.workspace_id, { lock, ends: at + lock.expires_in_ms });
  }

  /** Reads anew what was read before, or the first page. */
  async refresh(signal) {
    const upTo = this.#cursor;
    const isFirst = this.locks.size === 0;
    let cursor;
    const found = new Map();
    do {
      const page = await this.#page(cursor, signal, found);
      cursor = page.next_cursor;
    } while (cursor !== null && !isFirst && (upTo === null ? found.size < this.locks.size : isBefore(cursor, upTo)));
    // What came by an event from beyond what was read stays as long as it may be there.
    const now = performance.now();
    for (const [id, entry] of this.locks) {
      if (cursor !== null && isBefore(cursor, id) && entry.ends > now) found.set(id, entry);
    }
    this.locks = found;
    this.#cursor = cursor;
  }

  /** Reads on. */
  async more(signal) {
    const page = await this.#page(this.#cursor ?? undefined, signal, this.locks);
    this.#cursor = page.next_cursor;
  }

  /** Reads what a word may mean that is not among those that were read: the beginning of a workspace's id, or a user's id. */
  async search(word, signal) {
    const queries = [{ prefix: word }, { user_id: word }];
    await Promise.all(queries.map((query) => this.#page(undefined, signal, this.locks, query)));
  }

  async #page(cursor, signal, into, query = this.#query) {
    const { value, sentAt } = await this.#client.ask('GET', '/api/v1/locks', { query: { ...query, limit: PAGE, cursor }, signal });
    for (const lock of value.locks) {
      learnFrom(lock, sentAt.monotonic);
      into.set(lock.workspace_id, { lock, ends: sentAt.monotonic + lock.expires_in_ms });
    }
    return value;
  }

  /** Takes in what happened. Returns the workspace, if it is one whose lock is another now. */
  hear({ data }) {
    if (!data?.workspace_id) return undefined;
    if (data.lock) this.put(data.lock, performance.now());
    else this.locks.delete(data.workspace_id);
    return data.workspace_id;
  }
}

/** As the server sorts: by the bytes of UTF-8, which is by code points. */
export function isBefore(left, right) {
  const [one, other] = [[...left], [...right]];
  const place = one.findIndex((letter, place) => letter !== other[place]);
  if (place === -1) return one.length < other.length;
  return other[place] !== undefined && one[place].codePointAt(0) < other[place].codePointAt(0);
}
