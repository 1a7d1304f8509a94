import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { Server, browser } from './server.js';

const HERE = fileURLToPath(new URL('..', import.meta.url));

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
      return route.fulfill({ status, contentType: 'text/plain', body: request.method() === 'PUT' ? '' : body });
    });
    const page = await context.newPage();
    const complaints = [];
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.goto(server.url + '/app');
    const until = (isReadOnly) => page.waitForFunction((is) => document.querySelector('#text').readOnly === is, isReadOnly);
    const says = (text) => page.locator('#said', { hasText: text }).waitFor();
    await until(true);
    // One can read along.
    await page.waitForFunction((body) => document.querySelector('#text').value === body, body);
    assert.deepEqual(asked.splice(0), [['GET', '/documents/design-42', undefined, null]]);
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
    await page.fill('#text', 'typed and not saved');
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
    // What she had typed is offered beside it.
    await page.locator('lockhouse-dialog').getByText('typed and not saved').waitFor();
    await page.getByRole('button', { name: 'Use my text' }).click();
    assert.equal(await page.inputValue('#text'), 'typed and not saved');
    // Somebody asks: it is saved before it is handed over.
    await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/knock');
    await page.getByRole('button', { name: 'Save and hand over' }).click();
    await until(true);
    assert.equal(body, 'typed and not saved');
  } finally {
    await chromium.close();
    await server.stop();
  }
});

test("the component of the client's README is right for TypeScript, and does what it says", async () => {
  const readme = await readFile(join(HERE, 'README.md'), 'utf8');
  const [, code] = /```tsx\n([\s\S]*?)```/.exec(readme) ?? [];
  assert.ok(code.includes('<lockhouse-dialog'));
  const server = await Server.start();
  const chromium = await browser();
  // Where `lockhouse` is this package.
  const folder = await mkdtemp(join(HERE, 'readme-'));
  try {
    const token = ", token: () => keptToken()";
    assert.ok(code.includes(token));
    await writeFile(join(folder, 'editor.tsx'), code.replace(token, '').replace('https://locks.example.com', server.url));
    const options = { target: 'es2022', module: 'esnext', moduleResolution: 'bundler', jsx: 'react-jsx', strict: true, noEmit: true, types: [] };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options }));
    const tsc = (project) => execFileSync(join(HERE, 'node_modules/.bin/tsc'), ['--project', project], { cwd: HERE, stdio: 'inherit' });
    tsc('tsconfig.types.json');
    tsc(folder);
    const main = `
      import { createRoot } from 'react-dom/client';
      import { Editor } from './editor.tsx';
      createRoot(document.getElementById('app')).render(<Editor id="design-42" />);`;
    const { outputFiles: [{ text: script }] } = await build({
      stdin: { contents: main, loader: 'jsx', resolveDir: folder },
      bundle: true, write: false, jsx: 'automatic', format: 'esm', define: { 'process.env.NODE_ENV': '"development"' },
    });
    const context = await chromium.newContext();
    const saves = [];
    await context.route(/\/(app|app.js|documents\/.*)$/, (route) => {
      const request = route.request();
      if (request.url().endsWith('/app.js')) return route.fulfill({ contentType: 'text/javascript', body: script });
      if (request.url().endsWith('/app')) {
        const page = '<!doctype html><title>An app</title><link rel="icon" href="data:,"><div id="app"></div><script type="module" src="/app.js"></script>';
        return route.fulfill({ contentType: 'text/html', body: page });
      }
      if (request.method() === 'PUT') saves.push([request.headers()['x-lock-fence'], request.postData()]);
      return route.fulfill({ contentType: 'text/plain', body: 'the workshop is on Thursday' });
    });
    const page = await context.newPage();
    await page.goto(server.url + '/app');
    await page.waitForFunction(() => document.querySelector('textarea')?.value === 'the workshop is on Thursday');
    const until = (isReadOnly) => page.waitForFunction((is) => document.querySelector('textarea')?.readOnly === is, isReadOnly);
    await until(true);
    await page.click('text=Edit');
    await until(false);
    assert.equal(await page.inputValue('textarea'), 'the workshop is on Thursday');
    const { lock } = await server.ask('bob', 'GET', '/api/v1/workspaces/design-42/lock');
    await page.fill('textarea', 'moved the header');
    await page.click('text=Save');
    await page.waitForFunction(() => performance.getEntriesByName(location.origin + '/documents/design-42').length);
    assert.deepEqual(saves, [[String(lock.fence), 'moved the header']]);
    await server.acquire('bob', 'design-42', { force: true });
    await until(true);
    await page.getByRole('dialog').getByText('bob').first().waitFor();
  } finally {
    await chromium.close();
    await server.stop();
    await rm(folder, { recursive: true });
  }
});
