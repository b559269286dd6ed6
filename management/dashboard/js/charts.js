// Charts, drawn by hand: bars of what was earned and given back, the states of payments as one line, and how long settling took.

import { h, s, put } from './dom.js';
import { Purse, bucketName, bucketTick, count, millis, plural } from './format.js';

/** fold adds buckets up until there are at most `most`. */
function fold(buckets, most, coins) {
  const per = Math.ceil(buckets.length / most);
  const out = [];
  for (let i = 0; i < buckets.length; i += per) {
    const part = buckets.slice(i, i + per);
    const o = { start: part[0].start, end: part.at(-1).end, paid: 0, back: 0, failed: 0, open: 0, earned: new Purse(coins), returned: new Purse(coins) };
    for (const b of part) {
      o.paid += b.earned.payments; o.back += b.returned.payments; o.failed += b.failed; o.open += b.open;
      o.earned.add(b.earned.amounts); o.returned.add(b.returned.amounts);
    }
    out.push(o);
  }
  return out;
}

/** nice is a round number that is not less than n, and the step of its marks. */
function nice(n) {
  if (n <= 0) return { top: 1, step: 1 };
  const rough = n / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((f) => f >= rough);
  return { top: Math.ceil(n / step - 1e-9) * step, step };
}

/** marked are the places of the buckets that have a mark: at most so many, and where days begin if byDay. */
function marked(list, byDay, most) {
  const day = (i) => new Date(list[i].start).toDateString();
  const all = list.map((_, i) => i).filter((i) => !byDay || i > 0 && day(i) !== day(i - 1));
  const every = Math.max(1, Math.ceil(all.length / most));
  return new Set(all.filter((_, n) => n % every === 0));
}

/** axisMoney is what a mark says: short, as it is no exact amount. */
function axisMoney(n, symbol) {
  const text = n >= 1e6 ? `${+(n / 1e6).toFixed(1)}M` : n >= 10_000 ? `${+(n / 1000).toFixed(1)}k` : String(+n.toPrecision(3));
  return /^usd/i.test(symbol) ? `$${text}` : text;
}

/**
 * revenueChart draws what was earned, upwards, and what went back, downwards. It is read with a pointer, or with the arrow keys; a table of the same
 * stands below it.
 */
