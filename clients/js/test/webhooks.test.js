import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before } from 'node:test';
import { reads, signIn, story, useBrowser } from './console.js';

let status = 500;
const received = [];
const receiver = createServer((request, response) => {
  let body = '';
  request.on('data', (bytes) => (body += bytes));
  request.on('end', () => {
    received.push(JSON.parse(body));
    response.writeHead(status).end('telltale');
  });
});

useBrowser();
before(async () => {
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
});
after(() => {
  receiver.close();
  receiver.closeAllConnections();
});

const webhook = () => `[[webhooks]]
name = "app"
url = "http://127.0.0.1:${receiver.address().port}/secret-path"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
`;
const line = (page) => page.locator('section[aria-labelledby=webhooks] tbody tr');

story('the health page shows a webhook that fails, and tries it now', async ({ server, open }) => {
  const page = await open('#/health');
  await reads(line(page), 'up to date');
  await server.acquire('alice', 'design-42');
  await reads(line(page), 'failing');
  await reads(line(page), 'it answered 500');
  status = 200;
  const button = page.getByRole('button', { name: 'Try app now' });
  const [tried] = await Promise.all([page.waitForResponse('**/api/v1/webhooks/app/try'), button.click()]);
  assert.deepEqual(await tried.json(), { tried: true });
  await reads(line(page), 'up to date');
  assert.ok(await button.evaluate((button) => button === document.activeElement), 'the focus stays');
  assert.equal(received.at(-1).type, 'lock.acquired');
  const shown = await page.locator('main').innerText();
  assert.ok(!/telltale|secret-path|MfKQ/.test(shown), shown);
}, {}, webhook);

story('the health page has no webhooks if there are none', async ({ open }) => {
  const page = await open('#/health');
  await page.getByRole('heading', { name: 'Numbers' }).waitFor();
  assert.equal(await page.getByRole('heading', { name: 'Webhooks' }).count(), 0);
});

story('a token that only reads shows the numbers, and no webhooks', async ({ server, open }) => {
  const page = await open('#/health');
  await signIn(page, await server.run('token', 'create', '--scope', 'read'));
  await page.getByRole('heading', { name: 'Numbers' }).waitFor();
  assert.equal(await page.getByRole('heading', { name: 'Webhooks' }).count(), 0);
}, { LOCKHOUSE_AUTH_MODE: 'token' }, webhook);
