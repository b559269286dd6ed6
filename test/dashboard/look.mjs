// Looks at the dashboard in Chromium, scene by scene. It gets its order as JSON, and prints what it saw: what went wrong, and numbers.
import { join } from 'node:path';
import { browser, desktop, look, must, order, phone, seen, settle, text, visit, wrong } from './eyes.mjs';
import { keep, keeping, live, madeUp, misfits } from './madeup.mjs';
import { operations, shop } from './shop.mjs';

const three = [['', desktop, 'light'], ['-dark', desktop, 'dark'], ['-phone', phone, 'light']];
const two = [three[0], ['-phone-dark', phone, 'dark']];

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
    await visit('sold', { quick: true }, async (page, expected) => {
      await settle(page);
      seen.earned = await text(page, 'earned');
      seen.needs = await page.locator('#needs b').allInnerTexts();
      seen.states = await text(page, 'states-body');
      must('sold', (await page.locator('#revenue-chart rect.earned').count()) > 0, 'there is no bar');
      const strange = page.locator('#payments-body').getByText('onerror=alert(1)>%E2%80%AE', { exact: false });
      must('sold', (await strange.count()) === 1 && !(await page.content()).includes('\u202e'), 'what a buyer has asked for is not shown as it is');
      expected.push('400');
      await page.locator('#filter-payer').fill('0x12');
      await page.keyboard.press('Enter');
      await page.locator('#payments-body').getByText('must be an address').waitFor();
      await page.getByLabel('24 hours').click();
      await page.waitForFunction(() => document.getElementById('earned-change').textContent.includes('24 hours'));
      await settle(page);
      must('sold', (await page.locator('#payments.stale').count()) === 0 && (await page.locator('#verdict').getAttribute('data-state')) !== 'unknown', 'what can’t be looked for makes the page old');
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
        await visit(`${kind}${suffix}`, { viewport, colorScheme, prepare, key: live, quick: kind === 'busy' && suffix !== '' }, async (page) => {
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

  /** Long words, large sums and several kinds of money fit, on a small phone, too. */
  async long() {
    for (const [suffix, viewport, colorScheme] of [['', { width: 920, height: 900 }, 'light'], ['-phone', { width: 320, height: 700 }, 'dark']]) {
      await visit(`long${suffix}`, { viewport, colorScheme, prepare: (page) => madeUp(page, { trouble: true, long: true }), key: live, quick: true }, async (page) => {
        await settle(page);
        await page.locator('#payments-body button.link').first().click();
        await page.waitForSelector('#sheet[open] .trail li');
        await look(page, `long${suffix}-payment`, true);
        await page.keyboard.press('Escape');
      });
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
      await page.screenshot({ path: join(order.shots, 'payment.png') });
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
      await page.screenshot({ path: join(order.shots, 'question.png') });
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
        must(name, name !== 'denied' || !(await text(page, 'board')).includes('Not known now'), 'what this key may not see is said to be not known now');
      });
    }
    await visit('loading', { prepare: (page) => page.route(ledger, () => {}) }, async (page) => {
      await page.waitForSelector('#payments-body .skeleton');
      must('loading', (await text(page, 'verdict-title')).includes('Looking'), 'the verdict is said before anything is known');
    });
  },
};

for (const name of order.scenes) await scenes[name]();
await browser.close();
process.stdout.write(JSON.stringify({ wrong, seen }));
