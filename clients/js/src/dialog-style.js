/** How the dialog looks. It follows the page's `color-scheme`; the custom properties and the parts are for the page. */
export const STYLE = `
:host {
  --back: var(--lockhouse-background, light-dark(#ffffff, #22252b));
  --text: var(--lockhouse-text, light-dark(#1d2127, #eceef1));
  --faint: var(--lockhouse-faint, light-dark(#59606b, #a9b0bb));
  --line: var(--lockhouse-line, light-dark(#c9ced6, #4a505b));
  --accent: var(--lockhouse-accent, light-dark(#2456c7, #9db8ff));
  --on-accent: var(--lockhouse-on-accent, light-dark(#ffffff, #10141c));
  --danger: var(--lockhouse-danger, light-dark(#b3261e, #ffb4ab));
  --on-danger: var(--lockhouse-on-danger, light-dark(#ffffff, #1c0b09));
  --round: var(--lockhouse-radius, 12px);
  font: var(--lockhouse-font, 16px/1.5 system-ui, sans-serif);
  display: contents;
}
[hidden] { display: none !important; }
.heard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
dialog, section {
  box-sizing: border-box;
  padding: 24px;
  border: 1px solid var(--line);
  border-radius: var(--round);
  background: var(--back);
  color: var(--text);
  box-shadow: 0 12px 40px rgb(0 0 0 / 0.22);
  overflow-wrap: anywhere;
}
dialog { width: 27rem; max-width: calc(100vw - 24px); max-height: calc(100vh - 24px); overflow: auto; }
dialog::backdrop, .veil { background: light-dark(rgb(29 33 39 / 0.35), rgb(0 0 0 / 0.55)); }
section { position: fixed; inset: auto 16px 16px auto; margin: 0; width: 22rem; max-width: calc(100vw - 32px); padding: 16px 20px 20px; }
section::before { content: ''; position: absolute; inset: 0 auto 0 0; width: 4px; background: var(--accent); }
section { overflow: hidden auto; }

:host([inline]) .veil { position: absolute; inset: 0; border-radius: inherit; }
:host([inline]) dialog { position: absolute; inset: 0; margin: auto; height: fit-content; max-width: calc(100% - 24px); max-height: calc(100% - 24px); }
:host([inline]) section { position: absolute; inset: auto 12px 12px 12px; width: auto; max-width: none; }

h2 { margin: 0 0 8px; font-size: 1.25rem; line-height: 1.3; font-weight: 650; text-wrap: balance; }
section h2 { font-size: 1.0625rem; }
h2:focus { outline: none; }
p { margin: 0 0 8px; }
.ticking { display: flex; align-items: center; gap: 8px; color: var(--faint); font-variant-numeric: tabular-nums; }
.ticking::before { content: ''; flex: none; width: 8px; height: 8px; border-radius: 50%; background: currentColor; }
.said { margin-top: 12px; padding: 8px 12px; border-radius: calc(var(--round) / 2); border: 1px solid var(--line); }
.said.bad { border-color: var(--danger); color: var(--danger); }
label { display: block; margin-top: 12px; color: var(--faint); }
input {
  display: block; box-sizing: border-box; width: 100%; min-height: 44px; margin-top: 4px; padding: 8px 12px;
  border: 1px solid var(--faint); border-radius: calc(var(--round) / 2); background: transparent; color: inherit; font: inherit;
}
.choices { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 16px; }
button {
  flex: 1 1 auto; min-width: 44px; min-height: 44px; padding: 8px 16px; cursor: pointer;
  border: 1px solid var(--faint); border-radius: calc(var(--round) / 2); background: transparent; color: inherit; font: inherit; font-weight: 550;
  transition: background-color 0.15s;
}
button:hover { background: light-dark(rgb(29 33 39 / 0.06), rgb(255 255 255 / 0.08)); }
button.primary, button.primary:hover { border-color: var(--accent); background: var(--accent); color: var(--on-accent); }
button.danger, button.danger:hover { border-color: var(--danger); background: var(--danger); color: var(--on-danger); }
button.primary:hover, button.danger:hover { filter: brightness(1.08); }
button:disabled { border-style: dashed; background: transparent; color: var(--faint); cursor: not-allowed; filter: none; }
button[aria-disabled=true] { cursor: progress; }
:is(button, input):focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }

@media (prefers-reduced-motion: no-preference) {
  dialog[open], section:popover-open, :host([inline]) section { animation: come 0.18s ease-out; }
  @keyframes come { from { opacity: 0; transform: translateY(8px); } }
}
@media (prefers-reduced-motion: reduce) { button { transition: none; } }
@media (forced-colors: active) { .ticking::before { background: CanvasText; } }
`;
