import { isolate } from './dialog-surface.js';
import { age, idleMs } from './dialog-time.js';
import { Refusal } from './refusal.js';

/** A holder who was active less than this ago counts as active now (milliseconds). */
const ACTIVE_MS = 5_000;

/** @typedef {import('./lock.js').View} View */
/** @typedef {import('./dialog-surface.js').Panel} Panel */
/** @typedef {import('./dialog-surface.js').Choice} Choice */
/** The step of a choice that needs more than one.
 * @typedef {'' | 'ask' | 'take-over'} Step */
/** What a panel is made from: the lock, the dialog's state and its actions.
 * @typedef {object} Context
 * @property {import('./lock.js').WorkspaceLock} lock
 * @property {import('./dialog-texts.js').Texts} texts
 * @property {boolean} isOpen the dialog is open.
 * @property {boolean} isOffline there has been no connection for a while.
 * @property {boolean} isRefused the server has refused a takeover of this lease.
 * @property {boolean} hasDeclined the holder has declined.
 * @property {boolean} isSameBrowser the other tab of this person that holds the lock is in this browser.
 * @property {{ at: number, of: number } | null} place in the queue, from 1, if known.
 * @property {number} askAgainInMs until the holder, who declined, can be asked again; 0 if now.
 * @property {number} waitingSeen length of the queue that the holder has acknowledged.
 * @property {() => void} markWaitingSeen
 * @property {string} problem the error of the last action.
 * @property {Step} step
 * @property {(step: Step) => void} setStep
 * @property {(action: () => unknown) => unknown} run runs an action and shows its error.
 * @property {() => void} readOnly
 */

/** The content of the dialog.
 * @param {Context} context @returns {Panel} */
export function mainPanel(context) {
  const { lock, texts, step } = context;
  const { state, holder, isOtherTab } = lock.view;
  const said = context.problem || (context.hasDeclined && holder ? texts.declined(nameOf(texts, holder)) : undefined);
  /** @param {Panel} panel */
  const panel = (panel) => ({ ...panel, said, isBad: Boolean(context.problem) });
  if (state === 'waiting') return panel(waiting(context));
  if (state === 'unknown') {
    return panel({
      key: 'unknown',
      // A refusal means that the server was reached.
      title: context.problem && context.problem !== texts.notReached ? texts.cannotEdit : texts.unknown,
      text: [texts.unknownText],
      choices: [choice('try-again', texts.tryAgain, () => context.run(() => lock.acquire()), 'primary'), readOnly(context)],
    });
  }
  if (isOtherTab) {
    return panel({
      key: 'other-tab',
      title: context.isSameBrowser ? texts.otherTab : texts.elsewhere,
      text: [context.isSameBrowser ? texts.otherTabText : texts.elsewhereText],
      choices: [choice('edit-here', texts.editHere, () => context.run(() => lock.takeOver()), 'primary'), readOnly(context)],
    });
  }
  if (!holder || state === 'free') return panel(free(context));
  if (step === 'ask') return panel(ask(context, holder));
  if (step === 'take-over') return panel(takeOver(context, holder));
  return panel(held(context, holder));
}

/** The content of the notice; null when there is nothing to show.
 * @param {Context} context @returns {Panel | null} */
export function noticePanel(context) {
  const { lock, texts } = context;
  const { state, knock } = lock.view;
  if (state === 'waiting' && !context.isOpen) {
    const { choices, ...panel } = waiting(context);
    return { ...panel, choices: choices.filter(({ key }) => key === 'stop-waiting') };
  }
  if (state !== 'held') return null;
  if (knock) return knocked(context, knock);
  if (lock.draft?.found) return draft(context, lock.draft, lock.draft.found);
  if (lock.view.waiting > context.waitingSeen) return othersWait(context, lock.view.waiting);
  return context.isOffline ? { key: 'offline', title: texts.offline, text: [texts.offlineText], choices: [] } : null;
}

/** What to show for an error of an action. An error of the app's `beforeRelease` is shown as it is, the browser's own messages are not.
 * @param {import('./dialog-texts.js').Texts} texts @param {unknown} error */
