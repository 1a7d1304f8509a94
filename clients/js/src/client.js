import { moment } from './clock.js';
import { follow } from './events.js';
import { refusal } from './refusal.js';
import { backoff, isPassing, sleep } from './retry.js';

/** Who has a lock: a person, an AI agent, a process, Terraform or Git LFS.
 * @typedef {'edit' | 'agent' | 'run' | 'terraform' | 'lfs'} Kind */
/** An AI agent, and the user for whom it acts.
 * @typedef {{ name: string | null, for_user_id: string, for_name: string | null }} Agent */
/** A lock, as the API returns it. Count down from `expires_in_ms`, not to `expires_at`: clocks differ.
 * @typedef {{
 *   workspace_id: string, locked_by_user_id: string, locked_by_name: string | null, session_id: string | null,
 *   fence: number, acquired_at: string, renewed_at: string, last_active_at: string, expires_at: string,
 *   expires_in_ms: number, ttl_ms: number, note: string | null, metadata: Record<string, unknown>, knock: Knock | null,
 *   kind: Kind, agent: Agent | null,
 * }} Lock */
/** A pending request to the holder for the lock.
 * @typedef {{
 *   user_id: string, name: string | null, message: string | null, knocked_at: string,
 *   auto_grant_at: string | null, auto_grant_in_ms: number | null, kind?: Kind, agent?: Agent,
 * }} Knock */
/** How a lease ended.
 * @typedef {{
 *   reason: 'expired' | 'released' | 'taken_over' | 'handed_over' | 'revoked' | 'member_removed' | 'workspace_deleted',
 *   fence: number, at: string, by_user_id: string | null, by_name: string | null, yielded?: true,
 * }} Lost */
/** @typedef {'acquired' | 'renewed' | 'reclaimed' | 'taken_over'} Outcome */
/** @typedef {{ outcome: Outcome, lock: Lock, previous?: Lock | null }} Acquired */
/** @typedef {{ success: true, expires_at: string, expires_in_ms: number, fence: number, session_id?: string,
 *   knock: Knock | null, waiting?: number }} Renewed */
/** @typedef {{
 *   revision: number, type: string, at: string, user_id: string | null, session_id: string | null,
 *   by_user_id: string | null, by_name: string | null, fence: number | null, kind: Kind | null,
 *   detail: Record<string, unknown> & { yielded?: true, new_fence?: number, to_user_id?: string, message?: string, outcome?: string, again_in_ms?: number },
 * }} HistoryEvent */
/** @typedef {{
 *   kind?: 'edit' | 'agent' | 'run', session_id?: string, ttl_ms?: number, force?: boolean, expected_fence?: number, wait_ms?: number, name?: string,
 *   note?: string, metadata?: Record<string, unknown>, reason?: string,
 * }} AcquireBody */
/** @typedef {string | ((asked?: { refused?: boolean }) => string | Promise<string>)} Token */
/** Which of these the server uses depends on its `auth.mode`.
 * @typedef {object} Options
 * @property {string} userId the id of the user, as the server knows it.
 * @property {string} [userName] the name to show, in modes where the client may choose it.
 * @property {string} [url] the URL of the server; default: the page's origin.
 * @property {Token} [token] a token or JWT, or a function that returns one. It is called before every request, and again with
 *   `refused` when the server rejected the token (401): return a new one then.
 */
/** @typedef {object} Asked
 * @property {Record<string, string | number | boolean | undefined>} [query]
 * @property {object} [body]
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs] timeout of each attempt; default: 15 s.
 * @property {number} [retryForMs] no attempt starts later than this; default: 10 s. 0: one attempt.
 */

/** Rejects when the signal is aborted.
 * @param {AbortSignal} signal @returns {Promise<never>} */
const aborted = (signal) =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });

/** A client of the HTTP API. Each method is one operation. It rejects with a {@link Refusal} when the server refuses. */
export class Lockhouse {
  /** The last token that was sent. A closing page uses it, because it cannot wait for a new one. @type {string | undefined} */
  #token;
  #isTokenMissing = false;
  /** Pending while a new token is requested. @type {Promise<string | undefined> | undefined} */
  #renewal;

  /** @param {Options} options */
  constructor({ userId, userName, url = '', token }) {
    if (typeof userId !== 'string') throw new TypeError('userId is missing: who is calling?');
    /** The id of the user. */
    this.userId = userId;
    /** The name of the user. */
    this.userName = userName;
    /** The URL of the server, without a trailing slash. */
    this.url = url.replace(/\/+$/, '');
    /** @private */
    this.getToken = token;
  }

  /** The absolute URL of the server. */
  get address() {
    return new URL(this.url + '/', globalThis.location?.href);
  }

  /** The path of a workspace's lock.
   * @param {string} workspaceId */
  lockPath(workspaceId) {
    // URL parsing removes these path segments.
    if (['', '.', '..'].includes(workspaceId)) throw new TypeError(`"${workspaceId}" cannot be the id of a workspace`);
    return `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/lock`;
  }

