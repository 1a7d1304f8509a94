// How the workspaces are called, by their ids: a lock does not say it.

/** Names of a page. */
const PAGE = 500;
/** More workspaces are not read: a server with more of them is not kept busy with that. */
const MOST = 5000;

export class Names {
  #names = new Map();

  /** Reads them anew. Without them there is nothing that does not work. */
  async read(client, signal) {
    const names = new Map();
    let cursor;
    let count = 0;
    try {
      do {
        const page = await client.request('GET', '/api/v1/workspaces', { query: { limit: PAGE, cursor }, signal });
        for (const { workspace_id, name } of page.workspaces) if (name) names.set(workspace_id, name);
        cursor = page.next_cursor ?? undefined;
        count += page.workspaces.length;
      } while (cursor !== undefined && count < MOST);
      this.#names = names;
    } catch {
      // Whoever is not signed in any more is told so by what they came for.
    }
  }

  /** How it is called, if it is and that is known. */
  get(id) {
    return this.#names.get(id);
  }

  /** The ids of those whose name has this in it, in small letters. */
  having(words) {
    return [...this.#names].filter(([, name]) => name.toLowerCase().includes(words)).map(([id]) => id);
  }
}
