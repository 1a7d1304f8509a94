/** Keeps what was typed and not saved, on this device. A module of its own: who does not import it pays nothing for it. */

const PREFIX = 'lockhouse draft ';
/** Most of one draft, in bytes; most drafts; and for how long they are kept (milliseconds). */
const MOST_BYTES = 256 * 1024;
const MOST = 20;
const KEPT_MS = 14 * 24 * 3_600_000;
/** So much later it is written: not at each key (milliseconds). */
const PAUSE_MS = 300;

/** A draft as it is kept. `base` is the digest of the text that it began with; `by` had the lock since, at `byAt`.
 * @typedef {{ text: string, base: string | null, at: number, by: { userId: string, name: string | null } | null, byAt: number | null }} Kept */
/** What was found when the person began to edit. `isUsed`: nobody has saved since, and it is what they go on with. Otherwise `saved` is, and
 * `text` is offered beside it. `at`: when it was typed; `by` had the lock since, if that is known, at `byAt` (milliseconds since 1970).
 * @typedef {Omit<Kept, 'base'> & { saved: string, isUsed: boolean }} Found */

/** What this page has typed, also where the browser keeps nothing or it is too large. `isStored`: if it is not in the storage any more, somebody
 * has removed it there. @type {Map<string, { kept: Kept, isStored: boolean }>} */
const memory = new Map();

/** What is typed into one editor. It says so to the lock (`lock.draft`), so that the dialog offers what was found. */
export class Draft {
  /** What was found, until the person has chosen. @type {Found | null} */ found = null;
  /** Whether the browser keeps what was typed last: not if it is larger than 256 KiB, or the storage is full or missing. */
  isKept = true;
  /** @type {string | null} */ #saved = null;
  /** Where what is typed now is kept. @type {string | null} */ #key = null;
  /** Where what was found is kept. @type {string | null} */ #foundKey = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {import('./lock.js').WorkspaceLock} */ #lock;
  /** @type {(text: string) => void} */ #show;

