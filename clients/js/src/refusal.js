/** The body of an error response (RFC 9457), with the members of its code.
 * @typedef {{
 *   code: string, detail: string, status: number, type?: string, title?: string, field?: string, request_id?: string,
 *   lock?: import('./client.js').Lock | null, same_user?: boolean, takeover_allowed?: boolean,
 *   lost?: import('./client.js').Lost | null, idle_for_ms?: number, again_in_ms?: number,
 * }} Problem */

/** An error response of the server. */
export class Refusal extends Error {
  /** @param {Problem} problem @param {number} [retryAfterMs] */
  constructor(problem, retryAfterMs) {
    super(problem.detail);
    this.name = 'Refusal';
    /** The body of the response. */
    this.problem = problem;
    /** The code for programs, such as `lock_held`. */
    this.code = problem.code;
    /** The HTTP status. */
    this.status = problem.status;
    /** Milliseconds to wait before retrying, if the server said so. */
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether Lockhouse sent it, and not a proxy. */
  get isOwn() {
    return this.problem.type === 'urn:lockhouse:problem:' + this.code;
  }
}

/** A save was not sent because this tab does not hold the lock. */
export class NotHeld extends Error {
  constructor() {
    super('This tab does not have the lock, so nothing is saved.');
    this.name = 'NotHeld';
  }
}

/** Whether an error is a refusal with one of these codes.
 * @param {unknown} error @param {string[]} codes @returns {error is Refusal} */
export const isRefusal = (error, ...codes) => error instanceof Refusal && codes.includes(error.code);

/** Reads a refusal from a response. A proxy's response may have a body of any type.
 * @param {Response} response @returns {Promise<Refusal>} */
export async function refusal(response) {
  const { status } = response;
  const body = await response.json().catch(() => null);
  const problem = typeof body?.code === 'string' ? body : { code: 'http_' + status, detail: 'HTTP ' + status };
  return new Refusal({ ...problem, status }, retryAfterMs(response.headers.get('Retry-After')));
}

/** Parses `Retry-After`: seconds or a date (RFC 9110 §10.2.3). Returns milliseconds.
 * @param {string | null} header */
function retryAfterMs(header) {
  if (!header) return undefined;
  const ms = Number.isFinite(Number(header)) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
