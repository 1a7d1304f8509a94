// The web console in a real browser with a real server: its functions.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { answer, isLive, reads, row, signIn, story, useBrowser } from './console.js';

const EVIL = '<img src=x onerror=alert(1)>';

useBrowser();

const seconds = (text) => text.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);

story('the table of locks follows the events', async ({ server, open }) => {
  const page = await open();
  await page.getByText('Nobody has a lock').waitFor();
  assert.match(
    await page.locator('pre').textContent(),
    new RegExp(`^curl -X POST ${server.url}/api/v1/workspaces/design-42/lock`),
  );
  await isLive(page);
  await server.acquire('alice', 'design-42', { name: 'Alice Martin', note: 'moving the header' });
  await reads(row(page, 'design-42'), 'Alice Martin');
  await reads(row(page, 'design-42'), 'moving the header');
  const left = row(page, 'design-42').locator('.left');
  const first = seconds(await left.textContent());
  assert.ok(first > 590 && first <= 600, `${first} s`);
  await page.waitForFunction(
    (first) => document.querySelector('.left').textContent !== first,
    await left.textContent(),
  );
  assert.ok(seconds(await left.textContent()) < first);
  await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/knock', { message: 'two minutes?', name: 'Bob' });
  await reads(row(page, 'design-42'), 'two minutes?');
  await server.acquire('carol', 'design-42', { force: true });
  await reads(row(page, 'design-42'), 'carol');
  await server.acquire('dave', 'plan-1');
  await row(page, 'plan-1').waitFor();
  await page.getByText('2 locks').waitFor();
  await server.ask('carol', 'POST', '/api/v1/workspaces/design-42/lock/release');
  await row(page, 'design-42').waitFor({ state: 'detached' });
  // An expiry.
  await server.acquire('erin', 'short', { ttl_ms: 1500 });
  await row(page, 'short').waitFor();
  await row(page, 'short').waitFor({ state: 'detached' });
});

story('an agent and a process are marked, with for whom the agent acts', async ({ server, open }) => {
  const asks = { kind: 'agent', name: 'Claude', note: 'renaming the layers' };
  await server.acquire('alice', 'design-42', asks);
  await server.acquire('ci', 'deploy', { kind: 'run', session_id: 'job-7' });
  const page = await open();
  await reads(row(page, 'design-42'), 'Claude agent of alice');
  await reads(row(page, 'design-42'), 'renaming the layers');
  await reads(row(page, 'deploy'), 'ci run');
  await server.ask('bob', 'POST', '/api/v1/workspaces/deploy/lock/knock', { kind: 'agent', name: 'Claude' });
  await reads(row(page, 'deploy'), 'Claude agent of bob');
  await server.acquire('bob', 'design-42');
  await reads(row(page, 'design-42'), 'bob');
  await page.getByRole('link', { name: 'design-42' }).click();
  await page.getByText('bob took it over from alice agent, which yields to people').waitFor();
});

story(
  'the remaining time does not depend on the wall clock of this machine',
  async ({ server, open, context }) => {
    await context.addInitScript(() => {
      const real = Date.now;
      Date.now = () => real() + 5 * 3_600_000;
    });
    await server.acquire('alice', 'design-42');
    const page = await open();
    const left = seconds(await row(page, 'design-42').locator('.left').textContent());
    assert.ok(left > 580 && left <= 600, `${left} s`);
    assert.equal(await row(page, 'design-42').locator('time').first().textContent(), 'just now');
  },
);

story('a heartbeat, which is not an event, is noticed before the old end of the lease', async ({ server, open }) => {
  const page = await open();
  await isLive(page);
  const { lock } = await server.acquire('alice', 'design-42', { ttl_ms: 2500 });
  await server.ask('alice', 'POST', '/api/v1/workspaces/design-42/lock/heartbeat', {
    fence: lock.fence,
    ttl_ms: 600_000,
  });
  await page.waitForFunction(() => /^9:|^10:/.test(document.querySelector('.left')?.textContent ?? ''));
});

