// A made-up shop, for the pictures: half a year of sales, and, if that is wanted, all of an operator's troubles at once. It speaks the management
// API's language; the test checks that against the API's own description.

const network = 'eip155:8453';
const asset = '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913';
const coin = { network, asset, symbol: 'USDC' };
const minute = 60_000, hour = 60 * minute, day = 24 * hour;

/** chance gives the same numbers each time. */
function chance(seed) {
  let n = seed;
  return () => {
    n = (n * 1664525 + 1013904223) % 4294967296;
    return n / 4294967296;
  };
}

const hex = (random, length) => `0x${Array.from({ length }, () => '0123456789abcdef'[Math.floor(random() * 16)]).join('')}`;
const letters = (random, length) => Array.from({ length }, () => 'abcdefghijklmnopqrstuvwxyz0123456789'[Math.floor(random() * 36)]).join('');
const dollars = (atomic) => {
  const text = String(atomic).padStart(7, '0');
  return `${text.slice(0, -6)}.${text.slice(-6)}`.replace(/0+$/, '').replace(/\.$/, '');
};
const sum = (atomic) => ({ ...coin, amount: String(atomic), amountDecimal: dollars(atomic) });

/** sold is what was sold in an hour: more by day than by night, less at weekends, more from week to week. */
function sold(at, now) {
  const random = chance(Math.floor(at / hour));
  random();
  const t = new Date(at);
  const tide = 1 + 0.75 * Math.sin((t.getUTCHours() - 8) / 24 * 2 * Math.PI);
  const week = [0, 6].includes(t.getUTCDay()) ? 0.55 : 1;
  const growth = 1.6 - (now - at) / (200 * day);
  const paid = Math.round(46 * tide * week * growth * (0.6 + 0.8 * random()));
  return { paid, amount: paid * 13_000 + Math.floor(random() * 3) * 900_000, back: random() < 0.07 ? 1 + Math.floor(random() * 6) : 0, failed: random() < 0.3 ? 1 : 0 };
}

const wares = [
  ['GET', '/v1/weather?city=Reykjav%C3%ADk', 1000, 'weather'], ['GET', '/v1/search?q=solid-state+batteries&limit=50', 10_000, 'search'],
  ['POST', '/v1/translate', 25_000, 'translate'], ['GET', '/v1/companies/us/0000320193/filings/10-K/2025/sections/risk-factors', 50_000, 'filings'],
  ['GET', '/v1/maps/tiles/12/2161/1394.png', 500, 'tiles'], ['POST', '/buy/team', 4_900_000, 'team'],
];

const asked = { settlement: 'none', delivery: 'none', refund: 'none' };
const paid = { settlement: 'settled', delivery: 'delivered', refund: 'none' };

function payment(i, now, state, reason) {
  const random = chance(7919 * (i + 3));
  random();
  const [method, uri, amount, route] = wares[Math.floor(random() * wares.length)];
  const at = now - 20_000 - Math.floor((i + random()) * 47_000);
  const settled = !['PENDING', 'SETTLING', 'FAILED'].includes(state);
  const iso = (t) => new Date(t).toISOString();
  return {
    ...coin, id: `pay_${letters(random, 26)}`, state, ...(settled ? paid : asked), ...(reason && { reason }), livemode: true, amount: String(amount), amountDecimal: dollars(amount),
    payer: hex(random, 40), payTo: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C', flow: 'upfront', route, ...(route === 'team' && { plan: 'team' }), method, host: 'api.example.com', uri,
    ...(settled && { transaction: hex(random, 64), block: 38_200_000 - i, settledAt: iso(at + 1900), deliveredAt: iso(at + 2300) }),
    final: settled && i > 4, createdAt: iso(at), updatedAt: iso(at + 2300), validBefore: iso(at + 10 * minute),
  };
}

/** file is all there is about a payment. */
function file(p) {
  const step = (version, event, actor, after, more) => ({
    version, at: new Date(Date.parse(p.createdAt) + after).toISOString(), event, actor, settlement: 'settled', delivery: 'none', refund: 'none', hash: hex(chance(version), 64), ...more,
  });
  const hash = p.transaction ?? hex(chance(p.id.length), 64);
  return {
    ...p,
    trail: [
      step(1, 'claim', 'request', 0, { settlement: 'claimed' }), step(2, 'send', 'wallet', 40, { settlement: 'settling', transaction: hash }), step(3, 'settle', 'request', 1900, { transaction: hash }),
      step(4, 'deliver', 'request', 1910, { delivery: 'delivering' }), step(5, 'undelivered', 'request', 2300, { delivery: 'undelivered', reason: 'upstream_status' }),
    ],
    transactions: [{ network, wallet: '0x71C7656EC7ab88b098defB751B7401B5f6d8976F', nonce: 18_203, hash, payments: [p.id], createdAt: p.createdAt }],
  };
}

