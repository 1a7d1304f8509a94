// Asks before something is done that cannot be undone.

import { field, h } from './dom.js';

/** Most bytes of a reason, as the API has it. */
const REASON_LENGTH = 500;

/** `run` gets the reason; what it throws is shown, and the dialog stays. Without `reason` none is asked for. */
export function ask(app, { title, text, action, reason, run }) {
  const why = reason && h('input', { maxlength: REASON_LENGTH, autocomplete: 'off', name: 'reason' });
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const go = h('button', { class: 'danger' }, action);
  const heading = h('h2', { id: 'dialog-title' }, title);
  const dialog = h(
    'dialog',
    { 'aria-labelledby': 'dialog-title', onclose: () => dialog.remove() },
    h(
      'form',
      {
        onsubmit: async (event) => {
          event.preventDefault();
          go.disabled = true;
          wrong.textContent = '';
          try {
            await run(why?.value || undefined);
            dialog.close();
          } catch (error) {
            if (app.isOver(error)) dialog.close();
            else wrong.textContent = error.message;
          } finally {
            go.disabled = false;
          }
        },
      },
      heading,
      [text].flat().map((line) => h('p', {}, line)),
      why && field(reason, why, 'It stays in the history, for whoever may see the workspace. You may leave it out.'),
      wrong,
      h('div', { class: 'actions' }, h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), go),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  // Where there is a reason to give, a hasty Enter does it; elsewhere the first button is the harmless one.
  why?.focus();
}
