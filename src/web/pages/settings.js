// The settings of this device: colours and time zone.

import { device } from './storage.js';

const CHOICES = { theme: ['system', 'light', 'dark'], time: ['local', 'utc'] };

/** The chosen value, or the default. */
const chosen = Object.fromEntries(
  Object.entries(CHOICES).map(([name, choices]) => [name, choices.find((choice) => choice === device.get(name)) ?? choices[0]]),
);

/** Whether instants are shown in UTC instead of local time. */
export const isUtc = () => chosen.time === 'utc';

const dress = () => (document.documentElement.dataset.theme = chosen.theme);
// At once, before the rest of the console is rendered.
dress();

/** Connects the two lists in the footer. `onTime` is called when the time zone changes. */
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
