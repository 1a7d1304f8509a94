// A row of the table of locks. It is updated in place, so that focus and selection stay.

import { endLocks } from './endlocks.js';
import { h, say } from './dom.js';
import { ago, full, left, who, workspaceHref } from './format.js';

export const COLUMNS = [
  ['Workspace', ''],
  ['Held by', ''],
  ['Since', 'num'],
  ['Last active', 'num'],
  ['Time left', 'num wide'],
  ['Asking', ''],
  ['', 'act'],
];

export class LockRow {
  /** The source of the shown content. The row is rendered again only when it changes. */
  #shown = '';
  #entry;

  /** `onPicked` is called when the selection changes. */
  constructor(app, row, id, onPicked) {
    this.id = id;
    this.app = app;
    this.name = h('div', { class: 'called' });
    this.note = h('div', { class: 'sub' });
    this.holder = h('div');
    this.since = h('time');
    this.active = h('time');
    this.left = h('span', { class: 'left' });
    this.bar = h('span', { class: 'bar', 'aria-hidden': 'true' }, h('i'));
    this.asking = h('div', { class: 'asking' });
    this.end = h(
      'button',
      {
        type: 'button',
        class: 'small',
        'aria-label': `End the lock of ${id}`,
        onclick: () => endLocks(app, [this.#entry.lock]),
      },
      'End…',
    );
    this.pick = h('input', { type: 'checkbox', 'aria-label': `Select ${id}`, onchange: onPicked });
    this.node = row(
      h('div', { class: 'picking' }, this.pick, h('div', {}, h('a', { class: 'workspace', href: workspaceHref(id) }, id), this.name, this.note)),
      this.holder,
      this.since,
      this.active,
      [this.left, this.bar],
      this.asking,
      this.end,
    );
  }

  /** Shows the lock. `name`: the workspace's name, if known. `isNew` highlights the row for a moment. */
  show(entry, name, isNew) {
    // The selection belongs to one lease.
    if (this.#entry?.lock.fence !== entry.lock.fence) this.pick.checked = false;
    this.#entry = entry;
    say(this.name, name ?? '');
    const { lock } = entry;
    const { locked_by_user_id, locked_by_name, fence, note, knock, kind, agent } = lock;
    this.end.hidden = this.pick.hidden = !this.app.session.endsLocksOf(locked_by_user_id);
    const shown = JSON.stringify([
      locked_by_user_id,
      locked_by_name,
      fence,
      note,
      knock?.user_id,
      knock?.name,
      knock?.message,
      knock?.kind,
      kind,
      agent,
    ]);
    if (shown !== this.#shown) {
      this.holder.replaceChildren(who(locked_by_user_id, locked_by_name, kind, agent));
      this.note.textContent = note ?? '';
      showKnock(this.asking, knock);
      const isOther = this.#shown !== '';
      this.#shown = shown;
      if (isNew || isOther) this.#mark();
    }
    this.tick();
  }

  /** The lock, if it is selected. */
  get picked() {
    return this.pick.checked && !this.pick.hidden ? this.#entry.lock : null;
  }

  #mark() {
    this.node.classList.remove('fresh');
    void this.node.offsetWidth;
    this.node.classList.add('fresh');
  }

  /** Updates the remaining time. Returns whether the lease has ended. */
  tick() {
    const { lock, ends } = this.#entry;
    const rest = ends - performance.now();
    when(this.since, lock.acquired_at);
    when(this.active, lock.last_active_at);
    showLeft(this.left, this.bar, rest, lock.ttl_ms);
    return rest <= 0;
  }
}

function when(node, at) {
  if (node.dateTime !== at) {
    node.dateTime = at;
    node.title = full(at);
  }
  say(node, ago(at));
}

/** The remaining time, as a text and as a bar. */
export function showLeft(text, bar, rest, ttl) {
  say(text, rest > 0 ? left(rest) : 'ending…');
  text.classList.toggle('is-low', rest < 30_000);
  bar.firstChild.style.width = `${Math.max(0, Math.min(100, (rest / ttl) * 100))}%`;
}

/** The user who asks for the lock. */
export function showKnock(node, knock) {
  node.replaceChildren(
    ...(knock ? [who(knock.user_id, knock.name, knock.kind, knock.agent), knock.message ? h('q', {}, knock.message) : ''] : []),
  );
}

