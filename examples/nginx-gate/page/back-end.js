// How the page calls nginx, which asks the gate before it writes.

/** The page says who is signed in, so that one browser can show two people. Your users sign in. */
export const userId = new URLSearchParams(location.search).get('user') ?? 'alice';
/** Lockhouse, behind the same nginx. */
export const lockhouse = '/locks';
export const token = (await (await fetch('/tokens/' + userId)).text()).trim();
/** The gate takes the token and the fence. */
export const authorize = (init) => ({ ...init, headers: { ...init.headers, Authorization: 'Bearer ' + token } });

export const documentUrl = '/documents/design-42';
/** Begins to edit: files keep no fence, so the text is only read. */
export const open = { method: 'GET', url: documentUrl };
