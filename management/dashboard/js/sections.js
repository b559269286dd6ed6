// The sections of the board: each draws what it is given.

import { copyable, empty, h, shorten } from './dom.js';
import { histogram, meter, shareBar } from './charts.js';
import { Purse, ago, chain, count, cut, ether, lasting, millis, money, paid, plain, plural, price, sentence, stateKind, stateName, stepName, time } from './format.js';
import { runway } from './needs.js';

const when = (t) => h('time', { datetime: t, title: time(t), 'data-ago': true }, ago(t));

const stateMark = (state) => h('span', { class: `state ${stateKind(state)}` }, stateName(state));

/** asked is the request that a payment was made for. */
const asked = (p, host = '') => plain(`${p.method ?? ''} ${host}${p.uri ?? p.route ?? ''}`);

/** what is what a payment was made for, shortened. */
export const what = (p) => (p.plan ? `Plan ${p.plan}` : cut(asked(p).trim() || p.flow || '–', 90));

const because = (reason) => reason && h('span', { class: 'sub' }, sentence(reason));

export function statesSection(counts, coins, choose) {
  const some = counts.states.filter((s) => s.payments > 0);
  if (some.length === 0) return empty('No payments in this time');
  const order = ['good', 'back', 'wait', 'quiet', 'bad'];
  const parts = some.map((s) => ({ n: s.payments, kind: stateKind(s.state) })).sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  return [
    shareBar(parts),
    h('ul', { class: 'state-list' }, some.map((s) => h('li', {},
      h('i', { class: stateKind(s.state), 'aria-hidden': 'true' }),
      h('button', { type: 'button', class: 'link', 'data-key': `state-${s.state}`, onclick: () => choose(s.state) }, stateName(s.state)),
      h('span', { class: 'money' }, new Purse(coins).add(s.amounts).text(2)), h('b', {}, count(s.payments))))),
  ];
}

export function latencySection(host, settlement) {
  if (settlement.payments === 0) return empty('Nothing was settled in this time');
  const fact = (name, ms) => h('div', {}, h('dt', {}, name), h('dd', { class: ms >= 10_000 && 'slow' }, millis(ms)));
  return [
    h('dl', { class: 'percentiles' }, fact('half within', settlement.p50Ms), fact('95 % within', settlement.p95Ms), fact('longest', settlement.maxMs)),
    histogram(host, settlement),
  ];
}

/** eventWords says what an event of the feed tells: words, kind. */
export const eventWords = {
  'payment.settled': ['Paid', 'good'], 'payment.settlement_failed': ['Not paid', 'quiet'], 'payment.delivered': ['Delivered', 'good'],
  'payment.upstream_failed': ['Not delivered', 'wait'], 'payment.refund_pending': ['Refund waiting', 'wait'], 'payment.refunded': ['Refunded', 'back'],
  'payment.refund_failed': ['Refund failed', 'bad'],
};

/** feedItem is an entry of the feed; the chain is named where there are several. */
export function feedItem(item, open, several) {
  return h('li', { class: item.fresh ? 'new' : null },
    h('i', { class: item.kind, 'aria-hidden': 'true' }),
    h('div', { class: 'what' },
      h('button', { type: 'button', class: 'link', 'data-key': `feed-${item.id}`, onclick: () => open(item.payment) }, item.words),
      h('small', { class: 'one-line', title: item.text }, item.text)),
    h('span', { class: 'sum' }, item.sum, h('small', {}, when(item.at), several && item.network && ` on ${chain(item.network)}`)));
}

export function paymentsTable(list, coins, { open, actions }) {
  return h('table', { class: 'stack' },
    h('thead', {}, h('tr', {}, ['For', 'Amount', 'State', 'Payer', 'Made', ''].map((t, i) => h('th', { scope: 'col', class: [null, 'number', null, null, null, 'acts'][i] }, t || h('span', { class: 'hidden' }, 'Actions'))))),
    h('tbody', {}, list.map((p) => h('tr', {},
      h('th', { scope: 'row', class: 'what' }, h('button', { type: 'button', class: 'link', 'data-key': `pay-${p.id}`, title: p.uri ? asked(p) : what(p), onclick: () => open(p.id) }, what(p))),
      h('td', { class: 'number' }, price(p)),
      h('td', {}, stateMark(p.state), because(p.reason)),
      h('td', { class: 'rest payer' }, copyable(p.payer)),
      h('td', { class: 'rest' }, when(p.createdAt)),
      h('td', { class: 'acts' }, actions(p))))));
}

