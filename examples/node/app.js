// The app: the page, the documents, and tokens for browsers.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join } from 'node:path';
import { Refused, begin, read, save } from './documents.js';
import { tokenFor } from './lockhouse.js';

const [, , page] = process.argv; // the folder of the page
const { LOCKHOUSE, PORT } = process.env;
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json' };

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** The text for a request, and the ending of a file that has its type. The text is undefined if there is nothing. */
async function answer(request) {
  const { method, headers } = request;
  const { pathname } = new URL(request.url, 'http://app');
  const userId = headers['x-user'] ?? 'alice'; // your app has sessions
  const fence = headers['x-lock-fence'];
  const [, id, open] = /^\/documents\/([\w-]+)(\/open)?$/.exec(pathname) ?? [];
  if (method === 'POST' && pathname === '/lock-token') return [await tokenFor(userId, userId[0].toUpperCase() + userId.slice(1))];
  if (method === 'POST' && open) return [await begin(id, userId, fence)];
  if (method === 'PUT' && id && !open) return [await save(id, userId, fence, await bodyOf(request))];
  if (method !== 'GET') return [];
  if (id) return [read(id)];
  if (pathname === '/settings.json') return [JSON.stringify({ lockhouse: LOCKHOUSE }), '.json'];
  const file = pathname === '/' ? '/index.html' : pathname;
  return [await readFile(join(page, file), 'utf8').catch(() => undefined), extname(file)];
}

createServer(async (request, response) => {
  let [status, body, type] = [200];
  try {
    [body, type] = await answer(request);
    if (body === undefined) [status, body] = [404, 'There is no such thing.'];
  } catch (error) {
    [status, body] = [409, 'Somebody else has begun to edit.'];
    if (!(error instanceof Refused)) {
      console.error(error);
      [status, body] = [500, 'The server has failed.'];
    }
  }
  response.writeHead(status, { 'Content-Type': `${TYPES[type] ?? 'text/plain'}; charset=utf-8`, 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
}).listen(PORT, '127.0.0.1');
