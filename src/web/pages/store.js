// The live locks that were read, by workspace, each with the moment when it ends.

import { learnFrom } from './clock.js';

/** Locks of a page. */
const PAGE = 200;

export class Store {
  #client;
  #query;
  /** Up to where the list was read; null when there is no more. */
  #cursor = null;
  /** What was told while the list was read: which of both is newer is seen by the fence. */
  #told = null;
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

  /** Reads anew what was read before, or the first page. */
  async refresh(signal) {
    const upTo = this.#cursor;
    const isFirst = this.locks.size === 0;
    let cursor;
    const found = new Map();
    const told = (this.#told = []);
    do {
      const page = await this.#page(cursor, signal, found);
      cursor = page.next_cursor;
    } while (cursor !== null && !isFirst && (upTo === null ? found.size < this.locks.size : isBefore(cursor, upTo)));
    // What came by an event from beyond what was read stays as long as it may be there.
    const now = performance.now();
    for (const [id, entry] of this.locks) {
      if (cursor !== null && isBefore(cursor, id) && entry.ends > now) found.set(id, entry);
    }
    for (const data of told) take(found, data);
    this.#told = null;
    this.locks = found;
    this.#cursor = cursor;
  }

  /** Reads on. */
  async more(signal) {
    const page = await this.#page(this.#cursor ?? undefined, signal, this.locks);
    this.#cursor = page.next_cursor;
  }

  /** Reads what a word may mean that is not among those that were read: the beginning of a workspace's id, or a user's id;
   * and these workspaces. */
  async search(word, ids, signal) {
    const queries = [{ prefix: word }, { user_id: word }, ...ids.map((id) => ({ prefix: id }))];
    await Promise.all(queries.map((query) => this.#page(undefined, signal, this.locks, query)));
  }

  async #page(cursor, signal, into, query = this.#query) {
    const { value, sentAt } = await this.#client.ask('GET', '/api/v1/locks', {
      query: { ...query, limit: PAGE, cursor },
      signal,
    });
    for (const lock of value.locks) {
      learnFrom(lock, sentAt.monotonic);
      // Counted down from what is left, from the moment at which it was asked for: never longer than it is.
      into.set(lock.workspace_id, { lock, ends: sentAt.monotonic + lock.expires_in_ms });
    }
    return value;
  }

  /** Takes in what happened. */
  hear({ data }) {
    if (!data?.workspace_id) return;
    this.#told?.push({ ...data, heardAt: performance.now() });
    take(this.locks, { ...data, heardAt: performance.now() });
  }
}

/** An event may be older than what was read: fences only grow. One without a fence is about no lease. */
function take(locks, { workspace_id, lock, fence, heardAt }) {
  const known = locks.get(workspace_id)?.lock.fence ?? 0;
  if (lock && lock.fence >= known) locks.set(workspace_id, { lock, ends: heardAt + lock.expires_in_ms });
  else if (!lock && fence !== null && fence >= known) locks.delete(workspace_id);
}

/** As the server sorts: by the bytes of UTF-8, which is by code points. */
export function isBefore(left, right) {
  const [one, other] = [[...left], [...right]];
  const place = one.findIndex((letter, place) => letter !== other[place]);
  if (place === -1) return one.length < other.length;
  return other[place] !== undefined && one[place].codePointAt(0) < other[place].codePointAt(0);
}
