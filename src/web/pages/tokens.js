// The tokens: create, list, revoke.

import { now } from './clock.js';
import { ask } from './dialog.js';
import { field, h, say } from './dom.js';
import { date, person, time } from './format.js';
import { Listing } from './listing.js';

const HOUR = 3_600_000;
const LASTS = [
  ['15 minutes', HOUR / 4],
  ['a day', 24 * HOUR],
  ['30 days', 720 * HOUR],
  ['90 days', 2160 * HOUR],
  ['a year', 8760 * HOUR],
  ['until revoked', ''],
];

const SCOPES = [
  ['user', 'user: acts as its owner'],
  ['service', 'service: the back end of an app, acts for anybody'],
  ['read', 'read: looks on, for monitoring'],
  ['admin', 'admin: may do everything'],
];

export function showTokens(app, root, { signal }) {
  const { session } = app;
  root.append(h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Tokens')));
  if (!session.serves) {
    const who = `You are signed in with the scope “${session.scope}”.`;
    root.append(h('p', { class: 'empty' }, 'Tokens are made, listed and revoked by administrators. ', who));
    return;
  }
  if (session.mode === 'none') root.append(h('p', { class: 'sub' }, UNUSED));
  const list = session.administers ? makeList(app, signal) : null;
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const fresh = h('div', { role: 'status' });
  const form = makeForm(session.administers ? SCOPES : SCOPES.slice(0, 1), async (body) => {
    let made;
    try {
      // Not retried: each attempt would create a token.
      made = await app.client.request('POST', '/api/v1/tokens', { body, retryForMs: 0 });
    } catch (error) {
      if (!signal.aborted && !app.isOver(error)) say(wrong, error.message);
      return false;
    }
    say(wrong, '');
    fresh.replaceChildren(showOnce(made, () => fresh.replaceChildren()));
    fresh.querySelector('input').focus();
    fresh.querySelector('input').select();
    await list?.refresh();
    return true;
  });
  root.append(form, wrong, fresh);
  if (list) {
    root.querySelector('.title').append(list.number, list.actions);
    root.append(list.node);
    list.refresh();
  } else {
    root.append(h('p', { class: 'empty' }, 'A service makes tokens for users; the list of them is for administrators.'));
  }
}

const UNUSED =
  'With auth.mode = “none” no token is looked at. They are good as soon as the mode is another: revoke those that you do not know.';

/** Whether the token has expired or was revoked. */
const isOver = ({ expires_at }) => expires_at !== null && Date.parse(expires_at) <= now();

function makeList(app, signal) {
  const list = new Listing(app, {
    signal,
    caption: 'Tokens',
    headings: [
      ['Name', ''],
      ['Scope', ''],
      ['Owner', ''],
      ['Created', 'num'],
      ['Ends', 'num'],
      ['Last used', 'num'],
      ['', 'act'],
    ],
    placeholder: 'Name, owner, scope',
    nothing: h('p', {}, 'There is no token. The back end of an app wants one of scope “service”.'),
    path: '/api/v1/tokens',
    member: 'tokens',
    word: 'token',
    columns: ['token_id', 'name', 'scope', 'agent', 'user_id', 'created_at', 'expires_at', 'last_used_at'],
    key: ({ token_id }) => token_id,
    texts: ({ token_id, name, user_id, scope }) => [token_id, name, user_id, scope],
    cells: (token) => [
      [
        token.name ?? h('span', { class: 'sub' }, 'no name'),
        h('div', { class: 'sub' }, h('code', {}, token.token_id)),
      ],
      [
        h('span', { class: 'tag', 'data-scope': isOver(token) ? null : token.scope }, token.scope),
        token.agent ? [' ', h('span', { class: 'tag' }, 'agent')] : null,
      ],
      token.user_id ? person(token.user_id) : '–',
      date(token.created_at),
      ends(token),
      token.last_used_at ? time(token.last_used_at) : 'never',
      h(
        'button',
        {
          type: 'button',
          class: 'small',
          'aria-label': `Revoke ${token.name ?? token.token_id}`,
          onclick: () => revoke(app, token, () => list.refresh()),
        },
        'Revoke…',
      ),
    ],
    // Valid tokens first, then the newest first.
    order: (one, other) => isOver(one) - isOver(other) || Date.parse(other.created_at) - Date.parse(one.created_at),
  });
  return list;
}

function ends(token) {
  if (token.expires_at === null) return 'never';
  return isOver(token) ? h('span', {}, h('span', { class: 'tag' }, 'expired'), ' ', time(token.expires_at)) : date(token.expires_at);
}

function revoke(app, token, done) {
  const { token_id, name, scope, user_id } = token;
  const whose = `this ${scope} token${user_id ? ` of ${user_id}` : ''}`;
  ask(app, {
    title: `Revoke ${name ?? token_id}?`,
    text: isOver(token)
      ? 'It has expired, and lets nobody in. It goes from the list.'
      : `Requests with ${whose} are refused from now on. The locks that were made with it stay.`,
    action: 'Revoke',
    run: async () => {
      await app.client.request('DELETE', `/api/v1/tokens/${encodeURIComponent(token_id)}`);
      app.tell('The token is revoked.');
      await done();
    },
  });
}

/** `make` receives the request's body, and returns whether it succeeded. */
function makeForm(scopes, make) {
  const scope = h(
    'select',
    {},
    scopes.map(([value, text]) => h('option', { value }, text)),
  );
  const user = h('input', { maxlength: 255, autocomplete: 'off', spellcheck: 'false', required: true });
  const name = h('input', { maxlength: 200, autocomplete: 'off' });
  const lasts = h(
    'select',
    {},
    LASTS.map(([text, value]) => h('option', { value, selected: text === '90 days' }, text)),
  );
  scope.addEventListener('change', () => (user.required = scope.value === 'user'));
  const form = h(
    'form',
    {
      class: 'row',
      onsubmit: async (event) => {
        event.preventDefault();
        const body = { scope: scope.value };
        if (user.value) body.user_id = user.value;
        if (name.value) body.name = name.value;
        if (lasts.value) body.ttl_ms = Number(lasts.value);
        if (await make(body)) form.reset();
        user.required = scope.value === 'user';
      },
    },
    field('Scope', scope),
    field('Owner (user id)', user),
    field('Name', name),
    field('Good for', lasts),
    h('button', { class: 'primary' }, 'Create token'),
  );
  return form;
}

/** A new token. It is shown only once. */
function showOnce({ token, name, scope }, forget) {
  const value = h('input', { class: 'secret', readonly: true, value: token, 'aria-label': 'The new token' });
  const copy = h(
    'button',
    {
      type: 'button',
      class: 'primary',
      onclick: async () => {
        value.select();
        try {
          // Without TLS, browsers offer the clipboard only to pages of this machine.
          await (navigator.clipboard?.writeText(token) ?? Promise.reject());
          copy.textContent = 'Copied';
        } catch {
          copy.textContent = document.execCommand('copy') ? 'Copied' : 'Copy it by hand';
        }
      },
    },
    'Copy',
  );
  return h(
    'div',
    { class: 'panel once' },
    h('h2', {}, `The new ${scope} token${name ? `, ${name}` : ''}`),
    h('p', {}, 'It is shown this once. Store it where only those who use it can read it.'),
    h('div', { class: 'row' }, value, copy, h('button', { type: 'button', onclick: forget }, 'I have it')),
  );
}
