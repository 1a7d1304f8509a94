import { moment } from './clock.js';
import { follow } from './events.js';
import { refusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';

/** A lock as the server shows it. Count down from `expires_in_ms`, not to `expires_at`.
 * @typedef {{
 *   workspace_id: string, locked_by_user_id: string, locked_by_name: string | null, session_id: string | null,
 *   fence: number, acquired_at: string, renewed_at: string, last_active_at: string, expires_at: string,
 *   expires_in_ms: number, ttl_ms: number, note: string | null, metadata: Record<string, unknown>, knock: Knock | null,
 * }} Lock */
/** Somebody who asks the holder for the lock.
 * @typedef {{
 *   user_id: string, name: string | null, message: string | null, knocked_at: string,
 *   auto_grant_at: string | null, auto_grant_in_ms: number | null,
 * }} Knock */
/** How a lease ended.
 * @typedef {{
 *   reason: 'expired' | 'released' | 'taken_over' | 'handed_over' | 'revoked' | 'member_removed' | 'workspace_deleted',
 *   fence: number, at: string, by_user_id: string | null, by_name: string | null,
 * }} Lost */
/** @typedef {'acquired' | 'renewed' | 'reclaimed' | 'taken_over'} Outcome */
/** @typedef {{ outcome: Outcome, lock: Lock, previous?: Lock | null }} Acquired */
/** @typedef {{ success: true, expires_at: string, expires_in_ms: number, fence: number, session_id?: string,
 *   knock: Knock | null }} Renewed */
/** @typedef {{
 *   revision: number, type: string, at: string, user_id: string | null, session_id: string | null,
 *   by_user_id: string | null, by_name: string | null, fence: number | null,
 *   detail: Record<string, unknown> & { new_fence?: number, to_user_id?: string, message?: string, outcome?: string },
 * }} HistoryEvent */
/** @typedef {{
 *   session_id?: string, ttl_ms?: number, force?: boolean, expected_fence?: number, wait_ms?: number, name?: string,
 *   note?: string, metadata?: Record<string, unknown>, reason?: string,
 * }} AcquireBody */
/** What is believed of who is calling depends on the server's `auth.mode`.
 * @typedef {object} Options
 * @property {string} userId who is calling: the id that the server knows them by.
 * @property {string} [userName] how they are shown, where the server believes it.
 * @property {string} [url] where the server is. Without it, the page's own origin.
 * @property {string | (() => string | Promise<string>)} [token] a token or JWT, or what gets one: it is asked before every request.
 */
/** @typedef {object} Asked
 * @property {Record<string, string | number | boolean | undefined>} [query]
 * @property {object} [body]
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs] for each attempt; 15 s without it.
 * @property {number} [retryForMs] no attempt begins later; 10 s without it, 0 tries once.
 */

/** Rejects when the signal says so.
 * @param {AbortSignal} signal @returns {Promise<never>} */
const aborted = (signal) =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });

/** Talks to a Lockhouse server. Each method is one operation of its API, and throws a {@link Refusal} when it is refused. */
export class Lockhouse {
  /** The last token that was sent: a closing page has no time to get another. @type {string | undefined} */
  #token;
  #isTokenMissing = false;

  /** @param {Options} options */
  constructor({ userId, userName, url = '', token }) {
    if (typeof userId !== 'string') throw new TypeError('userId is missing: who is calling?');
    /** Who is calling. */
    this.userId = userId;
    /** How they are shown. */
    this.userName = userName;
    /** Where the server is. */
    this.url = url.replace(/\/+$/, '');
    /** @private */
    this.getToken = token;
  }

  /** The path of a workspace's lock.
   * @param {string} workspaceId */
  lockPath(workspaceId) {
    // A browser takes these for folders.
    if (['', '.', '..'].includes(workspaceId)) throw new TypeError(`"${workspaceId}" cannot be the id of a workspace`);
    return `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/lock`;
  }

  /** @returns {Promise<Record<string, string>>} */
  async #credentials() {
    if (this.getToken) {
      this.#token = typeof this.getToken === 'function' ? await this.#fresh(this.getToken) : this.getToken;
      return { Authorization: 'Bearer ' + this.#token };
    }
    /** @type {Record<string, string>} */
    const headers = { 'X-User-Id': encodeURIComponent(this.userId) };
    if (this.userName) headers['X-User-Name'] = encodeURIComponent(this.userName);
    return headers;
  }

  /** @param {() => string | Promise<string>} getToken */
  async #fresh(getToken) {
    try {
      const token = await getToken();
      this.#isTokenMissing = false;
      return token;
    } catch (error) {
      // It is tried again and again, and would fail unseen.
      if (!this.#isTokenMissing) console.error('Lockhouse has no token to call with:', error);
      this.#isTokenMissing = true;
      throw error;
    }
  }