  /** Headers that name the user, for a client without a token. */
  #userHeaders() {
    /** @type {Record<string, string>} */
    const headers = { 'X-User-Id': encodeURIComponent(this.userId) };
    if (this.userName) headers['X-User-Name'] = encodeURIComponent(this.userName);
    return headers;
  }

  /** @param {{ refused?: boolean }} [asked] */
  async #getToken(asked) {
    try {
      const token = typeof this.getToken === 'function' ? await this.getToken(asked) : this.getToken;
      this.#isTokenMissing = false;
      return (this.#token = token);
    } catch (error) {
      // The call is retried, so without this line the fault would stay hidden. Logged once.
      if (!this.#isTokenMissing) console.error('Lockhouse has no token to call with:', error);
      this.#isTokenMissing = true;
      throw error;
    }
  }

  /** Whether another token than the refused one is available. Concurrent requests share one renewal.
   * @param {string | undefined} refused */
  async #hasNewToken(refused) {
    if (typeof this.getToken !== 'function') return false;
    if (this.#token !== refused) return true;
    this.#renewal ??= this.#getToken({ refused: true }).finally(() => (this.#renewal = undefined));
    return (await this.#renewal) !== refused;
  }

  /** Sends one request. Does not read the body of the response.
   * @param {string} method @param {string} path @param {Asked} [asked] @returns {Promise<Response>} */
  async open(method, path, { query = {}, body, signal = new AbortController().signal, timeoutMs } = {}) {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value));
    const url = this.url + path + (search.size ? '?' + search : '');
    const end = timeoutMs ? AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]) : signal;
    /** @param {string | undefined} token */
    const send = (token) => {
      const headers = this.getToken ? { Authorization: 'Bearer ' + token } : this.#userHeaders();
      const type = body && { 'Content-Type': 'application/json' };
      return fetch(url, { method, headers: { ...headers, ...type }, body: body ? JSON.stringify(body) : null, signal: end });
    };
    const token = await Promise.race([this.#getToken(), aborted(end)]);
    let response = await send(token);
    if (response.status === 401 && (await Promise.race([this.#hasNewToken(token), aborted(end)]))) response = await send(this.#token);
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /** Sends a request, and retries if the server cannot be reached or is busy. `sentAt`: when the answered attempt was sent.
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

  /** Acquires the lock, or renews the caller's own. With `wait_ms` it waits in the queue.
   * @param {string} workspaceId @param {AcquireBody} [body] @param {Asked} [asked] @returns {Promise<Acquired>} */
  acquire(workspaceId, body = {}, asked) {
    return this.#post(workspaceId, '', body, { timeoutMs: 15_000 + (body.wait_ms ?? 0), ...asked });
  }

  /** Takes the lock over, if the holder's fence is still `expectedFence`.
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

  /** Releases the lock. Succeeds if the lease has already ended.
   * @param {string} workspaceId @param {{ fence?: number }} [body] @returns {Promise<{ released: boolean }>} */
  release(workspaceId, body = {}) {
    return this.#post(workspaceId, '/release', body);
  }

  /** Releases the lock while the page closes. The credentials are in the body and its type is `text/plain`, because there is no time
   * for a preflight request. Never throws.
   * @param {string} workspaceId @param {{ fence: number }} body */
  releaseOnClose(workspaceId, { fence }) {
    const url = this.url + this.lockPath(workspaceId) + '/release';
    const text = JSON.stringify({ fence, access_token: this.getToken ? this.#token : this.userId });
    const beacon = () => navigator.sendBeacon?.(url, text);
    try {
      // Some extensions block beacons without an error.
      if ('keepalive' in Request.prototype) fetch(url, { method: 'POST', body: text, keepalive: true }).catch(beacon).catch(() => {});
      else beacon();
    } catch {
      // The lease will expire.
    }
  }

  /** The identity of the caller, according to the server.
   * @param {Asked} [asked] @returns {Promise<{ user_id: string | null, name: string | null, mode: string, scope: string | null, agent: Agent | null }>} */
  whoami(asked) {
    return this.request('GET', '/api/v1/whoami', asked);
  }

  /** Reads the lock.
   * @param {string} workspaceId @returns {Promise<{ locked: boolean, lock: Lock | null }>} */
  read(workspaceId) {
    return this.request('GET', this.lockPath(workspaceId));
  }

  /** Asks the holder for the lock.
   * @param {string} workspaceId @param {{ kind?: 'edit' | 'agent' | 'run', message?: string, name?: string, session_id?: string }} [body]
   * @returns {Promise<{ knock: Knock, lock: Lock }>} */
  knock(workspaceId, body = {}) {
    return this.#post(workspaceId, '/knock', body);
  }

  /** Declines the pending request for the lock.
   * @param {string} workspaceId @param {object} [body] @returns {Promise<{ declined: boolean }>} */
  decline(workspaceId, body = {}) {
    return this.#post(workspaceId, '/knock/decline', body);
  }

  /** Hands the lock over; without `to_user_id`, to the user whose request is pending.
   * @param {string} workspaceId @param {{ to_user_id?: string, fence?: number }} [body]
   * @returns {Promise<{ handed_over: boolean, lock: Lock }>} */
  handover(workspaceId, body = {}) {
    return this.#post(workspaceId, '/handover', body);
  }

  /** Past events, newest first.
   * @param {string} workspaceId @param {{ limit?: number, cursor?: string }} [query]
   * @returns {Promise<{ events: HistoryEvent[], next_cursor: string | null }>} */
  history(workspaceId, query = {}) {
    return this.request('GET', `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/history`, { query });
  }

  /** Follows events until `signal` is aborted. See {@link follow}.
   * @param {import('./events.js').FollowOptions} options */
  follow(options) {
    return follow(this, options);
  }
}
