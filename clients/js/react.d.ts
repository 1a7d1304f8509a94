// What `lockhouse/react` gives, and `<lockhouse-dialog>` in JSX. React's types are the app's own; this needs no others.
import type { LockhouseDialog, SomeTexts } from './types/dialog.js';
import type { WorkspaceLock } from './types/lock.js';

export * from './types/react.js';

declare module 'react' {
  namespace JSX {
    interface IntrinsicElements {
      'lockhouse-dialog': DetailedHTMLProps<HTMLAttributes<LockhouseDialog>, LockhouseDialog> & {
        lock?: WorkspaceLock | null;
        texts?: SomeTexts;
        inline?: boolean;
        notify?: boolean;
        sound?: boolean;
        /** The person chose to read only. */
        onreadonly?: (event: Event) => void;
        onopen?: (event: Event) => void;
        onclose?: (event: Event) => void;
      };
    }
  }
}
