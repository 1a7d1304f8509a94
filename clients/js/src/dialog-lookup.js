/** Whether the page with this session is in this browser. Such a page holds a Web Lock with the session's name. False if unknown.
 * @param {string} session */
export async function isSessionHere(session) {
  const { held } = (await navigator.locks?.query().catch(() => undefined)) ?? {};
  return Boolean(held?.some(({ name }) => name === 'lockhouse session ' + session));
}

/** The place of this tab in the queue, from 1 (0: not in it), and the length of the queue. Null if the server does not say.
 * @param {import('./lock.js').WorkspaceLock} lock */
export async function placeInQueue({ client, workspaceId, sessionId }) {
  const { waiting } = await client.request('GET', `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/presence`).catch(() => ({}));
  if (!Array.isArray(waiting)) return null;
  const isThis = (/** @type {{ user_id: string, session_id: string | null }} */ { user_id, session_id }) => user_id === client.userId && (session_id === null || session_id === sessionId);
  return { at: 1 + waiting.findIndex(isThis), of: waiting.length };
}
