import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Server, browser } from './server.js';

test('the page of the README does what it says', async () => {
  const readme = await readFile(new URL('../../../README.md', import.meta.url), 'utf8');
  const [, code] = /```js\n([^`]*)```/.exec(readme) ?? [];
  const [, html] = /```html\n([^`]*)```/.exec(readme) ?? [];
  assert.ok(code.includes('new WorkspaceLock') && html.includes('readonly'));
  const server = await Server.start();
  const chromium = await browser();
  try {
    const context = await chromium.newContext();
    const asked = [];
    let [body, status] = ['the workshop is on Thursday', 200];
    // The app's own pages: on the same origin, since a browser lets no other page call this machine unasked.
    await context.route(/\/(app|documents\/.*)$/, (route) => {
      const request = route.request();
      const path = new URL(request.url()).pathname;
      if (path === '/app') {
        const script = code.replaceAll('http://127.0.0.1:7311', server.url);
        const page = `<!doctype html><title>An app</title><link rel="icon" href="data:,">${html}<script type="module">${script}</script>`;
        return route.fulfill({ contentType: 'text/html', body: page });
      }
      if (request.method() === 'PUT' && status === 200) body = request.postData();
      asked.push([request.method(), path, request.headers()['x-lock-fence'], request.postData()]);
      return route.fulfill({ status, contentType: 'text/plain', body: request.method() === 'POST' ? body : '' });
    });
    const page = await context.newPage();
    const complaints = [];
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.goto(server.url + '/app');
    const until = (isReadOnly) => page.waitForFunction((is) => document.querySelector('#text').readOnly === is, isReadOnly);
    const says = (text) => page.locator('#said', { hasText: text }).waitFor();
    await until(true);
    await page.click('#edit');
    await until(false);
    const { lock } = await server.ask('bob', 'GET', '/api/v1/workspaces/design-42/lock');
    assert.equal(lock.locked_by_name, 'Alice Martin');
    // What is there is read with the fence, before anybody types.
    assert.equal(await page.inputValue('#text'), body);
    await page.fill('#text', 'moved the header');
    await page.click('#save');
    await page.waitForFunction(() => performance.getEntriesByName(location.origin + '/documents/design-42').length);
    const fence = String(lock.fence);
    assert.deepEqual(asked, [
      ['POST', '/documents/design-42/open', fence, null],
      ['PUT', '/documents/design-42', fence, 'moved the header'],
    ]);
    assert.deepEqual(complaints, []);
    // What the app's database refuses is shown.
    status = 409;
    await page.click('#save');
    await says('Somebody else has begun to edit.');
    status = 200;
    // Somebody else takes over: the text can be read, and nothing is saved.
    const taken = await server.acquire('bob', 'design-42', { force: true });
    await until(true);
    await page.getByRole('dialog').getByText('bob').first().waitFor();
    await page.evaluate(() => document.querySelector('#save').click());
    await says('nothing is saved');
    assert.equal(asked.length, 3);
    // What he saved is what she begins with when she has it again.
    body = 'what bob saved';
    await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/release', { fence: taken.lock.fence });
    await page.keyboard.press('Escape');
    await page.click('#edit');
    await until(false);
    assert.equal(await page.inputValue('#text'), body);
  } finally {
    await chromium.close();
    await server.stop();
  }
});
