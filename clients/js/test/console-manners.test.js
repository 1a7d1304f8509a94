// The web console in a real browser: what it asks the server for, what it remembers, and what it gives away.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { isLive, reads, row, signIn, story, useBrowser } from './console.js';

useBrowser();

for (const scope of ['user', 'read', 'service', 'admin']) {
  story(
    `who one is comes from the server, and nothing is refused on the way: ${scope}`,
    async ({ server, context }) => {
      const token = await server.run('token', 'create', '--scope', scope, ...(scope === 'user' ? ['--user', 'bob'] : []));
      const page = await context.newPage();
      await page.goto(server.url);
      const refused = [];
      await page.getByLabel('Token').waitFor();
      page.on('response', (response) => response.status() >= 400 && refused.push(response.url()));
      await signIn(page, token);
      await isLive(page);
      for (const link of await page.locator('nav a:visible').all()) {
        await link.click();
        await page.waitForLoadState('networkidle').catch(() => {});
      }
      assert.deepEqual(refused.filter((url) => !url.endsWith('/demo')), []);
    },
    { LOCKHOUSE_AUTH_MODE: 'token' },
  );
}

story('many locks are read in few requests', async ({ server, open }) => {
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

story('tabs that nobody looks at leave the connections to the others', async ({ open, context }) => {
  await context.addInitScript(() => {
    let hidden = false;
    Object.defineProperty(Document.prototype, 'hidden', { get: () => hidden });
    window.hide = (is) => {
      hidden = is;
      document.dispatchEvent(new Event('visibilitychange'));
    };
  });
  const first = await open();
  await isLive(first);
  await first.evaluate(() => window.hide(true));
  for (let tab = 2; tab <= 8; tab++) {
    const page = await open();
    await isLive(page);
    await page.evaluate(() => window.hide(true));
  }
  // Who comes back is told again.
  await first.evaluate(() => window.hide(false));
  await isLive(first);
});

story(
  'a token survives a reload if one wants that, until one signs out',
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

story('what is looked for, and the order, stand in the address', async ({ server, open }) => {
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

story('a table can be had as a file, in which a name is no formula', async ({ server, open }) => {
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

story('the activity of all workspaces is shown, filtered, and read on', async ({ server, open }) => {
  for (let number = 0; number < 30; number++) {
    await server.acquire('alice', `w-${number}`);
    await server.ask('alice', 'DELETE', `/api/v1/workspaces/w-${number}/lock`);
  }
  await server.acquire('bob', 'design-42');
  const page = await open('#/activity');
  const items = page.locator('.timeline li');
  await reads(items.first(), 'design-42: bob got the lock');
  assert.equal(await items.count(), 50);
  await page.getByRole('button', { name: 'Older' }).click();
  await page.waitForFunction(() => document.querySelectorAll('.timeline li').length === 61);
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
