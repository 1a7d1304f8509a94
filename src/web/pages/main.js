// The console: session, navigation and connection.

import { showActivity } from './activity.js';
import { h, say } from './dom.js';
import { showHealth } from './health.js';
import { showLocks } from './locks.js';
import { Live } from './live.js';
import { Names } from './names.js';
import { begin, signIn } from './session.js';
import { offerSettings } from './settings.js';
import { tab } from './storage.js';
import { showTokens } from './tokens.js';
import { showUser } from './user.js';
import { showWorkspace } from './workspace.js';
import { showWorkspaces } from './workspaces.js';

const main = document.getElementById('main');
const nav = document.getElementById('nav');
const who = document.getElementById('who');
const connection = document.getElementById('connection');
const note = document.getElementById('note');

let session = null;
/** Aborted at the end of the session. */
let signedIn = new AbortController();
/** Aborted when the page changes. */
let shown = new AbortController();
let live = new Live();
let names = new Names();

/** Routes; the first match applies: the pattern of the hash, the page, and its entry of the navigation. */
const PAGES = [
  [[], showLocks, 'locks'],
  [['locks'], showLocks, 'locks'],
  [['workspaces'], showWorkspaces, 'workspaces'],
  [['workspaces', String], showWorkspace, 'workspaces'],
  [['users', String], showUser, 'locks'],
  [['activity'], showActivity, 'activity'],
  [['tokens'], showTokens, 'tokens'],
  [['health'], showHealth, 'health'],
];

function find() {
  try {
    const words = location.hash
      .replace(/^#?\/?|\?.*$/g, '')
      .split('/')
      .filter(Boolean)
      .map(decodeURIComponent);
    const page = PAGES.find(
      ([path]) => path.length === words.length && path.every((part, place) => part === String || part === words[place]),
    );
    return page && { show: page[1], tab: page[2], id: words[1] };
  } catch {
    // Invalid percent-encoding.
    return undefined;
  }
}

/** The context that all pages receive. */
const app = {
  get session() {
    return session;
  },
  get client() {
    return session.client;
  },
  get live() {
    return live;
  },
  get names() {
    return names;
  },
  /** The parameters after `?` in the hash. */
  get query() {
    return new URLSearchParams(location.hash.split('?')[1]);
  },
  /** Writes parameters into the address, so that they survive a reload and can be shared. Empty ones are left out. */
  setQuery(values) {
    const query = app.query;
    for (const [name, value] of Object.entries(values)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const text = query.toString();
    history.replaceState(history.state, '', (location.hash.split('?')[0] || '#/locks') + (text && '?' + text));
  },
  /** Shows the result of an action. */
  tell(text) {
    note.textContent = text;
    clearTimeout(app.timer);
    app.timer = setTimeout(() => (note.textContent = ''), 6000);
  },
  /** Whether the error means that the session has ended. If so, ends it here. */
  isOver(error) {
    if (error?.status !== 401 || !session) return false;
    leave('You are no longer signed in: the token was revoked, or has expired.');
    return true;
  },
};

function show({ focus }) {
  shown.abort();
  closeQuestions();
  shown = new AbortController();
  const page = find();
  for (const link of nav.querySelectorAll('a')) {
    if (link.dataset.tab === page?.tab) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const root = h('div', { class: 'page' });
  main.replaceChildren(root);
  if (page) page.show(app, root, { id: page.id, signal: shown.signal });
  else
    root.append(
      h('h1', { tabindex: '-1' }, 'There is nothing here'),
      h('p', {}, h('a', { href: '#/locks' }, 'All locks')),
    );
  const heading = root.querySelector('h1');
  document.title = `${heading.textContent} · Lockhouse`;
  if (focus) heading.focus();
}

function enter(given) {
  session = given;
  signedIn = new AbortController();
  live = new Live();
  names = new Names();
  nav.hidden = false;
  nav.querySelector('[data-tab=tokens]').hidden = !session.serves;
  nav.querySelector('[data-tab=health]').hidden = !session.monitors;
  live.watch(showConnection, signedIn.signal);
  showConnection('connecting');
  follow();
  showWho();
  show({ focus: false });
}

function follow() {
  const { signal } = signedIn;
  live.follow(session.client, signal, (error) => {
    if (app.isOver(error)) return;
    app.tell(error.message);
    // A temporary error, such as a rate limit.
    setTimeout(() => signal.aborted || follow(), Math.max(error.retryAfterMs ?? 0, REFUSED_MS));
  });
}

/** Closes open dialogs, which belong to the old page. */
function closeQuestions() {
  for (const dialog of document.querySelectorAll('dialog')) dialog.remove();
}

/** Back to the sign-in page. */
function leave(why) {
  signedIn.abort();
  shown.abort();
  if (session) tab.clear();
  session = null;
  nav.hidden = true;
  connection.hidden = true;
  who.replaceChildren();
  closeQuestions();
  document.title = 'Sign in · Lockhouse';
  signIn(main, { why, done: enter });
}

/** Time until the events are requested again after a refusal (milliseconds). */
const REFUSED_MS = 10_000;

const STATES = {
  connecting: 'Connecting…',
  live: 'Live',
  lost: 'Connection lost. What you see may be out of date; trying again…',
};

function showConnection(state) {
  connection.hidden = false;
  connection.dataset.state = state;
  document.body.classList.toggle('is-lost', state === 'lost');
  say(connection, STATES[state]);
}

function showWho() {
  if (session.mode === 'token') {
    who.replaceChildren(
      h('span', {}, session.shown),
      h('button', { type: 'button', onclick: () => leave() }, 'Sign out'),
    );
  } else if (session.mode === 'proxy') {
    who.replaceChildren(h('span', {}, session.shown));
  } else {
    who.replaceChildren(
      h(
        'button',
        { type: 'button', title: 'This server trusts the name that you give: what you do is recorded under it.', onclick: rename },
        'acting as ',
        h('strong', {}, session.shown),
      ),
    );
  }
}

/** Acts under another name, in the mode that trusts the client. */
function rename() {
  const name = h('input', { value: session.shown, required: true, maxlength: 255, 'aria-label': 'Your user id' });
  const form = h(
    'form',
    {
      onsubmit: (event) => {
        event.preventDefault();
        session.actAs(name.value);
        showWho();
        who.querySelector('button').focus();
        app.tell(`You now act as ${name.value}.`);
      },
      onkeydown: (event) => {
        if (event.key === 'Escape') {
          showWho();
          who.querySelector('button').focus();
        }
      },
    },
    name,
    h('button', {}, 'Use'),
  );
  who.replaceChildren(form);
  name.select();
}

async function start() {
  try {
    const found = await begin();
    if (found) enter(found);
    else leave();
  } catch (error) {
    main.replaceChildren(
      h(
        'div',
        { class: 'empty' },
        h('h1', {}, 'The server does not answer'),
        h('p', {}, error.message),
        h('button', { type: 'button', class: 'primary', onclick: start }, 'Try again'),
      ),
    );
  }
}

/** Shows the link to a page if it is enabled. */
async function offerPage(name) {
  const response = await fetch('/' + name, { method: 'HEAD' });
  document.getElementById(name).hidden = !response.ok;
}

document.getElementById('skip').addEventListener('click', (event) => {
  // Not by the hash, which is the route.
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', () => session && show({ focus: true }));
offerSettings(() => session && show({ focus: false }));
start();
for (const name of ['docs', 'demo']) offerPage(name).catch(() => {});
