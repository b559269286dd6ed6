// Numbers and times in words. Money is counted in atomic units as BigInt, and is never a floating-point number, but for how long a bar is.

const locale = navigator.language || 'en'; // of times; numbers are as the page is, in English
const whole = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat(locale, { hour: '2-digit', minute: '2-digit' });
const dayClock = new Intl.DateTimeFormat(locale, { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' });
const dayOnly = new Intl.DateTimeFormat(locale, { weekday: 'short', month: 'short', day: 'numeric' });
const dayShort = new Intl.DateTimeFormat(locale, { month: 'short', day: 'numeric' });
const full = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'medium' });

export const count = (n) => whole.format(n);
export const time = (t) => full.format(new Date(t));

/** plural gives "1 payment" or "3 payments". */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** units gives an amount of atomic units as a decimal number, with at least two and at most `most` places that say something. */
export function units(atomic, decimals, most = decimals) {
  const negative = atomic < 0n;
  const text = (negative ? -atomic : atomic).toString().padStart(decimals + 1, '0');
  const before = decimals ? text.slice(0, -decimals) : text;
  let after = decimals ? text.slice(-decimals).slice(0, most).replace(/0+$/, '') : '';
  if (decimals) after = after.padEnd(Math.min(2, decimals), '0');
  return `${negative ? '−' : ''}${count(BigInt(before))}${after ? `.${after}` : ''}`;
}

/** Coins knows how many decimals each asset has. */
export class Coins {
  constructor(settings) {
    this.known = new Map();
    for (const n of settings?.networks ?? []) this.known.set(`${n.network} ${n.asset}`.toLowerCase(), n);
  }

  find(m) { return this.known.get(`${m.network} ${m.asset}`.toLowerCase()); }

  /** name is what sums are kept under: the same symbol with the same decimals is the same money, on whichever network. */
  name(m) {
    const n = this.find(m);
    return n ? `${n.symbol} ${n.decimals}` : `${m.symbol || m.asset} ${decimalsOf(m)}`;
  }

  /** main is the money of the shop: that of its first network. */
  get main() {
    const n = this.known.values().next().value;
    return n ? `${n.symbol} ${n.decimals}` : 'USDC 6';
  }
}

/** decimalsOf finds out how many decimals an amount has that is there both ways; 0: it is not. */
function decimalsOf(m) {
  if (!m.amountDecimal) return 0;
  const digits = m.amountDecimal.replace('.', '').replace(/^0+(?=\d)/, '');
  const places = m.amountDecimal.includes('.') ? m.amountDecimal.split('.')[1].length : 0;
  return places + Math.max(0, m.amount.length - digits.length);
}

/** Purse is money of several kinds. */
export class Purse {
  constructor(coins) { this.coins = coins; this.all = new Map(); }

  add(amounts) {
    for (const m of amounts ?? []) {
      const name = this.coins.name(m);
      this.all.set(name, (this.all.get(name) ?? 0n) + BigInt(m.amount));
    }
    return this;
  }

  get(name = this.coins.main) { return this.all.get(name) ?? 0n; }

  /** brief is text without fractions of cents, unless that is all there is. */
  brief() { return this.text(this.get() >= 10n ** BigInt(this.coins.main.split(' ')[1]) ? 2 : undefined); }

  /** text is all of it in words; the shop's own money first, and named even where there is none. */
  text(most) {
    const names = [...this.all.keys()].filter((n) => n !== this.coins.main && this.all.get(n) !== 0n);
    return [this.coins.main, ...names].map((n) => money(this.get(n), n, most)).join(' + ');
  }
}

/** money is an amount with its symbol; dollars get their sign. */
export function money(atomic, name, most) {
  const [symbol, decimals] = name.split(' ');
  const text = units(atomic, Number(decimals), most);
  return /^usd/i.test(symbol) ? `$${text}`.replace('$−', '−$') : `${text} ${symbol.length > 12 ? `${symbol.slice(0, 6)}…` : symbol}`;
}

/** price is the amount of one payment, exactly, as the page shows it among others: with at least two places. */
export function price(p) {
  if (!p.amountDecimal || !p.symbol) return paid(p);
  const [before, after = ''] = p.amountDecimal.split('.');
  const text = `${count(BigInt(before))}.${after.padEnd(2, '0')}`;
  return /^usd/i.test(p.symbol) ? `$${text}` : `${text} ${p.symbol}`;
}

/** paid is the amount of one payment, exactly, with the name of its asset. */
export function paid(p) {
  return p.amountDecimal ? `${p.amountDecimal} ${p.symbol || ''}`.trim() : `${p.amount} units`;
}

