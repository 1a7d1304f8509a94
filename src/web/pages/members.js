// The members of a workspace.

import { ask } from './dialog.js';
import { field, h, say, table } from './dom.js';
import { person } from './format.js';

const ROLES = ['viewer', 'editor', 'admin'];

const roles = (chosen) => ROLES.map((role) => h('option', { value: role, selected: role === chosen }, role));

/** Page size for the search for the current user. */
const PAGE = 500;

/** Whether the user is an admin of this workspace, without the scope `admin`. */
export async function isAdminOf({ client, session }, workspaceId, signal) {
  if (session.scope !== 'user') return false;
  const path = `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/members`;
  let cursor;
  do {
    const page = await client.request('GET', path, { query: { limit: PAGE, cursor }, signal });
    const me = page.members.find(({ user_id }) => user_id === session.who.user_id);
    if (me) return me.role === 'admin';
    cursor = page.next_cursor ?? undefined;
  } while (cursor !== undefined);
  return false;
}

export class Members {
  #manages = false;
  #cursor;
  #table = table('Members', [
    ['User', ''],
    ['Role', ''],
    ['', 'act'],
  ]);
  #wrong = h('p', { class: 'wrong', role: 'alert' });
  #empty = h('p', { class: 'sub' }, 'Nobody yet.');
  #more = h(
    'button',
    { type: 'button', class: 'more', hidden: true, onclick: () => this.#read(this.#cursor) },
    'Show more',
  );

  constructor(app, workspaceId, signal) {
    Object.assign(this, { app, workspaceId, signal });
    this.path = `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/members`;
    const user = h('input', { required: true, maxlength: 255, autocomplete: 'off', spellcheck: 'false' });
    const role = h('select', {}, roles('editor'));
    this.form = h(
      'form',
      {
        class: 'row',
        hidden: true,
        onsubmit: async (event) => {
          event.preventDefault();
          if (await this.#put(user.value, role.value)) user.value = '';
        },
      },
      field('User id', user),
      field('Role', role),
      h('button', {}, 'Add member'),
    );
    this.node = h(
      'section',
      { 'aria-labelledby': 'members' },
      h('h2', { id: 'members' }, 'Members'),
      h(
        'p',
        { class: 'sub' },
        'They count where workspaces.membership is “enforced”: viewers see the workspace, editors lock it, admins also end locks and see to the members.',
      ),
      this.#wrong,
      this.#empty,
      this.#table.whole,
      this.#more,
      this.form,
    );
    this.#table.whole.hidden = true;
  }

  /** `manages`: whether the user may change the members. */
  offer(manages) {
    this.#manages = manages;
    this.form.hidden = !manages;
  }

  refresh() {
    return this.#read(undefined);
  }

  async #read(cursor) {
    const nobody = { members: [], next_cursor: null };
    const page = await this.#try(() =>
      this.app.client.request('GET', this.path, { query: { cursor }, signal: this.signal }).catch((error) => {
        // A workspace that was not created has no members.
        if (error.code === 'workspace_not_found') return nobody;
        throw error;
      }),
    );
    if (!page) return;
    this.#cursor = page.next_cursor;
    this.#more.hidden = page.next_cursor === null;
    if (!cursor) this.#table.body.replaceChildren();
    this.#table.body.append(...page.members.map((member) => this.#row(member)));
    this.#empty.hidden = this.#table.body.children.length > 0;
    this.#table.whole.hidden = !this.#empty.hidden;
  }

  #row({ user_id, role }) {
    if (!this.#manages) return this.#table.row(person(user_id), role, '');
    const choice = h(
      'select',
      { 'aria-label': `Role of ${user_id}`, onchange: () => this.#put(user_id, choice.value) },
      roles(role),
    );
    const remove = h(
      'button',
      { type: 'button', class: 'small', 'aria-label': `Remove ${user_id}`, onclick: () => this.#remove(user_id) },
      'Remove…',
    );
    return this.#table.row(person(user_id), choice, remove);
  }

  async #put(userId, role) {
    const path = `${this.path}/${encodeURIComponent(userId)}`;
    const member = await this.#try(() => this.app.client.request('PUT', path, { body: { role } }));
    const wrong = this.#wrong.textContent;
    if (member) this.app.tell(`${userId} is ${role} now.`);
    // Show the server's value again, with the error.
    await this.refresh();
    if (!member) say(this.#wrong, wrong);
    return Boolean(member);
  }

  #remove(userId) {
    ask(this.app, {
      title: `Remove ${userId}?`,
      text: 'If they hold the lock of this workspace, it ends at once.',
      action: 'Remove',
      run: async () => {
        await this.app.client.request('DELETE', `${this.path}/${encodeURIComponent(userId)}`);
        this.app.tell(`${userId} is no member any more.`);
        await this.refresh();
      },
    });
  }

  /** The result of `work`; undefined if it is refused. Shows the error. */
  async #try(work) {
    try {
      const done = await work();
      say(this.#wrong, '');
      return done;
    } catch (error) {
      if (!this.signal.aborted && !this.app.isOver(error)) say(this.#wrong, error.message);
      return undefined;
    }
  }
}
