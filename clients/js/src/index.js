export { Lockhouse } from './client.js';
export { NotHeld, WorkspaceLock } from './lock.js';
export { Refusal } from './refusal.js';