export function errorText(texts, error) {
  if (error instanceof Refusal) return texts.refused(error);
  const isFromApp = error instanceof Error && !(error instanceof TypeError) && !(error instanceof DOMException) && error.message;
  return isFromApp || texts.notReached;
}

/** @param {Context} context @param {import('./client.js').Lock} holder @returns {Panel} */
function held(context, holder) {
  const { lock, texts, isRefused } = context;
  const { state, loss } = lock.view;
  const name = nameOf(texts, holder);
  const isLost = state === 'lost' && loss;
  return {
    key: 'held-by-other',
    title: isLost ? texts.lost : texts.isEditing(name),
    text: [
      ...(isLost ? why(context, loss) : [texts.canRead(name)]),
      ...(holder.note ? [texts.note(isolate(holder.note))] : []),
      ...(isRefused ? [texts.takeOverRefused] : []),
      ...(context.isOffline ? [texts.notConnected] : []),
    ],
    ticking: () => activity(context, holder),
    choices: [
      choice('wait', texts.wait, () => context.run(() => lock.wait()), 'primary'),
      { ...choice('ask', context.askAgainInMs ? askAgainLabel(context, name) : texts.ask, () => context.setStep('ask')), isOff: context.askAgainInMs > 0 },
      { ...choice('take-over', texts.takeOver, () => context.setStep('take-over')), isOff: isRefused },
      readOnly(context),
    ],
  };
}

/** @param {Context} context @returns {Panel} */
function free(context) {
  const { lock, texts, problem } = context;
  const { state, loss } = lock.view;
  const isLost = state === 'lost' && loss;
  const isFree = !loss?.comesBack && loss?.reason !== 'member_removed' && loss?.reason !== 'workspace_deleted';
  return {
    key: 'free',
    title: isLost ? texts.lost : problem ? texts.cannotEdit : texts.free,
    text: [...(isLost ? why(context, loss) : []), ...(isFree && !problem ? [texts.freeText] : [])],
    choices: [
      choice('edit', isLost ? texts.editAgain : texts.edit, () => context.run(() => lock.acquire()), 'primary'),
      readOnly(context),
    ],
  };
}

/** @param {Context} context @param {import('./client.js').Lock} holder @returns {Panel} */
const ask = (context, holder) => ({
  key: 'ask',
  title: context.texts.askTitle(nameOf(context.texts, holder)),
  text: [context.texts.askText],
  field: context.texts.askLabel,
  choices: [
    choice('send-ask', context.texts.sendAsk, (message) => context.run(() => context.lock.ask(message)), 'primary'),
    back(context),
  ],
});

/** @param {Context} context @param {import('./client.js').Lock} holder @returns {Panel} */
const takeOver = (context, holder) => ({
  key: 'take-over',
  title: context.texts.takeOverTitle(nameOf(context.texts, holder)),
  text: [context.texts.takeOverText(nameOf(context.texts, holder))],
  ticking: () => activity(context, holder),
  choices: [
    choice('confirm-take-over', context.texts.confirmTakeOver, () => context.run(() => context.lock.takeOver()), 'danger'),
    back(context),
  ],
});

/** @param {Context} context @returns {Panel} */
function waiting(context) {
  const { lock, texts, readOnly, place } = context;
  const { holder, hasAsked, hasPlace } = lock.view;
  const name = holder ? nameOf(texts, holder) : '';
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
      ...(holder && context.hasDeclined ? [askAgain(context, name)] : []),
      choice('read-meanwhile', texts.readMeanwhile, readOnly),
      choice('stop-waiting', texts.stopWaiting, () => lock.cancel()),
    ],
  };
}

/** Disabled until the server accepts another request.
 * @param {Context} context @param {string} name @returns {Choice} */
const askAgain = (context, name) => ({
  ...choice('ask-again', askAgainLabel(context, name), () => context.run(() => context.lock.ask())),
  isOff: context.askAgainInMs > 0,
});

/** @param {Context} context @param {string} name */
const askAgainLabel = ({ texts, askAgainInMs }, name) =>
  askAgainInMs ? texts.askAgainIn(name, texts.duration(Math.max(1_000, askAgainInMs))) : texts.askAgain(name);

