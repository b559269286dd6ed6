// Drawing what is known, section by section.

import { $, empty, h, narrow, put, skeleton } from './dom.js';
import { capital, count, plural, price, stateName, states } from './format.js';
import { act, coins, d, may } from './known.js';
import { feedItem, hooksSection, keysSection, paymentsTable, refundsSection, statesSection, walletsSection, what } from './sections.js';

/** blank takes away all that was shown: nothing is left of a shop for who comes next, neither to be seen nor in what is chosen. */
export function blank() {
  for (const id of ['states', 'latency', 'refunds', 'payments', 'wallets', 'hooks', 'keys']) put($(`${id}-body`), skeleton(id === 'payments' ? 6 : 3));
  for (const id of ['revenue', 'states', 'latency', 'refunds', 'payments', 'wallets', 'hooks', 'keys', 'feed', 'verdict']) $(id).setAttribute('aria-busy', 'true');
  put($('revenue-chart'), skeleton(5));
  put($('feed-list'), h('li', { class: 'quiet-now' }, skeleton(4)));
  $('earned').textContent = '';
  $('earned-change').textContent = '';
  put($('facts'));
  for (const id of ['revenue', 'latency', 'states', 'refunds', 'payments', 'wallets', 'hooks', 'keys']) $(id).classList.remove('stale', 'nothing', 'calm', 'not-known');
  for (const id of ['states-sub', 'latency-sub', 'keys-sub', 'revenue-note', 'revenue-table', 'needs', 'sheet-body', 'ask-title', 'ask-text', 'ask-error', 'said']) $(id).textContent = '';
  for (const id of ['payments-more', 'revenue-note', 'again']) $(id).hidden = true;
  $('verdict').dataset.state = 'loading';
  $('verdict-title').textContent = 'Looking…';
  $('verdict-text').textContent = 'The ledger is being asked.';
  $('asked').textContent = '–';
  $('filter').reset();
  for (const range of $('range').querySelectorAll('input')) range.checked = range.defaultChecked;
}

export function drawStates() {
  put($('states-body'), statesSection(d.states, coins, act.choose));
  $('states-sub').textContent = plural(d.states.total, 'payment');
}

export function drawKeys() {
  const { calls, errors } = d.usage;
  $('keys-sub').textContent = `${plural(calls, 'call')} in 7 days${errors > 0 ? `, ${count(errors)} refused` : ''}`;
  put($('keys-body'), keysSection(d, Date.now()));
}

export function drawWallets() {
  put($('wallets-body'), walletsSection(d, Date.now()));
}

export function drawRefunds() {
  if (d.known.has('wallets')) drawWallets(); // which say whether they have enough for what is to go back
  const list = refundsSection(d, coins, act);
  $('refunds').classList.toggle('calm', list.length === 0);
  put($('refunds-body'), list.length > 0 ? list : h('span', { class: 'state good' }, 'Nothing has failed, nothing waits'));
}

export function drawHooks() {
  put($('hooks-body'), hooksSection(d.hooks, { redeliver: act.redeliver, test: act.test, may: may('webhooks:manage') }));
}

export function drawPayments() {
  const { data, page, why } = d.payments;
  const sifted = d.filter.state || d.filter.text;
  const go = why ? `${capital(why)}.` : page.next ? 'Many were looked at; go on with “Show more”.' : 'Choose another state, or another payer.';
  const none = sifted ? empty('No payments match', go) : empty('No payments yet', 'They are listed here as soon as somebody pays.');
  put($('payments-body'), data.length > 0 ? paymentsTable(data, coins, act) : none);
  $('payments-more').hidden = !page.next;
  if (!sifted && d.feed.length === 0) d.feed = data.slice(0, 20).map(feedOf).sort((a, b) => new Date(b.at) - new Date(a.at));
  drawFeed();
}

const feedOf = (p) => ({
  id: p.id, payment: p.id, at: p.updatedAt, words: stateName(p.state), kind: states[p.state]?.[1] ?? 'quiet', text: what(p), sum: price(p), network: p.network,
});

export const keptEvents = 40;

export function drawFeed() {
  $('feed').setAttribute('aria-busy', 'false');
  if (d.feed.length === 0) put($('feed-list'), h('li', { class: 'quiet-now' }, empty('Quiet so far', 'What happens is shown here while it happens.')));
  else put($('feed-list'), d.feed.slice(0, narrow() ? 6 : keptEvents).map((f) => feedItem(f, act.open, (d.settings?.networks.length ?? 0) > 1)));
}

export function notice(text) {
  $('notice').hidden = !text;
  if ($('notice').textContent !== (text ?? '')) $('notice').textContent = text ?? '';
}
