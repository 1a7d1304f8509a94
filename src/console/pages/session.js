// Who is signed in. A token is kept in memory only: closing or reloading the page forgets it.

import { Lockhouse } from '/client/client.js';
import { learn } from './clock.js';
import { field, h } from './dom.js';

/** What kind of server it is, and a session if none has to be asked for: behind a proxy that signs people in, and
 * where everybody is believed. */
export async function begin() {
  const document = await new Lockhouse({ userId: 'console' }).request('GET', '/api/v1/openapi.json');
  if (document.components.securitySchemes.user) return new Session('none', { userId: 'console' });
  try {
    return await check(new Session('proxy', { userId: 'console' }));
  } catch (error) {
    if (error.status === 401) return null;
    throw error;
  }
}

/** Somebody who is let in. */
export class Session {
  /** How: `none`, `proxy` or `token`. */
  constructor(mode, options) {
    this.mode = mode;
    this.client = new Lockhouse(options);
    this.shown =
      mode === 'proxy' ? 'signed in by the proxy' : mode === 'none' ? options.userId : describe(options.token);
  }

  /** The name to act under, where one is believed. */
  actAs(userId) {
    this.client.userId = userId;
    this.shown = userId;
  }
}

async function check(session) {
  const sentAt = performance.now();
  const response = await session.client.open('GET', '/api/v1/locks', { query: { limit: 1 }, timeoutMs: 15_000 });
  learn(Date.parse(response.headers.get('Date')), sentAt);
  await response.text();
  return session;
}

/** Which token it is, without showing it: the beginning of ours, the name in a JWT. */
function describe(token) {
  if (token.startsWith('lh_')) return `token ${token.slice(0, 7)}…`;
  try {
    const claims = JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')));
    return String(claims.name ?? claims.sub ?? 'JWT');
  } catch {
    return 'JWT';
  }
}

/** Asks for a token until one is good; then `done` gets the session. */
export function signIn(root, { why, done }) {
  const token = h('input', {
    type: 'password',
    autocomplete: 'off',
    spellcheck: 'false',
    required: true,
    name: 'token',
  });
  const wrong = h('p', { class: 'wrong', role: 'alert' }, why ?? '');
  const button = h('button', { class: 'primary' }, 'Sign in');
  const form = h(
    'form',
    {
      class: 'panel sign-in',
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        wrong.textContent = '';
        try {
          // A header has no other letters; and what is pasted often has a line end.
          const given = token.value.trim();
          if (!/^[\x21-\x7e]+$/.test(given)) throw new Error('This is no token: it has letters that no token has.');
          done(await check(new Session('token', { userId: '', token: given })));
        } catch (error) {
          wrong.textContent =
            error.status === 401 ? 'This token is not good: it is unknown, revoked or over.' : error.message;
          token.focus();
          token.select();
        } finally {
          button.disabled = false;
        }
      },
    },
    h('h1', { tabindex: '-1' }, 'Sign in'),
    h('p', {}, 'This server wants to know who you are.'),
    field(
      'Token',
      token,
      'A token of Lockhouse (lh_…), or a JWT where the server takes them. It is kept until you close or reload this page, and nowhere else.',
    ),
    wrong,
    button,
    h(
      'details',
      {},
      h('summary', {}, 'I have none'),
      h('p', {}, 'On the machine of the server, in the directory of its database:'),
      h('pre', {}, 'lockhouse token create --scope admin --name console'),
    ),
  );
  root.replaceChildren(form);
  token.focus();
}
