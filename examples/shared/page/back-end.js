// How the page calls its app.

/** The page says who is signed in, so that one browser can show two people. Your app has sessions. */
export const userId = new URLSearchParams(location.search).get('user') ?? 'alice';
export const authorize = (init) => ({ ...init, headers: { ...init.headers, 'X-User': userId } });

export const documentUrl = '/documents/design-42';
/** Begins to edit: the back end keeps the fence and answers with the text. */
export const open = { method: 'POST', url: documentUrl + '/open' };

/** Where Lockhouse is. */
export const { lockhouse } = await (await fetch('/settings.json')).json();

/** @type {Promise<string>} */
let kept;
let until = 0;
/** A token for this user, from the back end, kept until shortly before its end. */
export function token({ refused = false } = {}) {
  if (refused || performance.now() > until) {
    until = performance.now() + 10 * 60_000;
    kept = fetch('/lock-token', authorize({ method: 'POST' })).then((response) => {
      if (!response.ok) throw new Error('No token: ' + response.status);
      return response.text();
    });
    kept.catch(() => { until = 0; });
  }
  return kept;
}