/** page is a page of a list, as long as a query wants it. */
function page(all, query) {
  const from = Number(query.get('cursor') ?? 0);
  const to = from + Number(query.get('limit') ?? 25);
  return { data: all.slice(from, to), page: to < all.length ? { next: String(to) } : {} };
}

function payments(now, trouble) {
  const odd = { 3: ['SETTLING'], 9: ['REFUNDED', 'upstream_status'], 14: ['FAILED', 'insufficient_funds'] };
  if (trouble) Object.assign(odd, { 1: ['REFUND_FAILED', 'over_limit'], 2: ['REFUND_PENDING', 'upstream_status'], 5: ['PAID'], 6: ['OWED', 'out_of_gas'], 40: ['SETTLING'] });
  return Array.from({ length: 60 }, (_, i) => payment(i, now, ...(odd[i] ?? ['DELIVERED'])));
}

/** crowd are those that settle just now, behind which one that does so for long is not seen. */
const crowd = (now, state, trouble) => (trouble && state === 'SETTLING' ? Array.from({ length: 100 }, (_, i) => ({ ...payment(0, now, 'SETTLING'), id: `pay_crowd${i}` })) : []);

function revenue(query, now) {
  const step = query.get('interval') === 'hour' ? hour : day;
  const since = Date.parse(query.get('since'));
  const buckets = [];
  const until = query.has('until') ? Date.parse(query.get('until')) : now;
  for (let start = since; start < until; start += step) {
    let [n, amount, back, failed] = [0, 0, 0, 0];
    for (let at = start; at < Math.min(start + step, until); at += hour) {
      const s = sold(at, now);
      const part = Math.min(1, (now - at) / hour);
      n += Math.round(s.paid * part);
      amount += Math.round(s.amount * part);
      back += s.back;
      failed += s.failed;
    }
    buckets.push({
      start: new Date(start).toISOString(), end: new Date(start + step).toISOString(), earned: { payments: n, amounts: [sum(amount)] },
      returned: { payments: back, amounts: back ? [sum(back * 25_000)] : [] }, failed, open: start + step > now ? 2 : 0,
    });
  }
  const total = buckets.reduce((n, b) => n + b.earned.payments, 0);
  const shares = [0.002, 0.041, 0.466, 0.318, 0.112, 0.041, 0.014, 0.004, 0.0015, 0.0005];
  const ends = [500, 1000, 2000, 3000, 4000, 6000, 10_000, 20_000, 60_000];
  return {
    since: new Date(since).toISOString(), until: new Date(until).toISOString(), interval: query.get('interval'), complete: true, buckets,
    settlement: {
      payments: total, p50Ms: 1940, p95Ms: 4480, p99Ms: 8120, maxMs: 41_300,
      histogram: shares.map((s, i) => ({ ...(ends[i] && { upToMs: ends[i] }), payments: Math.round(total * s) })),
    },
  };
}

function states(now, trouble) {
  const rows = [['SETTLING', 1, 10_000], ['DELIVERED', 9482, 148_211_500], ['FAILED', 51, 812_000], ['REFUNDED', 38, 950_000]];
  if (trouble) rows.splice(2, 0, ['PAID', 1, 25_000], ['OWED', 3, 75_000], ['REFUND_PENDING', 14, 350_000], ['REFUND_FAILED', 2, 75_000]);
  return {
    since: new Date(now - 7 * day).toISOString(), until: new Date(now).toISOString(), complete: true, total: rows.reduce((n, r) => n + r[1], 0),
    states: [{ state: 'PENDING', payments: 0, amounts: [] }, ...rows.map(([state, n, amount]) => ({ state, payments: n, amounts: [sum(amount)] }))],
  };
}