export function revenueChart(host, { buckets, interval, coins, hours, now, height }) {
  const width = Math.max(260, host.clientWidth);
  const left = 48, right = 4, above = 12, below = 24;
  const list = fold(buckets, Math.max(8, Math.floor((width - left) / 11)), coins);
  const [symbol, decimals] = coins.main.split(' ');
  const value = (purse) => Number(purse.get()) / 10 ** Number(decimals); // for lengths alone
  const most = Math.max(...list.map((b) => value(b.earned)), 0);
  const least = Math.max(...list.map((b) => value(b.returned)), 0);
  const { top, step } = nice(Math.max(most, least / 2));
  const bottom = least > 0 ? Math.max(top / 24, Math.min(top, nice(least).top)) : 0; // what went back must be seen, however little
  const y = (v) => above + (height - above - below) * (top - v) / (top + bottom);
  const slot = (width - left - right) / list.length;
  const bar = Math.max(2, Math.min(40, slot * 0.72));
  const x = (i) => left + slot * i + (slot - bar) / 2;
  const parts = [];
  for (let v = 0; v <= top + 1e-9; v += step) {
    parts.push(s('line', { x1: left, x2: width - right, y1: y(v), y2: y(v), class: v === 0 ? 'axis' : 'grid' }));
    parts.push(s('text', { x: left - 8, y: y(v) + 4, class: 'mark', 'text-anchor': 'end' }, axisMoney(v, symbol)));
  }
  const ticks = marked(list, interval === 'hour' && hours > 48, Math.max(2, Math.floor((width - left) / 76)));
  const bars = list.map((b, i) => {
    const g = s('g', { class: `bar${new Date(b.end) > now ? ' unfinished' : ''}` });
    const up = value(b.earned), down = value(b.returned);
    g.append(s('rect', { x: left + slot * i, y: above, width: slot, height: height - above - below, class: 'hit' }));
    if (up > 0) g.append(s('rect', { x: x(i), y: Math.min(y(up), y(0) - 2), width: bar, height: Math.max(2, y(0) - y(up)), rx: Math.min(3, bar / 3), class: 'earned' }));
    if (down > 0) g.append(s('rect', { x: x(i), y: y(0) + 2, width: bar, height: Math.max(4, y(-Math.min(down, bottom)) - y(0) - 2), rx: Math.min(3, bar / 3), class: 'returned' }));
    if (ticks.has(i)) parts.push(s('text', { x: x(i) + bar / 2, y: height - 6, class: 'mark', 'text-anchor': 'middle' }, bucketTick(b, interval, hours)));
    return g;
  });
  const best = list.reduce((n, b, i) => (value(b.earned) > value(list[n].earned) ? i : n), 0);
  const readout = h('output', { class: 'readout' }, most > 0 ? ['Best: ', describe(list[best], interval, now)] : 'Nothing was kept.');
  const sum = list.reduce((n, b) => n + b.paid, 0);
  const picture = s('svg', {
    viewBox: `0 0 ${width} ${height}`, width, height, role: 'img',
    'aria-label': `Bars of what was earned, ${plural(sum, 'payment')} in ${list.length} steps; the table below has the same numbers.`,
  }, parts, bars);
  const frame = h('div', { class: 'bars', tabindex: '0', role: 'group', 'aria-label': 'Revenue over time; read it with the arrow keys', 'data-key': 'revenue-bars' }, picture);
  let at = -1;
  const choose = (i) => {
    if (i === at || i < 0 || i >= list.length) return;
    bars[at]?.classList.remove('chosen');
    at = i;
    bars[i].classList.add('chosen');
    put(readout, describe(list[i], interval, now));
  };
  frame.addEventListener('pointermove', (e) => choose(Math.floor((e.clientX - picture.getBoundingClientRect().left - left) / slot)));
  frame.addEventListener('keydown', (e) => {
    const to = { ArrowLeft: at < 0 ? list.length - 1 : at - 1, ArrowRight: at + 1, Home: 0, End: list.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    choose(Math.max(0, Math.min(list.length - 1, to)));
  });
  put(host, frame, h('div', { class: 'below-chart' }, readout, legend()));
}

const legend = () => h('ul', { class: 'legend' }, h('li', { class: 'is-earned' }, 'earned'), h('li', { class: 'is-returned' }, 'refunds'));

function describe(b, interval, now) {
  const words = [h('b', {}, bucketName(b, interval)), new Date(b.end) > now ? ' so far: ' : ': ', `${b.earned.brief()} from ${plural(b.paid, 'payment')}`];
  if (b.back > 0) words.push(`; ${b.returned.brief()} in ${plural(b.back, 'refund')}`);
  if (b.failed > 0) words.push(`; ${count(b.failed)} not paid`);
  if (b.open > 0) words.push(`; ${count(b.open)} under way`);
  return words;
}

/** revenueTable is the chart in numbers, newest first. */
export function revenueTable({ buckets, interval, coins }) {
  const rows = buckets.toReversed().filter((b) => b.earned.payments + b.returned.payments + b.failed + b.open > 0).map((b) => h('tr', {},
    h('th', { scope: 'row' }, bucketName(b, interval)),
    h('td', { class: 'number' }, new Purse(coins).add(b.earned.amounts).text()), h('td', { class: 'number' }, count(b.earned.payments)),
    h('td', { class: 'number' }, new Purse(coins).add(b.returned.amounts).text()), h('td', { class: 'number' }, count(b.failed)), h('td', { class: 'number' }, count(b.open))));
  if (rows.length === 0) return h('p', { class: 'note' }, 'There were no payments in this time.');
  return h('table', {}, h('thead', {}, h('tr', {}, ['When', 'Earned', 'Payments', 'Refunds', 'Not paid', 'Under way'].map((t, i) => h('th', { scope: 'col', class: i > 0 && 'number' }, t)))), h('tbody', {}, rows));
}

/** shareBar is one line that is cut into parts of several kinds. */
export function shareBar(parts) {
  const total = parts.reduce((n, p) => n + p.n, 0);
  const svg = s('svg', { viewBox: '0 0 1000 16', preserveAspectRatio: 'none', class: 'shares', 'aria-hidden': 'true' });
  let x = 0;
  for (const p of parts) {
    const w = Math.max(4, 1000 * p.n / total); // what is rare must be seen, too
    svg.append(s('rect', { x, y: 0, width: Math.max(1, w - 3), height: 16, class: `share ${p.kind}` }));
    x += w;
  }
  svg.setAttribute('viewBox', `0 0 ${Math.max(1, x)} 16`);
  return svg;
}

/** histogram shows how many took how long. */
export function histogram(host, settlement) {
  const spans = settlement.histogram;
  const most = Math.max(1, ...spans.map((p) => p.payments));
  const width = Math.max(220, host.clientWidth), height = 130, below = 20;
  const slot = width / spans.length;
  const last = spans.reduce((n, p, i) => (p.payments > 0 ? i : n), 0);
  const parts = spans.flatMap((p, i) => {
    const tall = p.payments === 0 ? 0 : Math.max(2, (height - below - 4) * p.payments / most);
    const from = i === 0 ? 0 : spans[i - 1].upToMs;
    const slow = from >= 10_000;
    return [
      s('rect', { x: slot * i + 1, y: height - below - tall, width: Math.max(1, slot - 2), height: tall, rx: 2, class: slow ? 'span slow' : 'span' },
        s('title', {}, `${p.upToMs ? `${millis(from)} to ${millis(p.upToMs)}` : `more than ${millis(from)}`}: ${plural(p.payments, 'payment')}`)),
      i % (width < 330 ? 3 : 2) === 0 && s('text', { x: slot * i, y: height - 5, class: 'mark', 'text-anchor': i === 0 ? 'start' : slot * i > width - 30 ? 'end' : 'middle' }, i === 0 ? '0' : millis(from).replace('.0', '')),
    ];
  });
  const label = spans.filter((p, i) => p.payments > 0 && i <= last).map((p) => `${p.upToMs ? `up to ${millis(p.upToMs)}` : 'longer'}: ${p.payments}`).join('; ');
  return s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': `How long settling took: ${label}` },
    s('line', { x1: 0, x2: width, y1: height - below, y2: height - below, class: 'axis' }), parts.filter(Boolean));
}

/** meter is a bar that is so full; kind says how that is. */
export function meter(share, kind, label) {
  const w = Math.max(0, Math.min(1, share)) * 100;
  return s('svg', { viewBox: '0 0 100 6', preserveAspectRatio: 'none', class: 'meter', role: 'img', 'aria-label': label },
    s('rect', { x: 0, y: 0, width: 100, height: 6, class: 'track' }), s('rect', { x: 0, y: 0, width: Math.max(w, 1), height: 6, class: kind }));
}

