export { Lockhouse } from './client.js';
export { WorkspaceLock } from './lock.js';
export { NotHeld, Refusal } from './refusal.js';
