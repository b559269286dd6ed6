// What needs somebody, worst first. Each says what is wrong, why that matters or what to do, and where.

import { Purse, chain, count, cut, ether, lasting, paid, plural, units } from './format.js';

const hour = 3600, day = 86_400;
const age = (t, now) => (now - new Date(t)) / 1000;

/** runway is for how many seconds the gas of a network lasts at this instance's pace; null: that is not known. */
export function runway(wallets, network, now) {
  const gas = wallets.filter((w) => w.role === 'gas' && w.network === network);
  if (gas.length === 0 || gas.some((w) => w.gasWei === undefined)) return null;
  const elapsed = gas[0].spentSince ? age(gas[0].spentSince, now) : 0;
  const spent = Number(BigInt(gas[0].spentWei ?? '0'));
  if (elapsed < 10 * 60 || spent === 0) return null; // too little is known
  return Number(gas.reduce((n, w) => n + BigInt(w.gasWei), 0n)) / (spent / elapsed);
}

export function needs(d, coins, now) {
  return [...refundNeeds(d, coins, now), ...walletNeeds(d, now), ...paymentNeeds(d, now), ...hookNeeds(d), ...keyNeeds(d, now)]
    .sort((a, b) => (b.bad ? 1 : 0) - (a.bad ? 1 : 0));
}

/** number says how many there are of a list, which may go on. */
const number = (list, goesOn, one) => (goesOn ? `${count(list.length)} or more ${one}s` : plural(list.length, one));

function refundNeeds(d, coins, now) {
  const out = [];
  const failed = d.failed?.data ?? [];
  if (failed.length > 0) {
    const sum = new Purse(coins).add(failed.map((p) => ({ network: p.network, asset: p.asset, symbol: p.symbol, amount: p.amount, amountDecimal: p.amountDecimal })));
    out.push({
      id: 'refund-failed', bad: true, where: 'refunds', act: 'See them',
      title: failed.length === 1 ? 'A refund has failed' : `${number(failed, d.failed.page.next, 'refund')} have failed`,
      text: `Payers have paid ${sum.text()} for what they did not get. Mend the cause, then have them tried again.`,
    });
  }
  for (const w of d.plan?.wallets ?? []) {
    if (w.balance !== undefined && BigInt(w.needed) > BigInt(w.balance)) {
      const n = coins.find(w);
      const missing = BigInt(w.needed) - BigInt(w.balance);
      out.push({
        id: `refund-wallet-${w.network}`, bad: true, where: 'wallets', act: 'See it', title: `The refund wallet on ${chain(w.network)} has too little`,
        text: `Send it ${n ? `${units(missing, n.decimals)} ${n.symbol}` : `${missing} units`} or more, or what is to go back waits.`,
      });
    }
  }
  const pending = d.plan?.refunds ?? [];
  const oldest = pending.reduce((n, r) => Math.max(n, age(r.since, now)), 0);
  if (oldest > hour && d.settings?.refunds?.on) {
    out.push({
      id: 'refund-slow', where: 'refunds', act: 'See them', title: `${number(pending, d.plan.more, 'refund')} waiting`,
      text: `The oldest has waited for ${lasting(oldest)}. When many wait, look at what the upstream answers.`,
    });
  }
  if (pending.length > 0 && d.settings && !d.settings.refunds.on) {
    out.push({
      id: 'refund-off', where: 'refunds', act: 'See them', title: 'Refunds are off, and payers wait for theirs',
      text: `${plural(pending.length, 'payment')} was paid and not delivered. Set a refund wallet in the configuration.`.replace(/^(\d+) payments was/, '$1 payments were'),
    });
  }
  return out;
}

function walletNeeds(d, now) {
  const out = [];
  const wallets = d.wallets?.data ?? [];
  for (const network of new Set(wallets.filter((w) => w.role === 'gas').map((w) => w.network))) {
    const gas = wallets.filter((w) => w.role === 'gas' && w.network === network);
    const empty = gas.filter((w) => w.gasWei !== undefined && BigInt(w.gasWei) === 0n);
    const left = runway(wallets, network, now);
    if (empty.length === gas.length) {
      out.push({ id: `gas-${network}`, bad: true, where: 'wallets', act: 'See it', title: `No gas on ${chain(network)}: nothing can be settled`, text: `Send ETH to ${gas[0].address}.` });
    } else if (left !== null && left < 3 * day) {
      out.push({
        id: `gas-${network}`, bad: left < day, where: 'wallets', act: 'See it', title: `Gas on ${chain(network)} lasts about ${lasting(left)}`,
        text: `${ether(gas.reduce((n, w) => n + BigInt(w.gasWei), 0n).toString())} are left. Send more to ${gas[0].address}.`,
      });
    }
  }
  return out;
}

function paymentNeeds(d, now) {
  const out = [];
  const stuck = d.stuck?.data ?? [];
  if (stuck.length > 0) {
    out.push({
      id: 'stuck', where: 'refunds', act: 'See them', title: `${number(stuck, d.stuck.page.next, 'payment')} settling for more than 10 minutes`,
      text: `The oldest, ${paid(stuck.at(-1))}, was made ${lasting(age(stuck.at(-1).createdAt, now))} ago. The chain or its endpoint may be slow.`,
    });
  }
  const owed = (d.states?.states ?? []).find((s) => s.state === 'OWED');
  if (owed?.payments > 0) {
    out.push({ id: 'owed', where: 'payments', state: 'OWED', act: 'See them', title: `${plural(owed.payments, 'payment')} delivered and not paid`, text: 'The goods are gone, and the money has not come yet.' });
  }
  return out;
}

function hookNeeds(d) {
  const out = [];
  for (const { endpoint: e, deliveries } of d.hooks ?? []) {
    const dead = deliveries.filter((x) => x.status === 'dead').length;
    if (!e.active && e.disabledReason === 'gone') {
      out.push({ id: `hook-${e.id}`, bad: true, where: 'hooks', act: 'See it', title: 'A webhook endpoint is off', text: `${cut(e.url, 120)} answered 410, so it is told nothing more.` });
    } else if (e.active && dead > 0) {
      out.push({ id: `hook-${e.id}`, where: 'hooks', act: 'See them', title: `${plural(dead, 'webhook')} did not arrive`, text: `${cut(e.url, 120)} did not take them. When it is well again, have them delivered again.` });
    }
  }
  return out;
}

function keyNeeds(d, now) {
  const out = [];
  const most = d.settings?.keyMaxAgeSeconds;
  for (const k of d.keys?.data ?? []) {
    if (k.status !== 'active' && k.status !== 'rotating') continue;
    const name = k.label || k.id;
    if (k.status === 'active' && most && age(k.createdAt, now) > most) {
      out.push({ id: `key-${k.id}`, where: 'keys', act: 'See it', title: `The API key “${name}” is ${lasting(age(k.createdAt, now))} old`, text: `Rotate it: caddy x402 apikeys rotate ${k.id}` });
    }
    const left = k.expiresAt ? -age(k.expiresAt, now) : Infinity;
    if (left < 7 * day) {
      out.push({ id: `key-end-${k.id}`, where: 'keys', act: 'See it', title: `The API key “${name}” expires in ${lasting(left)}`, text: 'Whoever uses it is locked out then.' });
    }
  }
  return out;
}
