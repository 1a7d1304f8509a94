// The documents, with the greatest fence beside each. A save with an older one changes no row.
import { hasLock } from './lockhouse.js';

// Node 22.13 and later have SQLite. The package has the same API, for older ones.
const { DatabaseSync } = await import('node:sqlite').catch(() => import('@photostructure/sqlite'));

/** Answered with 409. */
export class Refused extends Error {}

const database = new DatabaseSync(`${process.env.DATA}/app.db`);
database.exec(`
  PRAGMA journal_mode = WAL;
  CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, body TEXT NOT NULL, fence INTEGER NOT NULL DEFAULT 0);
  INSERT INTO documents (id, body) VALUES ('design-42', 'The workshop is on Thursday.') ON CONFLICT DO NOTHING`);

const find = (id) => database.prepare('SELECT body, fence FROM documents WHERE id = ?').get(id);

export const read = (id) => find(id)?.body;

/** The fence of the header. It comes from a browser: a greater one than the stored is believed after Lockhouse confirms it. */
async function checked(id, userId, header) {
  if (!/^[0-9]{1,16}$/.test(header ?? '')) throw new Refused();
  const [fence, row] = [Number(header), find(id)];
  if (!row || (fence > row.fence && !(await hasLock(userId, id, fence)))) throw new Refused();
  return fence;
}

/** Somebody begins to edit: from now on every save with an older fence is refused. Returns the text. */
export async function begin(id, userId, header) {
  const fence = await checked(id, userId, header);
  const raise = 'UPDATE documents SET fence = :fence WHERE id = :id AND fence <= :fence RETURNING body';
  const row = database.prepare(raise).get({ id, fence });
  if (!row) throw new Refused();
  return row.body;
}

export async function save(id, userId, header, body) {
  const fence = await checked(id, userId, header);
  const update = 'UPDATE documents SET body = :body, fence = :fence WHERE id = :id AND fence <= :fence';
  const { changes } = database.prepare(update).run({ id, body, fence });
  if (Number(changes) === 0) throw new Refused();
  return '';
}
