// What the reader has chosen on this device: the colours, and whose time is shown.

import { device } from './storage.js';

const CHOICES = { theme: ['system', 'light', 'dark'], time: ['local', 'utc'] };

/** What was chosen, or else the first choice. */
const chosen = Object.fromEntries(
  Object.entries(CHOICES).map(([name, choices]) => [name, choices.find((choice) => choice === device.get(name)) ?? choices[0]]),
);

/** Whether instants are shown in UTC, and not in the time of this machine. */
export const isUtc = () => chosen.time === 'utc';

const dress = () => (document.documentElement.dataset.theme = chosen.theme);
// Before the rest of the console is there.
dress();

/** Makes the two lists in the foot work. `onTime` is called when other instants are to be shown. */
export function offerSettings(onTime) {
  for (const name of Object.keys(CHOICES)) {
    const list = document.getElementById(name);
    list.value = chosen[name];
    list.addEventListener('change', () => {
      chosen[name] = list.value;
      device.set(name, list.value);
      if (name === 'time') onTime();
      else dress();
    });
  }
}
