import { clockTime, duration } from './dialog-time.js';

/** The dialog's texts in English. `name`: the user who holds the lock or asks for it. */
export const TEXTS = {
  /** @param {number} ms */
  duration: (ms) => duration(ms),

  /** A point in time, in milliseconds since 1970.
   * @param {number} at */
  time: (at) => clockTime(at, 'en'),

  /** An AI agent: its name, if it has one, and the user for whom it acts.
   * @param {string | null} name @param {string} user */
  agent: (name, user) => (name ? `${name} (agent of ${user})` : `An agent of ${user}`),

  // Another user holds the lock.
  /** @param {string} name */
  isEditing: (name) => `${name} is editing`,
  /** @param {string} name */
  canRead: (name) => `You can read along. To edit, wait for ${name} to finish, ask, or take over.`,
  /** @param {string} note */
  note: (note) => `“${note}”`,
  /** @param {string} name */
  activeNow: (name) => `${name} was active just now`,
  /** @param {string} name @param {string} duration */
  active: (name, duration) => `${name} was active ${duration} ago`,
  notConnected: 'No connection to the server: this may be out of date.',
  /** @param {string} name */
  declined: (name) => `${name} keeps it for now.`,

  // Waiting and asking.
  waiting: 'You’re in the queue',
  /** @param {number} at @param {number} of */
  place: (at, of) => `You are number ${at} of ${of}.`,
  /** @param {string} name */
  askAgain: (name) => `Ask ${name} again`,
  /** @param {string} name @param {string} duration */
  askAgainIn: (name, duration) => `You can ask ${name} again in ${duration}`,
  /** @param {string} name */
  waitingFor: (name) => `You can edit as soon as ${name} has finished.`,
  waitingFree: 'It is free: one moment.',
  noPlace: 'This browser already waits in two queues. This tab tries when it is free; others may be quicker.',
  /** @param {string} name */
  asked: (name) => `${name} has been asked. You can edit as soon as ${name} agrees or has finished.`,
  /** @param {string} name @param {string} duration */
  grantedIn: (name, duration) => `Yours in ${duration}, unless ${name} says no`,
  /** @param {string} name */
  askTitle: (name) => `Ask ${name}`,
  askText: 'Meanwhile you wait in the queue.',
  askLabel: 'Message (optional)',

  // Taking over.
  /** @param {string} name */
  takeOverTitle: (name) => `Take over from ${name}?`,
  /** @param {string} name */
  takeOverText: (name) => `${name} will no longer be able to save. What ${name} has not saved yet stays in the page over there.`,
  takeOverRefused: 'You are not allowed to take over here.',

  // The lock was lost.
  lost: 'You are no longer editing',
  /** Why. `name`: the user who did it, or the new holder; null if unknown. `silence`: for an automatic grant, how long the person did not
   * answer the request.
   * @type {Record<import('./client.js').Lost['reason'], (name: string | null, time: string, silence?: string) => string>} */
  reasons: {
    taken_over: (name, time) => `${name ?? 'Somebody'} took over at ${time}.`,
    handed_over: (name, time, silence) =>
      `${silence ? `You did not answer for ${silence}: it` : 'It'} passed to ${name ?? 'somebody else'}, who had asked for it, at ${time}.`,
    expired: (name) => (name ? `You were away for too long, and ${name} began to edit.` : 'You were away for too long.'),
    released: () => 'It was released from elsewhere.',
    revoked: (name) => `${name ?? 'An administrator'} has ended it.`,
    member_removed: () => 'You are no longer a member of this workspace.',
    workspace_deleted: () => 'This workspace has been deleted.',
  },
  comingBack: 'It could not be renewed in time. Trying to get it back…',
  changed: 'Somebody else has had it since, so look at what has changed before you save.',
  unsaved: 'What you have not saved is still in this page.',

  // Free, or held by another tab of this person.
  free: 'It is free again',
  freeText: 'Nobody is editing now.',
  otherTab: 'You are editing this in another tab',
  otherTabText: 'It moves here, and the other tab becomes read-only.',
  elsewhere: 'You are editing this elsewhere',
  elsewhereText: 'In another browser, or on another device. It moves here, and becomes read-only there.',
  cannotEdit: 'This cannot be edited now',
  unknown: 'The server cannot be reached',
  unknownText: 'Who is editing is not known. You can read.',

  // For the holder.
  /** @param {string} name */
  knock: (name) => `${name} would like to edit`,
  /** @param {string} name @param {string} duration */
  passesIn: (name, duration) => `Passes to ${name} in ${duration} unless you answer`,
  /** @param {number} count */
  othersWait: (count) => (count === 1 ? 'Somebody is waiting to edit' : `${count} people are waiting to edit`),
  othersWaitText: 'They can edit as soon as you have finished.',
  seen: 'OK',
  offline: 'Connection lost',
  offlineText: 'You can go on for now. If it does not come back soon, somebody else may get the lock.',

  /** @param {import('./refusal.js').Refusal} refusal */
  refused: (refusal) => (refusal.status === 401 ? 'You are not signed in any more. Sign in again to edit.' : refusal.problem.detail),
  notReached: 'The server could not be reached. Try again.',

  // Drafts. `time`: when the text was typed.
  /** @param {string} time */
  draftBack: (time) => `Your text from ${time} is back`,
  draftBackText: 'It was not saved. Nobody has saved anything else since.',
  /** @param {string} time */
  draft: (time) => `Your text from ${time} was not saved`,
  draftText: 'What is saved has changed since, and is what you see. This is what you had typed:',
  /** @param {string} name @param {string} time */
  draftBy: (name, time) => `${name} has edited since (${time}). What is saved now is what you see. This is what you had typed:`,
  useDraft: 'Use my text',
  dropDraft: 'Discard my text',
  keepDraft: 'Go on with it',

  // Buttons.
  wait: 'Wait',
  ask: 'Ask…',
  sendAsk: 'Ask',
  takeOver: 'Take over…',
  confirmTakeOver: 'Take over',
  readOnly: 'Read only',
  stopWaiting: 'Stop waiting',
  readMeanwhile: 'Read meanwhile',
  edit: 'Edit',
  editAgain: 'Edit again',
  editHere: 'Edit here',
  tryAgain: 'Try again',
  back: 'Back',
  handOver: 'Hand over',
  saveAndHandOver: 'Save and hand over',
  decline: 'Not now',
};

/** @typedef {typeof TEXTS} Texts */
