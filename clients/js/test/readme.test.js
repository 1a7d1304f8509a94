import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { Server, browser } from './server.js';

const HERE = fileURLToPath(new URL('..', import.meta.url));

const read = (name) => readFile(new URL('../../../' + name, import.meta.url), 'utf8');

/** @param {string} text @param {string} language */
const blocks = (text, language) => [...text.matchAll(new RegExp('```' + language + '\\n([\\s\\S]*?)```', 'g'))].map(([, block]) => block);

/** Opens an app's page for Alice, and records the browser's errors. `answer` is the app's back end.
 * @param {import('playwright-core').Browser} chromium @param {string} url @param {string} html
 * @param {(request: import('playwright-core').Request, path: string) => Promise<object> | object} answer */
async function open(chromium, url, html, answer) {
  const context = await chromium.newContext();
  // The page has the server's origin, because browsers restrict requests from other origins to this machine.
  await context.route(/\/(app|lock-token|documents\/.*)$/, async (route) => {
    const path = new URL(route.request().url()).pathname;
    const body = html.replaceAll('http://127.0.0.1:7311', url).replace('</title>', '</title><link rel="icon" href="data:,">');
    return route.fulfill(path === '/app' ? { contentType: 'text/html', body } : await answer(route.request(), path));
  });
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.goto(url + '/app');
  return {
    page, complaints,
    until: (isReadOnly) => page.waitForFunction((is) => document.querySelector('#text').readOnly === is, isReadOnly),
    says: (text) => page.locator('#said', { hasText: text }).waitFor(),
    shows: (text) => page.waitForFunction((text) => document.querySelector('#text').value === text, text),
  };
}