  /** One attempt, whose answer is not read.
   * @param {string} method @param {string} path @param {Asked} [asked] @returns {Promise<Response>} */
  async open(method, path, { query = {}, body, signal = new AbortController().signal, timeoutMs } = {}) {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value));
    const end = timeoutMs ? AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]) : signal;
    const headers = await Promise.race([this.#credentials(), aborted(end)]);
    if (body) headers['Content-Type'] = 'application/json';
    const response = await fetch(this.url + path + (search.size ? '?' + search : ''), {
      method,
      headers,
      body: body ? JSON.stringify(body) : null,
      signal: end,
    });
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /** Asks, again when the server was not reached or was busy. `sentAt` is when what was answered was sent.
   * @param {string} method @param {string} path @param {Asked} [asked]
   * @returns {Promise<{ value: any, sentAt: import('./clock.js').Moment }>} */
  async ask(method, path, { retryForMs = 10_000, timeoutMs = 15_000, ...asked } = {}) {
    const end = performance.now() + retryForMs;
    for (let attempt = 0; ; attempt++) {
      const sentAt = moment();
      try {
        const response = await this.open(method, path, { ...asked, timeoutMs });
        const text = await response.text();
        return { value: text ? JSON.parse(text) : null, sentAt };
      } catch (error) {
        const pause = backoff(attempt, error);
        if (asked.signal?.aborted || !isPassing(error) || performance.now() + pause > end) throw error;
        await sleep(pause, asked.signal);
      }
    }
  }

  /** @param {string} method @param {string} path @param {Asked} [asked] */
  async request(method, path, asked) {
    return (await this.ask(method, path, asked)).value;
  }

  /** @param {string} workspaceId @param {string} path @param {object} body @param {Asked} [asked] */
  #post(workspaceId, path, body, asked) {
    return this.request('POST', this.lockPath(workspaceId) + path, { ...asked, body });
  }

  /** Locks it, or renews what one has. With `wait_ms` it waits in line.
   * @param {string} workspaceId @param {AcquireBody} [body] @param {Asked} [asked] @returns {Promise<Acquired>} */
  acquire(workspaceId, body = {}, asked) {
    return this.#post(workspaceId, '', body, { timeoutMs: 15_000 + (body.wait_ms ?? 0), ...asked });
  }

  /** Takes it from its holder, if that is still the one whom the person saw.
   * @param {string} workspaceId @param {number} expectedFence @param {AcquireBody} [body] @returns {Promise<Acquired>} */
  takeover(workspaceId, expectedFence, body = {}) {
    return this.acquire(workspaceId, { ...body, force: true, expected_fence: expectedFence });
  }

  /** Renews the lease.
   * @param {string} workspaceId @param {{ fence?: number, session_id?: string, ttl_ms?: number, active?: boolean }} body
   * @param {Asked} [asked] @returns {Promise<Renewed>} */
  heartbeat(workspaceId, body, asked) {
    return this.#post(workspaceId, '/heartbeat', body, asked);
  }

  /** Ends the lease. Harmless when it has ended.
   * @param {string} workspaceId @param {{ fence?: number }} [body] @returns {Promise<{ released: boolean }>} */
  release(workspaceId, body = {}) {
    return this.#post(workspaceId, '/release', body);
  }

  /** The same from a page that closes. Returns whether the browser took it.
   * @param {string} workspaceId @param {{ fence: number }} body */
  releaseByBeacon(workspaceId, body) {
    const access_token = this.getToken ? this.#token : this.userId;
    return navigator.sendBeacon(this.url + this.lockPath(workspaceId) + '/release', JSON.stringify({ ...body, access_token }));
  }

  /** Who has it.
   * @param {string} workspaceId @returns {Promise<{ locked: boolean, lock: Lock | null }>} */
  read(workspaceId) {
    return this.request('GET', this.lockPath(workspaceId));
  }

  /** Asks the holder for it.
   * @param {string} workspaceId @param {{ message?: string, name?: string, session_id?: string }} [body]
   * @returns {Promise<{ knock: Knock, lock: Lock }>} */
  knock(workspaceId, body = {}) {
    return this.#post(workspaceId, '/knock', body);
  }

  /** Says no to the one who asks.
   * @param {string} workspaceId @param {object} [body] @returns {Promise<{ declined: boolean }>} */
  decline(workspaceId, body = {}) {
    return this.#post(workspaceId, '/knock/decline', body);
  }

  /** Gives it to somebody; without a name, to the one who asks.
   * @param {string} workspaceId @param {{ to_user_id?: string, fence?: number }} [body]
   * @returns {Promise<{ handed_over: boolean, lock: Lock }>} */
  handover(workspaceId, body = {}) {
    return this.#post(workspaceId, '/handover', body);
  }

  /** What happened, the newest first.
   * @param {string} workspaceId @param {{ limit?: number, cursor?: string }} [query]
   * @returns {Promise<{ events: HistoryEvent[], next_cursor: string | null }>} */
  history(workspaceId, query = {}) {
    return this.request('GET', `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/history`, { query });
  }

  /** Tells what happens, as it happens, until `signal` says to stop. See {@link follow}.
   * @param {import('./events.js').Following} following */
  follow(following) {
    return follow(this, following);
  }
}
