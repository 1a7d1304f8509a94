/** Headers that name the lease, for a request that saves.
 * @param {string} workspaceId @param {number} fence @returns {Record<string, string>} */
export const leaseHeaders = (workspaceId, fence) => ({ 'X-Lock-Workspace': encodeURIComponent(workspaceId), 'X-Lock-Fence': String(fence) });

/** `fetch` with additional headers.
 * @param {RequestInfo | URL} input @param {RequestInit} init @param {Record<string, string>} more @returns {Promise<Response>} */
export function fetchWith(input, init, more) {
  const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
  for (const [name, value] of Object.entries(more)) headers.set(name, value);
  return fetch(input, { ...init, headers });
}
