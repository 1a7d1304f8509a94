// One workspace: its lock, presence, members and history.

import { learnFrom } from './clock.js';
import { ask, askFor } from './dialog.js';
import { h, say } from './dom.js';
import { ago, full, lasting, time, who } from './format.js';
import { History } from './history.js';
import { eachSecond, repeat } from './live.js';
import { endLocks } from './endlocks.js';
import { showLeft } from './lockrow.js';
import { Members, isAdminOf } from './members.js';

/** Events after which the workspace or its members are read again. */
const MAY_CHANGE = ['member.removed', 'workspace.deleted', 'reset'];
/** Interval of reads of the presence (milliseconds). Watchers cause no events. */
const AGAIN_MS = 10_000;
/** The limit of a name, in characters. */
const NAME_LENGTH = 200;

export function showWorkspace(app, root, { id, signal }) {
  const path = `/api/v1/workspaces/${encodeURIComponent(id)}`;
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const lock = new LockCard(app);
  const there = h('div', { class: 'there' });
  const members = new Members(app, id, signal);
  const about = new About(app, id, { lock, members, signal });
  const history = new History(app, { path: path + '/history', nothing: 'Nothing has happened here, as far as is kept.', signal });

  const refresh = repeat(
    async () => {
      try {
        const { value: presence, sentAt } = await app.client.ask('GET', path + '/presence', { signal });
        learnFrom(presence.lock, sentAt.monotonic);
        lock.show(presence.lock, sentAt.monotonic);
        there.replaceChildren(...people(presence));
        await history.refresh();
        say(wrong, '');
      } catch (error) {
        if (!signal.aborted && !app.isOver(error)) say(wrong, error.message);
      }
    },
    AGAIN_MS,
    signal,
  );

  app.live.hear((told) => {
    const isHere = told.type === 'reset' || told.data?.workspace_id === id;
    if (isHere) refresh();
    if (isHere && MAY_CHANGE.includes(told.type)) about.refresh();
  }, signal);
  eachSecond(() => lock.tick(refresh), signal);
  about.refresh();

  root.append(
    h('p', { class: 'crumb' }, h('a', { href: '#/workspaces' }, 'Workspaces'), ' / workspace'),
    h(
      'div',
      { class: 'title' },
      h('h1', { tabindex: '-1' }, h('code', {}, id)),
      about.actions,
    ),
    about.node,
    wrong,
    h(
      'div',
      { class: 'columns' },
      h(
        'div',
        {},
        lock.node,
        h('section', { 'aria-labelledby': 'there' }, h('h2', { id: 'there' }, 'Who is there'), there),
        members.node,
      ),
      h('section', { 'aria-labelledby': 'history' }, h('h2', { id: 'history' }, 'History'), history.node),
    ),
  );
}

/** The name and the actions of a created workspace, or a form that creates it. Parts that only a created workspace has are
 * hidden before. */
class About {
  #name = null;

  constructor(app, id, { lock, members, signal }) {
    Object.assign(this, { app, id, lock, members, signal });
    this.path = `/api/v1/workspaces/${encodeURIComponent(id)}`;
    this.node = h('p', { class: 'sub' });
    const button = (text, kind, onclick) => h('button', { type: 'button', class: kind, onclick }, text);
    this.actions = h(
      'div',
      { class: 'actions', hidden: true },
      button('Rename…', 'small', () => this.#rename()),
      button('Delete workspace…', 'small danger', () => deleteWorkspace(app, id, this.path)),
    );
    members.node.hidden = true;
  }

  async refresh() {
    try {
      const workspace = await this.app.client.request('GET', this.path, { signal: this.signal });
      const administers = await isAdminOf(this.app, this.id, this.signal);
      this.members.offer(administers || this.app.session.serves);
      this.lock.offer(administers);
      this.#show(workspace);
    } catch (error) {
      if (error.code === 'workspace_not_found') this.#show(null);
      else if (!this.signal.aborted && !this.app.isOver(error)) this.app.tell(error.message);
    }
  }

  #show(workspace) {
    const { serves } = this.app.session;
    this.#name = workspace?.name ?? null;
    this.actions.hidden = !workspace || !serves;
    this.members.node.hidden = !workspace;
    if (workspace) {
      const { name, created_at } = workspace;
      this.node.replaceChildren(
        name ? h('strong', {}, name) : 'No name',
        ` · created ${full(created_at)}`,
      );
      this.members.refresh();
      return;
    }
    const create = h('button', { type: 'button', class: 'small', onclick: () => this.#create() }, 'Create it');
    this.node.replaceChildren(
      'Nobody has created this workspace. It can be locked all the same, unless membership is enforced; to have members, it must be created. ',
      serves ? create : '',
    );
  }

  async #create() {
    try {
      await this.app.client.request('PUT', this.path, { body: {} });
      await this.refresh();
      // The button was removed, so the focus needs a new place.
      document.querySelector('main h1')?.focus();
    } catch (error) {
      if (!this.app.isOver(error)) this.app.tell(error.message);
    }
  }

  #rename() {
    const had = this.#name;
    askFor(this.app, {
      title: `Rename ${this.id}`,
      label: 'Name',
      hint: 'How it is shown. Its id stays. You may leave it empty.',
      value: had ?? '',
      length: NAME_LENGTH,
      action: 'Rename',
      run: async (name) => {
        const named = await this.app.client.request('PUT', this.path, { body: { name } });
        this.#show(named);
        this.app.tell(named.name ? `${this.id} is called ${named.name} now.` : `${this.id} has no name now.`);
      },
    });
  }
}

