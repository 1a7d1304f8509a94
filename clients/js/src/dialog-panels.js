import { isolate } from './dialog-surface.js';
import { age, idleMs } from './dialog-time.js';

/** Whoever did something less than this ago is active now (milliseconds). */
const NOW_MS = 5_000;

/** @typedef {import('./lock.js').View} View */
/** @typedef {import('./dialog-surface.js').Panel} Panel */
/** @typedef {import('./dialog-surface.js').Choice} Choice */
/** What the person has begun to choose.
 * @typedef {'' | 'ask' | 'take-over'} Step */
/** What is known, and what can be done.
 * @typedef {object} There
 * @property {import('./lock.js').WorkspaceLock} lock
 * @property {import('./dialog-texts.js').Texts} texts
 * @property {boolean} isOpen the dialog is open.
 * @property {boolean} isOffline there has been no connection for a while.
 * @property {boolean} isRefused the server has refused a takeover of this lease.
 * @property {boolean} hasDeclined the holder has said no.
 * @property {boolean} isNear whoever has it in another tab of this person is in this browser.
 * @property {{ at: number, of: number } | null} place in line, from 1, where that is known.
 * @property {number} askAgainInMs until the holder, who declined, can be asked again; 0 when they can.
 * @property {number} waitingSeen how many stood in line when the holder had last seen that.
 * @property {() => void} seeWaiting
 * @property {string} problem why the last thing that was done did not go well.
 * @property {Step} step
 * @property {(step: Step) => void} begin
 * @property {(act: () => unknown) => unknown} act does something that takes its time.
 * @property {() => void} readOnly
 */

/** What the dialog shows to somebody who wants to edit.
 * @param {There} there @returns {Panel} */
export function asking(there) {
  const { lock, texts, step } = there;
  const { state, holder, isOtherTab } = lock.view;
  const said = there.problem || (there.hasDeclined && holder ? texts.declined(nameOf(holder)) : undefined);
  /** @param {Panel} panel */
  const panel = (panel) => ({ ...panel, said, isBad: Boolean(there.problem) });
  if (state === 'waiting') return panel(waiting(there));
  if (state === 'unknown') {
    return panel({
      key: 'unknown',
      // The server was reached if it refused.
      title: there.problem && there.problem !== texts.notReached ? texts.cannotEdit : texts.unknown,
      text: [texts.unknownText],
      choices: [choice('try-again', texts.tryAgain, () => there.act(() => lock.acquire()), 'primary'), readOnly(there)],
    });
  }
  if (isOtherTab) {
    return panel({
      key: 'other-tab',
      title: there.isNear ? texts.otherTab : texts.elsewhere,
      text: [there.isNear ? texts.otherTabText : texts.elsewhereText],
      choices: [choice('edit-here', texts.editHere, () => there.act(() => lock.takeOver()), 'primary'), readOnly(there)],
    });
  }
  if (!holder || state === 'free') return panel(free(there));
  if (step === 'ask') return panel(ask(there, holder));
  if (step === 'take-over') return panel(takeOver(there, holder));
  return panel(held(there, holder));
}

/** What is told beside the work.
 * @param {There} there @returns {Panel | null} */
export function notice(there) {
  const { lock, texts } = there;
  const { state, knock } = lock.view;
  if (state === 'waiting' && !there.isOpen) {
    const { choices, ...panel } = waiting(there);
    return { ...panel, choices: choices.filter(({ key }) => key === 'stop-waiting') };
  }
  if (state !== 'held') return null;
  if (knock) return knocked(there, knock);
  if (lock.draft?.found) return draft(there, lock.draft, lock.draft.found);
  if (lock.view.waiting > there.waitingSeen) return othersWait(there, lock.view.waiting);
  return there.isOffline ? { key: 'offline', title: texts.offline, text: [texts.offlineText], choices: [] } : null;
}

