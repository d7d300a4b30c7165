import { spawn } from 'node:child_process';
import { chromium } from 'playwright-core';

const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const child = spawn(process.execPath, ['examples/demo/server.js'], {
  cwd: '/work/main',
  env: { ...process.env, PORT: '0' },
  stdio: ['ignore', 'pipe', 'inherit'],
});
const url = await new Promise((r) =>
  child.stdout.on('data', (d) => {
    const m = /http\S+/.exec(d);
    if (m) r(m[0]);
  }),
);
const b = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
const which = process.argv[2] ?? 'all';
async function open(w, h, scheme, scale = 1) {
  const c = await b.newContext({
    viewport: { width: w, height: h },
    colorScheme: scheme,
    deviceScaleFactor: scale,
  });
  const p = await c.newPage();
  p.on('console', (m) => console.log('console', m.type(), m.text()));
  p.on('pageerror', (e) => console.log('pageerror', e));
  await p.goto(url);
  return p;
}
let p = await open(1280, 900, 'light');
await sleep(3000);
await p.screenshot({ path: '/tmp/shots/idle.png', fullPage: true });
await p.click('[data-fire="100"]');
await sleep(1500);
await p.screenshot({ path: '/tmp/shots/fire100.png', fullPage: true });
await sleep(3000);
await p.click('#keep');
await sleep(5000);
await p.screenshot({ path: '/tmp/shots/keep.png', fullPage: true });
await p.click('[name=where][value=inline]', { force: true });
await sleep(4000);
await p.screenshot({ path: '/tmp/shots/inline.png', fullPage: true });
await p.click('[name=where][value=pool]', { force: true });
await sleep(1000);
const t = await p.evaluate(() => [...document.querySelectorAll('dd')].map((d) => d.textContent));
console.log(t.join(' '));
await p.context().close();
p = await open(390, 844, 'dark', 2);
await sleep(3500);
await p.click('[data-fire="100"]');
await sleep(1200);
await p.screenshot({ path: '/tmp/shots/phone.png', fullPage: true });
console.log('overflow', await p.evaluate(() => [document.documentElement.scrollWidth, innerWidth]));
await p.click('#keep');
await sleep(200);
await b.close();
child.kill('SIGTERM');
child.on('exit', (c, s) => console.log('exit', c, s));
