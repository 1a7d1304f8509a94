/** Stores unsaved text on this device. A separate module, so that apps that do not use it do not load it. */

const PREFIX = 'lockhouse draft ';
/** Limits: size of a draft in bytes, number of drafts, age (milliseconds). */
const MAX_BYTES = 256 * 1024;
const MAX_DRAFTS = 20;
const MAX_AGE_MS = 14 * 24 * 3_600_000;
/** Delay between typing and writing (milliseconds). */
const WRITE_DELAY_MS = 300;

/** A stored draft. `base`: digest of the saved text that the person started from. `by`: a user who held the lock since, at `byAt`.
 * @typedef {{ text: string, base: string | null, at: number, by: { userId: string, name: string | null } | null, byAt: number | null }} Kept */
/** A draft that was found when the person began to edit. `isUsed`: the saved text has not changed since, so the editor shows the draft.
 * Otherwise it shows `saved`, and the draft is offered. `at`: when it was typed. `by`: a user who held the lock since, at `byAt`, if
 * known. Times are in milliseconds since 1970.
 * @typedef {Omit<Kept, 'base'> & { saved: string, isUsed: boolean }} Found */

/** Drafts of this page, including those that the browser cannot store. `isStored`: it was written, so if it is missing in the storage,
 * it was removed there. @type {Map<string, { kept: Kept, isStored: boolean }>} */
const memory = new Map();

/** The unsaved text of one editor. It sets `lock.draft`, so that the dialog can offer a draft. */
export class Draft {
  /** The draft found by {@link begin}, until the person has chosen. @type {Found | null} */ found = null;
  /** Whether the last text is stored: false if it is larger than 256 KiB, or the storage is full or missing. */
  isKept = true;
  /** @type {string | null} */ #saved = null;
  /** Storage key of the current text. @type {string | null} */ #key = null;
  /** Storage key of the found draft. @type {string | null} */ #foundKey = null;
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
    lock.addEventListener('change', () => this.#recordHolder());
    globalThis.window?.addEventListener('pagehide', () => this.#write());
    globalThis.document?.addEventListener('visibilitychange', () => document.hidden && this.#write());
  }

  /** Whether there is unsaved text. */
  get isUnsaved() {
    return this.#key !== null;
  }

  /** Call when the person begins to edit. Shows the saved text, or the person's draft if the saved text has not changed since. In both
   * cases a draft is in {@link found}.
   * @param {string} saved the app's saved text */
  begin(saved) {
    this.#write();
    const { userId, workspaceId, sessionId } = this.#identity;
    const mine = all().filter(({ id: [user, workspace] }) => user === userId && workspace === workspaceId);
    const newest = mine.find(({ id: [, , session] }) => session === sessionId) ?? mine[0];
    this.#saved = saved;
    this.#key = null;
    this.#foundKey = null;
    this.found = null;
    if (newest?.kept.text === saved) {
      // The save succeeded although its response was lost.
      remove(newest.key);
    } else if (newest) {
      const { base, ...kept } = newest.kept;
      const isUsed = base === digest(saved);
      this.found = { ...kept, saved, isUsed };
      this.#foundKey = newest.key;
      if (isUsed) this.#key = newest.key;
    }
    this.#show(this.found?.isUsed ? this.found.text : saved);
    this.#dispatch();
  }

  /** Call when the text in the editor changes.
   * @param {string} text */
  keep(text) {
    if (text === this.#saved) return this.#drop();
    const { userId, workspaceId, sessionId } = this.#identity;
    this.#key ??= PREFIX + JSON.stringify([userId, workspaceId, sessionId, Date.now().toString(36) + Math.random().toString(36).slice(2, 6)]);
    const base = this.#saved === null ? null : digest(this.#saved);
    memory.set(this.#key, { kept: { text, base, at: Date.now(), by: null, byAt: null }, isStored: false });
    this.#timer ??= setTimeout(() => this.#write(), WRITE_DELAY_MS);
  }

  /** Call when a text was saved. What was typed since stays unsaved.
   * @param {string} text */
  saved(text) {
    this.#saved = text;
    const now = this.#key === null ? undefined : memory.get(this.#key)?.kept.text ?? this.found?.text;
    if (now === undefined || now === text) this.#drop();
    else this.keep(now);
  }

  /** Shows the found draft in the editor. It is still unsaved. */
  use() {
    this.#choose((found) => found.text);
  }

  /** Deletes the found draft. */
  discard() {
    this.#choose((found) => (found.isUsed ? found.saved : null));
  }

  /** The person has seen that their text was restored. */
  confirm() {
    this.found = null;
    this.#dispatch();
  }

  /** Deletes all drafts of a user on this device. Call it at logout.
   * @param {string} userId */
  static forgetUser(userId) {
    for (const { key, id: [user] } of all()) if (user === userId) remove(key);
  }

  get #identity() {
    const { workspaceId, sessionId, client: { userId } } = this.#lock;
    return { workspaceId, sessionId, userId };
  }

  /** @param {(found: Found) => string | null} text the text to show; null leaves the editor as it is */
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

  #dispatch() {
    this.#lock.dispatchEvent(new CustomEvent('draft', { detail: this.found }));
  }

  /** Records another holder, who may have saved, for the offer of this draft. */
  #recordHolder() {
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
    if (isKept !== this.isKept) this.#dispatch();
  }
}

/** Never throws: access to the storage may be denied.
 * @template T @param {(storage: Storage) => T} use @returns {T | undefined} */
function withStorage(use) {
  try {
    return use(localStorage);
  } catch {
    return undefined;
  }
}

/** All drafts, newest first. Removes those beyond the limits.
 * @returns {{ key: string, id: string[], kept: Kept }[]} */
function all() {
  const stored = withStorage((storage) => Object.keys(storage).filter((key) => key.startsWith(PREFIX))) ?? [];
  for (const [key, { isStored }] of memory) if (isStored && !stored.includes(key)) memory.delete(key);
  const found = [...new Set([...stored, ...memory.keys()])].flatMap((key) => {
    try {
      const kept = memory.get(key)?.kept ?? JSON.parse(withStorage((storage) => storage.getItem(key)) ?? '');
      if (typeof kept.text !== 'string' || !(Date.now() - kept.at < MAX_AGE_MS)) throw new RangeError(key);
      return [{ key, id: JSON.parse(key.slice(PREFIX.length)), kept }];
    } catch {
      remove(key);
      return [];
    }
  });
  found.sort((a, b) => b.kept.at - a.kept.at);
  found.slice(MAX_DRAFTS).forEach(({ key }) => remove(key));
  return found.slice(0, MAX_DRAFTS);
}

/** @param {string} key @param {Kept} kept */
function store(key, kept) {
  const text = JSON.stringify(kept);
  const isSmall = new TextEncoder().encode(text).length <= MAX_BYTES;
  const set = () => isSmall && withStorage((storage) => (storage.setItem(key, text), true));
  const older = all().filter((other) => other.key !== key);
  let isStored = set();
  // The storage is full: remove the oldest draft.
  while (isSmall && !isStored && older.length) {
    remove(older.pop()?.key ?? '');
    isStored = set();
  }
  // An older text under this key would be out of date.
  if (!isStored) withStorage((storage) => storage.removeItem(key));
  return Boolean(isStored);
}

/** @param {string} key */
function remove(key) {
  memory.delete(key);
  withStorage((storage) => storage.removeItem(key));
}

/** A hash (cyrb53), to compare texts without storing the saved one.
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