story('users who wait, ask or watch are shown', async ({ server, open }) => {
  await server.acquire('alice', 'design-42');
  for (const user of ['bob', 'carol'])
    await server.ask(user, 'POST', '/api/v1/workspaces/design-42/lock/knock', { name: user.toUpperCase() });
  const waits = server.acquire('dave', 'design-42', { wait_ms: 30_000 });
  const page = await open();
  await reads(row(page, 'design-42'), 'BOB');
  await page.getByRole('link', { name: 'design-42' }).click();
  for (const text of ['BOB', 'CAROL', 'dave']) await reads(page.locator('.there li'), text);
  await server.ask('alice', 'POST', '/api/v1/workspaces/design-42/lock/handover', { to_user_id: 'erin' });
  await reads(page.locator('.lock .state'), 'erin');
  await reads(page.locator('.timeline li').first(), 'alice handed it over to erin');
  await server.ask('erin', 'DELETE', '/api/v1/workspaces/design-42/lock');
  assert.equal((await waits).outcome, 'acquired');
  await reads(page.locator('.lock .state'), 'dave');
});

story("the removal of a member does not remove another user's lock", async ({ server, open }) => {
  await server.ask('x', 'PUT', '/api/v1/workspaces/design-42');
  await server.ask('x', 'PUT', '/api/v1/workspaces/design-42/members/bob', { role: 'editor' });
  await server.acquire('alice', 'design-42');
  const page = await open();
  await row(page, 'design-42').waitFor();
  await isLive(page);
  const there = await row(page, 'design-42').elementHandle();
  await server.ask('x', 'DELETE', '/api/v1/workspaces/design-42/members/bob');
  await server.acquire('alice', 'plan-1');
  await row(page, 'plan-1').waitFor();
  assert.ok(await there.evaluate((row) => row.isConnected), 'it is the same row, and was not taken away for a moment');
});

story('a history of several pages can be read to its end', async ({ server, open }) => {
  for (let number = 0; number < 25; number++) {
    await server.acquire('alice', 'design-42');
    await server.ask('alice', 'DELETE', '/api/v1/workspaces/design-42/lock');
  }
  const page = await open('#/workspaces/design-42');
  await page.waitForFunction(() => document.querySelectorAll('.timeline li').length === 30);
  await page.getByRole('button', { name: 'Older' }).click();
  await page.waitForFunction(() => document.querySelectorAll('.timeline li').length === 50);
  assert.equal(await page.getByRole('button', { name: 'Older' }).count(), 0);
  await server.acquire('bob', 'design-42');
  await reads(page.locator('.timeline li').first(), 'bob got the lock');
  assert.equal(await page.locator('.timeline li').count(), 51, 'what was read stays');
});

story('many events do not make the page slow, and its final state is right', async ({ server, open }) => {
  const page = await open();
  await isLive(page);
  const work = async (user) => {
    for (let number = 0; number < 40; number++) {
      await server.acquire(user, `w-${user}`);
      await server.ask(user, 'DELETE', `/api/v1/workspaces/w-${user}/lock`);
    }
    await server.acquire(user, `w-${user}`);
  };
  await Promise.all(Array.from({ length: 10 }, (_, number) => work(`u${number}`)));
  await page.getByText('10 locks').waitFor();
  const { locks } = await server.ask('x', 'GET', '/api/v1/locks');
  assert.deepEqual(
    await page.locator('a.workspace').allTextContents(),
    locks.map(({ workspace_id }) => workspace_id),
  );
});

story('names, notes and messages are not parsed as HTML', async ({ server, open }) => {
  const body = { name: EVIL, note: EVIL, session_id: EVIL, metadata: { [EVIL]: EVIL } };
  await server.acquire(encodeURIComponent(EVIL), EVIL, body);
  await server.ask('bob', 'POST', `/api/v1/workspaces/${encodeURIComponent(EVIL)}/lock/knock`, {
    message: EVIL,
    name: EVIL,
  });
  await server.ask('x', 'PUT', `/api/v1/workspaces/${encodeURIComponent(EVIL)}`, { name: EVIL });
  await server.ask('x', 'PUT', `/api/v1/workspaces/${encodeURIComponent(EVIL)}/members/${encodeURIComponent(EVIL)}`, {
    role: 'viewer',
  });
  await server.ask('x', 'POST', '/api/v1/tokens', { user_id: EVIL, name: EVIL });
  const page = await open();
  const literally = async (least) => {
    await page.waitForFunction(
      ([evil, least]) => document.body.textContent.split(evil).length - 1 >= least,
      [EVIL, least],
    );
    assert.equal(await page.locator('img').count(), 0);
  };
  await literally(5);
  await page.locator('a.workspace').click();
  await page.getByRole('heading', { level: 1, name: EVIL }).waitFor();
  await literally(12);
  await page.getByRole('button', { name: 'End this lock' }).click();
  await literally(14);
  await page.getByRole('button', { name: 'Cancel' }).click();
  for (const hash of ['#/workspaces', '#/tokens', '#/users/' + encodeURIComponent(EVIL)]) {
    await page.goto(server.url + '/' + hash);
    await literally(2);
  }
});

