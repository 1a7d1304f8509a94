import assert from 'node:assert/strict';
import { test } from 'node:test';
import de from '../src/dialog-de.js';
import es from '../src/dialog-es.js';
import fr from '../src/dialog-fr.js';
import { Refusal } from '../src/refusal.js';
import { TEXTS } from '../src/dialog-texts.js';

/** Every text with example arguments; `reasons` with and without a name.
 * @param {import('../src/dialog-texts.js').Texts} texts */
function sentences(texts) {
  const { reasons, duration, time, refused, othersWait, place, ...rest } = texts;
  const said = Object.entries(rest).map(([key, text]) => [key, typeof text === 'function' ? text('Alice', '30 s') : text]);
  for (const [reason, why] of Object.entries(reasons)) {
    for (const name of ['Alice', null]) said.push([`${reason} ${name}`, why(name, '12:00'), why(name, '12:00', '30 s')]);
  }
  for (const count of [1, 2]) said.push([`othersWait ${count}`, othersWait(count)]);
  said.push(['place', place(2, 3)]);
  for (const [status, code] of [[401, 'unauthenticated'], [403, 'not_a_member'], [403, 'forbidden'], [404, 'workspace_not_found'], [503, 'busy']]) {
    said.push([code, refused(new Refusal({ status, code, detail: 'What the server says, in English.' }))]);
  }
  return new Map(said.map(([key, ...texts]) => [key, texts.join('\n')]));
}

test('every text is translated, and contains the same names as the English one', () => {
  const english = sentences(TEXTS);
  for (const [language, texts] of Object.entries({ de, es, fr })) {
    const translated = sentences(texts);
    assert.deepEqual([...translated.keys()], [...english.keys()], language);
    for (const [key, text] of translated) {
      if (key !== 'seen' && key !== 'note') assert.notEqual(text, english.get(key), `${language} ${key}`);
      assert.ok(!text.includes('undefined') && !text.includes('null') && !text.includes('English'), `${language} ${key}: ${text}`);
    }
    const named = ['isEditing', 'active', 'askTitle', 'takeOverTitle', 'askAgainIn', 'knock', 'passesIn', 'grantedIn', 'taken_over Alice'];
    for (const key of named) assert.ok(translated.get(key).includes('Alice'), `${language} ${key}`);
  }
});

test('a French text has no elision before a name, and a no-break space before its punctuation', () => {
  for (const [key, text] of sentences(fr)) {
    assert.doesNotMatch(text, / [:;?!»]|« |\b(de|que) Alice/, key);
    assert.match(text, /^[^a-zà-ÿ]/, key);
  }
});