  /** @param {import('./lock.js').WorkspaceLock} lock
   * @param {(text: string) => void} show puts a text into the editor */
  constructor(lock, show) {
    this.#lock = lock;
    this.#show = show;
    lock.draft = this;
    lock.addEventListener('lost', () => this.#write());
    lock.addEventListener('change', () => this.#sawHolder());
    globalThis.window?.addEventListener('pagehide', () => this.#write());
    globalThis.document?.addEventListener('visibilitychange', () => document.hidden && this.#write());
  }

  /** Whether something was typed and not saved. */
  get isUnsaved() {
    return this.#key !== null;
  }

  /** The person begins to edit, and `saved` is what is stored. Shows it, unless they had typed something and nobody has saved since: then
   * they go on with that. In both cases {@link found} says what was typed.
   * @param {string} saved */
  begin(saved) {
    this.#write();
    const { userId, workspaceId, sessionId } = this.#names;
    const mine = all().filter(({ id: [user, workspace] }) => user === userId && workspace === workspaceId);
    const newest = mine.find(({ id: [, , session] }) => session === sessionId) ?? mine[0];
    this.#saved = saved;
    this.#key = null;
    this.#foundKey = null;
    this.found = null;
    if (newest?.kept.text === saved) {
      // It was saved, though the answer did not come.
      remove(newest.key);
    } else if (newest) {
      const { base, ...kept } = newest.kept;
      const isUsed = base === digest(saved);
      this.found = { ...kept, saved, isUsed };
      this.#foundKey = newest.key;
      if (isUsed) this.#key = newest.key;
    }
    this.#show(this.found?.isUsed ? this.found.text : saved);
    this.#tell();
  }

  /** This is what stands in the editor now.
   * @param {string} text */
  keep(text) {
    if (text === this.#saved) return this.#drop();
    const { userId, workspaceId, sessionId } = this.#names;
    this.#key ??= PREFIX + JSON.stringify([userId, workspaceId, sessionId, Date.now().toString(36) + Math.random().toString(36).slice(2, 6)]);
    const base = this.#saved === null ? null : digest(this.#saved);
    memory.set(this.#key, { kept: { text, base, at: Date.now(), by: null, byAt: null }, isStored: false });
    this.#timer ??= setTimeout(() => this.#write(), PAUSE_MS);
  }

  /** This was saved. What was typed since then is not.
   * @param {string} text */
  saved(text) {
    this.#saved = text;
    const now = this.#key === null ? undefined : memory.get(this.#key)?.kept.text ?? this.found?.text;
    if (now === undefined || now === text) this.#drop();
    else this.keep(now);
  }

  /** The person takes what was typed: it is shown, and not saved yet. */
  use() {
    this.#choose((found) => found.text);
  }

  /** The person does not want what was typed. */
  discard() {
    this.#choose((found) => (found.isUsed ? found.saved : null));
  }

  /** The person has seen that their text is back, and goes on with it. */
  confirm() {
    this.found = null;
    this.#tell();
  }

  /** At logout: nothing of this user stays on this device.
   * @param {string} userId */
  static forgetUser(userId) {
    for (const { key, id: [user] } of all()) if (user === userId) remove(key);
  }

  get #names() {
    const { workspaceId, sessionId, client: { userId } } = this.#lock;
    return { workspaceId, sessionId, userId };
  }

  /** @param {(found: Found) => string | null} text what is to be shown */
  #choose(text) {
    if (!this.found) return;
    const shown = text(this.found);
    if (this.#foundKey !== null) remove(this.#foundKey);
    if (this.#foundKey === this.#key) this.#key = null;
    this.confirm();
    if (shown === null) return;
    this.#show(shown);
    this.keep(shown);
  }

  #drop() {
    if (this.#key !== null) remove(this.#key);
    this.#key = null;
    if (this.found?.isUsed) this.confirm();
  }

  #tell() {
    this.#lock.dispatchEvent(new CustomEvent('draft', { detail: this.found }));
  }

  /** Who has it may save: that is told beside what was typed. */
  #sawHolder() {
    const { view: { holder, state }, client: { userId } } = this.#lock;
    const mine = this.#key === null ? undefined : memory.get(this.#key);
    if (!mine || !holder || state === 'held' || holder.locked_by_user_id === userId || mine.kept.by?.userId === holder.locked_by_user_id) return;
    mine.kept = { ...mine.kept, by: { userId: holder.locked_by_user_id, name: holder.locked_by_name }, byAt: Date.now() };
    mine.isStored = false;
    this.#write();
  }

  #write() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const mine = this.#key === null ? undefined : memory.get(this.#key);
    if (this.#key === null || !mine || mine.isStored) return;
    const { isKept } = this;
    this.isKept = mine.isStored = store(this.#key, mine.kept);
    if (isKept !== this.isKept) this.#tell();
  }
}

/** Never throws: a browser may keep nothing for this page.
 * @template T @param {(storage: Storage) => T} use @returns {T | undefined} */
function withStorage(use) {
  try {
    return use(localStorage);
  } catch {
    return undefined;
  }
}

/** All that is kept, the newest first. What is too old, or too much, is removed.
 * @returns {{ key: string, id: string[], kept: Kept }[]} */
function all() {
  const stored = withStorage((storage) => Object.keys(storage).filter((key) => key.startsWith(PREFIX))) ?? [];
  for (const [key, { isStored }] of memory) if (isStored && !stored.includes(key)) memory.delete(key);
  const found = [...new Set([...stored, ...memory.keys()])].flatMap((key) => {
    try {
      const kept = memory.get(key)?.kept ?? JSON.parse(withStorage((storage) => storage.getItem(key)) ?? '');
      if (typeof kept.text !== 'string' || !(Date.now() - kept.at < KEPT_MS)) throw new RangeError(key);
      return [{ key, id: JSON.parse(key.slice(PREFIX.length)), kept }];
    } catch {
      remove(key);
      return [];
    }
  });
  found.sort((a, b) => b.kept.at - a.kept.at);
  found.slice(MOST).forEach(({ key }) => remove(key));
  return found.slice(0, MOST);
}

/** @param {string} key @param {Kept} kept */
function store(key, kept) {
  const text = JSON.stringify(kept);
  // What was kept before is not what was typed last.
  const isSmall = new TextEncoder().encode(text).length <= MOST_BYTES;
  const set = () => isSmall && withStorage((storage) => (storage.setItem(key, text), true));
  const older = all().filter((other) => other.key !== key);
  let isStored = set();
  // The storage is full: the oldest goes.
  while (isSmall && !isStored && older.length) {
    remove(older.pop()?.key ?? '');
    isStored = set();
  }
  if (!isStored) withStorage((storage) => storage.removeItem(key));
  return Boolean(isStored);
}

/** @param {string} key */
function remove(key) {
  memory.delete(key);
  withStorage((storage) => storage.removeItem(key));
}

/** Tells texts apart (cyrb53): what was saved is not kept a second time.
 * @param {string} text */
function digest(text) {
  let [a, b] = [0xdeadbeef, 0x41c6ce57];
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    a = Math.imul(a ^ code, 2654435761);
    b = Math.imul(b ^ code, 1597334677);
  }
  return `${text.length} ${(a >>> 0).toString(36)} ${(b >>> 0).toString(36)}`;
}