story('a lock is revoked with a reason, which the history shows', async ({ server, open }) => {
  await server.acquire('alice', 'team/design 42', { name: 'Alice Martin' });
  const page = await open('#/workspaces/team%2Fdesign%2042');
  await page.getByRole('button', { name: 'acting as' }).click();
  await page.getByLabel('Your user id').fill('zoë');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'End this lock' }).click();
  await answer(page, { reason: 'she is on holiday', button: 'End the lock' });
  await page.getByText('Free', { exact: true }).waitFor();
  const newest = page.locator('.timeline li').first();
  await reads(newest, 'she is on holiday');
  assert.match(await newest.textContent(), /zoë ended the lock of alice/);
  const { lock } = await server.ask('alice', 'GET', '/api/v1/workspaces/team%2Fdesign%2042/lock');
  assert.equal(lock, null);
});

story('only the lease that was shown is revoked', async ({ server, open }) => {
  await server.acquire('alice', 'design-42');
  const page = await open();
  await page.getByRole('button', { name: 'End the lock of design-42' }).click();
  await server.acquire('bob', 'design-42', { force: true });
  await page.getByRole('dialog').getByRole('button', { name: 'End the lock' }).click();
  await page.waitForFunction(
    () => document.querySelector('dialog .wrong')?.textContent || !document.querySelector('dialog'),
  );
  const { lock } = await server.ask('bob', 'GET', '/api/v1/workspaces/design-42/lock');
  assert.equal(lock?.locked_by_user_id, 'bob');
});

story("all locks of one user are released, and no others", async ({ server, open }) => {
  for (const workspace of ['one', 'two', 'three']) await server.acquire('alice', workspace, { name: 'Alice Martin' });
  await server.acquire('bob', 'four');
  const page = await open();
  await row(page, 'one').getByRole('link', { name: 'Alice Martin' }).click();
  await page.getByText('3 locks').waitFor();
  await page.getByRole('button', { name: 'Release all' }).click();
  await answer(page, { reason: 'left the company', button: 'Release all' });
  await page.getByText('3 locks of alice released.').waitFor();
  await page.getByText('Nobody holds a lock under this user id now').waitFor();
  const { events } = await server.ask('bob', 'GET', '/api/v1/workspaces/one/history');
  assert.equal(events[0].detail.reason, 'left the company');
  assert.deepEqual(
    (await server.ask('bob', 'GET', '/api/v1/locks')).locks.map(({ workspace_id }) => workspace_id),
    ['four'],
  );
});

story('a lost connection is shown, and missed changes appear after the reconnect', async ({ server, open, context }) => {
  const { lock } = await server.acquire('dave', 'long', { ttl_ms: 60_000 });
  const page = await open();
  await isLive(page);
  // An event, so that the stream resumes after it.
  await server.acquire('alice', 'design-42');
  await row(page, 'design-42').waitFor();
  await server.kill();
  await page.getByText('Connection lost').waitFor();
  await context.setOffline(true);
  await server.restart();
  const renewal = { fence: lock.fence, ttl_ms: 600_000 };
  await server.ask('dave', 'POST', '/api/v1/workspaces/long/lock/heartbeat', renewal);
  await server.acquire('bob', 'plan-1');
  await server.acquire('bob', 'design-42', { force: true });
  await context.setOffline(false);
  await isLive(page);
  await reads(row(page, 'design-42'), 'bob');
  await row(page, 'plan-1').waitFor();
  // A heartbeat causes no event.
  await row(page, 'long')
    .locator('.left')
    .filter({ hasText: /^(9|10):/ })
    .waitFor();
  assert.equal(await page.locator('main .wrong').textContent(), '');
});

