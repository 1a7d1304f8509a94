// Who is signed in. A token is kept in memory only: closing or reloading the page forgets it.

import { Lockhouse } from '/client/client.js';
import { learn } from './clock.js';
import { field, h } from './dom.js';

/** What kind of server it is, and a session if none has to be asked for: behind a proxy that signs people in, and
 * where everybody is believed. */
export async function begin() {
  const document = await new Lockhouse({ userId: 'console' }).request('GET', '/api/v1/openapi.json');
  if (document.components.securitySchemes.user) return new Session('none', { userId: 'console' }, 'admin');
  try {
    return await check(new Session('proxy', { userId: 'console' }));
  } catch (error) {
    if (error.status === 401) return null;
    throw error;
  }
}

/** Somebody who is let in. */
export class Session {
  #options;

  /** How: `none`, `proxy` or `token`; and what the credentials are good for, as far as that is known. */
  constructor(mode, options, scope) {
    Object.assign(this, { mode, scope });
    this.#options = options;
    this.client = new Lockhouse(options);
  }

  /** Who it is, to be read in the corner. */
  get shown() {
    if (this.mode === 'none') return this.client.userId;
    const asAdmin = this.scope === 'admin' ? ', an administrator' : '';
    return this.mode === 'proxy' ? `signed in by the proxy${asAdmin}` : this.#isOurs ? this.#token : nameOf(this.#options.token) + asAdmin;
  }

  get #isOurs() {
    return this.#options.token?.startsWith('lh_') ?? false;
  }

  /** Which token it is, without showing it. */
  get #token() {
    return `${this.scope ?? ''} token ${this.#options.token.slice(0, 7)}…`.trim();
  }

  /** Whether it may see to the server. What is not known is tried, and refused with why. */
  get administers() {
    return this.#isOneOf('admin');
  }

  /** Whether it may see to workspaces and to the tokens of users. */
  get serves() {
    return this.#isOneOf('admin', 'service');
  }

  /** Whether it may end a lock: anybody's, or its own. */
  get ends() {
    return this.#isOneOf('admin', 'user');
  }

  /** Whether it looks on, and does nothing. */
  get looksOn() {
    return this.scope === 'read';
  }

  /** Whether it acts for whom it names, and has no locks of its own. */
  get actsForOthers() {
    return this.#isOurs && this.serves;
  }

  #isOneOf(...scopes) {
    return this.scope === undefined || scopes.includes(this.scope);
  }

  /** The name to act under, where one is believed. */
  actAs(userId) {
    this.client.userId = userId;
  }
}

async function check(session) {
  const sentAt = performance.now();
  const response = await session.client.open('GET', '/api/v1/locks', { query: { limit: 1 }, timeoutMs: 15_000 });
  learn(Date.parse(response.headers.get('Date')), sentAt);
  await response.text();
  session.scope = await scopeOf(session.client);
  return session;
}

/** What the credentials are good for: the API tells by what it lets them do. Nothing where that cannot be found out. */
async function scopeOf(client) {
  const may = async (method, path, asked) => {
    try {
      await (await client.open(method, path, { timeoutMs: 15_000, ...asked })).text();
      return true;
    } catch (error) {
      // A request that says too little is let in before it is read.
      if (error.status === 400 || error.status === 403) return error.status === 400;
      throw error;
    }
  };
  try {
    if (await may('GET', '/api/v1/tokens', { query: { limit: 1 } })) return 'admin';
    // There is no token of a user without a user: none is made.
    if (await may('POST', '/api/v1/tokens', { body: { scope: 'user' } })) return 'service';
    return (await may('GET', '/metrics')) ? 'read' : 'user';
  } catch {
    return undefined;
  }
}

/** Whom a JWT names. */
function nameOf(token) {
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
            error.status === 401 ? 'This token is not good: it is unknown, revoked or expired.' : error.message;
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
