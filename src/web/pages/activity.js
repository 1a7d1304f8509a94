// What happened on all workspaces that one may see.

import { saveCsv } from './csv.js';
import { field, h, say } from './dom.js';
import { workspaceHref } from './format.js';
import { KINDS, entry } from './history.js';

/** Events of a page. */
const PAGE = 50;

/** What each kind of event is called here. */
const wordsFor = (type) => type.replace('.', ': ').replaceAll('_', ' ');

export function showActivity(app, root, { signal }) {
  let cursor = null;
  let events = [];
  let reading = new AbortController();
  const { query } = app;
  const text = (name) =>
    h('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', maxlength: 255, value: query.get(name) ?? '' });
  const instant = (name) => h('input', { type: 'datetime-local', value: query.get(name) ?? '' });
  const filters = {
    user_id: text('user_id'),
    by_user_id: text('by_user_id'),
    type: h(
      'select',
      {},
      h('option', { value: '' }, 'Everything'),
      Object.keys(KINDS).map((type) =>
        h('option', { value: type, selected: type === query.get('type') }, wordsFor(type)),
      ),
    ),
    from: instant('from'),
    until: instant('until'),
  };
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const list = h('ol', { class: 'timeline' });
  const empty = h('p', { class: 'empty', hidden: true }, 'Nothing that fits has happened, as far as is kept.');
  const older = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => read(cursor) }, 'Older');

  const asked = () =>
    Object.fromEntries(
      Object.entries(filters).map(([name, { value }]) => {
        const isInstant = name === 'from' || name === 'until';
        return [name, (isInstant && value ? new Date(value).toISOString() : value.trim()) || undefined];
      }),
    );

  /** Reads on from there, or anew. What was asked for before and has not come yet is not wanted any more. */
  async function read(from) {
    reading.abort();
    reading = new AbortController();
    const current = AbortSignal.any([signal, reading.signal]);
    try {
      const page = await app.client.request('GET', '/api/v1/history', {
        query: { ...asked(), limit: PAGE, cursor: from ?? undefined },
        signal: current,
      });
      if (current.aborted) return;
      if (!from) {
        events = [];
        list.replaceChildren();
      }
      events.push(...page.events);
      list.append(...page.events.map((event) => entry(event, place(event))));
      cursor = page.next_cursor;
      older.hidden = cursor === null;
      // A page looks at a limited number of events: an empty one may be followed by others.
      empty.hidden = events.length > 0 || cursor !== null;
      say(wrong, '');
    } catch (error) {
      if (!current.aborted && !app.isOver(error)) say(wrong, error.message);
    }
  }

  const changed = () => {
    app.setQuery(Object.fromEntries(Object.entries(filters).map(([name, { value }]) => [name, value])));
    read(null);
  };
  for (const control of Object.values(filters)) control.addEventListener('change', changed);

  root.append(
    h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Activity')),
    h(
      'div',
      { class: 'toolbar', role: 'search' },
      field('Whose lock', filters.user_id),
      field('Done by', filters.by_user_id),
      field('What', filters.type),
      field('From', filters.from),
      field('Until', filters.until),
      h('button', { type: 'button', onclick: () => save(events) }, 'Download CSV'),
    ),
    wrong,
    list,
    empty,
    older,
  );
  read(null);
}

const place = ({ workspace_id }) => [h('a', { href: workspaceHref(workspace_id) }, h('bdi', {}, workspace_id)), ': '];

function save(events) {
  const columns = ['revision', 'at', 'type', 'workspace_id', 'user_id', 'by_user_id', 'by_name', 'fence', 'detail'];
  const value = (event, column) => (column === 'detail' ? JSON.stringify(event.detail) : event[column]);
  saveCsv('activity.csv', columns, events.map((event) => columns.map((column) => value(event, column))));
}