/** ether gives wei with four places that say something. */
export function ether(wei) {
  const text = units(BigInt(wei), 18);
  const [before, after = ''] = text.split('.');
  const first = before === '0' ? Math.max(0, after.search(/[1-9]/)) : 0;
  const kept = after.slice(0, first + 4).replace(/0+$/, '');
  return `${before}${kept ? `.${kept}` : ''} ETH`;
}

const steps = [[60, 'second'], [60, 'minute'], [24, 'hour'], [7, 'day'], [52, 'week']];

/** lasting is a time in its largest unit: "5 hours". */
export function lasting(seconds) {
  let n = Math.max(0, seconds);
  for (const [most, unit] of steps) {
    if (n < most || unit === 'week') return plural(Math.floor(n), unit);
    n /= most;
  }
  return '';
}

const brief = { second: 's', minute: 'min', hour: 'h', day: 'd', week: 'wk' };

/** ago says how long ago something was, in few letters: it stands in tables. */
export function ago(t, now = Date.now()) {
  const seconds = (now - new Date(t)) / 1000;
  return seconds < 5 ? 'just now' : `${lasting(seconds).replace(/[a-z]+$/, (unit) => brief[unit.replace(/s$/, '')])} ago`;
}

/** tick has the times that are shown as ago go on. */
export function tick(root = document) {
  for (const e of root.querySelectorAll('time[data-ago]')) e.textContent = ago(e.dateTime);
}

export function millis(ms) {
  return ms < 1000 ? `${count(ms)} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s` : lasting(ms / 1000);
}

const half = 43_200_000; // a day
/** firstNoon and lastNoon are within a bucket's days. Those begin by the clock of now: when that was put forward, a bucket before begins on the day before. */
const firstNoon = (b) => new Date(Date.parse(b.start) + half);
const lastNoon = (b) => new Date(Date.parse(b.end) - half);

/** bucketName names a bucket of a chart, which may be of several hours or days. */
export function bucketName(b, interval) {
  if (interval === 'hour') return `${dayClock.format(new Date(b.start))} to ${clock.format(new Date(b.end))}`;
  const [first, last] = [firstNoon(b), lastNoon(b)];
  return last - first < half ? dayOnly.format(first) : `${dayShort.format(first)} to ${dayShort.format(last)}`;
}

/** bucketTick is the short form, for an axis. */
export function bucketTick(b, interval, hours) {
  return interval === 'hour' && hours <= 48 ? clock.format(new Date(b.start)) : dayShort.format(interval === 'day' ? firstNoon(b) : new Date(b.start));
}

const chains = { 'eip155:8453': 'Base', 'eip155:84532': 'Base Sepolia', 'eip155:1': 'Ethereum', 'eip155:11155111': 'Sepolia', 'eip155:137': 'Polygon', 'eip155:43114': 'Avalanche', 'eip155:42161': 'Arbitrum', 'eip155:10': 'Optimism' };

export const chain = (id) => chains[id] ?? id;

/** states are what each is called, and what it means for the seller: good, wait, bad, back or quiet. */
export const states = {
  PENDING: ['Asked for', 'quiet'], SETTLING: ['Settling', 'wait'], PAID: ['Paid, not delivered yet', 'wait'], DELIVERED: ['Delivered', 'good'],
  SETTLED: ['Settled for others', 'quiet'], OWED: ['Delivered, not paid', 'bad'], FAILED: ['Failed', 'quiet'], VOID: ['Void', 'quiet'],
  EXPIRED: ['Expired', 'quiet'], CANCELLED: ['Cancelled', 'quiet'], REFUND_PENDING: ['Refund waiting', 'wait'], REFUNDED: ['Refunded', 'back'],
  REFUND_FAILED: ['Refund failed', 'bad'], REFUND: ['A refund’s transfer', 'quiet'],
};

/** trailWords are what the events of a payment's audit trail are called. */
const trailWords = {
  claim: 'Asked for', challenge: 'Asked for', send: 'Sent to the chain', settle: 'Money arrived', fail: 'Not paid', final: 'Final on the chain', deliver: 'Passed on to the upstream',
  delivered: 'Delivered', undelivered: 'Not delivered', refund_retry: 'Refund tried again',
};

/** stepName names an event of a trail; those that are rare have the ledger's name. */
export const stepName = (event) => trailWords[event] ?? sentence(event);

/** sentence makes words of a code: "over limit" of over_limit. */
export const sentence = (code) => capital(String(code ?? '').replaceAll('_', ' '));

export const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** plain shows what can't be seen or would turn a line round, as an address does: strangers choose what they pay for. */
export const plain = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, encodeURIComponent);

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const stateName = (state) => states[state]?.[0] ?? state;
export const stateKind = (state) => states[state]?.[1] ?? 'quiet';