/** @param {There} there @param {import('./client.js').Lock} holder @returns {Panel} */
function held(there, holder) {
  const { lock, texts, isRefused } = there;
  const { state, loss } = lock.view;
  const name = nameOf(holder);
  const isLost = state === 'lost' && loss;
  return {
    key: 'held-by-other',
    title: isLost ? texts.lost : texts.isEditing(name),
    text: [
      ...(isLost ? why(there, loss) : [texts.canRead(name)]),
      ...(holder.note ? [texts.note(isolate(holder.note))] : []),
      ...(isRefused ? [texts.takeOverRefused] : []),
      ...(there.isOffline ? [texts.notConnected] : []),
    ],
    ticking: () => activity(there, holder),
    choices: [
      choice('wait', texts.wait, () => there.act(() => lock.wait()), 'primary'),
      { ...choice('ask', there.askAgainInMs ? askAgainLabel(there, name) : texts.ask, () => there.begin('ask')), isOff: there.askAgainInMs > 0 },
      { ...choice('take-over', texts.takeOver, () => there.begin('take-over')), isOff: isRefused },
      readOnly(there),
    ],
  };
}

/** @param {There} there @returns {Panel} */
function free(there) {
  const { lock, texts, problem } = there;
  const { state, loss } = lock.view;
  const isLost = state === 'lost' && loss;
  const isFree = !loss?.comesBack && loss?.reason !== 'member_removed' && loss?.reason !== 'workspace_deleted';
  return {
    key: 'free',
    title: isLost ? texts.lost : problem ? texts.cannotEdit : texts.free,
    text: [...(isLost ? why(there, loss) : []), ...(isFree && !problem ? [texts.freeText] : [])],
    choices: [
      choice('edit', isLost ? texts.editAgain : texts.edit, () => there.act(() => lock.acquire()), 'primary'),
      readOnly(there),
    ],
  };
}

/** @param {There} there @param {import('./client.js').Lock} holder @returns {Panel} */
const ask = (there, holder) => ({
  key: 'ask',
  title: there.texts.askTitle(nameOf(holder)),
  text: [there.texts.askText],
  field: there.texts.askLabel,
  choices: [
    choice('send-ask', there.texts.sendAsk, (message) => there.act(() => there.lock.ask(message)), 'primary'),
    back(there),
  ],
});

/** @param {There} there @param {import('./client.js').Lock} holder @returns {Panel} */
const takeOver = (there, holder) => ({
  key: 'take-over',
  title: there.texts.takeOverTitle(nameOf(holder)),
  text: [there.texts.takeOverText(nameOf(holder))],
  ticking: () => activity(there, holder),
  choices: [
    choice('confirm-take-over', there.texts.confirmTakeOver, () => there.act(() => there.lock.takeOver()), 'danger'),
    back(there),
  ],
});

/** @param {There} there @returns {Panel} */
function waiting(there) {
  const { lock, texts, readOnly, place } = there;
  const { holder, hasAsked, hasPlace } = lock.view;
  const name = holder ? nameOf(holder) : '';
  const knock = holder?.knock?.user_id === lock.client.userId ? holder?.knock : null;
  return {
    key: 'waiting',
    title: texts.waiting,
    text: [
      !holder ? texts.waitingFree : hasAsked ? texts.asked(name) : texts.waitingFor(name),
      ...(hasPlace ? (place && holder ? [texts.place(place.at, place.of)] : []) : [texts.noPlace]),
    ],
    ticking: () => {
      const left = knock && leftMs(knock);
      return left === null ? (holder ? activity({ texts }, holder) : '') : texts.grantedIn(name, texts.duration(left));
    },
    choices: [
      ...(holder && there.hasDeclined ? [askAgain(there, name)] : []),
      choice('read-meanwhile', texts.readMeanwhile, readOnly),
      choice('stop-waiting', texts.stopWaiting, () => lock.cancel()),
    ],
  };
}

/** Who was declined can ask again, though not at once.
 * @param {There} there @param {string} name @returns {Choice} */
const askAgain = (there, name) => ({
  ...choice('ask-again', askAgainLabel(there, name), () => there.act(() => there.lock.ask())),
  isOff: there.askAgainInMs > 0,
});

/** @param {There} there @param {string} name */
const askAgainLabel = ({ texts, askAgainInMs }, name) =>
  askAgainInMs ? texts.askAgainIn(name, texts.duration(Math.max(1_000, askAgainInMs))) : texts.askAgain(name);