function wallets(now, trouble) {
  const seen = new Date(now - 12_000).toISOString();
  const spent = { spentWei: '61400000000000000', spentSince: new Date(now - 9 * day).toISOString() };
  const gas = (address, wei, nextNonce, inFlight) => ({ network, address, role: 'gas', gasWei: wei, seenAt: seen, nextNonce, inFlight, ...spent });
  return {
    data: [
      gas('0x71C7656EC7ab88b098defB751B7401B5f6d8976F', trouble ? '2900000000000000' : '184220000000000000', 18_204, 1),
      gas('0x2546BcD3c84621e976D8185a91A922aE77ECEC30', trouble ? '0' : '97010000000000000', 9877, 0),
      { network, address: '0x8626f6940E2eb28930eFb4CeF49B2d1F2C9C1199', role: 'refund', balance: trouble ? '120000' : '50000000', balanceDecimal: trouble ? '0.12' : '50', symbol: 'USDC' },
      { network, address: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C', role: 'pay_to', balance: '4120988500', balanceDecimal: '4120.9885', symbol: 'USDC' },
    ],
  };
}

function plan(now, trouble) {
  const random = chance(5);
  const refunds = trouble ? Array.from({ length: 14 }, (_, i) => ({
    payment: `pay_${letters(random, 26)}`, payer: hex(random, 40), network, asset, amount: '25000', action: i < 3 ? 'pay' : 'wait', ...(i >= 3 && { reason: 'insufficient_balance' }),
    since: new Date(now - (i + 1) * 22 * minute).toISOString(),
  })) : [];
  return {
    more: false, refunds,
    wallets: [{ network, asset, wallet: '0x8626f6940E2eb28930eFb4CeF49B2d1F2C9C1199', balance: trouble ? '120000' : '50000000', needed: trouble ? '350000' : '0' }],
  };
}

function key(now, label, days, more) {
  const random = chance(label.length * 31);
  return {
    id: `ak_${letters(random, 26)}`, prefix: `sk_live_${letters(random, 6)}`, label, mode: 'live', network: 'mainnet', scopes: ['payments:read'], status: 'active',
    createdAt: new Date(now - days * day).toISOString(), createdBy: 'admin', expiresAt: null, lastUsedAt: new Date(now - 40_000).toISOString(), rotatedAt: null, overlapEndsAt: null, revokedAt: null, ...more,
  };
}

function keys(now, trouble) {
  return [
    key(now, 'dashboard', 3, { id: 'ak_mine', scopes: ['payments:read', 'payments:write', 'webhooks:manage', 'keys:manage', 'access'] }),
    key(now, 'bookkeeping export', trouble ? 97 : 41, { lastUsedAt: new Date(now - 9 * hour).toISOString() }),
    key(now, 'support desk', 77, { scopes: ['payments:read', 'payments:write'], ...(trouble && { expiresAt: new Date(now + 2 * day).toISOString() }) }),
    ...(trouble ? [key(now, 'deploy pipeline', 90, { status: 'rotating', overlapEndsAt: new Date(now + 5 * day).toISOString(), rotatedTo: 'ak_next', lastUsedAt: new Date(now - 2 * minute).toISOString() })] : []),
  ];
}

const hook = (now, id, url, more) => ({
  id, url, events: [], network: 'mainnet', livemode: true, compatibility: false, active: true, configured: false,
  createdAt: new Date(now - 60 * day).toISOString(), updatedAt: new Date(now - 60 * day).toISOString(), overlapEndsAt: null, ...more,
});

function deliveries(now, endpoint, trouble) {
  return Array.from({ length: 5 }, (_, i) => {
    const dead = trouble && endpoint === 'we_books' && i > 1;
    const waits = trouble && endpoint === 'we_books' && i === 1;
    const at = new Date(now - (i * 3 + 1) * minute).toISOString();
    return {
      id: `whd_${endpoint}${i}`, endpointId: endpoint, eventId: `evt_${i}`, eventType: ['payment.delivered', 'payment.settled', 'payment.refund_pending', 'payment.delivered', 'payment.settled'][i], livemode: true, network,
      status: dead ? 'dead' : waits ? 'failed' : 'delivered', ...((dead || waits) && { reason: 'timeout' }), attemptCount: dead ? 10 : waits ? 2 : 1, attempts: [], createdAt: at, lastAttemptAt: at, nextAttemptAt: null,
      ...(!dead && !waits && { responseStatusCode: 200 }),
    };
  });
}

const settings = {
  lock: 'mainnet', store: 'postgres', publicUrl: 'https://api.example.com', networks: [{ ...coin, livemode: true, decimals: 6, payTo: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C', settler: 'wallet' }],
  refunds: { on: true, intervalSeconds: 60, minAgeSeconds: 300, batch: 20, maxDay: '100000000' }, maxTimeoutSeconds: 300, settleTimeoutSeconds: 30, minAgeSeconds: 60, maxStaleSeconds: 60,
  keyMaxAgeSeconds: 90 * 86_400, idempotencyTtlSeconds: 86_400,
};

const word = (n) => 'Donaudampfschifffahrtsgesellschaft'.repeat(n / 34 + 1).slice(0, n);

/** stretch makes of an answer one with the longest words, and the largest sums, that there may be. */
function stretch(path, answer) {
  const euros = (m) => ({ ...m, asset: '0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42', symbol: 'EURC', amount: '98765432109876', amountDecimal: '98765432.109876' });
  const longer = (p) => ({
    ...p, amount: '123456789012345', amountDecimal: '123456789.012345', uri: `/${word(600)}?${word(200)}`, host: `${word(60)}.example.com`, route: word(60), ...(p.plan && { plan: word(60) }),
    ...(p.reason && { reason: 'invalid_exact_evm_payload_authorization_value_insufficient' }),
  });
  const lists = {
    payments: longer, refunds: longer, wallets: (w) => ({ ...w, ...(w.role === 'refund' && { balanceDecimal: '123456789012.345678' }), problem: `dial tcp: lookup ${word(80)}.example.com: no such host` }),
    webhooks: (e) => ({ ...e, url: `https://${word(60)}.example.com/${word(1500)}` }), 'api-keys': (k) => ({ ...k, label: word(80) }),
  };
  if (lists[path]) return { ...answer, data: answer.data.map(lists[path]) };
  if (path === 'payments/states') return { ...answer, states: answer.states.map((s) => ({ ...s, payments: s.payments * 1003, amounts: s.amounts.flatMap((m) => [m, euros(m)]) })) };
  if (path === 'settings') return { ...answer, publicUrl: `https://${word(60)}.example.com/${word(100)}` };
  return path.startsWith('payments/pay_') ? longer(answer) : answer;
}

/** operations are those that shop answers, as they are in the API's description. */
export const operations = ['/v1/api-keys/current', '/v1/settings', '/v1/revenue', '/v1/payments/states', '/v1/payments', '/v1/payments/{id}', '/v1/refunds', '/v1/refunds/plan', '/v1/wallets', '/v1/webhooks', '/v1/webhooks/{id}/deliveries', '/v1/api-keys', '/v1/api-keys/usage'];

/** shop answers what a GET asks for at an address of the API; nothing: it does not know that. */
export function shop(address, { trouble = false, long = false, now = Date.now() } = {}) {
  const url = new URL(address);
  const path = url.pathname.replace(/^.*\/v1\//, '');
  return long ? stretch(path, answer(url, path, trouble, now)) : answer(url, path, trouble, now);
}

function answer(url, path, trouble, now) {
  const all = payments(now, trouble);
  const list = (data) => ({ data, page: {} });
  const state = url.searchParams.get('state');
  const until = url.searchParams.get('until');
  const endpoint = /^webhooks\/([^/]+)\/deliveries$/.exec(path)?.[1];
  if (endpoint) return list(deliveries(now, endpoint, trouble));
  const id = /^payments\/(pay_[^/]+)$/.exec(path)?.[1];
  if (id) return file(all.find((p) => p.id === id) ?? all[0]);
  switch (path) {
    case 'api-keys/current': return keys(now, trouble)[0];
    case 'api-keys/usage': return { data: [{ day: new Date(now).toISOString().slice(0, 10), calls: 48_211, errors: trouble ? 317 : 4 }], calls: 48_211, errors: trouble ? 317 : 4 };
    case 'settings': return settings;
    case 'revenue': return revenue(url.searchParams, now);
    case 'payments/states': return states(now, trouble);
    case 'payments': return page([...crowd(now, state, trouble), ...all].filter((p) => (!state || p.state === state) && (!until || p.createdAt < until)), url.searchParams);
    case 'refunds': return list(trouble ? [payment(401, now, 'REFUND_FAILED', 'over_limit'), payment(733, now, 'REFUND_FAILED', 'recipient_blacklisted')] : []);
    case 'refunds/plan': return plan(now, trouble);
    case 'wallets': return wallets(now, trouble);
    case 'webhooks': return list([
      hook(now, 'we_books', 'https://books.example.com/hooks/x402'),
      hook(now, 'we_chat', 'https://chat.example.com/services/T024BE7LD/B024BE7LD/incoming', trouble ? { active: false, disabledReason: 'gone' } : {}),
    ]);
    case 'api-keys': return list(keys(now, trouble));
    default: return undefined;
  }
}
