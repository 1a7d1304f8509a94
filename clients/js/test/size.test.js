import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
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
  const languages = ['./dialog-de.js', './dialog-es.js', './dialog-fr.js'];
  const parts = {
    client, election: await size('election.js'), dialog: await size('dialog.js', languages), draft: await size('draft.js'),
    react: await size('react.js', ['react', './lock.js']), language: Math.max(...(await Promise.all(languages.map((file) => size(file))))),
  };
  t.diagnostic(JSON.stringify(parts));
  // The README states these sizes.
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  const [, ...said] = /([\d.]+) kB minified and compressed \(gzip\), ([\d.]+) kB more on pages without TLS, the dialog another ([\d.]+) kB, drafts ([\d.]+) kB, React ([\d.]+) kB, a language ([\d.]+) kB/.exec(readme) ?? [];
  const { election, dialog, draft, react, language } = parts;
  [client, election, dialog, draft, react, language].forEach((bytes, index) => {
    // Compressors differ a little.
    assert.ok(Math.abs(Number(said[index]) - bytes / 1_000) < 0.2, `${said[index]} kB said, ${bytes} bytes measured`);
  });
  assert.ok(client < 10_000, `${client} bytes`);
});
