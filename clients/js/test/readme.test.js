import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Server, browser } from './server.js';

test('the page of the README does what it says', async () => {
  const readme = await readFile(new URL('../../../README.md', import.meta.url), 'utf8');
  const [, code] = /```js\n([^`]*)```/.exec(readme) ?? [];
  assert.ok(code.includes('new WorkspaceLock'));
  const server = await Server.start();
  const chromium = await browser();
  try {
    const context = await chromium.newContext();
    const saves = [];
    // The app's own pages: on the same origin, since a browser lets no other page call this machine unasked.
    await context.route(/\/(app|documents\/.*)$/, (route) => {
      const request = route.request();
      if (request.method() === 'PUT') saves.push([request.headers()['x-lock-fence'], request.postData()]);
      const body = `<!doctype html><title>An app</title><textarea id="text"></textarea><button id="edit">Edit</button><button id="save">Save</button>
        <lockhouse-dialog id="dialog"></lockhouse-dialog>
        <script type="module">${code.replaceAll('http://127.0.0.1:7311', server.url)}</script>`;
      return route.fulfill({ contentType: 'text/html', body: request.method() === 'PUT' ? '' : body });
    });
    const page = await context.newPage();
    const complaints = [];
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.goto(server.url + '/app');
    await page.waitForFunction(() => document.querySelector('#text').readOnly);
    await page.click('#edit');
    await page.waitForFunction(() => !document.querySelector('#text').readOnly);
    const { lock } = await server.ask('bob', 'GET', '/api/v1/workspaces/design-42/lock');
    assert.equal(lock.locked_by_name, 'Alice Martin');
    await page.fill('#text', 'moved the header');
    await page.click('#save');
    await page.waitForFunction(() => performance.getEntriesByName(location.origin + '/documents/design-42').length);
    assert.deepEqual(saves, [[String(lock.fence), 'moved the header']]);
    assert.deepEqual(complaints, []);
    // Somebody else takes over: the text can be read, and nothing is saved.
    await server.acquire('bob', 'design-42', { force: true });
    await page.waitForFunction(() => document.querySelector('#text').readOnly);
    await page.getByRole('dialog').getByText('bob').first().waitFor();
    await page.evaluate(() => document.querySelector('#save').click());
    await page.waitForFunction(() => true);
    assert.equal(saves.length, 1);
  } finally {
    await chromium.close();
    await server.stop();
  }
});
