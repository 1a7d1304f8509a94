// The web console in a real browser: layout, accessibility and Content-Security-Policy.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { chromium, isLive, useBrowser } from './console.js';
import { Server } from './server.js';

const WIDTHS = [375, 1440];

useBrowser();

/** Fills the server so that every element of the pages appears. */
async function furnish(server) {
  await server.acquire('alice', 'design-42', {
    name: 'Alice Martin',
    note: 'moving the header',
    metadata: { branch: 'main' },
  });
  await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/knock', { message: 'two minutes?' });
  await server.acquire('bob', 'plan-1', { ttl_ms: 20_000 });
  await server.acquire('carol', 'plan-1', { force: true, reason: 'deadline' });
  await server.ask('x', 'PUT', '/api/v1/workspaces/design-42', { name: 'The design' });
  await server.ask('x', 'PUT', '/api/v1/workspaces/design-42/members/alice', { role: 'admin' });
  await server.ask('x', 'POST', '/api/v1/tokens', { scope: 'admin', name: 'operations' });
  await server.ask('x', 'POST', '/api/v1/tokens', { user_id: 'alice', name: 'of before', ttl_ms: 1 });
  // The longest names, without a place for a line break.
  const [id, user] = ['w'.repeat(255), 'u'.repeat(255)];
  await server.acquire(user, id, {
    name: 'N'.repeat(200),
    note: 'n'.repeat(500),
    session_id: 's'.repeat(128),
    metadata: { m: 'm'.repeat(999) },
  });
  await server.ask('k'.repeat(255), 'POST', `/api/v1/workspaces/${id}/lock/knock`, { message: 'q'.repeat(500) });
  await server.ask('x', 'PUT', `/api/v1/workspaces/${id}`, { name: 'N'.repeat(200) });
  await server.ask('x', 'PUT', `/api/v1/workspaces/${id}/members/${user}`, { role: 'admin' });
  await server.ask('x', 'POST', '/api/v1/tokens', { user_id: user, name: 'N'.repeat(200) });
}

/** The violations that axe finds. The page needs `bypassCSP`. */
async function violations(page) {
  await page.evaluate(await readFile(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8'));
  const found = await page.evaluate(() =>
    axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }),
  );
  assert.ok(found.passes.length > 15, 'axe looked at it');
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' | ')}`);
}

for (const colorScheme of ['light', 'dark']) {
  test(`every page is accessible and fits its width: ${colorScheme}`, { timeout: 300_000 }, async () => {
    // A long time of grant, so that the holder keeps the lock during the test.
    const patient = { LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER: 'never' };
    const servers = [await Server.start(patient), await Server.start({ LOCKHOUSE_AUTH_MODE: 'token' })];
    const [server, closed] = servers;
    try {
      await furnish(server);
      for (const width of WIDTHS) {
        const context = await chromium.newContext({
          bypassCSP: true,
          colorScheme,
          reducedMotion: 'reduce',
          viewport: { width, height: 800 },
        });
        const page = await context.newPage();
        const look = async (what) => {
          assert.deepEqual(await violations(page), [], `${what} at ${width}`);
          assert.equal(
            await page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
            0,
            `${what} at ${width} is too wide`,
          );
        };
        for (const [hash, until] of [
          ['#/locks', 'tbody tr'],
          ['#/workspaces/design-42', '.timeline li'],
          ['#/users/alice', 'tbody tr'],
          ['#/users/' + 'u'.repeat(255), 'tbody tr'],
          ['#/workspaces/' + 'w'.repeat(255), '.timeline li'],
          ['#/workspaces', 'tbody tr'],
          ['#/workspaces/plan-1', 'button:text("Create it")'],
          ['#/tokens', '.tag:text("expired")'],
          ['#/health', '.chart .value:text("B")'],
          ['#/activity', '.timeline li'],
          ['#/activity?user_id=nobody', '.page .sub:text("Nothing that fits")'],
          ['#/nothing', 'h1'],
          ['#/users/nobody', '.empty:visible'],
        ]) {
          await page.goto(server.url + '/' + hash);
          await page.locator(until).first().waitFor();
          await isLive(page);
          await look(hash);
        }
        // Also without samples.
        await page.route('**/metrics', (route) => (drawn++ ? undefined : route.continue()));
        let drawn = 0;
        await page.evaluate(() => sessionStorage.clear());
        await page.goto(server.url + '/#/health');
        await page.locator('.facts:visible').waitFor();
        await look('the health that was read once');
        await page.unroute('**/metrics');
        await page.goto(server.url + '/#/locks');
        await page.getByLabel('Select design-42').check();
        await look('a lock that is selected');
        await page.getByRole('button', { name: 'End the lock of design-42' }).click();
        await look('a question');
        await page.goto(server.url + '/#/workspaces/design-42');
        await page.getByRole('button', { name: 'Rename' }).click();
        await look('a question for a name');
        await page.goto(closed.url + '/demo');
        await look('the playground that is off');
        await page.goto(closed.url);
        await page.getByLabel('Token').waitFor();
        await look('the sign-in');
        await context.close();
      }
    } finally {
      await Promise.all(servers.map((server) => server.stop()));
    }
  });
}

test('a page of the console sends requests only to its own server', { timeout: 120_000 }, async () => {
  const server = await Server.start();
  const context = await chromium.newContext();
  try {
    const page = await context.newPage();
    const elsewhere = [];
    page.on('request', (request) => new URL(request.url()).origin === server.url || elsewhere.push(request.url()));
    await page.goto(server.url);
    await isLive(page);
    assert.deepEqual(elsewhere, []);
    // The policy blocks it, and a violation is reported.
    const blocked = await page.evaluate(async () => {
      const reported = [];
      document.addEventListener('securitypolicyviolation', ({ effectiveDirective }) =>
        reported.push(effectiveDirective),
      );
      const attempts = [
        () => document.body.insertAdjacentHTML('beforeend', '<b>x</b>'),
        () =>
          document.body.append(
            Object.assign(document.createElement('script'), { src: 'data:text/javascript,window.evil=1' }),
          ),
      ];
      const thrown = attempts.map((attempt) => {
        try {
          attempt();
          return null;
        } catch (error) {
          return error.name;
        }
      });
      await fetch('https://evil.example/').catch(() => {});
      return {
        thrown,
        reported: await new Promise((resolve) => setTimeout(() => resolve(reported), 300)),
        evil: window.evil,
      };
    });
    assert.deepEqual(blocked.thrown, ['TypeError', 'TypeError']);
    assert.ok(blocked.reported.includes('connect-src'), String(blocked.reported));
    assert.equal(blocked.evil, undefined);
  } finally {
    await context.close();
    await server.stop();
  }
});
