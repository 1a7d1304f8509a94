import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import js from '@eslint/js';
import { ESLint } from 'eslint';
import { defineConfig } from 'eslint/config';
import reactHooks from 'eslint-plugin-react-hooks';
import reactRefresh from 'eslint-plugin-react-refresh';
import globals from 'globals';
import tseslint from 'typescript-eslint';

/** The code in the documents compiles, and passes the linter of Vite's React starter. */

const HERE = fileURLToPath(new URL('..', import.meta.url));
const DOCUMENTS = ['../../README.md', '../../docs/browser.md', 'README.md'];
const OPTIONS = { target: 'es2022', module: 'esnext', moduleResolution: 'bundler', strict: true, noEmit: true, types: [], lib: ['ES2023', 'DOM', 'DOM.Iterable'] };
// The configuration of Vite's starter for React with TypeScript.
const VITE = { jsx: 'react-jsx', verbatimModuleSyntax: true, moduleDetection: 'force', noUnusedLocals: true, noUnusedParameters: true, noFallthroughCasesInSwitch: true };

/** Declarations for the elements of the documents' pages: an element with an id is a global variable. */
const PAGE = `
  declare const text: HTMLTextAreaElement, said: HTMLElement, edit: HTMLButtonElement, save: HTMLButtonElement;
  declare const dialog: import('lockhouse/dialog').LockhouseDialog;
  declare function keptToken(): Promise<string>;`;

/** Maps `lockhouse` to this package. */
let folder;
before(async () => {
  folder = await mkdtemp(join(HERE, 'readme-'));
  tsc(join(HERE, 'tsconfig.types.json'));
});
after(() => rm(folder, { recursive: true }));

/** Throws with the compiler's errors. @param {string} project */
function tsc(project) {
  try {
    execFileSync(join(HERE, 'node_modules/.bin/tsc'), ['--project', project], { cwd: HERE, encoding: 'utf8' });
  } catch ({ stdout }) {
    assert.fail(stdout);
  }
}

/** The code blocks that use the client. @returns {Promise<{ name: string, kind: string, code: string }[]>} */
async function snippets() {
  const all = [];
  for (const document of DOCUMENTS) {
    const text = await readFile(join(HERE, document), 'utf8');
    for (const [, kind, block] of text.matchAll(/^```(js|ts|tsx|html)\n([\s\S]*?)^```/gm)) {
      const code = kind === 'html' ? /<script type="module">\n([\s\S]*?)<\/script>/.exec(block)?.[1] : block;
      if (code && /lockhouse|\block\b|\/client\//.test(code)) {
        const name = document.replace(/\W+/g, '-').replace(/^-|-md$/g, '') + '-' + all.length;
        all.push({ name, kind: kind === 'html' ? 'js' : kind, code });
      }
    }
  }
  return all;
}

/** @param {string} name @param {Record<string, string>} files @param {object} [options] */
async function compiles(name, files, options) {
  const project = await mkdtemp(join(folder, name + '-'));
  for (const [file, code] of Object.entries(files)) await writeFile(join(project, file), code);
  await writeFile(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...OPTIONS, ...options } }));
  tsc(project);
}

test('the code in the documents compiles', async () => {
  const found = await snippets();
  assert.deepEqual(found.map(({ kind }) => kind), ['js', 'js', 'js', 'tsx'], JSON.stringify(found.map(({ name }) => name)));
  const files = (isScript) => Object.fromEntries(found.filter(({ kind }) => (kind === 'js') === isScript).map(({ name, kind, code }) => {
    const local = code.replaceAll(/'http[^']*\/client\/(index|dialog|draft)\.js'/g, (_, file) => (file === 'index' ? "'lockhouse'" : `'lockhouse/${file}'`));
    return [`${name}.${kind}`, local + '\nexport {};'];
  }));
  // JavaScript has no types of parameters and no non-null assertions.
  const lax = { allowJs: true, checkJs: true, noImplicitAny: false, strictNullChecks: false, useUnknownInCatchVariables: false };
  await compiles('js', { ...files(true), 'page.d.ts': PAGE }, lax);
  await compiles('ts', { ...files(false), 'page.d.ts': PAGE }, VITE);
});

test('the events of a lock have typed details', () => compiles('events', {
  'events.ts': `
    import { Lockhouse, WorkspaceLock } from 'lockhouse';
    import 'lockhouse/dialog';
    const lock = new WorkspaceLock(new Lockhouse({ userId: 'alice', token: ({ refused = false } = {}) => String(refused) }), 'design-42');
    lock.addEventListener('held', (e) => e.detail.fence);
    lock.addEventListener('held', async ({ detail: { fence, isNew } }) => { const all: [number, boolean] = [fence, isNew]; return all; }, { once: true });
    lock.addEventListener('lost', ({ detail }) => { const name: string | null | undefined = detail.by?.name; return name; });
    lock.addEventListener('change', ({ detail }) => { const is: boolean = detail.isConnected; return is; });
    lock.addEventListener('knock', ({ detail }) => { const id: string = detail.user_id; return id; });
    lock.addEventListener('declined', { handleEvent({ detail }) { const ms: number = detail.againInMs; return ms; } });
    // @ts-expect-error
    lock.addEventListener('held', ({ detail }) => detail.fences);
    const listener = (event: Event) => event.type;
    lock.addEventListener('held', listener);
    lock.removeEventListener('held', listener);
    const target: EventTarget = lock;
    document.querySelector('lockhouse-dialog')!.lock = lock;
    export { target };`,
}));

test('the React component passes the linter of Vite\'s starter', async () => {
  const component = (await snippets()).find(({ kind }) => kind === 'tsx');
  assert.ok(component);
  const overrideConfig = defineConfig([{
    files: ['**/*.{ts,tsx}'],
    extends: [js.configs.recommended, tseslint.configs.recommended, reactHooks.configs.flat.recommended, reactRefresh.configs.vite],
    languageOptions: { ecmaVersion: 2020, globals: { ...globals.browser, keptToken: 'readonly' } },
  }]);
  const linter = new ESLint({ overrideConfigFile: true, overrideConfig, cwd: folder });
  const lint = async (code) => (await linter.lintText(code, { filePath: 'editor.tsx' })).flatMap(({ messages }) => messages.map(({ ruleId, line, message }) => `${line}: ${ruleId}: ${message}`));
  assert.deepEqual(await lint(component.code), []);
  // The linter does report a mistake.
  const wrong = component.code.replace('  }, [lock, id]);', '  }, []);');
  assert.match((await lint(wrong)).join(), /exhaustive-deps/);
});
