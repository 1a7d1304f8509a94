const KEY = 'lockhouse session';

/** A name that nobody else has. (`randomUUID` is there on pages with TLS only.) */
export const randomName = () => crypto.getRandomValues(new Uint32Array(3)).join('-');

/** @param {(storage: Storage) => void} use */
function withStorage(use) {
  try {
    use(sessionStorage);
  } catch {
    // The browser keeps nothing for this page. Then a reload is another tab.
  }
}

/** @type {string | undefined} */
let mine;

/** What this tab is called. It stays the same when the page is loaded again. A tab that is duplicated is another one:
 * while the page is open its name stands nowhere where it could be copied.
 * @returns {string} */
export function tabSession() {
  if (mine) return mine;
  const take = () =>
    withStorage((storage) => {
      mine ??= storage.getItem(KEY) ?? undefined;
      storage.removeItem(KEY);
    });
  take();
  mine ??= 'tab-' + randomName();
  const name = mine;
  globalThis.window?.addEventListener('pagehide', () => withStorage((storage) => storage.setItem(KEY, name)));
  globalThis.window?.addEventListener('pageshow', take);
  return name;
}
