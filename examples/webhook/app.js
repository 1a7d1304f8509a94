// The app: takes what Lockhouse sends, and shows who edits what.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { all, take } from './editing.js';
import { isSigned } from './signed.js';

const { DATA, PORT } = process.env;
const secret = readFileSync(`${DATA}/secret`, 'utf8').trim();

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** The status and the text of an answer. */
async function answer(request) {
  if (request.method === 'GET' && request.url.split('?')[0] === '/') return [200, all().map((line) => line + '\n').join('')];
  if (request.method !== 'POST' || request.url !== '/lockhouse') return [404, 'There is no such thing.'];
  const body = await bodyOf(request);
  if (!isSigned(secret, request.headers, body)) return [401, 'This is not from Lockhouse.'];
  await take(JSON.parse(body));
  return [204];
}

createServer(async (request, response) => {
  const [status, text] = await answer(request).catch((error) => (console.error(error), [500, 'It is sent again.']));
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' }).end(text);
}).listen(PORT, '127.0.0.1');
