// Dialogs: confirm an action that cannot be undone, or enter a text.

import { field, h } from './dom.js';

/** The API's limit for a reason, in bytes. */
const REASON_LENGTH = 500;

/** `run` receives the reason. Its error is shown, and the dialog stays open. Without `reason` there is no field. */
export function ask(app, { reason, run, ...question }) {
  const why = reason && h('input', { maxlength: REASON_LENGTH, autocomplete: 'off', name: 'reason' });
  const about = 'It stays in the history, for all who may see the workspace. It is optional.';
  open(app, {
    ...question,
    kind: 'danger',
    input: why,
    inputField: why && field(reason, why, about),
    run: () => run(why?.value || undefined),
  });
}

/** Asks for a text. `run` receives it. Its error is shown, and the dialog stays open. */
export function askFor(app, { label, hint, value, length, run, ...question }) {
  const input = h('input', { maxlength: length, autocomplete: 'off', value });
  open(app, { ...question, kind: 'primary', input, inputField: field(label, input, hint), run: () => run(input.value) });
  input.select();
}

function open(app, { title, text = [], action, kind, input, inputField, run }) {
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const go = h('button', { class: kind }, action);
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
            await run();
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
      inputField,
      wrong,
      h('div', { class: 'actions' }, h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), go),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  // Focus the field if there is one; otherwise the first button, which cancels.
  input?.focus();
}
