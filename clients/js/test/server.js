import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer as createProxy, request as forward } from 'node:http';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const LOCKHOUSE = process.env.LOCKHOUSE ?? fileURLToPath(new URL('../../../target/debug/lockhouse', import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** A server process with its own database. */
export class Server {
  /** @param {Record<string, string>} [settings] environment variables
   * @param {() => string} [file] the text of a settings file */
  static async start(settings = {}, file) {
    const server = new Server();
    server.settings = settings;
    server.home = await mkdtemp(join(tmpdir(), 'lockhouse-'));
    server.database = join(server.home, 'lockhouse.db');
    server.listen = '127.0.0.1:0';
    if (file) {
      server.file = join(server.home, 'lockhouse.toml');
      await writeFile(server.file, file(), { mode: 0o600 });
    }
    await server.restart();
    return server;
  }

  /** Starts the process, on the same address as before. */
  async restart() {
    const args = ['serve', '--listen', this.listen, '--database', this.database];
    if (this.file) args.push('--config', this.file);
    const env = { ...process.env, LOCKHOUSE_LOG_LEVEL: 'error', ...this.settings };
    this.process = spawn(LOCKHOUSE, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(createInterface(this.process.stdout), 'line');
    this.url = line.replace('lockhouse is listening on ', '');
    this.listen = this.url.replace('http://', '');
  }

  /** Sends SIGKILL and waits for the exit. */
  async kill() {
    const ended = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await ended;
  }

  async stop() {
    await this.kill();
    await rm(this.home, { recursive: true });
  }

  /** Runs a `lockhouse` command on its database.
   * @param {string[]} args */
  async run(...args) {
    const child = spawn(LOCKHOUSE, [...args, '--database', this.database], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (bytes) => (out += bytes));
    await once(child, 'close');
    return out.trim();
  }

  /** Sends a request as a user, without a browser.
   * @param {string} user @param {string} method @param {string} path @param {object} [body] */
  async ask(user, method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      headers: { 'X-User-Id': user, ...(body && { 'Content-Type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    return response.json();
  }

  /** @param {string} user @param {string} workspaceId @param {object} [body] */
  acquire(user, workspaceId, body = {}) {
    return this.ask(user, 'POST', `/api/v1/workspaces/${encodeURIComponent(workspaceId)}/lock`, body);
  }
}

/** A TCP proxy that can drop all data without closing connections. */
export class SilentProxy {
  /** @param {string} url */
  static async to(url) {
    const wire = new SilentProxy();
    const { hostname, port } = new URL(url);
    wire.sockets = new Set();
    wire.server = createServer({ pauseOnConnect: true }, (near) => {
      const far = connect(Number(port), hostname);
      for (const [socket, other] of [[near, far], [far, near]]) {
        wire.sockets.add(socket);
        socket.on('error', () => other.destroy());
        socket.on('close', () => { wire.sockets.delete(socket); other.destroy(); });
        socket.on('data', (bytes) => { if (!wire.isSilent) other.write(bytes); });
      }
      near.resume();
    });
    wire.server.listen(0, '127.0.0.1');
    await once(wire.server, 'listening');
    wire.url = `http://127.0.0.1:${wire.server.address().port}`;
    return wire;
  }

  isSilent = false;

  stop() {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

/** An HTTP proxy in front of the server. `answer` may return a response (status, headers, body) instead of the server's. `asked`: all
 * requests. `open`: the requests whose response has not ended. */
export class Proxy {
  /** @param {string} url */
  static async to(url) {
    const proxy = new Proxy();
    const { hostname, port, host } = new URL(url);
    proxy.server = createProxy((request, response) => {
      const { method, url: path } = request;
      const asked = { method, path, headers: request.headers };
      proxy.asked.push(asked);
      proxy.open.add(asked);
      response.on('close', () => proxy.open.delete(asked));
      const { origin, ...headers } = request.headers;
      const answer = proxy.answer(asked);
      if (answer) return void response.writeHead(answer.status, answer.headers).end(answer.body ?? '<h1>No</h1>');
      const far = forward({ hostname, port, method, path, headers: { ...headers, host, ...(proxy.keepsOrigin && { origin }) } }, (answered) => {
        response.writeHead(answered.statusCode, answered.headers);
        response.flushHeaders();
        answered.on('error', () => response.destroy());
        answered.pipe(response);
      });
      far.on('error', () => response.destroy());
      response.on('close', () => far.destroy());
      request.pipe(far);
    });
    proxy.server.listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    proxy.port = proxy.server.address().port;
    proxy.url = `http://127.0.0.1:${proxy.port}`;
    return proxy;
  }

  asked = [];
  open = new Set();
  keepsOrigin = false;
  /** @type {(asked: { method: string, path: string, headers: Record<string, string> }) => { status: number, headers?: object, body?: string } | undefined} */
  answer = () => undefined;

  stop() {
    this.server.close();
    this.server.closeAllConnections();
  }
}

/** @param {import('playwright-core').LaunchOptions} [options] */
export const browser = (options) => chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'], ...options });

/** Opens a tab of a user with a `lock` on a workspace. `recorded` has each state and each event.
 * @param {import('playwright-core').BrowserContext} context @param {string} url @param {string} userId
 * @param {object} [options] @param {string} [workspaceId] */
export async function tab(context, url, userId, options = {}, workspaceId = 'design-42', path = '/healthz') {
  const page = await context.newPage();
  // A page of the same origin without scripts.
  await page.goto(url + path);
  await begin(page, userId, options, workspaceId);
  return page;
}

export function begin(page, userId, options, workspaceId = 'design-42') {
  const given = { userId, options, workspaceId };
  return page.evaluate(async ({ userId, options, workspaceId }) => {
    const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
    window.client = new Lockhouse({ userId, userName: userId.toUpperCase() });
    window.lock = new WorkspaceLock(window.client, workspaceId, options);
    window.recorded = [];
    for (const type of ['held', 'lost', 'knock', 'declined']) {
      lock.addEventListener(type, ({ detail }) => recorded.push([type, detail]));
    }
    lock.addEventListener('change', () => {
      const { state } = lock.view;
      // The stream may connect before or after the first read has ended, so `unknown` is no first state.
      const last = recorded.findLast(([type]) => type === 'state')?.[1] ?? 'unknown';
      if (last !== state) recorded.push(['state', state, performance.now()]);
    });
  }, given);
}

/** Waits for a state of the lock.
 * @param {import('playwright-core').Page} page @param {string} state @param {number} [timeout] */
export const until = (page, state, timeout = 30_000) =>
  page.waitForFunction((state) => window.lock.state === state, state, { timeout, polling: 20 });

/** Polls until the result is truthy, for at least 30 seconds, and returns it.
 * @template T @param {() => Promise<T>} poll */
export async function eventually(poll) {
  for (let tries = 0; tries < 1_500; tries++) {
    const found = await poll();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return assert.fail('the condition did not become true');
}
