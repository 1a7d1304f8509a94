// The web console in a real browser, on a real server: what it does.

import assert from 'node:assert/strict';
import { answer, isLive, reads, row, signIn, story, useBrowser } from './console.js';

const EVIL = '<img src=x onerror=alert(1)>';

useBrowser();

const seconds = (text) => text.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);

story('the table of locks follows what happens', async ({ server, open }) => {
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
  // An end by itself.
  await server.acquire('erin', 'short', { ttl_ms: 1500 });
  await row(page, 'short').waitFor();
  await row(page, 'short').waitFor({ state: 'detached' });
});

story(
  'what is left is counted by the server, whatever the clock of this machine says',
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

story('a heartbeat, which is no event, is seen before the end that it put off', async ({ server, open }) => {
  const page = await open();
  await isLive(page);
  const { lock } = await server.acquire('alice', 'design-42', { ttl_ms: 2500 });
  await server.ask('alice', 'POST', '/api/v1/workspaces/design-42/lock/heartbeat', {
    fence: lock.fence,
    ttl_ms: 600_000,
  });
  await page.waitForFunction(() => /^9:|^10:/.test(document.querySelector('.left')?.textContent ?? ''));
});

story('who waits, asks and watches is shown', async ({ server, open }) => {
  await server.acquire('alice', 'design-42');
  for (const user of ['bob', 'carol'])
    await server.ask(user, 'POST', '/api/v1/workspaces/design-42/lock/knock', { name: user.toUpperCase() });
  const waits = server.acquire('dave', 'design-42', { wait_ms: 30_000 });
  const page = await open();
  await reads(row(page, 'design-42'), 'BOB');
  await reads(row(page, 'design-42'), '1 more ask · 1 in line');
  await page.getByRole('link', { name: 'design-42' }).click();
  for (const text of ['BOB', 'CAROL', 'dave']) await reads(page.locator('.there li'), text);
  await server.ask('alice', 'POST', '/api/v1/workspaces/design-42/lock/handover', { to_user_id: 'erin' });
  await reads(page.locator('.lock .state'), 'erin');
  await reads(page.locator('.timeline li').first(), 'alice handed it over to erin');
  await server.ask('erin', 'DELETE', '/api/v1/workspaces/design-42/lock');
  assert.equal((await waits).outcome, 'acquired');
  await reads(page.locator('.lock .state'), 'dave');
});

story("a member who is removed takes nobody else's lock away", async ({ server, open }) => {
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

story('a history that has more than a page is read on', async ({ server, open }) => {
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

story('a busy server does not make the page slow, and what it shows last is true', async ({ server, open }) => {
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

story('names, notes and messages are text', async ({ server, open }) => {
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

story('a lock is ended with a reason, which stays in the history', async ({ server, open }) => {
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

story('only the lease that was seen is ended', async ({ server, open }) => {
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

story("all locks of a user are released, and nobody else's", async ({ server, open }) => {
  for (const workspace of ['one', 'two', 'three']) await server.acquire('alice', workspace, { name: 'Alice Martin' });
  await server.acquire('bob', 'four');
  const page = await open();
  await row(page, 'one').getByRole('link', { name: 'Alice Martin' }).click();
  await page.getByText('3 locks').waitFor();
  await page.getByRole('button', { name: 'Release all' }).click();
  await answer(page, { reason: 'left the company', button: 'Release all' });
  await page.getByText('3 locks of alice released.').waitFor();
  await page.getByText('They hold no lock now.').waitFor();
  const { events } = await server.ask('bob', 'GET', '/api/v1/workspaces/one/history');
  assert.equal(events[0].detail.reason, 'left the company');
  assert.deepEqual(
    (await server.ask('bob', 'GET', '/api/v1/locks')).locks.map(({ workspace_id }) => workspace_id),
    ['four'],
  );
});

story('a lost connection is shown, and what was missed is there when it is back', async ({ server, open }) => {
  const { lock } = await server.acquire('dave', 'long', { ttl_ms: 60_000 });
  const page = await open();
  await isLive(page);
  // Something is heard, so that it goes on from there.
  await server.acquire('alice', 'design-42');
  await row(page, 'design-42').waitFor();
  await server.kill();
  await page.getByText('Connection lost').waitFor();
  await server.again();
  const renewal = { fence: lock.fence, ttl_ms: 600_000 };
  await server.ask('dave', 'POST', '/api/v1/workspaces/long/lock/heartbeat', renewal);
  await server.acquire('bob', 'plan-1');
  await server.acquire('bob', 'design-42', { force: true });
  await isLive(page);
  await reads(row(page, 'design-42'), 'bob');
  await row(page, 'plan-1').waitFor();
  // Of the heartbeat nobody is told.
  await row(page, 'long')
    .locator('.left')
    .filter({ hasText: /^(9|10):/ })
    .waitFor({ timeout: 5_000 });
  assert.equal(await page.locator('main .wrong').textContent(), '');
});

story(
  'one signs in with a token, which is kept nowhere, and out',
  async ({ server, open }) => {
    const token = await server.run('token', 'create', '--scope', 'admin', '--name', 'console');
    const page = await open();
    await signIn(page, 'lh_wrong');
    await page.getByText('This token is not good').waitFor();
    assert.equal(await page.locator('table').count(), 0);
    await signIn(page, token + '\n');
    await page.getByRole('heading', { level: 1, name: 'Locks' }).waitFor();
    await isLive(page);
    assert.match(await page.locator('#who').textContent(), new RegExp(`token ${token.slice(0, 7)}…`));
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
  'whoever is signed in learns that their token was revoked',
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
  'what one may not do is said',
  async ({ server, open }) => {
    const token = await server.run('token', 'create', '--scope', 'user', '--user', 'bob');
    const alice = await server.run('token', 'create', '--scope', 'user', '--user', 'alice');
    await fetch(server.url + '/api/v1/workspaces/design-42/lock', {
      method: 'POST',
      headers: { Authorization: `Bearer ${alice}` },
    });
    const page = await open();
    await signIn(page, token);
    await page.getByRole('button', { name: 'End the lock of design-42' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'End the lock' }).click();
    assert.ok((await page.locator('dialog .wrong').filter({ hasText: /\w/ }).textContent()).length > 10);
    await page.keyboard.press('Escape');
    for (const hash of ['#/tokens', '#/health']) {
      await page.evaluate((hash) => (location.hash = hash), hash);
      await page.getByText('Your credentials are not for this.').waitFor();
    }
  },
  { LOCKHOUSE_AUTH_MODE: 'token' },
);

story(
  'behind a proxy that says who it is, nothing is asked',
  async ({ server, open, context }) => {
    await context.setExtraHTTPHeaders({ 'Remote-User': 'root' });
    await server.ask('x', 'GET', '/healthz');
    const page = await open('#/tokens');
    await page.getByText('signed in by the proxy').waitFor();
    await page.getByText('There is no token').waitFor();
  },
  { LOCKHOUSE_AUTH_MODE: 'proxy', LOCKHOUSE_AUTH_PROXY_ADDRESSES: '127.0.0.1', LOCKHOUSE_AUTH_ADMINS: 'root' },
);

story('a token is made, shown once, and revoked', async ({ open, context }) => {
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

story('a workspace is named, gets members, and is deleted', async ({ server, open }) => {
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
  await page.getByText('No workspace has a name yet').waitFor();
});

story('more locks than a page has can be read on and found', async ({ server, open }) => {
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

story('the health of the server is drawn', async ({ server, open }) => {
  const page = await open('#/health');
  await page.getByRole('heading', { name: 'Requests a second' }).waitFor();
  for (let number = 0; number < 20; number++) await server.acquire('alice', `w-${number}`);
  const charts = page.locator('.chart:visible');
  await page.waitForFunction(() =>
    [...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('.value').textContent !== '–'),
  );
  assert.deepEqual(await charts.locator('h2').allTextContents(), [
    'Requests a second',
    'Commit time',
    'Slow commits',
    'Writes a commit',
    'Queue',
    'Live locks',
    'Database',
    'Write-ahead log',
  ]);
  await reads(charts.filter({ hasText: 'Live locks' }).locator('.value'), '20');
  assert.match(await page.getByRole('img', { name: /^Live locks: / }).getAttribute('aria-label'), /now 20$/);
});

story('everything is done by keyboard alone', async ({ server, open }) => {
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
  // A table that is read again leaves the focus where it is.
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
