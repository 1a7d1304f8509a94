export { Lockhouse } from './client.js';
export { Refusal } from './refusal.js';