/** The holder sees that somebody waits, until they have seen it.
 * @param {There} there @param {number} count @returns {Panel} */
const othersWait = ({ texts, seeWaiting }, count) => ({
  key: 'others-wait',
  title: texts.othersWait(count),
  text: [texts.othersWaitText],
  choices: [choice('seen', texts.seen, seeWaiting)],
});

/** @param {There} there @param {import('./client.js').Knock} knock @returns {Panel} */
function knocked({ lock, texts, problem, act }, knock) {
  const name = called(knock.name, knock.user_id);
  return {
    key: 'knock ' + knock.user_id,
    title: texts.knock(name),
    text: knock.message ? [texts.note(isolate(knock.message))] : [],
    ticking: () => {
      const left = leftMs(knock);
      return left === null ? '' : texts.passesIn(name, texts.duration(left));
    },
    said: problem || undefined,
    isBad: true,
    choices: [
      choice('hand-over', lock.beforeRelease ? texts.saveAndHandOver : texts.handOver, () => act(() => lock.handOver(knock.user_id)), 'primary'),
      choice('decline', texts.decline, () => act(() => lock.decline())),
    ],
  };
}

/** What was typed and not saved is back, or is offered beside what others saved.
 * @param {There} there @param {import('./draft.js').Draft} draft @param {import('./draft.js').Found} found @returns {Panel} */
function draft({ texts }, draft, { text, at, by, byAt, isUsed }) {
  const time = texts.time(at);
  const drop = choice('drop-draft', texts.dropDraft, () => draft.discard());
  if (isUsed) {
    return {
      key: 'draft-back ' + at,
      title: texts.draftBack(time),
      text: [texts.draftBackText],
      choices: [choice('keep-draft', texts.keepDraft, () => draft.confirm(), 'primary'), drop],
    };
  }
  return {
    key: 'draft ' + at,
    title: texts.draft(time),
    text: [by && byAt ? texts.draftBy(called(by.name, by.userId), texts.time(byAt)) : texts.draftText],
    quote: text,
    choices: [choice('use-draft', texts.useDraft, () => draft.use()), drop],
  };
}

/** Why it was lost.
 * @param {There} there @param {NonNullable<View['loss']>} loss */
function why({ lock, texts }, loss) {
  if (loss.comesBack) return [texts.comingBack, texts.unsaved];
  const { reason, by, changed, at, unansweredMs } = loss;
  const { holder } = lock.view;
  // Whom it was given to, if that is known, and not who gave it.
  const name = reason === 'handed_over' && holder ? nameOf(holder) : by && called(by.name, by.userId);
  const silence = unansweredMs === undefined ? undefined : texts.duration(unansweredMs);
  return [texts.reasons[reason](name, texts.time(Date.parse(at)), silence), texts.unsaved, ...(changed ? [texts.changed] : [])];
}

/** @param {Pick<There, 'texts'>} there @param {import('./client.js').Lock} holder */
function activity({ texts }, holder) {
  const idle = idleMs(holder);
  return idle < NOW_MS ? texts.activeNow(nameOf(holder)) : texts.active(nameOf(holder), texts.duration(idle));
}

/** How long it is until it passes by itself, in milliseconds; null when it does not.
 * @param {import('./client.js').Knock} knock */
const leftMs = (knock) => (knock.auto_grant_in_ms === null ? null : Math.max(0, knock.auto_grant_in_ms - age(knock)));

/** @param {string | null | undefined} name @param {string} userId */
const called = (name, userId) => isolate(name?.trim() || userId);

/** @param {import('./client.js').Lock} lock */
const nameOf = (lock) => called(lock.locked_by_name, lock.locked_by_user_id);

/** @param {string} key @param {string} label @param {Choice['act']} act @param {Choice['look']} [look] @returns {Choice} */
const choice = (key, label, act, look) => ({ key, label, act, ...(look && { look }) });

/** @param {There} there */
const readOnly = ({ texts, readOnly }) => choice('read-only', texts.readOnly, readOnly);

/** @param {There} there */
const back = ({ texts, begin }) => choice('back', texts.back, () => begin(''));
