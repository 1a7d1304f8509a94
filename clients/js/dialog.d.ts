// What `lockhouse/dialog` gives, and what `document.querySelector('lockhouse-dialog')` finds.
import type { LockhouseDialog } from './types/dialog.js';

export * from './types/dialog.js';

declare global {
  interface HTMLElementTagNameMap {
    'lockhouse-dialog': LockhouseDialog;
  }
}
