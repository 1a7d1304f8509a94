// Events as a timeline.

import { saveCsv } from './csv.js';
import { h, say } from './dom.js';
import { moment, person } from './format.js';

/** Events of one page. */
const PAGE = 30;
/** Page size and limit of an export. */
const [FILE_PAGE, FILE] = [500, 10_000];

const COLUMNS = ['revision', 'at', 'type', 'kind', 'workspace_id', 'user_id', 'by_user_id', 'by_name', 'fence', 'detail'];

/**
 * `path`: the API's path. `filters()`: its query. `where`: the workspace of an event. `nothing`: shown if there are
 * no events.
 */
export class History {
  #cursor = null;
  #newest = 0;
  /** Aborts reads for earlier filters. */
  #reading = new AbortController();
  #list = h('ol', { class: 'timeline' });
  #older = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => this.#readOlder() }, 'Older');
  #wrong = h('p', { class: 'wrong', role: 'alert' });

  constructor(app, { signal, nothing, filters = () => ({}), where = () => null, ...given }) {
    Object.assign(this, { app, signal, filters, where, ...given });
    this.nothing = h('p', { class: 'sub', hidden: true }, nothing);
    this.node = h('div', {}, this.#wrong, this.#list, this.nothing, this.#older);
  }

  /** Reads new events and puts them on top. */
  refresh() {
    return this.#attempt(async (signal) => {
      const page = await this.#page({ limit: PAGE }, signal);
      const news = page.events.filter((event) => event.revision > this.#newest);
      const items = news.map((event) => entry(event, this.where(event)));
      if (this.#newest === 0 || (news.length === page.events.length && page.next_cursor !== null)) {
        // The first read, or so many new events that they do not connect to those shown.
        this.#cursor = page.next_cursor;
        this.#list.replaceChildren(...items);
      } else {
        this.#list.prepend(...items);
      }
      this.#newest = Math.max(this.#newest, page.events[0]?.revision ?? 0);
    });
  }

  /** Reads again, with other filters. */
  restart() {
    this.#reading.abort();
    this.#reading = new AbortController();
    this.#newest = 0;
    return this.refresh();
  }

  #readOlder() {
    return this.#attempt(async (signal) => {
      const page = await this.#page({ limit: PAGE, cursor: this.#cursor }, signal);
      this.#cursor = page.next_cursor;
      this.#list.append(...page.events.map((event) => entry(event, this.where(event))));
    });
  }

  /** Downloads all matching events, up to the limit. */
  save(name) {
    return this.#attempt(async (signal) => {
      const events = [];
      let cursor;
      do {
        const page = await this.#page({ limit: FILE_PAGE, cursor }, signal);
        events.push(...page.events);
        cursor = page.next_cursor ?? undefined;
      } while (cursor !== undefined && events.length < FILE);
      saveCsv(name, COLUMNS, events);
      if (cursor !== undefined) this.app.tell(`The file has the newest ${events.length} events. Filters find older ones.`);
    });
  }

  async #page(query, signal) {
    const page = await this.app.client.request('GET', this.path, { query: { ...this.filters(), ...query }, signal });
    // The answer may be for earlier filters.
    signal.throwIfAborted();
    return page;
  }

  /** Shows the error of `work`. */
  async #attempt(work) {
    const signal = AbortSignal.any([this.signal, this.#reading.signal]);
    this.#older.disabled = true;
    try {
      await work(signal);
      say(this.#wrong, '');
    } catch (error) {
      if (!signal.aborted && !this.app.isOver(error)) say(this.#wrong, error.message);
    } finally {
      this.#older.disabled = false;
    }
    if (signal.aborted) return;
    this.#older.hidden = this.#cursor === null;
    // The server examines a limited number of events per request, so an empty page is not the end.
    this.nothing.hidden = this.#list.children.length > 0 || this.#cursor !== null;
  }
}

/** An event as a list item. */
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

/** The style: something began, ended normally, or was ended by another user. */
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

function sentence({ type, kind, user_id, by_user_id, by_name, detail }) {
  // An event has one name, that of the acting user, who may be the holder or the new holder.
  const shown = (id) => (id ? person(id, id === by_user_id ? by_name : undefined) : 'somebody');
  const [plain, by, to] = [user_id, by_user_id, detail.to_user_id].map(shown);
  const mark = kind && kind !== 'edit' ? h('span', { class: 'tag' }, kind) : null;
  const holder = mark ? h('span', {}, plain, ' ', mark) : plain;
  switch (type) {
    case 'lock.acquired':
      return detail.outcome === 'reclaimed' ? [holder, ' came back to the lock'] : [holder, ' got the lock'];
    case 'lock.released':
      return [holder, ' released it'];
    case 'lock.expired':
      return ['The lease of ', holder, ' ended by itself'];
    case 'lock.taken_over':
      return [by, ' took it over from ', holder, detail.yielded ? ', which yields to people' : ''];
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
