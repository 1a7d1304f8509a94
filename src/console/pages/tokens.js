// The tokens: to make one, to see which there are, to revoke one.

import { ask } from './dialog.js';
import { field, h, say, table } from './dom.js';
import { date, person, time } from './format.js';

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
  const list = table('Tokens', [
    ['Name', ''],
    ['Scope', ''],
    ['Owner', ''],
    ['Created', 'num'],
    ['Ends', 'num'],
    ['Last used', 'num'],
    ['', 'act'],
  ]);
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const fresh = h('div', { role: 'status' });
  const empty = h(
    'p',
    { class: 'empty', hidden: true },
    'There is no token. The back end of an app wants one of scope “service”.',
  );
  const more = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => read(cursor) }, 'Show more');
  let cursor;

  /** What `work` comes to; nothing when it is refused, which is said. */
  async function attempt(work) {
    try {
      const done = await work();
      say(wrong, '');
      return done;
    } catch (error) {
      if (!signal.aborted && !app.isOver(error)) say(wrong, error.message);
      return undefined;
    }
  }

  async function read(from) {
    const page = await attempt(() => app.client.request('GET', '/api/v1/tokens', { query: { cursor: from }, signal }));
    if (!page) return;
    cursor = page.next_cursor;
    if (!from) list.body.replaceChildren();
    list.body.append(
      ...page.tokens.map((token) =>
        list.row(
          [
            token.name ?? h('span', { class: 'sub' }, 'no name'),
            h('div', { class: 'sub' }, h('code', {}, token.token_id)),
          ],
          h('span', { class: 'tag', 'data-scope': token.scope }, token.scope),
          token.user_id ? person(token.user_id) : '–',
          date(token.created_at),
          token.expires_at ? date(token.expires_at) : 'never',
          token.last_used_at ? time(token.last_used_at) : 'never',
          h(
            'button',
            {
              type: 'button',
              class: 'quiet',
              'aria-label': `Revoke ${token.name ?? token.token_id}`,
              onclick: () => revoke(token),
            },
            'Revoke…',
          ),
        ),
      ),
    );
    more.hidden = cursor === null;
    empty.hidden = list.body.children.length > 0;
    list.whole.hidden = !empty.hidden;
  }

  function revoke({ token_id, name, scope, user_id }) {
    ask(app, {
      title: `Revoke ${name ?? token_id}?`,
      text: `Whoever uses this ${scope} token${user_id ? ` of ${user_id}` : ''} is refused from now on. The locks that were made with it stay.`,
      action: 'Revoke',
      run: async () => {
        await app.client.request('DELETE', `/api/v1/tokens/${encodeURIComponent(token_id)}`);
        app.tell('The token is revoked.');
        await read();
      },
    });
  }

  const form = makeForm(async (body) => {
    // Not again by itself: each attempt would make a token.
    const made = await attempt(() => app.client.request('POST', '/api/v1/tokens', { body, retryForMs: 0 }));
    if (!made) return false;
    fresh.replaceChildren(showOnce(made, () => fresh.replaceChildren()));
    fresh.querySelector('input').focus();
    fresh.querySelector('input').select();
    await read();
    return true;
  });
  list.whole.hidden = true;
  root.append(
    h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Tokens')),
    app.session.mode === 'none'
      ? h(
          'p',
          { class: 'sub' },
          'With auth.mode = “none” no token is looked at. They are good as soon as the mode is another: revoke those that you do not know.',
        )
      : '',
    form,
    fresh,
    wrong,
    h('div', { class: 'scroll' }, list.whole),
    empty,
    more,
  );
  read();
}

/** `make` gets the body of the request, and returns whether it went well. */
function makeForm(make) {
  const scope = h(
    'select',
    {},
    SCOPES.map(([value, text]) => h('option', { value }, text)),
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

/** A new token, the only time that it can be seen. */
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
          // Browsers have no clipboard on a page without TLS that is not on this machine.
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
    h('p', {}, 'It is shown this once. Keep it where only those can read it who may use it.'),
    h('div', { class: 'row' }, value, copy, h('button', { type: 'button', onclick: forget }, 'I have it')),
  );
}