test('the page of the README works as described, in 25 lines at most', async () => {
  const readme = await read('README.md');
  const [[code], [html]] = [blocks(readme, 'js'), blocks(readme, 'html')];
  assert.ok(code.includes('new WorkspaceLock') && html.includes('readonly'));
  assert.ok(code.trimEnd().split('\n').length <= 25);
  const server = await Server.start();
  const chromium = await browser();
  try {
    const asked = [];
    let [body, status] = ['the workshop is on Thursday', 200];
    const { page, complaints, until, says } = await open(chromium, server.url, `<!doctype html><title>An app</title>${html}<script type="module">${code}</script>`, (request, path) => {
      if (request.method() === 'PUT' && status === 200) body = request.postData();
      asked.push([request.method(), path, request.headers()['x-lock-fence'], request.postData()]);
      return { status, contentType: 'text/plain', body: request.method() === 'PUT' ? '' : body };
    });
    await until(true);
    await page.click('#edit');
    await until(false);
    const { lock } = await server.ask('bob', 'GET', '/api/v1/workspaces/design-42/lock');
    assert.equal(lock.locked_by_name, 'Alice Martin');
    // The text is read with the fence, before typing is possible.
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
    // A refusal of the app's database is shown.
    status = 409;
    await page.click('#save');
    await says('Somebody else has begun to edit.');
    status = 200;
    // After a takeover the text can be read, and nothing is saved.
    const taken = await server.acquire('bob', 'design-42', { force: true });
    await until(true);
    await page.getByRole('dialog').getByText('bob').first().waitFor();
    await page.evaluate(() => document.querySelector('#save').click());
    await says('nothing is saved');
    assert.equal(asked.length, 3);
    // With the lock again, she starts from his text. A text that cannot be loaded is not edited.
    body = 'what bob saved';
    status = 500;
    await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/release', { fence: taken.lock.fence });
    await page.keyboard.press('Escape');
    await page.click('#edit');
    await says('Failed: 500');
    await until(true);
    status = 200;
    await server.acquire('bob', 'design-42', { force: true }).then(({ lock: { fence } }) => server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/release', { fence }));
    await page.keyboard.press('Escape');
    await page.click('#edit');
    await until(false);
    assert.equal(await page.inputValue('#text'), body);
  } finally {
    await chromium.close();
    await server.stop();
  }
});

test('the page of docs/browser.md and the back end of docs/back-end.md work as described', async () => {
  const [html] = blocks(await read('docs/browser.md'), 'html');
  const [locks, documents, app] = blocks(await read('docs/back-end.md'), 'python');
  assert.ok(html.includes('new Draft') && locks.includes('def has_lock') && documents.includes('def begin') && app.includes('class App'));
  const server = await Server.start({ LOCKHOUSE_AUTH_MODE: 'token' });
  const chromium = await browser();
  const folder = await mkdtemp(join(tmpdir(), 'lockhouse-app-'));
  let python;
  try {
    const serve = 'ThreadingHTTPServer(("127.0.0.1", 3000), App).serve_forever()';
    assert.ok(app.includes(serve));
    const files = {
      'locks.py': locks, 'documents.py': documents, 'index.html': html,
      'app.py': app.replace(serve, 'server = ThreadingHTTPServer(("127.0.0.1", 0), App)\nprint(server.server_port, flush=True)\nserver.serve_forever()'),
    };
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    const token = await server.run('token', 'create', '--scope', 'service', '--name', 'the app');
    python = spawn('python3', ['app.py'], { cwd: folder, env: { ...process.env, LOCKHOUSE: server.url, LOCKHOUSE_TOKEN: token }, stdio: ['ignore', 'pipe', 'ignore'] });
    const [port] = await once(createInterface(python.stdout), 'line');
    /** A user who is signed in to the app. */
    const ask = async (user, method, path, fence, body) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, body, headers: { Cookie: 'user=' + user, ...(fence && { 'X-Lock-Fence': String(fence) }) } });
      return { status: response.status, body: await response.text() };
    };
    const DOCUMENT = '/documents/design-42';
    const stored = async () => (await ask('bob', 'GET', DOCUMENT)).body;
    const { body: bobs } = await ask('bob', 'POST', '/lock-token');
    /** Requests of bob, without a browser. */
    const bob = async (action, body) => {
      const headers = { Authorization: 'Bearer ' + bobs, 'Content-Type': 'application/json' };
      return (await fetch(`${server.url}/api/v1/workspaces/design-42/lock${action}`, { method: 'POST', headers, body: JSON.stringify(body) })).json();
    };
    assert.equal((await ask('alice', 'GET', '/')).body, html);
    const { page, complaints, until, says, shows } = await open(chromium, server.url, html, async (request, path) => {
      const { status, body } = await ask('alice', request.method(), path, request.headers()['x-lock-fence'], request.postData() ?? undefined);
      return { status, contentType: 'text/plain', body };
    });
    // The text can be read.
    await shows('The workshop is on Thursday.');
    await until(true);
    await page.click('#edit');
    await until(false);
    await page.fill('#text', 'It is on Friday.');
    await page.click('#save');
    await assert.doesNotReject(async () => { while ((await stored()) !== 'It is on Friday.') await page.waitForTimeout(20); });
    assert.deepEqual(complaints, []);
    await page.fill('#text', 'typed and not saved');
    const held = await page.evaluate(() => document.querySelector('#dialog').lock.fence);
    // After a takeover, a late save with the old fence is refused, also before the new holder has saved.
    const taken = await bob('', { force: true });
    await until(true);
    await page.getByRole('dialog').getByText('Bob').first().waitFor();
    await page.evaluate(() => document.querySelector('#save').click());
    await says('nothing is saved');
    assert.deepEqual(await ask('bob', 'POST', DOCUMENT + '/open', taken.lock.fence), { status: 200, body: 'It is on Friday.' });
    assert.equal((await ask('alice', 'PUT', DOCUMENT, held, 'late')).status, 409);
    assert.equal((await ask('alice', 'POST', DOCUMENT + '/open', held)).status, 409);
    // An invented fence, a fence of another user's lock and a missing fence are refused.
    for (const fence of [Number.MAX_SAFE_INTEGER, taken.lock.fence + 1, '1e9', undefined]) assert.equal((await ask('alice', 'PUT', DOCUMENT, fence, 'made up')).status, 409, String(fence));
    assert.equal(await stored(), 'It is on Friday.');
    assert.equal((await ask('bob', 'PUT', DOCUMENT, taken.lock.fence, 'what bob saved')).status, 200);
    // With the lock again, she starts from his text. What she had typed is offered beside it.
    await bob('/release', { fence: taken.lock.fence });
    await page.keyboard.press('Escape');
    await page.click('#edit');
    await until(false);
    await shows('what bob saved');
    await page.locator('lockhouse-dialog').getByText('typed and not saved').waitFor();
    await page.getByRole('button', { name: 'Use my text' }).click();
    await shows('typed and not saved');
    // The text is saved before the handover.
    await bob('/knock', {});
    await page.getByRole('button', { name: 'Save and hand over' }).click();
    await until(true);
    assert.equal(await stored(), 'typed and not saved');
  } finally {
    python?.kill();
    await chromium.close();
    await server.stop();
    await rm(folder, { recursive: true });
  }
});

test("the component of the client's README compiles and works as described", async () => {
  const readme = await readFile(join(HERE, 'README.md'), 'utf8');
  const [, code] = /```tsx\n([\s\S]*?)```/.exec(readme) ?? [];
  assert.ok(code.includes('<lockhouse-dialog'));
  const server = await Server.start();
  const chromium = await browser();
  // Maps `lockhouse` to this package.
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
      createRoot(document.getElementById('app')).render(<Editor id="design-42" saved="the workshop is on Monday" />);`;
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
    const until = (isReadOnly) => page.waitForFunction((is) => document.querySelector('textarea')?.readOnly === is, isReadOnly);
    await until(true);
    assert.equal(await page.inputValue('textarea'), 'the workshop is on Monday');
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
