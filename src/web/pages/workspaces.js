// The workspaces that were created.

import { curl } from './curl.js';
import { field, h, say } from './dom.js';
import { date, natural, workspaceHref } from './format.js';
import { Listing } from './listing.js';
import { isBefore } from './store.js';

export function showWorkspaces(app, root, { signal }) {
  const { serves } = app.session;
  const list = new Listing(app, {
    signal,
    caption: 'Workspaces',
    headings: [
      ['Workspace', ''],
      ['Name', ''],
      ['Created', 'num'],
    ],
    placeholder: 'Id or name',
    nothing: [
      h('h2', {}, 'No workspace has been created yet'),
      h(
        'p',
        {},
        'Workspaces can be locked without that. Where workspaces.membership is “enforced”, they have to be created first',
        serves ? ': with the form above, or by your app.' : '.',
      ),
      serves ? curl(app.session, 'PUT', '/api/v1/workspaces/design-42', { body: { name: 'The design' } }) : null,
    ],
    path: '/api/v1/workspaces',
    member: 'workspaces',
    word: 'workspace',
    columns: ['workspace_id', 'name', 'created_at'],
    key: ({ workspace_id }) => workspace_id,
    texts: ({ workspace_id, name }) => [workspace_id, name],
    cells: ({ workspace_id, name, created_at }) => [
      h('a', { class: 'workspace', href: workspaceHref(workspace_id) }, workspace_id),
      name ?? '',
      date(created_at),
    ],
    // While there are more pages, the order is the server's, so that the next page follows.
    order: ({ workspace_id: one }, { workspace_id: other }, isWhole) =>
      isWhole ? natural(one, other) : isBefore(one, other) ? -1 : 1,
  });
  root.append(
    h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Workspaces'), list.number, list.actions),
    h('p', { class: 'sub' }, 'Workspaces that somebody created; others can be locked all the same, unless membership is enforced.'),
    ...(serves ? makeForm(app, () => list.refresh()) : []),
    list.node,
  );
  app.live.hear((told) => (told.type === 'workspace.deleted' || told.type === 'reset') && list.refresh(), signal);
  list.refresh();
}

/** `done` is called after a workspace was created. */
function makeForm(app, done) {
  const id = h('input', { required: true, maxlength: 255, autocomplete: 'off', spellcheck: 'false' });
  const name = h('input', { maxlength: 200, autocomplete: 'off' });
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const form = h(
    'form',
    {
      class: 'row',
      onsubmit: async (event) => {
        event.preventDefault();
        say(wrong, '');
        const path = `/api/v1/workspaces/${encodeURIComponent(id.value)}`;
        try {
          // Without this check an existing workspace would be renamed.
          if (await isThere(app, path)) {
            const open = h('a', { href: workspaceHref(id.value) }, 'Open it');
            wrong.replaceChildren(h('code', {}, id.value), ' exists already. ', open);
            return;
          }
          const made = await app.client.request('PUT', path, { body: name.value ? { name: name.value } : {} });
          app.tell(`${made.workspace_id} is there.`);
          form.reset();
          await done();
        } catch (error) {
          if (!app.isOver(error)) say(wrong, error.message);
        }
      },
    },
    field('Id', id),
    field('Name, if you like', name),
    h('button', { class: 'primary' }, 'Create workspace'),
  );
  return [form, wrong];
}

async function isThere(app, path) {
  try {
    await app.client.request('GET', path);
    return true;
  } catch (error) {
    if (error.code === 'workspace_not_found') return false;
    throw error;
  }
}
