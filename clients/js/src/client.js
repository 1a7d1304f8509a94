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
 *   knock: Knock | null, waiting?: number }} Renewed */
/** @typedef {{
 *   revision: number, type: string, at: string, user_id: string | null, session_id: string | null,
 *   by_user_id: string | null, by_name: string | null, fence: number | null,
 *   detail: Record<string, unknown> & { new_fence?: number, to_user_id?: string, message?: string, outcome?: string, again_in_ms?: number },
 * }} HistoryEvent */
/** @typedef {{
 *   session_id?: string, ttl_ms?: number, force?: boolean, expected_fence?: number, wait_ms?: number, name?: string,
 *   note?: string, metadata?: Record<string, unknown>, reason?: string,
 * }} AcquireBody */
/** @typedef {string | ((asked?: { refused?: boolean }) => string | Promise<string>)} Token */
/** What is believed of who is calling depends on the server's `auth.mode`.
 * @typedef {object} Options
 * @property {string} userId who is calling: the id that the server knows them by.
 * @property {string} [userName] how they are shown, where the server believes it.
 * @property {string} [url] where the server is. Without it, the page's own origin.
 * @property {Token} [token] a token or JWT, or a function that gets one. It is called before every request, and once more with
 *   `refused` when the server did not take the token (401): get a new one then.
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
  /** Another token, while it is being got. @type {Promise<string | undefined> | undefined} */
  #another;

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

  /** Where the server is, in full. */
  get address() {
    return new URL(this.url + '/', globalThis.location?.href);
  }

  /** The path of a workspace's lock.
   * @param {string} workspaceId */
  lockPath(workspaceId) {
    // A browser takes these for folders.
    if (['', '.', '..'].includes(workspaceId)) throw new TypeError(`"${workspaceId}" cannot be the id of a workspace`);
    return `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/lock`;
  }

  /** Who is calling, when that is not said by a token. */
  #names() {
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
      // It is tried again and again, and would fail unseen.
      if (!this.#isTokenMissing) console.error('Lockhouse has no token to call with:', error);
      this.#isTokenMissing = true;
      throw error;
    }
  }

  /** Whether there is another token than the refused one. Requests that were refused together ask for it once.
   * @param {string | undefined} refused */
  async #hasAnother(refused) {
    if (typeof this.getToken !== 'function') return false;
    if (this.#token !== refused) return true;
    this.#another ??= this.#getToken({ refused: true }).finally(() => (this.#another = undefined));
    return (await this.#another) !== refused;
  }

  /** One attempt, whose answer is not read.
   * @param {string} method @param {string} path @param {Asked} [asked] @returns {Promise<Response>} */
  async open(method, path, { query = {}, body, signal = new AbortController().signal, timeoutMs } = {}) {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value));
    const url = this.url + path + (search.size ? '?' + search : '');
    const end = timeoutMs ? AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]) : signal;
    /** @param {string | undefined} token */
    const send = (token) => {
      const headers = this.getToken ? { Authorization: 'Bearer ' + token } : this.#names();
      const type = body && { 'Content-Type': 'application/json' };
      return fetch(url, { method, headers: { ...headers, ...type }, body: body ? JSON.stringify(body) : null, signal: end });
    };
    const token = await Promise.race([this.#getToken(), aborted(end)]);
    let response = await send(token);
    if (response.status === 401 && (await Promise.race([this.#hasAnother(token), aborted(end)]))) response = await send(this.#token);
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

  /** The same from a page that closes. The credentials are in the body and its type is `text/plain`, so that no preflight is needed,
   * for which there would be no time. Never throws.
   * @param {string} workspaceId @param {{ fence: number }} body */
  releaseOnClose(workspaceId, { fence }) {
    const url = this.url + this.lockPath(workspaceId) + '/release';
    const text = JSON.stringify({ fence, access_token: this.getToken ? this.#token : this.userId });
    const beacon = () => navigator.sendBeacon?.(url, text);
    try {
      // Some extensions block beacons, and the page is not told.
      if ('keepalive' in Request.prototype) fetch(url, { method: 'POST', body: text, keepalive: true }).catch(beacon).catch(() => {});
      else beacon();
    } catch {
      // Then the lease ends by itself.
    }
  }

  /** Whom the server takes the caller for.
   * @param {Asked} [asked] @returns {Promise<{ user_id: string | null, name: string | null, mode: string, scope: string | null }>} */
  whoami(asked) {
    return this.request('GET', '/api/v1/whoami', asked);
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
