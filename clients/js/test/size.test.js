import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** Minified and compressed, in bytes. @param {string} file @param {string[]} [external] */
async function size(file, external = []) {
  const { outputFiles: [{ contents }] } = await build({
    entryPoints: [fileURLToPath(new URL('../src/' + file, import.meta.url))],
    bundle: true, minify: true, write: false, format: 'esm', target: 'es2022', external,
  });
  return gzipSync(contents, { level: 9 }).length;
}

test('the client is smaller than 10 kB, minified and compressed', async (t) => {
  const client = await size('index.js', ['./election.js']);
  const others = await Promise.all([size('election.js'), size('dialog.js'), size('react.js', ['react', './lock.js'])]);
  t.diagnostic(`client ${client}, election ${others[0]}, dialog ${others[1]}, react ${others[2]} bytes`);
  assert.ok(client < 10_000, `${client} bytes`);
});
