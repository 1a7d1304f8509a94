import { createHmac, timingSafeEqual } from 'node:crypto';

/** Whether Lockhouse has signed this: the headers, in lower case, and the body as it came. */
export function isSigned(secret, headers, body) {
  const { 'webhook-id': id, 'webhook-timestamp': time, 'webhook-signature': given = '' } = headers;
  if (!(Math.abs(Date.now() / 1000 - time) < 300)) return false; // old: somebody repeats it
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  const signature = 'v1,' + createHmac('sha256', key).update(`${id}.${time}.${body}`).digest('base64');
  return given.split(' ').some((one) => one.length === signature.length && timingSafeEqual(Buffer.from(one), Buffer.from(signature)));
}
