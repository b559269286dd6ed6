// Looks at the dashboard in Chromium, scene by scene. It gets its order as JSON, and prints what it saw: what went wrong, and numbers.
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { operations, shop } from './shop.mjs';

const order = JSON.parse(readFileSync(0, 'utf8')); // { url, key, reader, browser, shots, scenes }
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
if (order.shots) mkdirSync(order.shots, { recursive: true });

const wrong = [];
const seen = {};
const desktop = { width: 1360, height: 900 };
const phone = { width: 360, height: 780 };
const live = `sk_live_${'x'.repeat(49)}`; // of the shop that is made up

const browser = await chromium.launch({ executablePath: order.browser, args: ['--no-sandbox', '--disable-dev-shm-usage'] });

/** visit opens the dashboard in a browser of its own, and closes that when the scene is over. What the page complains of is wrong. */
async function visit(name, { viewport = desktop, colorScheme = 'light', prepare, key = order.key, quick = false, timezoneId }, scene) {
  const context = await browser.newContext({ viewport, colorScheme, bypassCSP: false, reducedMotion: 'reduce', locale: 'en-GB', timezoneId });
  context.setDefaultTimeout(60_000); // on a busy machine, too
  const page = await context.newPage();
  const expected = [];
  page.on('console', (m) => {
    if (m.type() === 'error' && !expected.some((e) => m.text().includes(e))) wrong.push(`${name}: the console says ${m.text()}`);
  });
  page.on('pageerror', (e) => wrong.push(`${name}: ${e.stack}`));
  page.on('request', (r) => {
    if (!r.url().startsWith(new URL(order.url).origin)) wrong.push(`${name}: it asks for ${r.url()}`);
    if (r.url().includes('sk_test_')) wrong.push(`${name}: the key is in an address`);
  });
  if (prepare) await prepare(page, expected);
  await page.goto(order.url);
  if (key) {
    await page.getByLabel('API key', { exact: true }).fill(key);
    await page.keyboard.press('Enter');
  }
  try {
    await scene(page, expected);
  } catch (e) {
    wrong.push(`${name}: ${e.message}`);
  }
  await look(page, name, quick);
  await context.close();
}

/** settle waits until all sections show what they have. */
const settle = (page) => page.waitForFunction(() => document.body.dataset.view === 'board' && !document.querySelector('#board [aria-busy="true"]'), null);

/** look takes a picture, looks for what does not fit, and has axe look, unless it must be quick: axe has seen the same in another scene. */
async function look(page, name, quick) {
  if (order.shots) await page.screenshot({ path: join(order.shots, `${name}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) wrong.push(`${name}: it is ${wide} px wider than the window`);
  if (quick) return;
  const world = await page.context().newCDPSession(page); // a world of its own, so that the page's policy need not let it in
  const { frameTree } = await world.send('Page.getFrameTree');
  const { executionContextId } = await world.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
  const said = await world.send('Runtime.evaluate', {
    contextId: executionContextId, awaitPromise: true, returnByValue: true,
    expression: `${axe};axe.run(document,{runOnly:['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa','best-practice']}).then(r=>r.violations.map(v=>({id:v.id,impact:v.impact,nodes:v.nodes.map(n=>n.html.slice(0,160)+' '+(n.any[0]?.message??''))})))`,
  });
  if (said.exceptionDetails) wrong.push(`${name}: axe: ${JSON.stringify(said.exceptionDetails).slice(0, 400)}`);
  for (const v of said.result?.value ?? []) {
    if (v.impact === 'serious' || v.impact === 'critical') wrong.push(`${name}: axe: ${v.id} (${v.impact}): ${v.nodes.slice(0, 3).join(' | ')}`);
    else (seen.minor ??= []).push(`${name}: ${v.id}`);
  }
}

const text = (page, id) => page.locator(`#${id}`).innerText();
const must = (name, ok, why) => { if (!ok) wrong.push(`${name}: ${why}`); };
const three = [['', desktop, 'light'], ['-dark', desktop, 'dark'], ['-phone', phone, 'light']];
const two = [three[0], ['-phone-dark', phone, 'dark']];

/** madeUp lets a page see a shop that is made up. `first` may keep an answer back. */
const madeUp = (page, options, first = () => {}) => page.route(/\/v1\//, async (route) => {
  const url = route.request().url();
  if (url.endsWith('/v1/events')) return route.continue({ headers: { ...route.request().headers(), authorization: `Bearer ${order.key}`, 'x-network': 'testnet' } });
  await first(url);
  return route.fulfill({ json: shop(url, options) ?? {} });
});

let kept; // what is kept back of the made-up shop's answers

/** keep keeps the next answer back of an address that has a word. `there` is when it is asked for; `go` lets it come, and waits for that. */
function keep(page, word) {
  const it = kept = { word };
  it.there = new Promise((resolve) => { it.asked = resolve; });
  it.free = new Promise((resolve) => { it.release = resolve; });
  it.go = async () => {
    const came = page.waitForEvent('requestfinished', { predicate: (r) => r.url().includes(word) });
    it.release();
    await came;
    await page.evaluate(() => new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); }));
  };
  return it;
}

