import { Refusal } from '/client/index.js';
import { WatchedClient } from './client.js';
import { SharedDocument } from './document.js';
import { add, follow } from './log.js';
import { byId } from './page.js';
import { Person } from './person.js';

// A random workspace, so that visitors of one server do not meet by chance.
const random = () => [...crypto.getRandomValues(new Uint8Array(4))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
const workspaceId = new URLSearchParams(location.search).get('workspace') || 'demo-' + random();

const trusted = [
  { userId: 'alice', userName: 'Alice Martin' },
  { userId: 'bob', userName: 'Bob Dupont' },
];

// The links to other pages, if they are served.
for (const [id, path] of [['console', '/'], ['docs', '/docs']]) {
  fetch(path, { method: 'HEAD' }).then(
    ({ ok }) => (byId(id).hidden = !ok),
    () => {},
  );
}

try {
  await new WatchedClient(trusted[0]).request('GET', '/api/v1/locks', { query: { limit: 1 } });
  begin(trusted);
} catch (error) {
  if (!(error instanceof Refusal) || error.status !== 401) throw error;
  askForTokens();
}

/** Starts with two people. */
function begin(people) {
  byId('tokens').hidden = true;
  for (const id of ['lease', 'stage', 'ideas']) byId(id).hidden = false;
  const shared = new SharedDocument();
  const [left, right] = people.map((options, index) => {
    const name = options.userName ?? options.userId;
    return new Person(new WatchedClient(options), name, ['left', 'right'][index], workspaceId, shared);
  });
  const stage = byId('stage');
  stage.prepend(left.root);
  stage.children[1].after(right.root);
  const ttlMs = () => Number(document.querySelector('[name=ttl]:checked').value);
  for (const person of [left, right]) person.begin(ttlMs());
  byId('lease').addEventListener('change', async () => {
    for (const person of [left, right]) await person.again(ttlMs());
  });
  shared.addEventListener('saved', ({ detail }) => add(detail.isOld ? 'document refused' : 'document', detail.outcome));
  const names = new Map(people.map(({ userId, userName }) => [userId, (userName ?? userId).split(' ')[0]]));
  const who = (userId) => names.get(userId) ?? userId ?? 'Somebody';
  follow(new WatchedClient(people[0]), workspaceId, who, (lock) => [left, right].forEach((person) => person.hear(lock)));
}

/** Asks for tokens, in modes that need them. */
function askForTokens() {
  const section = byId('tokens');
  section.hidden = false;
  const form = section.querySelector('form');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const say = (text) => (section.querySelector('[role=alert]').textContent = text);
    say('');
    try {
      const tokens = [...form.querySelectorAll('input')].map(({ value }) => value.trim());
      const [left, right] = await Promise.all(tokens.map(ownerOf));
      if (left.userId === right.userId) say('Both are tokens of one person: Lockhouse would not keep the two apart.');
      else begin([left, right]);
    } catch (error) {
      say(error.message);
    }
  });
}

/** The user of a token. The server tells it in the answer to an acquire. */
async function ownerOf(token) {
  const client = new WatchedClient({ userId: '', token });
  const aside = 'demo-' + random();
  const { lock } = await client.acquire(aside, { ttl_ms: 1_000 });
  await client.release(aside);
  return { userId: lock.locked_by_user_id, userName: lock.locked_by_name ?? undefined, token };
}
