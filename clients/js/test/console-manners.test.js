// The web console in a real browser: its requests, its storage, and its exports.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { answer, isLive, reads, row, signIn, story, useBrowser } from './console.js';

useBrowser();

/** An element of each page that appears when its requests are done. */
const READY = {
  Locks: (page) => page.getByText('Nobody has a lock').waitFor(),
  Workspaces: (page) => page.getByText('No workspace has been created yet').waitFor(),
  Activity: (page) => page.getByText('Nothing that fits').waitFor(),
  Tokens: (page) => page.getByText(/^\d tokens?$|the list of them is for administrators/).first().waitFor(),
  Health: (page) => page.getByText('version ').waitFor(),
};

for (const scope of ['user', 'read', 'service', 'admin']) {
  story(
    `the identity comes from the server, and no request is refused: ${scope}`,
    async ({ server, context }) => {
      const token = await server.run('token', 'create', '--scope', scope, ...(scope === 'user' ? ['--user', 'bob'] : []));
      const page = await context.newPage();
      await page.goto(server.url);
      const refused = [];
      await page.getByLabel('Token').waitFor();
      page.on('response', (response) => response.status() >= 400 && refused.push(response.url()));
      await signIn(page, token);
      await isLive(page);
      await page.getByText('Nobody has a lock').waitFor();
      for (const link of await page.locator('nav a:visible').all()) {
        await link.click();
        await READY[await link.textContent()](page);
      }
      // The request for the playground is not an API call.
      assert.deepEqual(refused.filter((url) => !url.endsWith('/demo')), []);
    },
    { LOCKHOUSE_AUTH_MODE: 'token' },
  );
}

story('many locks need few requests', async ({ server, open }) => {
  await Promise.all(Array.from({ length: 60 }, (_, number) => server.acquire('alice', `w-${number}`)));
  const page = await open('#/nothing');
  await isLive(page);
  const asked = [];
  page.on('request', (request) => asked.push(new URL(request.url()).pathname));
  await page.getByRole('link', { name: 'All locks' }).click();
  await page.getByText('60 locks').waitFor();
  await server.acquire('bob', 'after');
  await row(page, 'after').waitFor();
  assert.ok(asked.length < 6, String(asked));
});

story(
  'a token survives a reload if the user chooses that, until the sign-out',
  async ({ server, open }) => {
    const token = await server.run('token', 'create', '--scope', 'admin', '--name', 'console');
    const page = await open();
    await signIn(page, token);
    await isLive(page);
    await page.reload();
    await page.getByLabel('Keep it for this tab').check();
    await signIn(page, token);
    await isLive(page);
    await page.reload();
    await isLive(page);
    const other = await open();
    await other.getByLabel('Token').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.reload();
    await page.getByLabel('Token').waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length + localStorage.length), 0);
  },
  { LOCKHOUSE_AUTH_MODE: 'token' },
);

