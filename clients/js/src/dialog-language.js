import { TEXTS } from './dialog-texts.js';

/** @typedef {import('./dialog-texts.js').Texts} Texts */

/** Languages besides English. @type {Record<string, (() => Promise<{ default: Texts }>) | undefined>} */
const LANGUAGES = {
  de: () => import('./dialog-de.js'),
  es: () => import('./dialog-es.js'),
  fr: () => import('./dialog-fr.js'),
};

/** The language of an element, from its nearest `lang` attribute, without the region (`de` for `de-AT`). English if it is not supported.
 * @param {Element} element */
export function languageOf(element) {
  const language = element.closest('[lang]')?.getAttribute('lang')?.toLowerCase().split('-')[0] ?? '';
  return Object.hasOwn(LANGUAGES, language) ? language : 'en';
}

/** Loads the texts of a language. English if they cannot be loaded.
 * @param {string} language @returns {Promise<Texts>} */
export async function loadTexts(language) {
  return (await LANGUAGES[language]?.().catch(() => undefined))?.default ?? TEXTS;
}
