// The live locks that were read, by workspace, each with its end.

import { learnFrom } from './clock.js';

/** Locks of one page. */
const PAGE = 200;

export class Store {
  #client;
  #query;
  /** The cursor of the next page; null at the end. */
  #cursor = null;
  /** Events that arrived during a read. The fence tells which is newer. */
  #told = null;
  /** `ends` is on the clock of `performance.now()`. @type {Map<string, { lock: object, ends: number }>} */
  locks = new Map();

  constructor(client, query = {}) {
    this.#client = client;
    this.#query = query;
  }

  /** Whether there are more pages. */
  get hasMore() {
    return this.#cursor !== null;
  }

  /** Reads again as many locks as before, or the first page. */
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
    // A lock that an event has added beyond the pages that were read stays until it may have ended.
    const now = performance.now();
    for (const [id, entry] of this.locks) {
      if (cursor !== null && isBefore(cursor, id) && entry.ends > now) found.set(id, entry);
    }
    for (const data of told) take(found, data);
    this.#told = null;
    this.locks = found;
    this.#cursor = cursor;
  }

  /** Reads the next page. */
  async more(signal) {
    const page = await this.#page(this.#cursor ?? undefined, signal, this.locks);
    this.#cursor = page.next_cursor;
  }

  /** Searches locks that were not read: by the beginning of a workspace id, by user id, and those of the given
   * workspaces. */
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
      // Counts from when the request was sent, so that a lease is never shown as longer than it is.
      into.set(lock.workspace_id, { lock, ends: sentAt.monotonic + lock.expires_in_ms });
    }
    return value;
  }

  /** Applies an event. */
  hear({ data }) {
    if (!data?.workspace_id) return;
    this.#told?.push({ ...data, heardAt: performance.now() });
    take(this.locks, { ...data, heardAt: performance.now() });
  }
}

/** An event may be older than what was read; fences only grow. An event without a fence does not concern a lease. */
function take(locks, { workspace_id, lock, fence, heardAt }) {
  const known = locks.get(workspace_id)?.lock.fence ?? 0;
  if (lock && lock.fence >= known) locks.set(workspace_id, { lock, ends: heardAt + lock.expires_in_ms });
  else if (!lock && fence !== null && fence >= known) locks.delete(workspace_id);
}

/** The order of the server: by UTF-8 bytes, which is the order of code points. */
export function isBefore(left, right) {
  const [one, other] = [[...left], [...right]];
  const place = one.findIndex((letter, place) => letter !== other[place]);
  if (place === -1) return one.length < other.length;
  return other[place] !== undefined && one[place].codePointAt(0) < other[place].codePointAt(0);
}
