import { backoff, isPassing, sleep } from './retry.js';

/** The server sends a comment every 15 s. After this time without data the connection counts as lost (milliseconds). */
export const SILENCE_MS = 40_000;
/** A connection that lasted this long resets the backoff (milliseconds). */
const STABLE_MS = 10_000;

/** An event, with the lock that it created if that lock still exists.
 * @typedef {import('./client.js').HistoryEvent & { workspace_id: string, lock: import('./client.js').Lock | null }} LockEvent */
/** An entry of the stream: an event, or `reset`: events were missed, so read the state again.
 * @typedef {{ id: number, type: string, data: LockEvent | null }} StreamEvent */
/** @typedef {object} FollowOptions
 * @property {string[]} [workspaceIds] default: all that the caller may see.
 * @property {number} [since] the last revision received; default: only new events.
 * @property {AbortSignal} signal ends it.
 * @property {(event: StreamEvent) => void} onEvent
 * @property {(connected: boolean) => void} [onConnection] the connection was established or lost.
 * @property {() => void} [onAlive] data arrived: an event, or the comment that the server sends every 15 s.
 */

/** Follows events in order, each once, and reconnects. Resolves when `signal` is aborted; rejects when the server refuses.
 * `EventSource` is not used because it cannot send credentials.
 * @param {import('./client.js').Lockhouse} client @param {FollowOptions} options */
export async function follow(client, { workspaceIds = [], since, signal, onEvent, onConnection, onAlive }) {
  const query = new URLSearchParams(workspaceIds.map((id) => ['workspace_id', id]));
  let last = since;
  let wasConnected = false;
  for (let attempt = 0; !signal.aborted; attempt++) {
    if (last !== undefined) query.set('since', String(last));
    const startedAt = performance.now();
    /** @type {unknown} */
    let problem;
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    try {
      const response = await client.open('GET', '/api/v1/events?' + query, { signal: AbortSignal.any([signal, silence.signal]) });
      if (!response.headers.get('Content-Type')?.startsWith('text/event-stream')) throw new TypeError('This is no stream of events.');
      let hasData = false;
      const parse = parser((event) => {
        last = event.id;
        onEvent(event);
      });
      for await (const bytes of chunks(response)) {
        if (!hasData) {
          // The subscription begins with the first data, not with the response headers.
          hasData = true;
          onConnection?.(true);
          // No revision was received before the connection was lost, so events may have been missed.
          if (wasConnected && last === undefined) onEvent({ id: 0, type: 'reset', data: null });
          wasConnected = true;
        }
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        onAlive?.();
        parse(bytes);
      }
    } catch (error) {
      if (signal.aborted) break;
      if (!isPassing(error) && !silence.signal.aborted) throw error;
      problem = error;
    } finally {
      clearTimeout(timer);
      // A callback that threw left the response open.
      silence.abort();
      onConnection?.(false);
    }
    if (performance.now() - startedAt >= STABLE_MS) attempt = 0;
    await sleep(backoff(attempt, problem), signal).catch(() => {});
  }
}

/** @param {Response} response @returns {AsyncGenerator<Uint8Array, void>} */
async function* chunks(response) {
  const reader = response.body?.getReader();
  for (;;) {
    const read = await reader?.read();
    if (!read || read.done) return;
    yield read.value;
  }
}

/** An incremental parser of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), for the subset that
 * the server writes: lines end with `\n`, and an event has an id, a type and one line of data, in this order.
 * @param {(event: StreamEvent) => void} onEvent @returns {(bytes: Uint8Array) => void} */
function parser(onEvent) {
  const decoder = new TextDecoder();
  let rest = '';
  return (bytes) => {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
    rest = parts.pop() ?? '';
    for (const part of parts) {
      // `.` does not match all characters that JSON may contain, such as U+2028.
      const [, id, type, data] = /id: (.+)\nevent: (.+)\ndata: ([^\n]+)/.exec(part) ?? [];
      if (type && data) onEvent({ id: Number(id), type, data: JSON.parse(data) });
    }
  };
}
