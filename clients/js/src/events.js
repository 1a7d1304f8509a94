import { backoff, isPassing, sleep } from './retry.js';

/** The server says something every 15 s. After so long without a word the connection is dead (milliseconds). */
export const SILENCE_MS = 40_000;
/** A connection that has lasted so long was a good one (milliseconds). */
const GOOD_MS = 10_000;

/** What happened, with the lock that it began if that is still there.
 * @typedef {import('./client.js').HistoryEvent & { workspace_id: string, lock: import('./client.js').Lock | null }} LockEvent */
/** What is told: an event, or `reset`, which means that some were missed and the state is to be read anew.
 * @typedef {{ id: number, type: string, data: LockEvent | null }} Told */
/** @typedef {object} Following
 * @property {string[]} [workspaceIds] only these; without them all that one may see.
 * @property {number} [since] the last revision that was heard; without it, from now on.
 * @property {AbortSignal} signal ends it.
 * @property {(told: Told) => void} onEvent
 * @property {(connected: boolean) => void} [onConnection] whether it is connected just now.
 * @property {() => void} [onAlive] something was heard: an event, or the comment that the server sends every 15 s.
 */

/** Tells what happens, in order, each event once, and comes back by itself when the connection is lost.
 * Ends when `signal` says so; throws when the server refuses.
 * (Not by `EventSource`: that sends no credentials.)
 * @param {import('./client.js').Lockhouse} client @param {Following} following */
export async function follow(client, { workspaceIds = [], since, signal, onEvent, onConnection, onAlive }) {
  const query = new URLSearchParams(workspaceIds.map((id) => ['workspace_id', id]));
  let last = since;
  let wasConnected = false;
  for (let attempt = 0; !signal.aborted; attempt++) {
    if (last !== undefined) query.set('since', String(last));
    const began = performance.now();
    /** @type {unknown} */
    let problem;
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    try {
      const response = await client.open('GET', '/api/v1/events?' + query, { signal: AbortSignal.any([signal, silence.signal]) });
      if (!response.headers.get('Content-Type')?.startsWith('text/event-stream')) throw new TypeError('This is no stream of events.');
      let isHeard = false;
      const read = reader((told) => {
        last = told.id;
        onEvent(told);
      });
      for await (const bytes of chunks(response)) {
        if (!isHeard) {
          // With the first word, and not before it, what happens from now on is told.
          isHeard = true;
          onConnection?.(true);
          // Nothing was heard before the connection was lost, so it is not known where to go on.
          if (wasConnected && last === undefined) onEvent({ id: 0, type: 'reset', data: null });
          wasConnected = true;
        }
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        onAlive?.();
        read(bytes);
      }
    } catch (error) {
      if (signal.aborted) break;
      if (!isPassing(error) && !silence.signal.aborted) throw error;
      problem = error;
    } finally {
      clearTimeout(timer);
      // Whoever threw when they were told has not closed it.
      silence.abort();
      onConnection?.(false);
    }
    if (performance.now() - began >= GOOD_MS) attempt = 0;
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

/** Takes the bytes of a stream as they come, and tells what they say
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html, as the server writes it: `\n` ends a line, and an
 * event has an id, a type and one line of data, in this order).
 * @param {(told: Told) => void} tell @returns {(bytes: Uint8Array) => void} */
function reader(tell) {
  const decoder = new TextDecoder();
  let rest = '';
  return (bytes) => {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
    rest = parts.pop() ?? '';
    for (const part of parts) {
      // JSON may have line ends of other kinds in it, such as U+2028.
      const [, id, type, data] = /id: (.+)\nevent: (.+)\ndata: ([^\n]+)/.exec(part) ?? [];
      if (type && data) tell({ id: Number(id), type, data: JSON.parse(data) });
    }
  };
}
