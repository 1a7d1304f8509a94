import { WorkspaceLock } from '/client/index.js';
import { Draft } from '/client/draft.js';
import '/client/dialog.js';
import { ago, byId, fenceOf, seconds, write } from './page.js';

const STATES = {
  unknown: 'Connecting', free: 'Reading', 'held-by-other': 'Reading, somebody else edits', waiting: 'Waiting in line', held: 'Editing', lost: 'No longer editing',
};

/** Interval of updates of the countdown (milliseconds). */
const TICK_MS = 250;

/** One of the two people: client, lock and editor. */
export class Person {
  #typedAt = 0;
  #beatAt = 0;
  #fence = 0;
  /** The unsaved text. @type {Draft} */
  #draft;

  constructor(client, wholeName, side, workspaceId, shared) {
    const [name] = wholeName.split(' ');
    Object.assign(this, { client, name, side, workspaceId, shared });
    this.root = byId('person').content.cloneNode(true).firstElementChild;
    const find = (selector) => this.root.querySelector(selector);
    this.parts = Object.fromEntries(
      ['textarea', 'lockhouse-dialog', '.gone', '.state', '.bar', '.until', '.beat', '.beat span', '.token', '.typed', '.edit', '.save', '.slow', '.crash', '.reopen']
        .map((selector) => [selector, find(selector)]),
    );
    this.text = this.parts.textarea;
    this.dialog = this.parts['lockhouse-dialog'];
    this.root.classList.add(side);
    this.root.setAttribute('aria-labelledby', side);
    find('h2').id = side;
    find('h2').textContent = wholeName;
    find('.face').textContent = name[0];
    this.text.setAttribute('aria-label', `The text, as ${name} sees it`);
    this.#listen();
  }

  #listen() {
    const { parts, text, dialog } = this;
    const click = (selector, act) => parts[selector].addEventListener('click', act);
    click('.edit', () => (this.lock.state === 'held' ? this.#done() : dialog.edit()));
    click('.save', () => this.#save());
    click('.slow', () => this.shared.saveSlowly(this.name, text.value, this.lock.fence));
    click('.crash', () => this.#crash());
    click('.reopen', () => this.#reopen());
    text.addEventListener('input', () => {
      this.#draft.keep(text.value);
      this.#typedAt = performance.now();
      this.lock.activity();
      this.#tick();
    });
    // The covered content must not be reachable by Tab.
    dialog.addEventListener('open', () => (text.tabIndex = -1));
    dialog.addEventListener('close', () => text.removeAttribute('tabindex'));
    this.shared.addEventListener('saved', () => this.#read());
    this.client.onBeat = () => {
      this.#beatAt = performance.now();
      const [heart] = parts['.beat'].children;
      heart.getAnimations?.().forEach((animation) => animation.cancel());
      heart.classList.remove('beats');
      requestAnimationFrame(() => heart.classList.add('beats'));
      this.#tick();
    };
    setInterval(() => this.#tick(), TICK_MS);
  }

  /** Opens the tab. */
  begin(ttlMs) {
    const { side, workspaceId } = this;
    this.ttlMs = ttlMs;
    const sessionId = `${side}-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    // A closed tab saves nothing.
    const beforeRelease = () => this.client.isCutOff || !this.#isUnsaved || this.#save();
    this.lock = new WorkspaceLock(this.client, workspaceId, { ttlMs, sessionId, beforeRelease });
    this.#draft = new Draft(this.lock, (text) => (this.text.value = text));
    this.dialog.lock = this.lock;
    this.lock.addEventListener('change', () => this.#changed());
    this.#changed();
  }

  /** Opens the tab again, with another duration of the lease. */
  async again(ttlMs) {
    const { lock } = this;
    if (this.client.isCutOff) {
      this.ttlMs = ttlMs;
      return;
    }
    const wasHeld = lock.state === 'held';
    await lock.close().catch(() => {});
    this.begin(ttlMs);
    if (wasHeld) await this.dialog.edit();
  }

  #changed() {
    const { fence } = this.lock;
    if (fence && fence !== this.#fence) {
      this.#fence = fence;
      // A save by another person in between is not overwritten: the unsaved text is offered beside it.
      this.#draft.begin(this.shared.open(fence));
      if (this.root.contains(document.activeElement)) this.text.focus();
    }
    this.#read();
    this.#tick();
  }

  get #isUnsaved() {
    return this.#draft?.isUnsaved ?? false;
  }

  /** A reader sees the saved text. */
  #read() {
    if (!this.client.isCutOff && !this.#isUnsaved && this.text.value !== this.shared.text) this.text.value = this.shared.text;
    this.#tick();
  }

  #save() {
    const { fence } = this.lock;
    if (fence === null) return;
    if (this.shared.save(this.name, this.text.value, fence)) this.#draft.saved(this.text.value);
    this.#read();
  }

  async #done() {
    await this.lock.release().catch(() => {});
  }

  /** Simulates a crash: no release, no further heartbeat. */
  #crash() {
    const { client, lock } = this;
    if (lock.state !== 'held') client.lease.forMs = 0;
    client.isCutOff = true;
    lock.close().catch(() => {});
    this.dialog.lock = null;
    this.#tick();
    this.parts['.reopen'].focus();
  }

  /** Shows the holder. A closed tab receives no events. */
  hear(lock) {
    if (this.client.isCutOff && lock?.locked_by_user_id !== this.client.userId) this.client.lease.forMs = 0;
    this.#tick();
  }

  #reopen() {
    this.client.isCutOff = false;
    this.#fence = 0;
    this.begin(this.ttlMs);
    this.#read();
    this.parts['.edit'].focus();
  }

  #tick() {
    const { parts, client, lock } = this;
    if (!lock) return;
    const isGone = client.isCutOff;
    const isHeld = !isGone && lock.state === 'held';
    const now = performance.now();
    const leftMs = isHeld || isGone ? client.leftMs : 0;
    parts['.gone'].hidden = !isGone;
    this.text.readOnly = !isHeld;
    write(parts['.state'], isGone ? 'Crashed' : STATES[lock.state] + (this.#isUnsaved ? ', not saved' : ''));
    this.root.dataset.state = isGone ? 'gone' : lock.state;
    parts['.bar'].style.setProperty('--left', String(Math.min(1, leftMs / client.lease.forMs || 0)));
    const [running, over] = isGone ? ['The lease runs on for ', 'The lease is over'] : ['The lease has ', 'No lease'];
    write(parts['.until'], leftMs ? running + seconds(leftMs) : over);
    parts['.beat'].hidden = !isHeld;
    write(parts['.beat span'], 'heartbeat ' + ago(now - this.#beatAt));
    if (isHeld && parts['.token'].title !== String(lock.fence)) {
      parts['.token'].title = String(lock.fence);
      parts['.token'].replaceChildren('Fence ', fenceOf(lock.fence));
    } else if (!isHeld && parts['.token'].title) {
      parts['.token'].title = '';
      parts['.token'].replaceChildren();
    }
    write(parts['.typed'], isHeld && this.#typedAt ? 'typed ' + ago(now - this.#typedAt) : '');
    write(parts['.edit'], isHeld ? 'Done' : 'Edit');
    parts['.edit'].disabled = isGone;
    parts['.save'].disabled = !isHeld;
    parts['.slow'].disabled = !isHeld;
    parts['.crash'].disabled = isGone;
  }
}
