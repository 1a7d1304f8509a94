/** The dialog's style. It follows the page's `color-scheme`. The page may set the properties `--lockhouse-…` and style the parts;
 * `--_…` are internal. */
export const STYLE = `
:host {
  /* Inherits nothing of the page (text-align, letter-spacing…) except what is named here. */
  all: initial;
  color-scheme: inherit;
  visibility: inherit;
  --_back: var(--lockhouse-background, light-dark(#ffffff, #22252b));
  --_text: var(--lockhouse-text, light-dark(#1d2127, #eceef1));
  --_faint: var(--lockhouse-faint, light-dark(#59606b, #a9b0bb));
  --_line: var(--lockhouse-line, light-dark(#c9ced6, #4a505b));
  --_accent: var(--lockhouse-accent, light-dark(#2456c7, #9db8ff));
  --_on-accent: var(--lockhouse-on-accent, light-dark(#ffffff, #10141c));
  --_danger: var(--lockhouse-danger, light-dark(#b3261e, #ffb4ab));
  --_on-danger: var(--lockhouse-on-danger, light-dark(#ffffff, #1c0b09));
  --_round: var(--lockhouse-radius, 12px);
  font: var(--lockhouse-font, 16px/1.5 system-ui, sans-serif);
  display: contents;
  border-radius: inherit;
}
[hidden] { display: none !important; }
.live { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
dialog, section {
  box-sizing: border-box;
  padding: 24px;
  border: 1px solid var(--_line);
  border-radius: var(--_round);
  background: var(--_back);
  color: var(--_text);
  box-shadow: 0 12px 40px rgb(0 0 0 / 0.22);
  overflow-wrap: anywhere;
}
dialog { width: 27rem; max-width: calc(100vw - 24px); max-height: calc(100vh - 24px); overflow: auto; }
dialog::backdrop, .veil { background: light-dark(rgb(29 33 39 / 0.35), rgb(0 0 0 / 0.55)); }
section { position: fixed; inset: auto 16px 16px auto; margin: 0; width: 22rem; max-width: calc(100vw - 32px); padding: 16px 20px 20px; }
section::before { content: ''; position: absolute; inset: 0 auto 0 0; width: 4px; background: var(--_accent); }
section { overflow: hidden auto; }

:host([inline]) .veil { position: absolute; inset: 0; border-radius: inherit; background: light-dark(rgb(29 33 39 / 0.2), rgb(0 0 0 / 0.4)); }
:host([inline]) dialog { position: absolute; inset: 0; margin: auto; height: fit-content; max-width: calc(100% - 24px); max-height: calc(100% - 24px); }
:host([inline]) section { position: absolute; inset: auto 12px 12px 12px; width: auto; max-width: none; }

h2 { margin: 0 0 8px; font-size: 1.25rem; line-height: 1.3; font-weight: 650; text-wrap: balance; }
section h2 { font-size: 1.0625rem; }
h2:focus { outline: none; }
p { margin: 0 0 8px; }
/* No flex box: a <bdi> in it would become a flex item. */
.ticking { color: var(--_faint); font-variant-numeric: tabular-nums; }
.ticking::before { content: ''; display: inline-block; margin-inline-end: 8px; vertical-align: 0.1em; width: 8px; height: 8px; border-radius: 50%; background: currentColor; }
.said { margin-top: 12px; padding: 8px 12px; border-radius: calc(var(--_round) / 2); border: 1px solid var(--_line); }
.said.bad { border-color: var(--_danger); color: var(--_danger); }
pre {
  max-height: 9rem; margin: 0 0 8px; padding: 8px 12px; overflow: auto; border-inline-start: 3px solid var(--_line); color: var(--_faint);
  font: inherit; white-space: pre-wrap; overflow-wrap: anywhere;
}
pre:focus-visible { outline: 3px solid var(--_accent); outline-offset: -3px; }
label { display: block; margin-top: 12px; color: var(--_faint); }
input {
  display: block; box-sizing: border-box; width: 100%; min-height: 44px; margin-top: 4px; padding: 8px 12px;
  border: 1px solid var(--_faint); border-radius: calc(var(--_round) / 2); background: transparent; color: inherit; font: inherit;
}
.choices:empty { display: none; }
.choices { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 16px; }
button {
  flex: 1 1 auto; min-width: 44px; min-height: 44px; padding: 8px 16px; cursor: pointer;
  border: 1px solid var(--_faint); border-radius: calc(var(--_round) / 2); background: transparent; color: inherit; font: inherit; font-weight: 550;
}
button:hover { background: light-dark(rgb(29 33 39 / 0.06), rgb(255 255 255 / 0.08)); }
button.primary, button.primary:hover { border-color: var(--_accent); background: var(--_accent); color: var(--_on-accent); }
button.danger, button.danger:hover { border-color: var(--_danger); background: var(--_danger); color: var(--_on-danger); }
button.primary:hover, button.danger:hover { filter: brightness(1.08); }
button:disabled { border-style: dashed; background: transparent; color: var(--_faint); cursor: not-allowed; filter: none; }
button[aria-disabled=true] { cursor: progress; }
:is(button, input):focus-visible { outline: 3px solid var(--_accent); outline-offset: 2px; }

@media (prefers-reduced-motion: no-preference) {
  dialog[open], section:popover-open, :host([inline]) section { animation: come 0.18s ease-out; }
  @keyframes come { from { opacity: 0; transform: translateY(8px); } }
}
@media (forced-colors: active) { .ticking::before { background: CanvasText; } }
`;
