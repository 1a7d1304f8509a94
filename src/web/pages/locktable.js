// A table of live locks that follows the events.

import { arrange, h, say, table } from './dom.js';
import { endLocks } from './endlocks.js';
import { many, natural } from './format.js';
import { COLUMNS, LockRow } from './lockrow.js';
import { eachSecond, repeat } from './live.js';
import { isBefore } from './store.js';

/** Events within this time are shown together (milliseconds), so that a busy server does not keep the browser busy. */
const TOGETHER_MS = 120;
/** Interval of reads (milliseconds). Heartbeats are not events. */
const AGAIN_MS = 15_000;

const ORDERS = {
  // While there are more pages, the order is the server's, so that the next page follows.
  workspace: ({ lock: { workspace_id: one } }, { lock: { workspace_id: other } }, isWhole) =>
    isWhole ? natural(one, other) : isBefore(one, other) ? -1 : 1,
  left: (one, other) => one.ends - other.ends,
  since: (one, other) => Date.parse(one.lock.acquired_at) - Date.parse(other.lock.acquired_at),
};

/** `fits`: whether a lock is shown. `onShown`: receives the number of shown locks. `onError`: receives a read's error. */
export class LockTable {
  #rows = new Map();
  #isRead = false;
  #soon;
  #table = table('Live locks', COLUMNS);
  #all;
  #end;
  #picking;
  order = 'workspace';

  constructor(app, store, { signal, fits = () => true, belongs = () => true, onShown, onError }) {
    Object.assign(this, { app, store, signal, fits, belongs, onShown, onError });
    this.#all = h('input', { type: 'checkbox', onchange: () => this.#pickAll() });
    this.#end = h('button', { type: 'button', class: 'small danger', onclick: () => endLocks(app, this.#picked) });
    this.#picking = h('div', { class: 'picking' }, h('label', { class: 'check' }, this.#all, ' Select all'), this.#end);
    this.node = h('div', {}, this.#picking, h('div', { class: 'scroll' }, this.#table.whole));
    this.refresh = repeat(() => this.#refresh(), AGAIN_MS, signal);
    app.live.hear((told) => this.#hear(told), signal);
    eachSecond(() => this.#tick(), signal);
    app.names.read(app.client, signal).then(() => signal.aborted || !this.#isRead || this.show());
  }

  async #refresh() {
    try {
      await this.store.refresh(this.signal);
      this.#isRead = true;
      this.onError(null);
      this.show();
    } catch (error) {
      if (!this.signal.aborted && !this.app.isOver(error)) this.onError(error);
    }
  }

  #hear(told) {
    if (told.type === 'reset') {
      this.refresh();
      return;
    }
    this.store.hear(told);
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      if (!this.signal.aborted) this.show({ isNews: true });
    }, TOGETHER_MS);
  }

  #tick() {
    // An ended lease without an event may have been renewed by a heartbeat.
    let isOver = false;
    for (const row of this.#rows.values()) isOver = row.tick() || isOver;
    if (isOver) this.refresh();
  }

  /** The shown locks, in order. */
  get entries() {
    return [...this.store.locks.values()]
      .filter(({ lock }) => this.belongs(lock) && this.fits(lock))
      .sort((one, other) => ORDERS[this.order](one, other, !this.store.hasMore));
  }

  /** The selected locks. */
  get #picked() {
    return [...this.#rows.values()].map((row) => row.picked).filter(Boolean);
  }

  #pickAll() {
    for (const row of this.#rows.values()) row.pick.checked = this.#all.checked;
    this.#showPicked();
  }

  #showPicked() {
    const mine = [...this.#rows.values()].filter((row) => !row.pick.hidden).length;
    const picked = this.#picked.length;
    // A single lock has its own button.
    this.#picking.hidden = mine < 2;
    this.#all.checked = picked > 0 && picked === mine;
    this.#all.indeterminate = picked > 0 && picked < mine;
    this.#end.hidden = picked === 0;
    say(this.#end, `End ${many(picked, 'lock')}…`);
  }

  show({ isNews = false } = {}) {
    const { entries } = this;
    const kept = new Map();
    for (const entry of entries) {
      const id = entry.lock.workspace_id;
      const known = this.#rows.get(id);
      const row = known ?? new LockRow(this.app, this.#table.row, id, () => this.#showPicked());
      row.show(entry, this.app.names.get(id), isNews && !known);
      kept.set(id, row);
    }
    this.#rows = kept;
    arrange(
      this.#table.body,
      [...kept.values()].map((row) => row.node),
    );
    this.node.hidden = kept.size === 0;
    this.#showPicked();
    this.onShown(kept.size);
  }
}