story(
  'a user can sign in with a token, which is not stored, and sign out',
  async ({ server, open }) => {
    const token = await server.run('token', 'create', '--scope', 'admin', '--name', 'console');
    const page = await open();
    await signIn(page, 'lh_wrong');
    await page.getByText('This token is not good').waitFor();
    assert.equal(await page.locator('table').count(), 0);
    await signIn(page, token + '\n');
    await page.getByRole('heading', { level: 1, name: 'Locks' }).waitFor();
    await isLive(page);
    assert.match(await page.locator('#who').textContent(), new RegExp(`^console, admin token ${token.slice(0, 7)}…`));
    const kept = await page.evaluate(() => [
      localStorage.length,
      sessionStorage.length,
      document.cookie,
      location.href,
    ]);
    assert.deepEqual([kept[0], kept[1], kept[2]], [0, 0, '']);
    assert.ok(!(await page.content()).includes(token) && !kept[3].includes(token));
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Token').waitFor();
    assert.equal(await page.getByRole('navigation').count(), 0);
    await signIn(page, token);
    await page.getByRole('heading', { level: 1, name: 'Locks' }).waitFor();
    await page.reload();
    await page.getByLabel('Token').waitFor();
  },
  { LOCKHOUSE_AUTH_MODE: 'token' },
);

