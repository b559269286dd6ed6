// Asking the management API for what the board shows.

import { get } from './api.js';
import { narrow } from './dom.js';

/** windowOf is the time that is shown, and the one before it that it is compared with. */
export function windowOf(range, now) {
  const start = new Date(now);
  if (range <= 7) {
    start.setMinutes(0, 0, 0);
    start.setHours(start.getHours() - range * 24 + 1);
    return { range, interval: 'hour', start, before: new Date(start - range * 86_400_000) };
  }
  start.setHours(0, 0, 0, 0);
  start.setDate(start.getDate() - range + 1);
  return { range, interval: 'day', start, before: new Date(start - range * 86_400_000) };
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

/** askPayments asks for those that are sifted, unless others are wanted when they come. */
export async function askPayments(mine) {
  const { filter } = mine;
  const found = /^pay_/.test(filter.text) ? await findPayment(filter.text) : await listPayments(filter);
  if (mine.filter === filter) mine.payments = found;
}

async function findPayment(id) {
  try {
    return { data: [await get(`payments/${encodeURIComponent(id)}`)], page: {} };
  } catch (e) {
    if (e.status !== 404) throw e;
    return { data: [], page: {} };
  }
}

/** listPayments gives as many pages as were asked for. What can't be looked for is not found, and `why` says so. */
async function listPayments({ state, text, pages }) {
  const data = [];
  let page = {};
  for (let n = 0; n < pages && (n === 0 || page.next); n++) {
    let more;
    try {
      more = await get('payments', { state, payer: text, limit: narrow() ? 10 : 20, cursor: page.next });
    } catch (e) {
      if (e.status !== 400 || n > 0) throw e;
      return { data, page: {}, why: e.message };
    }
    data.push(...more.data);
    page = more.page;
  }
  return { data, page };
}

const tooLong = 600_000; // of settling

export async function askRefunds(mine) {
  [mine.failed, mine.plan, mine.stuck] = await Promise.all([
    get('refunds', { status: 'failed', limit: 50 }), get('refunds/plan'), get('payments', { state: 'SETTLING', until: new Date(Date.now() - tooLong).toISOString(), limit: 100 }),
  ]);
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