/** keeping is the made-up shop for a page that asks only when it is told to, and from which answers can be kept. */
async function keeping(page) {
  await page.addInitScript(() => { window.setInterval = () => 0; });
  await madeUp(page, { trouble: true }, async (url) => {
    const it = kept;
    if (!it || !url.includes(it.word)) return;
    kept = null;
    it.asked();
    await it.free;
  });
}

/** listed waits until so many payments are. */
const listed = (page, n) => page.waitForFunction((many) => document.querySelectorAll('#payments-body tbody tr').length === many, n);

const scenes = {
  async signIn() {
    for (const [suffix, viewport, colorScheme] of two) {
      await visit(`sign-in${suffix}`, { viewport, colorScheme, key: '' }, async (page, expected) => {
        expected.push('401');
        await page.getByLabel('API key', { exact: true }).fill('sk_nothing');
        await page.keyboard.press('Enter');
        must('sign-in', (await text(page, 'key-error')).includes('begins with'), 'a key that is none is not told');
        await page.getByLabel('API key', { exact: true }).fill(`sk_test_${'x'.repeat(49)}`);
        await page.keyboard.press('Enter');
        await page.waitForFunction(() => document.getElementById('key-error').textContent.includes('no such key'));
      });
    }
  },

  async empty() {
    for (const [suffix, viewport, colorScheme] of two) {
      await visit(`empty${suffix}`, { viewport, colorScheme }, async (page) => {
        await settle(page);
        must('empty', (await text(page, 'verdict-title')).includes('first payment') || (await page.locator('#needs li').count()) > 0, 'the verdict does not say that nothing was sold');
        must('empty', (await text(page, 'payments-body')).includes('No payments yet'), 'it does not say that there are no payments');
      });
    }
  },

  /** Days have their own names, though the clock was put forward meanwhile, and several that are one bar have both ends'. */
  async days() {
    await visit('days', { key: '', quick: true, timezoneId: 'Europe/Berlin' }, async (page) => {
      const named = await page.evaluate(async (at) => {
        const { bucketName, bucketTick } = await import(at);
        const b = { start: '2026-03-26T22:00:00Z', end: '2026-03-27T22:00:00Z' }; // by the clock of April
        return [bucketName(b, 'day'), bucketTick(b, 'day', 720), bucketName({ ...b, end: '2026-03-28T22:00:00Z' }, 'day')];
      }, new URL('dashboard/js/format.js', order.url).href);
      must('days', named.every((n) => n.includes('27')) && named[2].includes('28'), `27 March, and that with 28, are called ${named}`);
    });
  },

  async sold() {
    await visit('sold', { quick: true }, async (page) => {
      await settle(page);
      seen.earned = await text(page, 'earned');
      seen.needs = await page.locator('#needs b').allInnerTexts();
      seen.states = await text(page, 'states-body');
      must('sold', (await page.locator('#revenue-chart rect.earned').count()) > 0, 'there is no bar');
      const strange = page.locator('#payments-body').getByText('onerror=alert(1)>%E2%80%AE', { exact: false });
      must('sold', (await strange.count()) === 1 && !(await page.content()).includes('\u202e'), 'what a buyer has asked for is not shown as it is');
    });
  },

  /** A shop with half a year behind it, that does well and that does badly. It is made up, and its answers fit the API's own description. */
  async madeUp() {
    const described = await (await fetch(new URL('openapi.json', order.url))).json();
    for (const path of operations) {
      const content = described.paths[path]?.get?.responses['200']?.content ?? {};
      const said = shop(new URL(`${path.slice(1).replace('{id}', path.startsWith('/v1/payments') ? 'pay_x' : 'we_books')}?interval=day&since=2026-01-01T00:00:00Z`, order.url), { trouble: true });
      misfits(said, content['application/json']?.schema, described).forEach((m) => wrong.push(`made up: ${path}${m}`));
    }
    for (const [kind, state, needed] of [['busy', 'good', 0], ['trouble', 'bad', 10]]) {
      const prepare = (page) => madeUp(page, { trouble: kind === 'trouble' });
      for (const [suffix, viewport, colorScheme] of three) {
        await visit(`${kind}${suffix}`, { viewport, colorScheme, prepare, key: live, quick: kind === 'busy' && viewport === phone }, async (page) => {
          await settle(page);
          must(kind, (await page.locator('#verdict').getAttribute('data-state')) === state, 'the verdict is wrong');
          const more = page.locator('.more-needs button');
          if (viewport === desktop && await more.count()) await more.click();
          const n = await page.locator('#needs b').count();
          must(kind, viewport !== desktop || n === needed, `${n} things need somebody, not ${needed}`);
        });
      }
    }
  },

  /** From the keyboard alone: signing in, the range, a bar, a payment and back, and out. */
  async keyboard() {
    await visit('keyboard', { key: '', quick: true }, async (page) => {
      const tabTo = async (selector) => {
        for (let i = 0; i < 80; i++) {
          await page.keyboard.press('Tab');
          if (await page.evaluate((s) => document.activeElement?.matches(s), selector)) return;
        }
        throw new Error(`Tab does not reach ${selector}`);
      };
      await tabTo('#key');
      await page.keyboard.type(order.key);
      await page.keyboard.press('Enter');
      await settle(page);
      await tabTo('#range input');
      await page.keyboard.press('ArrowLeft');
      await page.waitForFunction(() => document.getElementById('earned-change').textContent.includes('24 hours'));
      await settle(page);
      await tabTo('.bars');
      await page.keyboard.press('End');
      must('keyboard', (await page.locator('.readout').innerText()).includes('so far'), 'the last bar does not say that it is not over');
      await tabTo('#payments-body button.link');
      await page.keyboard.press('Enter');
      await page.waitForSelector('#sheet[open] .trail li');
      if (order.shots) await page.screenshot({ path: join(order.shots, 'payment.png') });
      await page.keyboard.press('Escape');
      must('keyboard', await page.evaluate(() => document.activeElement?.matches('#payments-body button.link')), 'the focus is lost when a payment is closed');
      await page.locator('#filter-state').selectOption('DELIVERED');
      await settle(page);
      await page.locator('#sign-out').focus();
      await page.keyboard.press('Enter');
      await page.waitForSelector('#sign-in:not([hidden])');
      const left = await page.evaluate(() => `${JSON.stringify({ ...sessionStorage, ...localStorage })} ${document.title} ${document.documentElement.innerHTML}`);
      must('keyboard', !/sk_test_\w|weather|0x[0-9a-f]{6}|pay_[a-z0-9]{6}|\$\d|needs you|is well/i.test(left), 'who has signed out leaves something behind');
      must('keyboard', await page.locator('#mode').isHidden(), 'the network of who has signed out is shown');
      await page.keyboard.type(order.key);
      await page.keyboard.press('Enter');
      await settle(page);
      must('keyboard', (await page.locator('#filter-state').inputValue()) === '' && await page.getByLabel('7 days').isChecked(), 'what the last one has chosen is chosen still, and not what is shown');
    });
  },

  /** Answers come in another order than they were asked for: what is shown is what was asked for last. */
  async late() {
    await visit('late', { prepare: keeping, key: live, quick: true }, async (page) => {
      await settle(page);
      const choose = (state) => page.locator('#filter-state').selectOption(state);
      const open = (n) => page.locator('#payments-body tbody tr').nth(n).locator('button.link').click();
      let it = keep(page, 'payments?state=SETTLING&limit=20');
      await choose('SETTLING');
      await it.there;
      await choose('REFUND_FAILED');
      await listed(page, 1);
      await it.go();
      must('late', (await text(page, 'payments-body')).includes('Refund failed'), 'payments are listed that nobody asks for any more');
      await choose('');
      await listed(page, 20);

      it = keep(page, 'v1/payments/pay_');
      await open(0);
      await it.there;
      await page.keyboard.press('Escape');
      await open(1);
      await page.waitForSelector('#sheet[open] .trail li');
      const opened = await text(page, 'sheet-body');
      await it.go();
      must('late', (await text(page, 'sheet-body')) === opened, 'another payment is shown than was opened');
      await page.locator('#sheet-close').click();

      await page.locator('#payments-more').click();
      await listed(page, 40);
      await page.getByLabel('24 hours').click();
      await page.waitForFunction(() => document.getElementById('earned-change').textContent.includes('24 hours'));
      await settle(page);
      must('late', (await page.locator('#payments-body tbody tr').count()) === 40, 'what “Show more” has brought is gone when all is asked for again');
    });
  },

  /** Who has turned to something else, or has left, is not disturbed by the answer to what was before. */
  async parting() {
    await visit('parting', { prepare: keeping, key: live, quick: true }, async (page) => {
      await settle(page);
      const again = page.locator('#refunds-body td.acts button');
      let it = keep(page, '/retry');
      await again.nth(0).click();
      await page.locator('#ask-yes').click();
      await it.there;
      await page.locator('#ask-no').click();
      await again.nth(1).click();
      await it.go();
      must('parting', (await page.locator('#ask[open] #ask-yes:enabled').count()) === 1, 'a question is closed by the answer to another');
      await page.locator('#ask-no').click();

      it = keep(page, 'v1/revenue');
      await page.getByLabel('24 hours').click();
      await it.there;
      await page.locator('#sign-out').click();
      await page.getByLabel('API key', { exact: true }).fill(live);
      await page.keyboard.press('Enter');
      await settle(page); // whatever the last one waits for
      await it.go();
      must('parting', !(await text(page, 'earned-change')).includes('24 hours'), 'what the last one has asked for is shown');
    });
  },

  /** A payment is made while somebody looks: it is there without anybody asking. */
  async live() {
    await visit('live', { quick: true }, async (page) => {
      await settle(page);
      await page.waitForSelector('#pulse[data-state="on"]');
      const before = await page.locator('#feed-list li').count();
      const bought = await fetch(order.buy, { method: 'POST' });
      must('live', bought.ok, `the test's own shop answered ${bought.status}`);
      await page.waitForFunction((n) => document.querySelectorAll('#feed-list li').length > n, before);
      seen.live = await page.locator('#feed-list li').first().innerText();
    });
  },

  /** What was paid and not delivered is given back, after a question; a reader's key has no such button. */
  async act() {
    await visit('reader', { key: order.reader, quick: true }, async (page, expected) => {
      expected.push('403');
      await settle(page);
      must('reader', (await page.locator('#refunds-body td.acts button').count()) === 0, 'a key that may only look has buttons');
      must('reader', (await text(page, 'keys-body')).includes('keys:manage'), 'it does not say which scope is needed');
    });
    await visit('refund-failed', {}, async (page) => {
      await settle(page);
      must('act', (await page.locator('#verdict').getAttribute('data-state')) === 'bad', 'a failed refund is not bad news');
      await page.getByRole('button', { name: /^Try again/ }).first().click();
      await page.waitForSelector('#ask[open]');
      if (order.shots) await page.screenshot({ path: join(order.shots, 'question.png') });
      await page.locator('#ask-yes').click();
      await page.waitForSelector('#ask', { state: 'hidden' });
      await page.waitForFunction(() => !document.querySelector('#refunds-body td.acts button'));
      seen.retried = true;
    });
  },

  /** The ledger is away: first from the start, then while somebody looks. */
  async failing() {
    const refuse = (route) => route.fulfill({ status: 503, headers: { 'Retry-After': '1' }, contentType: 'application/json', body: JSON.stringify({ error: { code: 'internal.unavailable', message: 'the ledger can’t be reached now; try again', requestId: 'req_x' } }) });
    const ledger = /\/v1\/(?!api-keys\/current|settings)/;
    for (const [suffix, viewport, colorScheme] of two) {
      const prepare = async (page, expected) => { expected.push('503'); await page.route(ledger, refuse); };
      await visit(`failing${suffix}`, { viewport, colorScheme, prepare }, async (page) => {
        await settle(page);
        must('failing', (await page.locator('#verdict').getAttribute('data-state')) === 'unknown', 'all is said to be well that nobody knows of');
        must('failing', await page.locator('#again').isVisible(), 'it can’t be asked again');
        must('failing', !(await text(page, 'board')).includes('Quiet so far'), 'what is not known is said to be quiet');
      });
    }
    await visit('stale', {}, async (page, expected) => {
      expected.push('503');
      await settle(page);
      const before = await text(page, 'earned');
      await page.route(ledger, refuse);
      await page.getByLabel('24 hours').click();
      await page.waitForSelector('#payments.stale');
      must('stale', (await text(page, 'earned')) === before, 'what was known is gone');
      must('stale', (await text(page, 'verdict-text')).includes('as it was'), 'nobody is told that it is old');
      must('stale', await page.getByLabel('7 days').isChecked(), 'the range is not that of what is shown');
    });
    const denied = { error: { code: 'apikey.scope_insufficient', message: 'this API key does not have the scope', requestId: 'req_x' } };
    const answers = { denied: { status: 403, json: denied }, refused: { status: 400, json: { error: { code: 'x', message: 'it is not understood' } } }, nonsense: { json: {} } };
    for (const [name, answer] of Object.entries(answers)) { // whatever keeps it from being known, nobody is told that all is well
      const prepare = (page, expected) => { expected.push('403', '400', 'TypeError'); return page.route(name === 'denied' ? ledger : /\/v1\/wallets/, (route) => route.fulfill(answer)); };
      await visit(name, { prepare, quick: true }, async (page) => {
        await settle(page);
        must(name, (await page.locator('#verdict').getAttribute('data-state')) === 'unknown', 'all is said to be well that nobody knows of');
      });
    }
    await visit('loading', { prepare: (page) => page.route(ledger, () => {}) }, async (page) => {
      await page.waitForSelector('#payments-body .skeleton');
      must('loading', (await text(page, 'verdict-title')).includes('Looking'), 'the verdict is said before anything is known');
    });
  },
};

/** misfits are what of a value a schema does not know, or misses. */
function misfits(value, schema, doc, at = '') {
  const known = schema?.$ref ? schema.$ref.slice(2).split('/').reduce((o, k) => o[k], doc) : schema;
  if (!known) return [`${at}: it is not described`];
  if (Array.isArray(value)) return value.flatMap((v, i) => misfits(v, known.items, doc, `${at}[${i}]`)).slice(0, 3);
  if (value === null) return [known.type].flat().includes('null') ? [] : [`${at}: it is never null`];
  if (typeof value !== 'object') return known.enum && !known.enum.includes(value) ? [`${at}: ${value} is none of ${known.enum}`] : [];
  return [
    ...Object.keys(value).flatMap((k) => misfits(value[k], known.properties?.[k], doc, `${at}.${k}`)),
    ...(known.required ?? []).filter((k) => !(k in value)).map((k) => `${at}.${k}: it is missing`),
  ];
}

for (const name of order.scenes) await scenes[name]();
await browser.close();
process.stdout.write(JSON.stringify({ wrong, seen }));