/** refundsSection lists what has failed or waits, with what can be done; nothing where all is well. */
export function refundsSection(d, coins, tools) {
  const failed = d.failed?.data ?? [];
  const stuck = d.stuck?.data ?? [];
  const pending = d.plan?.refunds ?? [];
  const out = [];
  if (failed.length > 0) out.push(h('h3', {}, 'Failed: somebody has to decide'), paymentsTable(failed, coins, tools));
  if (stuck.length > 0) out.push(h('h3', {}, 'Settling for long'), paymentsTable(stuck, coins, tools));
  if (pending.length > 0) {
    const sums = (d.plan.wallets ?? []).map((w) => `${chain(w.network)}: ${money(BigInt(w.needed), coins.name({ ...w, amount: w.needed }))} to pay now${w.balance === undefined ? '' : `, ${money(BigInt(w.balance), coins.name({ ...w, amount: w.balance }))} there`}`);
    out.push(h('h3', {}, `Waiting: ${count(pending.length)}${d.plan.more ? ' and more' : ''}`), sums.map((t) => h('p', { class: 'sub' }, t)),
      h('ul', { class: 'lines tight' }, pending.slice(0, mostPending).map((r) => h('li', {},
        h('button', { type: 'button', class: 'link', 'data-key': `refund-${r.payment}`, onclick: () => tools.open(r.payment) }, `${money(BigInt(r.amount), coins.name(r))} to ${shorten(r.payer)}`),
        h('span', { class: 'sub' }, planned(r)), h('span', { class: 'sub' }, when(r.since)))),
      pending.length > mostPending && h('li', {}, h('span', { class: 'sub' }, `and ${count(pending.length - mostPending)} more, older`))));
  }
  return out;
}

const mostPending = 6;

function planned(r) {
  return { pay: 'goes out next', sent: 'is sent', wait: `waits${r.reason ? `: ${r.reason.replaceAll('_', ' ')}` : ''}`, fail: `will fail: ${(r.reason ?? '').replaceAll('_', ' ')}` }[r.action] ?? r.action;
}

const roles = { gas: 'Gas', refund: 'Refunds', pay_to: 'Income' };

export function walletsSection(d, now) {
  const list = d.wallets.data;
  if (list.length === 0) return empty('No wallets', 'A facilitator settles, so there is no gas to look after.');
  return h('ul', { class: 'grid-cards' }, list.map((w) => walletTile(w, list, d, now)));
}

function walletTile(w, list, d, now) {
  const lines = [];
  let kind = '';
  if (w.role === 'gas') {
    const left = runway(list, w.network, now);
    const none = w.gasWei !== undefined && BigInt(w.gasWei) === 0n;
    kind = none || left !== null && left < 86_400 ? 'bad' : left !== null && left < 3 * 86_400 ? 'wait' : 'good';
    lines.push(h('p', { class: 'big' }, w.gasWei === undefined ? 'Not known' : ether(w.gasWei)));
    if (none) lines.push(h('p', { class: 'wrong' }, 'Empty: send ETH to this address.'));
    else if (left !== null) {
      lines.push(h('p', { class: { bad: 'wrong', wait: 'careful' }[kind] }, `lasts about ${lasting(left)} at this pace`), meter(left / (14 * 86_400), kind, `Gas for ${lasting(left)}`));
    } else if (w.gasWei !== undefined) lines.push(h('p', { class: 'sub' }, 'Its runway is told after a while of settling.'));
    lines.push(h('p', { class: 'sub' }, `${count(w.inFlight ?? 0)} in flight`, w.nextNonce !== undefined && ` · next nonce ${count(w.nextNonce)}`));
  } else {
    lines.push(h('p', { class: 'big' }, w.balanceDecimal === undefined ? 'Not known' : price({ amountDecimal: w.balanceDecimal, symbol: w.symbol })));
    lines.push(h('p', { class: 'sub' }, w.role === 'refund' ? 'pays back what was not delivered' : 'where payments arrive'));
    const plan = w.role === 'refund' && d.plan?.wallets?.find((p) => p.network === w.network && p.balance !== undefined);
    if (plan && BigInt(plan.needed) > BigInt(plan.balance)) { kind = 'bad'; lines.push(h('p', { class: 'wrong' }, 'Too little for what is to go back.')); }
  }
  if (w.problem) { kind ||= 'wait'; lines.push(h('p', { class: 'careful' }, w.problem)); }
  return h('li', { class: `tile ${kind === 'good' ? '' : kind}` }, h('h3', {}, roles[w.role] ?? w.role, h('span', { class: 'sub' }, ` on ${chain(w.network)}`)), lines, h('p', { class: 'between end' }, w.address && copyable(w.address), w.seenAt && h('span', { class: 'sub' }, 'seen ', when(w.seenAt))));
}