/** The holder of the lock and the remaining time. */
class LockCard {
  #ends = 0;
  #lock = null;
  /** The source of the shown content. It is rendered again only when it changes. */
  #shown;
  #administers = false;

  constructor(app) {
    this.app = app;
    this.left = h('span', { class: 'left big' });
    this.bar = h('span', { class: 'bar', 'aria-hidden': 'true' }, h('i'));
    this.times = h('dl', {});
    const button = h('button', { type: 'button', class: 'danger', onclick: () => endLocks(app, [this.#lock]) }, 'End this lock…');
    this.end = h('div', { class: 'actions' }, button);
    this.node = h(
      'section',
      { class: 'panel lock', 'aria-labelledby': 'lock' },
      h('h2', { id: 'lock' }, 'Lock'),
      h('p', {}, 'One moment…'),
    );
  }

  /** An admin of the workspace may end any lock in it. */
  offer(administers) {
    this.#administers = administers;
    this.#offerEnd();
  }

  #offerEnd() {
    const ends = this.#administers || this.app.session.endsLocksOf(this.#lock?.locked_by_user_id);
    this.end.hidden = !this.#lock || !ends;
  }

  show(lock, at) {
    this.#lock = lock;
    this.#ends = lock ? at + lock.expires_in_ms : 0;
    const shown = lock ? `${lock.fence} ${lock.note} ${JSON.stringify(lock.metadata)}` : '';
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.node.replaceChildren(h('h2', { id: 'lock' }, 'Lock'), ...(lock ? this.#held(lock) : this.#free()));
    }
    this.node.classList.toggle('is-held', lock !== null);
    this.#offerEnd();
    if (lock) this.#showTimes(lock);
    this.tick();
  }

  #free() {
    return [h('p', { class: 'state' }, 'Free'), h('p', { class: 'sub' }, 'The next to ask gets it.')];
  }

  #held(lock) {
    const metadata = Object.keys(lock.metadata).length ? JSON.stringify(lock.metadata, null, 2) : null;
    return [
      h('p', { class: 'state' }, who(lock.locked_by_user_id, lock.locked_by_name, lock.kind, lock.agent)),
      h('div', {}, h('p', { class: 'sub' }, 'Time left'), this.left, this.bar),
      lock.note ? h('p', { class: 'note' }, lock.note) : null,
      this.times,
      metadata ? h('details', {}, h('summary', {}, 'Metadata'), h('pre', {}, metadata)) : null,
      this.end,
    ].filter(Boolean);
  }

  #showTimes(lock) {
    const rows = [
      ['Since', time(lock.acquired_at)],
      ['Last active', time(lock.last_active_at)],
      ['Renewed', time(lock.renewed_at)],
      ['Session', lock.session_id ? h('code', {}, lock.session_id) : '–'],
      ['Fence', h('code', {}, String(lock.fence))],
    ];
    this.times.replaceChildren(...rows.map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value))));
  }

  /** Updates the remaining time; calls `refresh` when the lease seems to have ended. */
  tick(refresh) {
    if (!this.#lock) return;
    const rest = this.#ends - performance.now();
    showLeft(this.left, this.bar, rest, this.#lock.ttl_ms);
    for (const node of this.times.querySelectorAll('time')) say(node, ago(node.dateTime));
    if (rest <= 0) refresh?.();
  }
}

/** The users who are present, each with an activity. */
function people({ knocks, waiting, followers }) {
  const group = (title, list, more) =>
    list.length
      ? [
          h('h3', {}, title),
          h(
            'ul',
            { class: 'people' },
            list.map((one) => h('li', {}, who(one.user_id, one.name, one.kind, one.agent), more(one))),
          ),
        ]
      : [];
  const shown = [
    ...group('Asking', knocks, ({ message, knocked_at }) => [
      ' ',
      message ? h('q', {}, message) : null,
      ' ',
      h('span', { class: 'sub' }, time(knocked_at)),
    ]),
    ...group('Waiting in line', waiting, ({ since_at }) => h('span', { class: 'sub' }, ' ', lasting(since_at))),
    ...group('Watching', followers, ({ since_at }) => h('span', { class: 'sub' }, ' ', lasting(since_at))),
  ];
  return shown.length ? shown : [h('p', { class: 'sub' }, 'Nobody asks, waits or watches.')];
}

function deleteWorkspace(app, id, path) {
  ask(app, {
    title: `Delete ${id}?`,
    text: 'Its lock ends at once, and its members are forgotten. The history stays.',
    action: 'Delete',
    run: async () => {
      const { deleted } = await app.client.request('DELETE', path);
      app.tell(deleted ? `${id} is deleted.` : `There was no workspace named ${id}.`);
      location.hash = '#/workspaces';
    },
  });
}
