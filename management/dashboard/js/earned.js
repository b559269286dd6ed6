// What was earned: the figure, the chart, the table, and how long settling took.

import { revenueChart, revenueTable } from './charts.js';
import { $, h, put, ready } from './dom.js';
import { Purse, count, plural } from './format.js';
import { coins, d } from './known.js';
import { latencySection } from './sections.js';

export const rangeWords = { 1: '24 hours', 7: '7 days', 30: '30 days', 90: '90 days' };

export function drawRevenue() {
  const { revenue: r, window: w } = d;
  const shown = r.buckets;
  const before = d.before.revenue;
  const total = (list, field) => list.reduce((p, b) => p.add(b[field].amounts), new Purse(coins));
  const number = (list, f) => list.reduce((n, b) => n + f(b), 0);
  const earned = total(shown, 'earned');
  const sold = number(shown, (b) => b.earned.payments);
  const sum = earned.brief();
  d.earned = { text: sum, in: rangeWords[w.range], none: earned.get() === 0n };
  $('earned').textContent = sum;
  drawChange(earned.get(), total(before.buckets, 'earned').get(), r.complete && before.complete);
  const fact = (name, value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  const back = number(shown, (b) => b.returned.payments);
  put($('facts'), fact('payments', count(sold)), fact(back === 1 ? 'refund' : 'refunds', back > 0 ? [count(back), h('small', {}, ` ${total(shown, 'returned').brief()}`)] : '0'), fact('not paid', count(number(shown, (b) => b.failed))));
  const data = { buckets: shown, interval: w.interval, coins, hours: w.range * 24, now: Date.now(), height: chartHeight() };
  if (sold + back === 0) put($('revenue-chart'), nothingSold(w));
  else revenueChart($('revenue-chart'), data);
  $('revenue').classList.toggle('nothing', sold + back === 0);
  put($('revenue-table'), revenueTable(data));
  const cut = !r.complete && new Date(r.since) > w.start;
  $('revenue-note').hidden = !cut;
  $('revenue-note').textContent = cut ? `There are more than 100,000 payments in this time; counted are those since ${new Date(r.since).toLocaleString()}.` : '';
  put($('latency-body'), latencySection($('latency-body'), r.settlement));
  $('latency-sub').textContent = plural(r.settlement.payments, 'payment');
  ready('latency');
}

function nothingSold(w) {
  const address = d.settings?.publicUrl || location.origin;
  return h('div', { class: 'first' }, h('p', {}, h('b', {}, `Nothing was sold in the last ${rangeWords[w.range]}.`), ' Buy something yourself, and it is here within a second:'),
    h('pre', {}, h('code', {}, `caddy x402 pay ${address.replace(/\/$/, '')}/…`)));
}

/** chartHeight is as high as the card is anyway, within reason. */
function chartHeight() {
  const host = $('revenue-chart');
  if (host.clientWidth < 520) return 190;
  return Math.max(240, Math.min(480, d.chartHeight ?? 240));
}

/** fitChart lets the chart fill its card when what stands beside that has made it higher. */
export function fitChart() {
  const host = $('revenue-chart');
  const used = [...host.children].reduce((n, e) => n + e.offsetHeight, 0);
  const spare = host.clientHeight - used;
  if (!d.revenue || spare < 8 || host.clientWidth < 520) return;
  d.chartHeight = chartHeight() + spare;
  drawRevenue();
}

function drawChange(now, then, complete) {
  const e = $('earned-change');
  const range = rangeWords[d.window.range];
  e.className = 'change';
  if (!complete || then === 0n) {
    e.textContent = `in the last ${range}`;
    return;
  }
  const percent = Number((now - then) * 1000n / then) / 10;
  e.classList.add(percent >= 0 ? 'up' : 'down');
  e.textContent = percent === 0 ? `as much as in the ${range} before` : `${percent > 0 ? '▲' : '▼'} ${Math.abs(percent) >= 10 ? count(Math.abs(Math.round(percent))) : Math.abs(percent)}% ${percent > 0 ? 'more' : 'less'} than in the ${range} before`;
}
