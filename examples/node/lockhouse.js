// All calls to Lockhouse. The token has the scope `service`: keep it as secret as the database's password.
const { LOCKHOUSE, LOCKHOUSE_TOKEN } = process.env;

async function ask(path, { headers, ...init } = {}) {
  const response = await fetch(`${LOCKHOUSE}/api/v1${path}`, {
    ...init,
    headers: { ...headers, Authorization: `Bearer ${LOCKHOUSE_TOKEN}`, 'Content-Type': 'application/json' },
    signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok && response.status !== 403) throw new Error(`Lockhouse answers ${response.status} to ${path}`);
  return response;
}

/** A token for this user's browser, for fifteen minutes. Others see the name. */
export async function tokenFor(userId, name) {
  const body = JSON.stringify({ user_id: userId, name, ttl_ms: 900_000 });
  const response = await ask('/tokens', { method: 'POST', body });
  return (await response.json()).token;
}

/** Whether this user has the lock with this fence now. */
export async function hasLock(userId, workspaceId, fence) {
  const query = `workspace_id=${encodeURIComponent(workspaceId)}&fence=${fence}`;
  const response = await ask(`/gate?${query}`, { headers: { 'X-User-Id': encodeURIComponent(userId) } });
  return response.status === 204;
}