const deliveryKinds = { delivered: 'good', pending: 'wait', failed: 'wait', dead: 'bad' };
const deliveryWords = { delivered: 'arrived', pending: 'on its way', failed: 'to be tried again', dead: 'did not arrive' };

/** hooksSection shows, of each endpoint, how its last deliveries went, and by name only those that need a look. */
export function hooksSection(hooks, { redeliver, test, may }) {
  if (hooks.length === 0) return empty('No webhooks yet', ['Your own systems can be told when a payment comes, or a refund fails: ', h('code', {}, 'caddy x402 webhooks add'), '.']);
  return h('ul', { class: 'lines' }, hooks.map(({ endpoint: e, deliveries }) => {
    const odd = deliveries.filter((x) => x.status !== 'delivered').slice(0, 5);
    const url = new URL(e.url);
    return h('li', {},
      h('div', { class: 'between keep' }, h('p', { class: 'one-line', title: e.url }, h('b', {}, url.host), url.pathname === '/' ? '' : url.pathname),
        h('span', { class: `state ${e.active ? 'good' : 'bad'}` }, e.active ? 'on' : e.disabledReason === 'gone' ? 'off: it answered 410' : 'off')),
      h('div', { class: 'between keep' }, deliveries.length === 0 ? h('span', { class: 'sub' }, 'Nothing was delivered yet.') : lately(deliveries),
        may && e.active && h('button', { type: 'button', class: 'small', 'data-key': `test-${e.id}`, 'aria-label': `Send a test to ${e.url}`, onclick: (ev) => test(e, ev.currentTarget) }, 'Send a test')),
      odd.length > 0 && h('ul', { class: 'lines tight deliveries' }, odd.map((x) => deliveryLine(e, x, may && redeliver))));
  }));
}

function lately(deliveries) {
  const arrived = deliveries.filter((x) => x.status === 'delivered').length;
  return h('p', { class: 'sub lately' },
    h('span', { class: 'ticks', 'aria-hidden': 'true' }, deliveries.toReversed().map((x) => h('i', { class: deliveryKinds[x.status] ?? 'quiet', title: `${x.eventType}: ${deliveryWords[x.status] ?? x.status}` }))),
    `${arrived === deliveries.length ? (arrived === 1 ? 'the last one' : `the last ${count(arrived)}`) : `${count(arrived)} of the last ${count(deliveries.length)}`} arrived · `, when(deliveries[0].lastAttemptAt ?? deliveries[0].createdAt));
}

function deliveryLine(e, x, redeliver) {
  return h('li', {},
    h('span', {}, h('span', { class: `state ${deliveryKinds[x.status] ?? 'quiet'}` }, deliveryWords[x.status] ?? x.status), h('span', { class: 'sub' }, x.eventType)),
    h('span', { class: 'sub' }, x.responseStatusCode ? `${x.responseStatusCode} · ` : x.reason ? `${x.reason.replaceAll('_', ' ')} · ` : '', plural(x.attemptCount, 'attempt'), ' · ', when(x.lastAttemptAt ?? x.createdAt)),
    redeliver && e.active && (x.status === 'dead' || x.status === 'failed') && h('button', { type: 'button', class: 'small', 'data-key': `re-${x.id}`, 'aria-label': `Send again: ${x.eventType}`, onclick: (ev) => redeliver(e, x, ev.currentTarget) }, 'Send again'));
}

