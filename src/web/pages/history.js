// What happened to the lock of a workspace, as a timeline.

import { h, say } from './dom.js';
import { moment, person } from './format.js';

/** Events of a page. */
const PAGE = 30;

export class History {
  #cursor = null;
  #newest = 0;
  #list = h('ol', { class: 'timeline' });
  #older = h('button', { type: 'button', hidden: true, onclick: () => this.#readOlder() }, 'Older');
  #empty = h('p', { class: 'sub', hidden: true }, 'Nothing has happened here, as far as is kept.');
  #wrong = h('p', { class: 'wrong', role: 'alert' });

  constructor(app, workspaceId, signal) {
    Object.assign(this, { app, workspaceId, signal });
    this.node = h(
      'section',
      { 'aria-labelledby': 'history' },
      h('h2', { id: 'history' }, 'History'),
      this.#wrong,
      this.#list,
      this.#empty,
      this.#older,
    );
  }

  /** Puts what is new on top. */
  async refresh() {
    const page = await this.app.client.history(this.workspaceId, { limit: PAGE });
    const news = page.events.filter((event) => event.revision > this.#newest);
    if (this.#newest === 0 || (news.length === page.events.length && page.next_cursor !== null)) {
      // The first time; or so much is new that what is here does not follow on it.
      this.#cursor = page.next_cursor;
      this.#list.replaceChildren(...page.events.map((event) => entry(event)));
    } else {
      this.#list.prepend(...news.map((event) => entry(event)));
    }
    this.#newest = page.events[0]?.revision ?? 0;
    this.#empty.hidden = page.events.length > 0;
    this.#older.hidden = this.#cursor === null;
  }

  async #readOlder() {
    this.#older.disabled = true;
    try {
      const page = await this.app.client.history(this.workspaceId, { limit: PAGE, cursor: this.#cursor });
      this.#cursor = page.next_cursor;
      this.#list.append(...page.events.map((event) => entry(event)));
      this.#older.hidden = this.#cursor === null;
      say(this.#wrong, '');
    } catch (error) {
      if (!this.signal.aborted && !this.app.isOver(error)) say(this.#wrong, error.message);
    } finally {
      this.#older.disabled = false;
    }
  }
}

/** An event, as an item of a list. */
export function entry(event, where) {
  const { type, at, fence, detail } = event;
  const said = detail.message ?? detail.reason;
  return h(
    'li',
    { class: KINDS[type] ?? '', 'data-type': type },
    h('div', {}, where, sentence(event), said ? h('q', {}, said) : null),
    h(
      'div',
      { class: 'sub' },
      moment(at),
      fence ? [' · fence ', h('code', {}, String(fence))] : null,
      detail.new_fence ? [' → ', h('code', {}, String(detail.new_fence))] : null,
    ),
  );
}

/** How it looks: something began, ended well, or ended by somebody else's hand. */
export const KINDS = {
  'lock.acquired': 'began',
  'lock.released': 'ended',
  'lock.expired': 'ended',
  'lock.handed_over': 'began',
  'lock.taken_over': 'forced',
  'lock.revoked': 'forced',
  'member.removed': 'forced',
  'workspace.deleted': 'forced',
  'lock.knocked': 'asked',
  'lock.knock_declined': 'asked',
};

function sentence({ type, user_id, by_user_id, by_name, detail }) {
  // An event has one name, of whoever did it: it may be the holder, or who got it.
  const shown = (id) => (id ? person(id, id === by_user_id ? by_name : undefined) : 'somebody');
  const [holder, by, to] = [user_id, by_user_id, detail.to_user_id].map(shown);
  switch (type) {
    case 'lock.acquired':
      return detail.outcome === 'reclaimed' ? [holder, ' came back to the lock'] : [holder, ' got the lock'];
    case 'lock.released':
      return [holder, ' released it'];
    case 'lock.expired':
      return ['The lease of ', holder, ' ended by itself'];
    case 'lock.taken_over':
      return [by, ' took it over from ', holder];
    case 'lock.handed_over':
      return by_user_id === user_id
        ? [holder, ' handed it over to ', to]
        : [to, ' got it, because ', holder, ' did not answer'];
    case 'lock.knocked':
      return detail.outcome === 'postponed'
        ? [holder, ' is at work: ', by, ' gets it later']
        : [by, ' asked ', holder, ' for it'];
    case 'lock.knock_declined':
      return [holder, ' kept it, though ', to, ' had asked'];
    case 'lock.revoked':
      return [by, ' ended the lock of ', holder];
    case 'member.removed':
      return [by, ' removed ', holder, ' from the members'];
    case 'workspace.deleted':
      return [by, ' deleted the workspace', user_id ? [', which ', holder, ' had locked'] : []].flat();
    default:
      return [type];
  }
}