/** Tells the holder that somebody waits, until the holder acknowledges it.
 * @param {Context} context @param {number} count @returns {Panel} */
const othersWait = ({ texts, markWaitingSeen }, count) => ({
  key: 'others-wait',
  title: texts.othersWait(count),
  text: [texts.othersWaitText],
  choices: [choice('seen', texts.seen, markWaitingSeen)],
});

/** @param {Context} context @param {import('./client.js').Knock} knock @returns {Panel} */
function knocked({ lock, texts, problem, run }, knock) {
  const name = knock.agent ? agentName(texts, knock.agent) : displayName(knock.name, knock.user_id);
  return {
    key: 'knock ' + (knock.kind ?? '') + knock.user_id,
    title: texts.knock(name),
    text: knock.message ? [texts.note(isolate(knock.message))] : [],
    ticking: () => {
      const left = leftMs(knock);
      return left === null ? '' : texts.passesIn(name, texts.duration(left));
    },
    said: problem || undefined,
    isBad: true,
    choices: [
      choice('hand-over', lock.beforeRelease ? texts.saveAndHandOver : texts.handOver, () => run(() => lock.handOver(knock.user_id)), 'primary'),
      choice('decline', texts.decline, () => run(() => lock.decline())),
    ],
  };
}

/** The unsaved text was restored, or is offered beside what others saved.
 * @param {Context} context @param {import('./draft.js').Draft} draft @param {import('./draft.js').Found} found @returns {Panel} */
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
    text: [by && byAt ? texts.draftBy(displayName(by.name, by.userId), texts.time(byAt)) : texts.draftText],
    quote: text,
    choices: [choice('use-draft', texts.useDraft, () => draft.use()), drop],
  };
}

/** Why the lock was lost.
 * @param {Context} context @param {NonNullable<View['loss']>} loss */
function why({ lock, texts }, loss) {
  if (loss.comesBack) return [texts.comingBack, texts.unsaved];
  const { reason, by, changed, at, unansweredMs } = loss;
  const { holder } = lock.view;
  // For a handover `by` is the user who handed it over; the text names the new holder.
  const name = reason === 'handed_over' && holder ? nameOf(texts, holder) : by && displayName(by.name, by.userId);
  const silence = unansweredMs === undefined ? undefined : texts.duration(unansweredMs);
  return [texts.reasons[reason](name, texts.time(Date.parse(at)), silence), texts.unsaved, ...(changed ? [texts.changed] : [])];
}

/** @param {Pick<Context, 'texts'>} context @param {import('./client.js').Lock} holder */
function activity({ texts }, holder) {
  const idle = idleMs(holder);
  return idle < ACTIVE_MS ? texts.activeNow(nameOf(texts, holder)) : texts.active(nameOf(texts, holder), texts.duration(idle));
}

/** Milliseconds until the automatic grant; null if there is none.
 * @param {import('./client.js').Knock} knock */
const leftMs = (knock) => (knock.auto_grant_in_ms === null ? null : Math.max(0, knock.auto_grant_in_ms - age(knock)));

/** @param {string | null | undefined} name @param {string} userId */
const displayName = (name, userId) => isolate(name?.trim() || userId);

/** The name of an agent says for whom it acts.
 * @param {import('./dialog-texts.js').Texts} texts @param {import('./client.js').Agent} agent */
const agentName = (texts, { name, for_user_id, for_name }) => texts.agent(name && isolate(name), displayName(for_name, for_user_id));

/** @param {import('./dialog-texts.js').Texts} texts @param {import('./client.js').Lock} lock */
const nameOf = (texts, { agent, locked_by_name, locked_by_user_id }) =>
  agent ? agentName(texts, agent) : displayName(locked_by_name, locked_by_user_id);

/** @param {string} key @param {string} label @param {Choice['act']} act @param {Choice['look']} [look] @returns {Choice} */
const choice = (key, label, act, look) => ({ key, label, act, ...(look && { look }) });

/** @param {Context} context */
const readOnly = ({ texts, readOnly }) => choice('read-only', texts.readOnly, readOnly);

/** @param {Context} context */
const back = ({ texts, setStep }) => choice('back', texts.back, () => setStep(''));