export function keysSection(d, now) {
  const list = d.keys.data.filter((k) => k.status === 'active' || k.status === 'rotating');
  const ended = d.keys.data.length - list.length;
  if (list.length === 0) return empty('No keys');
  const most = d.settings?.keyMaxAgeSeconds;
  return [h('ul', { class: 'lines' }, list.map((k) => {
    const age = (now - new Date(k.createdAt)) / 1000;
    const share = age / (most || 365 * 86_400);
    const kind = !most || k.status === 'rotating' ? 'quiet' : share >= 1 ? 'bad' : share > 0.8 ? 'wait' : 'good';
    return h('li', {},
      h('div', { class: 'between' }, h('b', {}, k.label || k.id, k.id === d.me?.id && ' (yours)'), h('code', {}, `${k.prefix}…`)),
      meter(share, kind, `${lasting(age)} old${most ? `, of ${lasting(most)} at most` : ''}`),
      h('div', { class: 'between sub' }, h('span', {}, `${lasting(age)} old${kind === 'bad' ? ': rotate it' : ''}`), h('span', {}, k.lastUsedAt ? ['used ', when(k.lastUsedAt)] : 'never used')),
      h('p', { class: 'sub' }, k.scopes.join(', ')),
      k.expiresAt && h('p', { class: new Date(k.expiresAt) - now < 7 * 86_400_000 ? 'careful' : 'sub' }, `ends ${time(k.expiresAt)}`),
      k.status === 'rotating' && h('p', { class: 'careful' }, `has a successor; ends ${time(k.overlapEndsAt)}`));
  })), ended > 0 && h('p', { class: 'note' }, `${plural(ended, 'key')} ended.`)];
}

/** sheetBody is all there is about one payment. */
export function sheetBody(p, actions) {
  const pair = (name, value) => value !== undefined && value !== null && value !== '' && value !== false && [h('dt', {}, name), h('dd', {}, value)];
  return [
    h('p', { class: 'big' }, paid(p)), h('p', { class: 'row' }, stateMark(p.state), because(p.reason)),
    h('div', { class: 'row deeds' }, actions(p)),
    h('h3', {}, 'What it is'),
    h('dl', { class: 'pairs' }, pair('For', p.uri && asked(p, p.host)), pair('Plan', p.plan), pair('Route', p.route), pair('Network', chain(p.network)),
      pair('Payer', copyable(p.payer, p.payer)), pair('Paid to', copyable(p.payTo, p.payTo)), pair('Transaction', p.transaction && copyable(p.transaction, p.transaction)), pair('Block', p.block && count(p.block)),
      pair('Final', p.final ? 'yes' : 'not yet'), pair('Made', time(p.createdAt)), pair('Settled', p.settledAt && `${time(p.settledAt)}, after ${millis(new Date(p.settledAt) - new Date(p.createdAt))}`),
      pair('Delivered', p.deliveredAt && time(p.deliveredAt)), pair('Plan ends', p.planUntil && time(p.planUntil)), pair('Served by', p.servedBy), pair('Id', copyable(p.id, p.id))),
    h('h3', {}, 'What happened'),
    h('ol', { class: 'trail' }, p.trail.map((t) => h('li', {}, h('b', {}, stepName(t.event)), t.reason && `: ${t.reason.replaceAll('_', ' ')}`, h('small', {}, `${time(t.at)} · ${t.actor}`), t.transaction && h('small', {}, shorten(t.transaction))))),
    p.transactions.length > 0 && [h('h3', {}, 'Transactions of ours'), h('ul', { class: 'lines' }, p.transactions.map((t) => h('li', {}, copyable(t.hash), h('span', { class: 'sub' }, `nonce ${t.nonce}, ${plural(t.payments.length, 'payment')}, ${time(t.createdAt)}`))))],
  ];
}
