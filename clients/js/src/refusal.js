/** The body of a refusal (RFC 9457), with the members that its code brings.
 * @typedef {{
 *   code: string, detail: string, status: number, type?: string, title?: string, field?: string, request_id?: string,
 *   lock?: import('./client.js').Lock | null, same_user?: boolean, takeover_allowed?: boolean,
 *   lost?: import('./client.js').Lost | null, idle_for_ms?: number, again_in_ms?: number,
 * }} Problem */

/** What the server refused, and said why. */
export class Refusal extends Error {
  /** @param {Problem} problem @param {number} [retryAfterMs] */
  constructor(problem, retryAfterMs) {
    super(problem.detail);
    this.name = 'Refusal';
    /** The body of the answer. */
    this.problem = problem;
    /** What programs go by, such as `lock_held`. */
    this.code = problem.code;
    /** The HTTP status. */
    this.status = problem.status;
    /** After how long it is worth asking again, in milliseconds, if the server said so. */
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether Lockhouse itself said so, and not a proxy in between. */
  get isOwn() {
    return this.problem.type === 'urn:lockhouse:problem:' + this.code;
  }
}

/** Thrown by a save that must not go out: this tab does not have the lock. */
export class NotHeld extends Error {
  constructor() {
    super('This tab does not have the lock, so nothing is saved.');
    this.name = 'NotHeld';
  }
}

/** Whether it is a refusal with one of these codes.
 * @param {unknown} error @param {string[]} codes @returns {error is Refusal} */
export const isRefusal = (error, ...codes) => error instanceof Refusal && codes.includes(error.code);

/** The refusal that a response is. A proxy may have answered with a page of its own.
 * @param {Response} response @returns {Promise<Refusal>} */
export async function refusal(response) {
  const { status } = response;
  const said = await response.json().catch(() => null);
  const problem = typeof said?.code === 'string' ? said : { code: 'http_' + status, detail: 'HTTP ' + status };
  return new Refusal({ ...problem, status }, retryAfterMs(response.headers.get('Retry-After')));
}

/** Seconds or a date (RFC 9110 §10.2.3), in milliseconds.
 * @param {string | null} said */
function retryAfterMs(said) {
  if (!said) return undefined;
  const ms = Number.isFinite(Number(said)) ? Number(said) * 1000 : Date.parse(said) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
