// The workspaces that somebody named.

import { field, h, say, table } from './dom.js';
import { date, workspaceHref } from './format.js';

export function showWorkspaces(app, root, { signal }) {
  const list = table('Workspaces', [
    ['Workspace', ''],
    ['Name', ''],
    ['Created', 'num'],
  ]);
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const empty = h(
    'div',
    { class: 'empty', hidden: true },
    h('h2', {}, 'No workspace has a name yet'),
    h(
      'p',
      {},
      'A workspace can be locked without. Where workspaces.membership is “enforced”, it has to be made first: with the form above, or by your app:',
    ),
    h('pre', {}, `curl -X PUT ${location.origin}/api/v1/workspaces/design-42 --json '{"name": "The design"}'`),
  );
  const more = h('button', { type: 'button', class: 'more', hidden: true, onclick: () => read(cursor) }, 'Show more');
  let cursor;

  async function read(from) {
    try {
      const page = await app.client.request('GET', '/api/v1/workspaces', { query: { cursor: from }, signal });
      cursor = page.next_cursor;
      if (!from) list.body.replaceChildren();
      list.body.append(
        ...page.workspaces.map((workspace) =>
          list.row(
            h('a', { class: 'workspace', href: workspaceHref(workspace.workspace_id) }, workspace.workspace_id),
            workspace.name ?? '',
            date(workspace.created_at),
          ),
        ),
      );
      more.hidden = cursor === null;
      empty.hidden = list.body.children.length > 0;
      list.whole.hidden = !empty.hidden;
      say(wrong, '');
    } catch (error) {
      if (!signal.aborted && !app.isOver(error)) say(wrong, error.message);
    }
  }

  const id = h('input', { required: true, maxlength: 255, autocomplete: 'off', spellcheck: 'false' });
  const name = h('input', { maxlength: 200, autocomplete: 'off' });
  const form = h(
    'form',
    {
      class: 'row',
      onsubmit: async (event) => {
        event.preventDefault();
        try {
          const made = await app.client.request('PUT', `/api/v1/workspaces/${encodeURIComponent(id.value)}`, {
            body: name.value ? { name: name.value } : {},
          });
          app.tell(`${made.workspace_id} is there.`);
          form.reset();
          await read();
        } catch (error) {
          if (!app.isOver(error)) say(wrong, error.message);
        }
      },
    },
    field('Id', id),
    field('Name, if you like', name),
    h('button', { class: 'primary' }, 'Create workspace'),
  );
  list.whole.hidden = true;
  root.append(
    h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Workspaces')),
    form,
    wrong,
    h('div', { class: 'scroll' }, list.whole),
    empty,
    more,
  );
  app.live.hear((told) => (told.type === 'workspace.deleted' || told.type === 'reset') && read(), signal);
  read();
}