story('the search and the order are in the address', async ({ server, open }) => {
  await server.acquire('alice', 'design-42');
  await server.acquire('bob', 'plan-1');
  const page = await open();
  await page.getByText('2 locks').waitFor();
  await page.getByLabel('Find').fill('plan');
  await page.getByLabel('Order by').selectOption('since');
  await page.reload();
  await page.getByText('1 of 2').waitFor();
  assert.equal(await page.getByLabel('Find').inputValue(), 'plan');
  assert.equal(await page.getByLabel('Order by').inputValue(), 'since');
  assert.match(page.url(), /#\/locks\?find=plan&order=since$/);
});

story('a table can be exported as CSV, in which a name is not a formula', async ({ server, open }) => {
  await server.acquire('alice', 'design-42', { name: '=HYPERLINK("http://evil")', note: 'two\nlines, "quoted"' });
  const page = await open();
  await row(page, 'design-42').waitFor();
  const coming = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download CSV' }).click();
  const file = await coming;
  assert.equal(file.suggestedFilename(), 'locks.csv');
  const text = await readFile(await file.path(), 'utf8');
  assert.ok(text.startsWith('\ufeffworkspace_id,locked_by_user_id,'), text);
  assert.ok(text.includes(`design-42,alice,"'=HYPERLINK(""http://evil"")",`), text);
  assert.ok(text.includes('"two\nlines, ""quoted"""'), text);
});

story('an export has all matching entries, also unread pages, and no secrets', async ({ server, open }) => {
  await Promise.all(Array.from({ length: 520 }, (_, number) => server.ask('x', 'PUT', `/api/v1/workspaces/w-${number}`, {})));
  await server.acquire('alice', 'w-1', { note: 'hello' });
  const { token } = await server.ask('x', 'POST', '/api/v1/tokens', { scope: 'service', name: '@app' });
  const page = await open('#/workspaces');
  const rows = async () => {
    const coming = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download CSV' }).click();
    return (await readFile(await (await coming).path(), 'utf8')).trim().split('\r\n');
  };
  await page.getByText('500+ workspaces').waitFor();
  assert.equal((await rows()).length, 521);
  await page.getByLabel('Find').fill('w-51');
  await page.getByText('11 of 520').waitFor();
  assert.equal((await rows()).length, 12);
  await page.goto(server.url + '/#/tokens');
  const [, app] = await rows();
  assert.match(app, /^\w+,'@app,service,false,,\d{4}-/);
  assert.ok(!app.includes(token));
  await page.goto(server.url + '/#/activity');
  const [head, event] = await rows();
  assert.equal(head, 'revision,at,type,kind,workspace_id,user_id,by_user_id,by_name,fence,detail');
  assert.match(event, /,lock\.acquired,edit,w-1,alice,/);
});

story('the activity of all workspaces can be filtered and read to its end', async ({ server, open }) => {
  for (let number = 0; number < 30; number++) {
    await server.acquire('alice', `w-${number}`);
    await server.ask('alice', 'DELETE', `/api/v1/workspaces/w-${number}/lock`);
  }
  await server.acquire('bob', 'design-42');
  const page = await open('#/activity');
  const items = page.locator('.timeline li');
  await reads(items.first(), 'design-42 bob got the lock');
  assert.equal(await items.count(), 30);
  for (const shown of [60, 61]) {
    await page.getByRole('button', { name: 'Older' }).click();
    await page.waitForFunction((shown) => document.querySelectorAll('.timeline li').length === shown, shown);
  }
  await page.getByLabel('What').selectOption('lock.released');
  await page.waitForFunction(() => document.querySelectorAll('.timeline li').length === 30);
  await page.getByLabel('Whose lock').fill('bob');
  await page.getByLabel('Whose lock').press('Enter');
  await page.getByText('Nothing that fits').waitFor();
  await page.getByLabel('What').selectOption('');
  await page.waitForFunction(() => document.querySelectorAll('.timeline li').length === 1);
  await page.reload();
  await reads(items.first(), 'bob got the lock');
  assert.equal(await items.count(), 1);
  await page.getByLabel('From', { exact: true }).fill('2099-01-01T00:00');
  await page.getByLabel('From', { exact: true }).press('Tab');
  await page.getByText('Nothing that fits').waitFor();
});

story('the choice of colours and UTC is stored', async ({ server, open }) => {
  await server.acquire('alice', 'design-42');
  const page = await open('#/activity');
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dressed = {};
  for (const theme of ['light', 'dark', 'system']) {
    await page.getByLabel('Colours').selectOption(theme);
    dressed[theme] = await paper();
  }
  assert.notEqual(dressed.light, dressed.dark);
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.equal(await paper(), dressed.dark);
  await page.emulateMedia({ colorScheme: 'light' });
  assert.equal(await paper(), dressed.light);
  await page.getByLabel('Colours').selectOption('dark');
  await page.getByLabel('Times in').selectOption('utc');
  await reads(page.locator('.timeline time'), 'UTC');
  await page.reload();
  await reads(page.locator('.timeline time'), 'UTC');
  assert.equal(await paper(), dressed.dark);
});

story('times are shown and entered in the chosen time zone', async ({ server, open, context }) => {
  await server.acquire('alice', 'design-42');
  const page = await open();
  const devtools = await context.newCDPSession(page);
  await devtools.send('Emulation.setTimezoneOverride', { timezoneId: 'Asia/Tokyo' });
  await page.goto(server.url + '/?again#/activity');
  const shown = page.locator('.timeline time').first();
  const hour = async () => Number(/ (\d+):\d\d:\d\d/.exec(await shown.textContent())[1]) % 12;
  const inTokyo = await hour();
  const asked = async (label) => {
    const request = page.waitForRequest((request) => request.url().includes('from='));
    await page.getByLabel(label, { exact: true }).fill('2026-01-01T12:00');
    await page.getByLabel(label, { exact: true }).press('Tab');
    return new URL((await request).url()).searchParams.get('from');
  };
  assert.equal(await asked('From'), '2026-01-01T03:00:00.000Z');
  await page.getByLabel('Times in').selectOption('utc');
  await reads(shown, 'UTC');
  assert.equal((inTokyo - (await hour()) + 12) % 12, 9);
  assert.equal(await page.getByLabel('From (UTC)').inputValue(), '2026-01-01T03:00', 'it is the same instant');
  assert.match(page.url(), /from=2026-01-01T03%3A00%3A00.000Z/);
  await page.getByLabel('From (UTC)').fill('');
  assert.equal(await asked('From (UTC)'), '2026-01-01T12:00:00.000Z');
});

story('several selected leases are revoked at once, and no others', async ({ server, open }) => {
  for (const name of ['a', 'b', 'c', 'd']) await server.acquire('alice', name);
  const page = await open();
  await page.getByText('4 locks').waitFor();
  await isLive(page);
  await page.getByLabel('Select all').check();
  await page.getByLabel('Select d').uncheck();
  // A new holder has another lease.
  await server.acquire('bob', 'c', { force: true });
  await reads(row(page, 'c'), 'bob');
  await page.getByRole('button', { name: 'End 2 locks…' }).click();
  await page.getByRole('dialog').getByText('a (alice), b (alice).').waitFor();
  await server.ask('alice', 'DELETE', '/api/v1/workspaces/b/lock');
  await server.acquire('carol', 'b');
  await answer(page, { reason: 'the night', button: 'End 2 locks' });
  await page.getByText('1 lock ended. 1 had ended before.').waitFor();
  await row(page, 'a').waitFor({ state: 'detached' });
  const { locks } = await server.ask('x', 'GET', '/api/v1/locks');
  assert.deepEqual(locks.map(({ workspace_id, locked_by_user_id }) => [workspace_id, locked_by_user_id]), [['b', 'carol'], ['c', 'bob'], ['d', 'alice']]);
  const { events } = await server.ask('x', 'GET', '/api/v1/workspaces/a/history');
  assert.equal(events[0].detail.reason, 'the night');
});

story(
  'the admin of a workspace is offered admin actions there, and an editor is not',
  async ({ server, open }) => {
    const admin = await server.run('token', 'create', '--scope', 'admin');
    const users = {};
    for (const user of ['alice', 'bob', 'erin']) users[user] = await server.run('token', 'create', '--scope', 'user', '--user', user);
    const ask = (token, method, path, body) =>
      fetch(server.url + '/api/v1/workspaces/design-42' + path, {
        method,
        headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
        body: JSON.stringify(body ?? {}),
      });
    await ask(admin, 'PUT', '');
    for (const [user, role] of [['alice', 'editor'], ['bob', 'admin'], ['erin', 'editor']]) await ask(admin, 'PUT', '/members/' + user, { role });
    await ask(users.alice, 'POST', '/lock');
    const see = async (user) => {
      const page = await open('#/workspaces/design-42');
      await signIn(page, users[user]);
      await reads(page.locator('.lock .state'), 'alice');
      // The members are rendered after their actions.
      await page.getByRole('link', { name: 'erin' }).waitFor();
      return page;
    };
    const erin = await see('erin');
    for (const name of ['End this lock…', 'Add member', 'Remove alice', 'Rename…'])
      assert.equal(await erin.getByRole('button', { name }).count(), 0, name);
    const alice = await see('alice');
    assert.equal(await alice.getByRole('button', { name: 'End this lock…' }).count(), 1, 'it is her own');
    const bob = await see('bob');
    for (const name of ['Add member', 'Remove alice']) assert.equal(await bob.getByRole('button', { name }).count(), 1, name);
    await bob.getByRole('button', { name: 'End this lock…' }).click();
    await answer(bob, { button: 'End the lock' });
    await reads(bob.locator('.lock .state'), 'Free');
  },
  { LOCKHOUSE_AUTH_MODE: 'token', LOCKHOUSE_WORKSPACES_MEMBERSHIP: 'enforced' },
);

story('the charts have names and axes, and their samples survive a reload', async ({ server, open }) => {
  await server.acquire('alice', 'design-42');
  const page = await open('#/health');
  const chart = page.locator('.chart').filter({ hasText: 'Live locks' });
  const name = () => chart.locator('svg').getAttribute('aria-label');
  await reads(chart.locator('.value'), '1');
  assert.match(await name(), /^Live locks, last 5 min: from 1 to 1, now 1$/);
  assert.deepEqual(await chart.locator('.plot span').allTextContents(), ['1', '0.50', '0', '5 min ago', 'now']);
  await page.getByLabel('Time range').selectOption('1 h');
  assert.match(page.url(), /#\/health\?range=3600000$/);
  await server.acquire('bob', 'plan-1');
  await reads(chart.locator('.value'), '2');
  // New samples have two locks, and the chart keeps the samples with one.
  await page.reload();
  await reads(chart.locator('.value'), '2');
  assert.equal(await page.getByLabel('Time range').inputValue(), '3600000');
  assert.match(await name(), /^Live locks, last 1 h: from 1 to 2, now 2$/);
});

story('an unusual number has a warning', async ({ open }) => {
  const page = await open('#/nothing');
  await page.route('**/metrics', async (route) => {
    const response = await route.fetch();
    const text = (await response.text()).replace(/^(lockhouse_clock_corrections_total) .*$/m, '$1 3').replace(/^(lockhouse_writer_queue_depth) .*$/m, '$1 900');
    await route.fulfill({ response, body: text });
  });
  await page.getByRole('link', { name: 'Health' }).click();
  await page.getByText('The clock of the server was set while it ran.').waitFor();
  await page.getByText('More changes come than the disk takes.').waitFor();
  // All other numbers have a description without a warning.
  const facts = await page.locator('.facts > div').allInnerTexts();
  for (const text of facts) assert.equal(text.split('\n').length, 3, text);
  assert.equal(await page.locator('.facts .worry').count(), 1);
});
