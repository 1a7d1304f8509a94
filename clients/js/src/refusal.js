/** The body of a refusal (RFC 9457), with the members that its code brings.
 * @typedef {{
 *   code: string, detail: string, status: number, title?: string, field?: string, request_id?: string,
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
}

/** Whether it is a refusal with one of these codes.
 * @param {unknown} error @param {string[]} codes @returns {error is Refusal} */
export const isRefusal = (error, ...codes) => error instanceof Refusal && codes.includes(error.code);

/** The refusal that a response is. Whoever stands between may have answered with a page of their own.
 * @param {Response} response @returns {Promise<Refusal>} */
export async function refusal(response) {
  const { status } = response;
  const seconds = Number(response.headers.get('Retry-After') ?? NaN);
  const said = await response.json().catch(() => null);
  const problem = typeof said?.code === 'string' ? said : { code: 'http_' + status, detail: 'HTTP ' + status };
  return new Refusal({ ...problem, status }, Number.isFinite(seconds) ? seconds * 1000 : undefined);
}
