import { Lockhouse } from '/client/index.js';

export const client = new Lockhouse({ userId: 'console' });
