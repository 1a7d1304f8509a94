// The live locks.

import { saveCsv } from './csv.js';
import { curl } from './curl.js';
import { field, h, say } from './dom.js';
import { many } from './format.js';
import { LockTable } from './locktable.js';
import { Store } from './store.js';

/** Delay after typing before a request (milliseconds). */
const TYPING_MS = 300;
/** The most workspaces with a matching name whose locks are read separately. */
const NAMED = 10;
/** The most locks in an export. */
const FILE = 10_000;
const COLUMNS = ['workspace_id', 'locked_by_user_id', 'locked_by_name', 'acquired_at', 'last_active_at', 'expires_at', 'fence', 'note'];

export function showLocks(app, root, { signal }) {
  const store = new Store(app.client);
  const search = h('input', {
    type: 'search',
    autocomplete: 'off',
    spellcheck: 'false',
    placeholder: 'Workspace, name, person, note',
    value: app.query.get('find') ?? '',
  });
  const order = h(
    'select',
    {},
    h('option', { value: 'workspace' }, 'Workspace'),
    h('option', { value: 'left' }, 'Time left'),
    h('option', { value: 'since' }, 'Longest held'),
  );
  const number = h('p', { class: 'number' });
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const empty = h('div', { class: 'empty', hidden: true });
  const more = h('button', { type: 'button', class: 'more', hidden: true, onclick: readOn }, 'Show more');

  const download = h('button', { type: 'button', class: 'small', onclick: save }, 'Download CSV');

  const words = () => search.value.trim().toLowerCase();
  const fits = (lock) => {
    const { workspace_id, locked_by_user_id, locked_by_name, note, knock } = lock;
    return [workspace_id, locked_by_user_id, locked_by_name, note, knock?.user_id, knock?.name, app.names.get(workspace_id)].some((text) =>
      text?.toLowerCase().includes(words()),
    );
  };
  const free = nothingThere(app, signal);
  let isSearched = false;
  const shown = (count) => {
    // The address may contain a search.
    if (!isSearched) searchOn();
    isSearched = true;
    const all = store.locks.size;
    const beyond = store.hasMore ? '+' : '';
    // Announced while typing, and not at each change of the locks.
    number.setAttribute('aria-live', words() ? 'polite' : 'off');
    say(number, words() ? `${count} of ${all}${beyond}` : store.hasMore ? `${all}+ locks` : many(all, 'lock'));
    more.hidden = !store.hasMore;
    empty.hidden = count > 0;
    if (count === 0) empty.replaceChildren(...(words() ? nothingFits(app, search, locks) : free));
  };
  const locks = new LockTable(app, store, {
    signal,
    fits,
    onShown: shown,
    onError: (error) => say(wrong, error ? `The locks cannot be read: ${error.message}` : ''),
  });

  /** Disables `button` while `work` runs, and shows its error. */
  async function attempt(button, work) {
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      if (!signal.aborted && !app.isOver(error)) say(wrong, error.message);
    } finally {
      button.disabled = false;
    }
  }

  function readOn() {
    return attempt(more, async () => {
      await store.more(signal);
      locks.show();
    });
  }

  /** The matching locks in order, including those that were not read yet. */
  function save() {
    return attempt(download, async () => {
      while (store.hasMore && store.locks.size < FILE) await store.more(signal);
      locks.show();
      saveCsv('locks.csv', COLUMNS, locks.entries.map(({ lock }) => lock));
      if (store.hasMore) app.tell(`The file has what fits of the first ${store.locks.size} locks.`);
    });
  }

  /** Locks that were not read yet may match, too. */
  function searchOn() {
    if (!store.hasMore || !words()) return;
    store.search(search.value.trim(), named(), signal).then(
      () => locks.show(),
      () => {},
    );
  }

  const named = () => app.names.having(words()).filter((id) => !store.locks.has(id)).slice(0, NAMED);

  let typing;
  search.addEventListener('input', () => {
    app.setQuery({ find: search.value });
    locks.show();
    clearTimeout(typing);
    typing = setTimeout(searchOn, TYPING_MS);
  });
  order.addEventListener('change', () => {
    app.setQuery({ order: order.value });
    locks.order = order.value;
    locks.show();
  });

  order.value = app.query.get('order') ?? '';
  if (order.selectedIndex < 0) order.value = 'workspace';
  locks.order = order.value;
  locks.node.hidden = true;
  root.append(
    h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Locks'), number, h('div', { class: 'actions' }, download)),
    h('div', { class: 'toolbar', role: 'search' }, field('Find', search), field('Order by', order)),
    wrong,
    locks.node,
    empty,
    more,
  );
}

function nothingFits(app, search, locks) {
  const clear = () => {
    search.value = '';
    app.setQuery({ find: '' });
    locks.show();
    search.focus();
  };
  return [
    h('h2', {}, 'No lock fits'),
    h('p', {}, 'Nobody has a lock on, or with, what you typed.'),
    h('button', { type: 'button', onclick: clear }, 'Show all'),
  ];
}

/** The example user for a service or an administrator, who have no locks of their own. */
const SOMEBODY = 'alice';

/** How to acquire a first lock, if the command is known to work for the current user. */
function nothingThere(app, signal) {
  const { session, client } = app;
  const about = h('p', {}, 'As soon as somebody enters a workspace, they are here.');
  const path = client.lockPath('design-42');
  const command = session.looksOn ? null : curl(session, 'POST', path, { user: SOMEBODY });
  const example = h('div', { hidden: true }, h('p', {}, 'To see how it looks, make a lock:'), command);
  if (command) {
    // If workspaces must be created first, the server would refuse it.
    client.request('GET', path, { signal }).then(
      () => (example.hidden = false),
      () => {},
    );
  }
  return [h('h2', {}, 'Nobody has a lock'), about, example];
}
