// The locks of one user.

import { ask } from './dialog.js';
import { h, say } from './dom.js';
import { many } from './format.js';
import { LockTable } from './locktable.js';
import { Store } from './store.js';

export function showUser(app, root, { id, signal }) {
  const store = new Store(app.client, { user_id: id });
  const number = h('p', { class: 'number', role: 'status' });
  const name = h('p', { class: 'sub' });
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const empty = h(
    'div',
    { class: 'empty', hidden: true },
    h('h2', {}, 'Nobody holds a lock under this user id now'),
    h('p', {}, 'There is no list of users: an id that nobody has looks the same.'),
  );
  const release = h(
    'button',
    { type: 'button', class: 'danger', disabled: true, onclick: () => releaseAll(app, id, locks) },
    'Release all…',
  );
  const more = h(
    'button',
    {
      type: 'button',
      class: 'more',
      hidden: true,
      onclick: () =>
        store.more(signal).then(
          () => locks.show(),
          (error) => say(wrong, error.message),
        ),
    },
    'Show more',
  );
  const locks = new LockTable(app, store, {
    signal,
    belongs: (lock) => lock.locked_by_user_id === id,
    onShown: (count) => {
      say(number, store.hasMore ? `${count}+ locks` : many(count, 'lock'));
      const named = [...store.locks.values()].find(({ lock }) => lock.locked_by_user_id === id && lock.locked_by_name);
      if (named) say(name, named.lock.locked_by_name);
      empty.hidden = count > 0;
      more.hidden = !store.hasMore;
      release.disabled = count === 0;
    },
    onError: (error) => say(wrong, error ? `The locks cannot be read: ${error.message}` : ''),
  });
  locks.node.hidden = true;
  root.append(
    h('p', { class: 'crumb' }, h('a', { href: '#/locks' }, 'Locks'), ' / user'),
    h(
      'div',
      { class: 'title' },
      h('h1', { tabindex: '-1' }, h('code', {}, id)),
      number,
      app.session.endsLocksOf(id) ? h('div', { class: 'actions' }, release) : null,
    ),
    name,
    wrong,
    locks.node,
    empty,
    more,
  );
}

function releaseAll(app, id, locks) {
  ask(app, {
    title: `Release all locks of ${id}?`,
    text: 'Each of them is free at once for the next in line, or for the next to come. What they have not saved yet may be refused.',
    action: 'Release all',
    reason: 'Reason',
    run: async (reason) => {
      const { released } = await app.client.request('DELETE', `/api/v1/users/${encodeURIComponent(id)}/locks`, {
        query: { reason },
      });
      app.tell(`${many(released, 'lock')} of ${id} released.`);
      locks.refresh();
    },
  });
}
