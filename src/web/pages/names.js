// The names of workspaces by id. A lock does not contain them.

/** Names of one page. */
const PAGE = 500;
/** The most workspaces that are read. */
const MOST = 5000;

export class Names {
  #names = new Map();

  /** Reads them again. The pages work without names, too. */
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
      // An expired session is reported by the page's own request.
    }
  }

  /** The name, if it is known. */
  get(id) {
    return this.#names.get(id);
  }

  /** The ids of the workspaces whose name contains this lowercase text. */
  having(words) {
    return [...this.#names].filter(([, name]) => name.toLowerCase().includes(words)).map(([id]) => id);
  }
}
