// Asking the management API for what the board shows.

import { get } from './api.js';
import { narrow } from './dom.js';

/** windowOf is the time that is shown, and the one before it that it is compared with. */
export function windowOf(range, now) {
  const start = new Date(now);
  if (range <= 7) {
    start.setMinutes(0, 0, 0);
    start.setHours(start.getHours() - range * 24 + 1);
    return { range, interval: 'hour', buckets: range * 24, start, before: new Date(start - range * 86_400_000) };
  }
  start.setHours(0, 0, 0, 0);
  start.setDate(start.getDate() - range + 1);
  return { range, interval: 'day', buckets: range, start, before: new Date(start - range * 86_400_000) };
}

/** askRevenue asks for the window that is shown, and once for the one before it, which does not change any more but for what goes back of it. */
export async function askRevenue(mine, w, query) {
  const id = `${w.before.getTime()} ${w.interval}`;
  const [now, before] = await Promise.all([
    get('revenue', { since: w.start.toISOString(), ...query }),
    mine.before?.id === id ? mine.before.revenue : get('revenue', { since: w.before.toISOString(), until: w.start.toISOString(), ...query }),
  ]);
  mine.before = { id, revenue: before };
  mine.revenue = now;
  mine.window = w;
}

export const aPage = () => (narrow() ? 10 : 20);

export async function askPayments(mine) {
  const { state, text } = mine.filter;
  if (/^pay_/.test(text)) {
    try {
      mine.payments = { data: [await get(`payments/${encodeURIComponent(text)}`)], page: {} };
    } catch (e) {
      if (e.status !== 404) throw e;
      mine.payments = { data: [], page: {} };
    }
    return;
  }
  mine.payments = await get('payments', { state, payer: text, limit: aPage() });
}

export async function askRefunds(mine) {
  [mine.failed, mine.plan, mine.settling] = await Promise.all([get('refunds', { status: 'failed', limit: 50 }), get('refunds/plan'), get('payments', { state: 'SETTLING', limit: 100 })]);
}

export async function askHooks(mine) {
  const { data } = await get('webhooks', { limit: 20 });
  mine.hooks = await Promise.all(data.map(async (endpoint) => ({
    endpoint, deliveries: (await get(`webhooks/${encodeURIComponent(endpoint.id)}/deliveries`, { limit: 10 })).data,
  })));
}

export async function askKeys(mine) {
  [mine.keys, mine.usage] = await Promise.all([get('api-keys', { limit: 100 }), get('api-keys/usage', { windowDays: 7 })]);
}
