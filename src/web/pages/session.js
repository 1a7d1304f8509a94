// The session. A token is kept in memory, or in the storage of this tab if the user chooses that.

import { Lockhouse } from '/client/client.js';
import { learnRoughly } from './clock.js';
import { field, h } from './dom.js';
import { tab } from './storage.js';

/** Storage key of the token. */
const TOKEN = 'token';

/** A session that needs no sign-in: by a proxy, by a stored token, or in the mode that trusts the client. */
export async function begin() {
  const token = tab.get(TOKEN);
  for (const options of [token && { userId: '', token }, { userId: 'console' }]) {
    if (!options) continue;
    try {
      return await check(options);
    } catch (error) {
      if (error.status !== 401) throw error;
      if (options.token) tab.clear();
    }
  }
  return null;
}

/** A user who is signed in. */
export class Session {
  #options;

  /** `who`: the server's answer to whoami. */
  constructor(options, who, client) {
    this.#options = options;
    this.who = who;
    this.mode = options.token ? 'token' : who.mode === 'none' ? 'none' : 'proxy';
    // A sign-in without a Lockhouse token has no scope.
    this.scope = who.scope ?? (who.is_admin ? 'admin' : 'user');
    this.client = client;
  }

  /** The text for the corner of the page. */
  get shown() {
    if (this.mode === 'none') return this.client.userId;
    const { name, user_id } = this.who;
    // A token without a user is shown by its id.
    const id = user_id?.startsWith('token:') ? null : user_id;
    const person = name && id && name !== id ? `${name} (${id})` : (name ?? id);
    const how = this.mode === 'proxy' ? 'signed in by the proxy' : this.#isOurs ? this.#token : 'JWT';
    const asAdmin = this.who.is_admin && !this.#isOurs ? 'an administrator' : null;
    return [person, how, asAdmin].filter(Boolean).join(', ');
  }

  get #isOurs() {
    return this.#options.token?.startsWith('lh_') ?? false;
  }

  /** Identifies the token without showing it. */
  get #token() {
    return `${this.scope} token ${this.#options.token.slice(0, 7)}…`;
  }

  /** Whether the user may administer the server. */
  get administers() {
    return this.#isOneOf('admin');
  }

  /** Whether the user may administer workspaces and the tokens of users. */
  get serves() {
    return this.#isOneOf('admin', 'service');
  }

  /** Whether the session may end the locks of this user. */
  endsLocksOf(userId) {
    return this.administers || (this.scope === 'user' && this.who.user_id === userId);
  }

  /** Whether the session may read the metrics. */
  get monitors() {
    return this.scope !== 'user';
  }

  /** Whether the session is read-only. */
  get looksOn() {
    return this.scope === 'read';
  }

  /** Whether the session acts for other users and has no locks of its own. */
  get actsForOthers() {
    return this.#isOurs && this.serves;
  }

  #isOneOf(...scopes) {
    return scopes.includes(this.scope);
  }

  /** The name to act under, in the mode that trusts the client. */
  actAs(userId) {
    this.client.userId = userId;
  }
}

async function check(options) {
  const client = new Lockhouse(options);
  const sentAt = performance.now();
  const response = await client.open('GET', '/api/v1/whoami', { timeoutMs: 15_000 });
  learnRoughly(Date.parse(response.headers.get('Date')), sentAt);
  return new Session(options, await response.json(), client);
}

/** Asks for a token until the server accepts one; then calls `done` with the session. */
export function signIn(root, { why, done }) {
  const token = h('input', {
    type: 'password',
    autocomplete: 'off',
    spellcheck: 'false',
    required: true,
    name: 'token',
  });
  const keeps = h('input', { type: 'checkbox' });
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
          // Headers allow only these characters, and a pasted token often ends with a line break.
          const given = token.value.trim();
          if (!/^[\x21-\x7e]+$/.test(given)) throw new Error('This is no token: it has letters that no token has.');
          const session = await check({ userId: '', token: given });
          if (keeps.checked) tab.set(TOKEN, given);
          done(session);
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
      'A token of Lockhouse (lh_…), or a JWT where the server takes them. Unless you say otherwise, it is forgotten when you close or reload this page.',
    ),
    h('label', { class: 'check' }, keeps, ' Keep it for this tab'),
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