story(
  'a revoked token ends the session',
  async ({ server, open }) => {
    const token = await server.run('token', 'create', '--scope', 'admin', '--name', 'console');
    const page = await open();
    await signIn(page, token);
    await page.getByRole('link', { name: 'Tokens' }).click();
    await page.getByRole('button', { name: 'Revoke console' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await page.getByText('You are no longer signed in').waitFor();
  },
  { LOCKHOUSE_AUTH_MODE: 'token' },
);

story(
  'forbidden actions are not offered',
  async ({ server, open }) => {
    const token = await server.run('token', 'create', '--scope', 'user', '--user', 'bob');
    const alice = await server.run('token', 'create', '--scope', 'user', '--user', 'alice');
    await fetch(server.url + '/api/v1/workspaces/design-42/lock', {
      method: 'POST',
      headers: { Authorization: `Bearer ${alice}` },
    });
    const page = await open();
    await signIn(page, token);
    await row(page, 'design-42').waitFor();
    assert.equal(await page.getByRole('button', { name: 'End the lock of design-42' }).count(), 0);
    for (const name of ['Tokens', 'Health']) assert.equal(await page.getByRole('link', { name }).count(), 0, name);
    await page.goto(server.url + '/#/health');
    await page.getByText('The numbers are for administrators').waitFor();
  },
  { LOCKHOUSE_AUTH_MODE: 'token' },
);

story(
  'behind an authenticating proxy there is no sign-in',
  async ({ server, open, context }) => {
    await context.setExtraHTTPHeaders({ 'Remote-User': 'root' });
    await server.ask('x', 'GET', '/healthz');
    const page = await open('#/tokens');
    await page.getByText('signed in by the proxy').waitFor();
    await page.getByText('There is no token').waitFor();
  },
  { LOCKHOUSE_AUTH_MODE: 'proxy', LOCKHOUSE_AUTH_PROXY_ADDRESSES: '127.0.0.1', LOCKHOUSE_AUTH_ADMINS: 'root' },
);

story('a token can be created, is shown once, and can be revoked', async ({ open, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const page = await open('#/tokens');
  await page.getByLabel('Scope').selectOption('service');
  await page.getByLabel('Name').fill('the app');
  await page.getByRole('button', { name: 'Create token' }).click();
  const token = await page.getByLabel('The new token').inputValue();
  assert.match(token, /^lh_.{43}$/);
  await page.getByRole('button', { name: 'Copy' }).click();
  await page.getByRole('button', { name: 'Copied' }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), token);
  await page.getByRole('button', { name: 'I have it' }).click();
  assert.ok(!(await page.content()).includes(token));
  await page.getByRole('button', { name: 'Revoke the app' }).click();
  await answer(page, { button: 'Revoke' });
  await page.getByText('There is no token').waitFor();
});

story('a workspace can be named, given members, and deleted', async ({ server, open }) => {
  const page = await open('#/workspaces');
  await page.getByLabel('Id').fill('design-42');
  await page.getByLabel('Name').fill('The design');
  await page.getByRole('button', { name: 'Create workspace' }).click();
  await page.getByRole('link', { name: 'design-42' }).click();
  await page.getByText('The design').waitFor();
  await page.getByLabel('User id').fill('alice');
  await page.getByRole('button', { name: 'Add member' }).click();
  await page.getByLabel('Role of alice').selectOption('admin');
  await page.getByText('alice is admin now.').waitFor();
  const members = () => server.ask('x', 'GET', '/api/v1/workspaces/design-42/members');
  assert.deepEqual((await members()).members, [{ user_id: 'alice', role: 'admin' }]);
  await page.getByRole('button', { name: 'Remove alice' }).click();
  await answer(page, { button: 'Remove' });
  await page.getByText('Nobody yet.').waitFor();
  await page.getByRole('button', { name: 'Delete workspace' }).click();
  await answer(page, { button: 'Delete' });
  await page.getByText('No workspace has been created yet').waitFor();
});

story('an existing workspace is not created again, but can be renamed', async ({ server, open }) => {
  await server.ask('x', 'PUT', '/api/v1/workspaces/design-42', { name: 'The design' });
  const page = await open('#/workspaces');
  await page.getByLabel('Id').fill('design-42');
  await page.getByLabel('Name').fill('Another');
  await page.getByRole('button', { name: 'Create workspace' }).click();
  await page.getByText('design-42 exists already.').waitFor();
  const name = async () => (await server.ask('x', 'GET', '/api/v1/workspaces/design-42')).name;
  assert.equal(await name(), 'The design');
  await page.getByRole('link', { name: 'Open it' }).click();
  const rename = async (from, to) => {
    await page.getByRole('button', { name: 'Rename…' }).click();
    assert.equal(await page.getByRole('dialog').getByLabel('Name').inputValue(), from);
    await page.getByRole('dialog').getByLabel('Name').fill(to);
    await answer(page, { button: 'Rename' });
  };
  await rename('The design', EVIL);
  await reads(page.locator('.page > .sub strong'), EVIL);
  assert.equal(await name(), EVIL);
  await rename(EVIL, '');
  await page.getByText('No name · created').waitFor();
  assert.equal(await name(), null);
});

story('a workspace that was not created cannot be deleted or given members', async ({ server, open }) => {
  const page = await open('#/workspaces/nothing');
  await page.getByText('Nobody has created this workspace.').waitFor();
  const offered = (name) => page.getByRole('button', { name }).count();
  assert.deepEqual([await offered('Delete workspace'), await offered('Rename'), await offered('Add member')], [0, 0, 0]);
  await server.acquire('alice', 'nothing');
  await page.getByRole('button', { name: 'End this lock' }).waitFor();
  assert.equal(await offered('Delete workspace'), 0);
  await page.getByRole('button', { name: 'Create it' }).click();
  for (const name of ['Delete workspace', 'Rename', 'Add member']) await page.getByRole('button', { name }).waitFor();
  // A dialog closes when the page changes.
  await page.getByRole('button', { name: 'Delete workspace' }).click();
  await page.evaluate(() => (location.hash = '#/workspaces'));
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await row(page, 'nothing').waitFor();
});

story('workspaces can be searched by name, and are in natural order', async ({ server, open }) => {
  for (const number of [1, 2, 10, 11]) {
    await server.ask('x', 'PUT', `/api/v1/workspaces/plan-${number}`, { name: `Floor ${number}` });
    await server.acquire('alice', `plan-${number}`);
  }
  await server.acquire('alice', 'unnamed');
  const page = await open();
  const shown = () => page.locator('a.workspace').allTextContents();
  await reads(row(page, 'plan-10'), 'Floor 10');
  assert.deepEqual(await shown(), ['plan-1', 'plan-2', 'plan-10', 'plan-11', 'unnamed']);
  await page.getByLabel('Find').fill('floor 1');
  await page.getByText('3 of 5').waitFor();
  assert.deepEqual(await shown(), ['plan-1', 'plan-10', 'plan-11']);
  await page.getByRole('link', { name: 'Workspaces' }).click();
  await page.getByText('others can be locked all the same').waitFor();
  await page.getByText('4 workspaces').waitFor();
  assert.deepEqual(await shown(), ['plan-1', 'plan-2', 'plan-10', 'plan-11']);
  await page.getByLabel('Find').fill('FLOOR 2');
  await page.getByText('1 of 4').waitFor();
  assert.deepEqual(await shown(), ['plan-2']);
  await page.getByLabel('Find').fill('nothing like this');
  await page.getByText('None fits what you typed.').waitFor();
});

story('a search reads further pages, and an incomplete list has the order of the server', async ({ server, open }) => {
  const all = Array.from({ length: 520 }, (_, number) => number + 1);
  await Promise.all(all.map((number) => server.ask('x', 'PUT', `/api/v1/workspaces/w-${number}`, {})));
  const page = await open('#/workspaces');
  await page.getByText('500+ workspaces').waitFor();
  const shown = () => page.locator('a.workspace').allTextContents();
  assert.deepEqual((await shown()).slice(0, 3), ['w-1', 'w-10', 'w-100']);
  await page.getByLabel('Find').fill('w-99');
  await page.getByText('1 of 520').waitFor();
  await page.getByLabel('Find').fill('');
  await page.getByText('520 workspaces').waitFor();
  assert.deepEqual((await shown()).slice(0, 3), ['w-1', 'w-2', 'w-3']);
});

story('tokens are sorted newest first, expired ones last, and can be searched', async ({ server, open }) => {
  await server.ask('x', 'POST', '/api/v1/tokens', { user_id: 'alice', name: 'was good', ttl_ms: 1 });
  await server.ask('x', 'POST', '/api/v1/tokens', { scope: 'service', name: 'first' });
  await server.ask('x', 'POST', '/api/v1/tokens', { user_id: 'bob', name: 'second', ttl_ms: 600_000 });
  const page = await open('#/tokens');
  const names = () => page.locator('tbody td:first-child').evaluateAll((cells) => cells.map(({ firstChild }) => firstChild.textContent));
  await page.getByText('3 tokens').waitFor();
  assert.deepEqual(await names(), ['second', 'first', 'was good']);
  const expired = page.locator('tbody tr').filter({ hasText: 'expired' });
  assert.equal(await expired.count(), 1);
  await reads(expired, 'was good');
  await page.getByLabel('Find').fill('bob');
  await page.getByText('1 of 3').waitFor();
  assert.deepEqual(await names(), ['second']);
  await page.getByLabel('Find').fill('SERVICE');
  await page.waitForFunction(() => document.querySelector('tbody td').textContent.startsWith('first'));
});

/** Runs a command that a page shows in a shell. */
const carryOut = async (page, token) => {
  const { stdout } = await promisify(execFile)('sh', ['-c', `${await page.locator('pre').textContent()} -s`], {
    env: { ...process.env, TOKEN: token },
  });
  return JSON.parse(stdout);
};

story(
  'a signed-in user is offered the allowed actions, and commands that work',
  async ({ server, open }) => {
    for (const scope of ['user', 'read', 'service', 'admin']) {
      const whose = scope === 'user' ? ['--user', 'carol'] : [];
      const token = await server.run('token', 'create', '--scope', scope, '--name', scope, ...whose);
      const page = await open();
      await signIn(page, token);
      await page.getByText('Nobody has a lock').waitFor();
      assert.match(await page.locator('#who').textContent(), new RegExp(`^${scope}${scope === 'user' ? ' \\(carol\\)' : ''}, ${scope} token lh_`));
      const ask = (method, path) =>
        fetch(server.url + path, { method, headers: { Authorization: `Bearer ${token}` } }).then((answer) => answer.json());
      await isLive(page);
      if (scope === 'read') {
        assert.equal(await page.locator('pre').count(), 0);
      } else {
        const { lock } = await carryOut(page, token);
        assert.equal(lock.locked_by_user_id, scope === 'user' ? 'carol' : 'alice');
        await row(page, 'design-42').waitFor();
        assert.equal(await page.getByRole('button', { name: 'End the lock' }).count(), scope === 'service' ? 0 : 1);
        await fetch(`${server.url}/api/v1/workspaces/design-42/lock`, {
          method: 'DELETE',
          headers: { Authorization: `Bearer ${token}`, ...(scope !== 'user' && { 'X-User-Id': 'alice' }) },
        });
      }
      const serves = scope === 'service' || scope === 'admin';
      await page.getByRole('link', { name: 'Workspaces' }).click();
      await page.getByText('No workspace has been created yet').waitFor();
      assert.equal(await page.getByRole('button', { name: 'Create workspace' }).count(), serves ? 1 : 0);
      if (serves) {
        assert.equal((await carryOut(page, token)).name, 'The design');
        assert.deepEqual(await ask('DELETE', '/api/v1/workspaces/design-42'), { deleted: true });
      } else {
        assert.equal(await page.locator('pre').count(), 0);
      }
      assert.equal(await page.getByRole('link', { name: 'Tokens' }).count(), serves ? 1 : 0);
      assert.equal(await page.getByRole('link', { name: 'Health' }).count(), scope === 'user' ? 0 : 1);
      await page.goto(server.url + '/#/tokens');
      await page.getByRole('heading', { level: 1, name: 'Tokens' }).waitFor();
      if (scope === 'admin') await page.getByText(/^\d tokens$/).waitFor();
      else await page.getByText('administrators').waitFor();
      assert.equal(await page.getByRole('button', { name: 'Create token' }).count(), serves ? 1 : 0);
      assert.equal(await page.locator('.wrong:not(:empty)').count(), 0);
      // The page created nothing to find out the rights.
      const made = await server.run('token', 'list');
      assert.equal(made.split('\n').filter((line) => /user|read|service|admin/.test(line) && !/SCOPE/i.test(line)).length, 1 + ['user', 'read', 'service', 'admin'].indexOf(scope), made);
      await page.close();
    }
  },
  { LOCKHOUSE_AUTH_MODE: 'token' },
);

story('the commands of a page work in the mode that trusts the client', async ({ server, open }) => {
  const page = await open();
  assert.equal((await carryOut(page)).lock.locked_by_user_id, 'alice');
  await server.ask('alice', 'DELETE', '/api/v1/workspaces/design-42/lock');
  await page.getByRole('link', { name: 'Workspaces' }).click();
  await page.getByText('No workspace has been created yet').waitFor();
  assert.equal((await carryOut(page)).workspace_id, 'design-42');
});

story(
  'no command is shown that would be refused because the workspace must be created first',
  async ({ open }) => {
    const page = await open();
    await page.getByText('Nobody has a lock').waitFor();
    await isLive(page);
    assert.equal(await page.locator('pre:visible').count(), 0);
  },
  { LOCKHOUSE_WORKSPACES_MEMBERSHIP: 'enforced' },
);

story('the history shows seconds and names of users', async ({ server, open }) => {
  await server.acquire('alice', 'design-42', { name: 'Alice Martin' });
  await server.acquire('bob', 'design-42', { name: 'Bob Dupont', force: true });
  const page = await open('#/workspaces/design-42');
  await reads(page.locator('.timeline li'), 'Alice Martin alice got the lock');
  await reads(page.locator('.timeline li'), 'Bob Dupont bob took it over from alice');
  assert.match(await page.locator('.timeline time').first().textContent(), /\d:\d\d:\d\d/);
});

story('the console and the playground link to each other', async ({ open }) => {
  const page = await open();
  await page.getByRole('link', { name: 'Playground' }).click();
  await page.getByRole('heading', { name: 'Two people, one document' }).waitFor();
  await page.getByRole('link', { name: 'To the console' }).click();
  await page.getByRole('heading', { level: 1, name: 'Locks' }).waitFor();
});

story(
  'a disabled playground says so, and is not linked',
  async ({ open }) => {
    const page = await open('demo');
    await page.getByRole('heading', { name: 'The playground is off' }).waitFor();
    await page.getByText('server.demo = "on"').waitFor();
    await page.getByRole('link', { name: 'To the console' }).click();
    await page.getByLabel('Token').waitFor();
    assert.equal(await page.getByRole('link', { name: 'Playground' }).count(), 0);
  },
  { LOCKHOUSE_AUTH_MODE: 'token' },
);

story('both formats of the metrics are parsed', async ({ open }) => {
  const page = await open();
  const read = (text) =>
    page.evaluate(async (text) => {
      const { parse, sum } = await import('/console/metrics.js');
      const now = parse(text);
      return [sum(now, 'lockhouse_x_total'), now.get('lockhouse_build_info')[0].labels.version, [...now.keys()].length];
    }, text);
  const samples = 'lockhouse_x_total{route="a \\"b\\" {c}"} 2\nlockhouse_x_total{route="d"} 3\n';
  const info = 'lockhouse_build_info{version="1.2"} 1\n';
  const prometheus = `# HELP lockhouse_x_total X.\n# TYPE lockhouse_x_total counter\n${samples}# TYPE lockhouse_build_info gauge\n${info}`;
  const open_ = `# HELP lockhouse_x X.\n# TYPE lockhouse_x counter\n# UNIT lockhouse_x x\n${samples}# TYPE lockhouse_build info\n${info}# EOF\n`;
  for (const text of [prometheus, open_]) assert.deepEqual(await read(text), [5, '1.2', 2]);
});

story('locks beyond the first page can be listed and searched', async ({ server, open }) => {
  const names = Array.from({ length: 250 }, (_, number) => `w-${String(number).padStart(3, '0')}`);
  await Promise.all(names.map((name) => server.acquire('alice', name)));
  await server.acquire('zed', 'zzz');
  const page = await open();
  await page.getByText('200+ locks').waitFor();
  await page.getByLabel('Find').fill('zzz');
  await row(page, 'zzz').waitFor();
  await page.getByLabel('Find').fill('zed');
  await row(page, 'zzz').waitFor();
  await page.getByLabel('Find').fill('');
  await page.getByRole('button', { name: 'Show more' }).click();
  await page.getByText('251 locks').waitFor();
  assert.equal(await page.locator('tbody tr').count(), 251);
  await page.getByLabel('Find').fill('W-24');
  await page.getByText('10 of 251').waitFor();
  assert.equal(await page.locator('tbody tr').count(), 10);
});

story('the health page has charts', async ({ server, open }) => {
  const page = await open('#/health');
  await page.getByRole('heading', { name: 'Requests per second' }).waitFor();
  for (let number = 0; number < 20; number++) await server.acquire('alice', `w-${number}`);
  const charts = page.locator('.chart:visible');
  await page.waitForFunction(() =>
    [...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('.value').textContent !== '–'),
  );
  assert.deepEqual(await charts.locator('h2').allTextContents(), [
    'Requests per second',
    'Commit time',
    'Commit time, 99th percentile',
    'Writes per commit',
    'Queue',
    'Live locks',
    'Database',
    'Write-ahead log',
  ]);
  await reads(charts.filter({ hasText: 'Live locks' }).locator('.value'), '20');
  assert.match(await page.getByRole('img', { name: /^Live locks, last 5 min: / }).getAttribute('aria-label'), /now 20$/);
});

story('the console works by keyboard', async ({ server, open }) => {
  await server.acquire('alice', 'design-42');
  const page = await open();
  await row(page, 'design-42').waitFor();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  const reach = async (text) => {
    for (let steps = 0; steps < 30; steps++) {
      await page.keyboard.press('Tab');
      const at = await page.evaluate(() => {
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
        return [
          document.activeElement.textContent,
          document.activeElement === document.body || (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2),
        ];
      });
      assert.ok(at[1], `${at[0]} has the focus, and does not look like it`);
      if (at[0] === text) return;
    }
    assert.fail(`${text} cannot be reached`);
  };
  await reach('End…');
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'End…', 'the focus is back');
  // A reload of the table keeps the focus.
  await server.acquire('bob', 'aaa');
  await row(page, 'aaa').waitFor();
  assert.equal(
    await page.evaluate(() => document.activeElement.getAttribute('aria-label')),
    'End the lock of design-42',
  );
  await page.keyboard.press('Enter');
  await page.keyboard.type('tidying up');
  await page.keyboard.press('Enter');
  await row(page, 'design-42').waitFor({ state: 'detached' });
  assert.equal(
    await page.evaluate(() => document.activeElement.textContent),
    'Locks',
    'where the row was there is nothing',
  );
});

story('eight tabs of the console load, because hidden tabs have no stream', async ({ server, open, context }) => {
  await context.addInitScript(() => {
    let isHidden = false;
    Object.defineProperty(document, 'hidden', { get: () => isHidden });
    window.see = (is) => {
      isHidden = !is;
      document.dispatchEvent(new Event('visibilitychange'));
    };
  });
  const pages = [];
  for (let more = 0; more < 8; more++) {
    const page = await open();
    await isLive(page);
    await page.evaluate(() => see(false));
    pages.push(page);
  }
  // Changes appear when the tab is shown again.
  await server.acquire('alice', 'design-42');
  const [first] = pages;
  await first.evaluate(() => see(true));
  await isLive(first);
  await row(first, 'design-42').waitFor();
});
