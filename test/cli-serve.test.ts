import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { certificate, type Pair } from './support/certificates.js';
import { cli, groupIsAlive, runCli } from './support/cli.js';
import { scratch } from './support/pool-client.js';
import { fixture, until, within } from './support/server.js';

const HELLO = fixture('../../examples/hello/handler.js');
const SLOW = fixture('cli/slow.js');
const HERE = ['--host', '127.0.0.1', '--port', '0'];
const text = async (url: string): Promise<string> => (await fetch(url)).text();

/** A module that says `answer`, in a folder of its own. */
function moduleThatSays(
  answer: string,
  name = 'handler.js',
): { path: string; says: (answer: string) => void } {
  const path = join(scratch(), name);
  const says = (next: string): void =>
    writeFileSync(path, `export default () => ({ body: ${JSON.stringify(next)} });\n`);
  says(answer);
  return { path, says };
}

describe('offloop serve', () => {
  it('serves a module and says where, with how many threads and which queue', async () => {
    const { url, out, child, ended } = cli(['serve', HELLO, ...HERE, '--n-min', '1', '--n-max', '2'], {
      env: { OFFLOOP_QUEUE_SIZE: '7' },
    });
    expect(await text(`${await url()}/there`)).toBe('Hello from /there\n');
    expect(out()).toMatch(/threads +1 to 2\n +queue +7\n/);
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  });

  it('speaks TLS, and takes new certificates into use on SIGHUP', async () => {
    const [cert, key] = [join(scratch(), 'site.crt'), join(scratch(), 'site.key')];
    const use = (pair: Pair): void => {
      copyFileSync(pair.cert, cert);
      copyFileSync(pair.key, key);
    };
    use(certificate('one.test'));
    const { url, child, ended } = cli(['serve', HELLO, ...HERE, '--tls', `cert=${cert},key=${key}`]);
    const { port, protocol } = new URL(await url());
    expect(protocol).toBe('https:');
    // While certificates change a new connection may be refused, or reset.
    const nameMet = async (): Promise<unknown> => {
      const socket = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false });
      const met = once(socket, 'secureConnect').then(
        () => socket.getPeerCertificate().subject.CN,
        () => undefined,
      );
      await met;
      socket.destroy();
      return met;
    };
    expect(await nameMet()).toBe('one.test');
    use(certificate('two.test'));
    child.kill('SIGHUP');
    await until(async () => (await nameMet()) === 'two.test', 'the new certificate is in use', 15_000);
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  });

  it('ends with 2 when its certificate cannot be used', async () => {
    const { key } = certificate('one.test');
    const { code, err } = await runCli(['serve', HELLO, ...HERE, '--tls', `cert=/nowhere.pem,key=${key}`]);
    expect(code).toBe(2);
    expect(err).toContain('/nowhere.pem');
  });

  it('runs a handler inline, mounts others, and says nothing when told to be quiet', async () => {
    const unix = join(scratch(), 'socket');
    const { child, ended, out, err } = cli([
      ...['serve', HELLO, '--unix', unix, '--dispatch', 'inline', '--quiet'],
      ...['--mount', `/slow=${SLOW}`, '--mount-inline', `/here=${SLOW}`],
    ]);
    await until(() => existsSync(unix), 'it listens', 15_000);
    const { Client } = await import('undici');
    const client = new Client('http://localhost', { socketPath: unix });
    const get = async (path: string): Promise<string> =>
      (await client.request({ path, method: 'GET' })).body.text();
    expect(await get('/x')).toBe('Hello from /x\n');
    expect([await get('/slow'), await get('/here')]).toEqual(['done', 'done']);
    await client.close();
    child.kill('SIGINT');
    expect(await ended).toBe(0);
    expect([out(), err()]).toEqual(['', '']);
    expect(existsSync(unix)).toBe(false);
  });

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'finishes what is under way on %s, and then ends with 0',
    async (signal) => {
      const { url, child, ended, says } = cli(['serve', SLOW, ...HERE, '--stats-path', '/stats']);
      const home = await url();
      const slow = text(`${home}/?800`);
      const open = async (): Promise<number> =>
        (JSON.parse(await text(`${home}/stats`)) as { open: number }).open;
      await until(async () => (await open()) === 2, 'it is under way');
      child.kill(signal);
      await says(/finishing what is under way/);
      expect(await slow).toBe('done');
      expect(await ended).toBe(0);
    },
  );

  it('says that it is not ready before it stops listening', async () => {
    const args = ['serve', SLOW, ...HERE, '--ready-path', '/ready', '--drain-delay', '2500'];
    const { url, child, ended } = cli(args);
    const home = await url();
    expect(await text(`${home}/ready`)).toBe('ready\n');
    child.kill('SIGTERM');
    await until(async () => (await fetch(`${home}/ready`)).status === 503, 'it says that it is not ready');
    expect(await text(`${home}/?0`)).toBe('done');
    expect(await ended).toBe(0);
  });

  it('ends at once on the second signal, with 128 and its number', async () => {
    const { url, child, ended, says } = cli(['serve', SLOW, ...HERE]);
    const home = await url();
    const slow = text(`${home}/?600000`).catch(() => 'cut');
    await text(`${home}/pid`);
    child.kill('SIGTERM');
    await says(/once more ends at once/);
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    expect(await slow).toBe('cut');
  });

  it('cuts what takes longer than --stop-timeout', async () => {
    const { url, child, ended } = cli(['serve', SLOW, ...HERE, '--stop-timeout', '100']);
    const home = await url();
    const slow = text(`${home}/?600000`).catch(() => 'cut');
    await text(`${home}/pid`);
    child.kill('SIGTERM');
    expect(await within(ended, 'its end')).toBe(0);
    expect(await slow).toBe('cut');
  });

  it('puts new code into service on SIGHUP, and keeps the old when the new does not start', async () => {
    const { path, says: write } = moduleThatSays('one');
    const { url, child, says } = cli(['serve', path, ...HERE]);
    const home = await url();
    expect(await text(home)).toBe('one');
    write('two');
    child.kill('SIGHUP');
    await says(/reloaded in \d+ ms/);
    expect(await text(home)).toBe('two');
    writeFileSync(path, 'export default 3;\n');
    child.kill('SIGHUP');
    await says(/the new code does not start, the old one goes on/);
    expect(await text(home)).toBe('two');
  });

  it('answers with its numbers under --stats-path', async () => {
    const { url } = cli(['serve', HELLO, ...HERE, '--stats-path', '/stats']);
    const home = await url();
    await text(home);
    expect(await (await fetch(`${home}/stats`)).json()).toMatchObject({
      status: 'running',
      answers: { 200: 1 },
    });
  });

  it.each(['dev', 'serve'])('%s serves TypeScript', async (command) => {
    const { url } = cli([command, fixture('pool/typed.ts'), ...HERE, '--n-min', '1', '--n-max', '1']);
    expect(await text(`${await url()}?name=eve`)).toBe('hello, eve 1');
  });
});

describe('offloop serve, used in a wrong way', () => {
  it.each([
    [[], /Usage: offloop/],
    [['srve', 'x.js'], /unknown command 'srve'[\s\S]*Did you mean serve/],
    [['serve'], /missing required argument 'module'/],
    [['serve', HELLO, 'more.js'], /too many arguments/],
    [['serve', HELLO, '--prot', '1'], /unknown option '--prot'\n\(Did you mean --port\?\)/],
    [['serve', HELLO, '--port'], /'--port <n>' argument missing/],
    [
      ['serve', HELLO, '--port', 'http'],
      /^offloop: --port is "http"; allowed: a whole number from 0 to 65535\.\n$/,
    ],
    [
      ['serve', HELLO, '--n-min', '5', '--n-max', '2'],
      /^offloop: --n-min is 5 \(number\); allowed: at most --n-max, which is 2\.\n$/,
    ],
    [
      ['serve', './nowhere.js'],
      /^offloop: there is no handler module \.\/nowhere\.js: looked for .*\/nowhere\.js\. Give/,
    ],
    [['serve', HELLO, '--unix', '/nowhere/at/all', '--port', '1'], /--port is 1 .* nothing beside unix/],
    [
      ['serve', HELLO, '--unix', '/nowhere/at/all'],
      /cannot listen on \/nowhere\/at\/all \(E\w+\)\. The path of --unix has to be free/,
    ],
    [
      ['serve', HELLO, '--host', '203.0.113.1', '--port', '0'],
      /\(EADDRNOTAVAIL\)\. This machine has no such address: check --host/,
    ],
    [['serve', HELLO, '--processes', '2', '--unix', '/tmp/x'], /--unix goes with one process/],
    [['dev', HELLO, '--dispatch', 'inline'], /leave out --dispatch inline/],
    [['dev', HELLO, '--watch', '/nowhere'], /--watch \/nowhere is no folder/],
  ])('%j says what to do, with exit code 2', async (args, says) => {
    const { code, out, err } = await runCli(args);
    expect(err).toMatch(says);
    expect({ code, out }).toEqual({ code: 2, out: '' });
  });

  it.each([1, 2])(
    'says that the port is taken, with %i processes, and leaves nothing behind',
    async (processes) => {
      const other = createServer().listen(0, '127.0.0.1');
      await once(other, 'listening');
      const port = String((other.address() as AddressInfo).port);
      const args = ['serve', HELLO, '--host', '127.0.0.1', '--port', port, '--processes', String(processes)];
      const { pid, ended, err } = cli(args);
      expect(await ended).toBe(2);
      expect(err()).toContain(
        `offloop: cannot listen on 127.0.0.1 port ${port} (EADDRINUSE). Something listens there already: stop it`,
      );
      expect(groupIsAlive(pid)).toBe(false);
      other.close();
    },
  );

  const lowest = '/proc/sys/net/ipv4/ip_unprivileged_port_start';
  const privileged =
    process.getuid?.() === 0 && existsSync(lowest) && Number(readFileSync(lowest, 'utf8')) > 81;
  it.runIf(privileged)('says what to do about a port that needs more rights', async () => {
    const { code, err } = await runCli(['serve', HELLO, '--host', '127.0.0.1', '--port', '81'], {
      uid: 65534,
    });
    expect(err).toMatch(/port 81 \(EACCES\)\. This user may not: choose a port from 1024 up with --port/);
    expect(code).toBe(2);
  });

  it('shows the error of a module that throws, with exit code 1', async () => {
    const path = join(scratch(), 'broken.js');
    writeFileSync(path, 'throw new RangeError("not today");\n');
    for (const how of [[], ['--dispatch', 'inline'], ['--processes', '2']]) {
      const { pid, ended, err } = cli(['serve', path, ...HERE, ...how]);
      expect(await ended).toBe(1);
      expect(err()).toMatch(
        /^offloop: the server could not be started: RangeError: not today\n +at .*broken\.js:1/,
      );
      expect(groupIsAlive(pid)).toBe(false);
    }
  });

  it('says that a module exports no handler', async () => {
    const path = join(scratch(), 'nothing.js');
    writeFileSync(path, 'export const x = 1;\n');
    const { code, err } = await runCli(['serve', path, ...HERE]);
    expect(err).toMatch(/the default export is missing; export a function/);
    expect(code).toBe(2);
  });

  it('tells of variables that mean nothing, and goes on', async () => {
    const { url, err } = cli(['serve', HELLO, ...HERE], { env: { OFFLOOP_QUEUESIZE: '3' } });
    await url();
    expect(err()).toContain('OFFLOOP_QUEUESIZE: no variables of offloop');
  });
});

describe('offloop dev', () => {
  it('reloads when a file changes, in new folders too, and shows errors to the client', async () => {
    const folder = scratch();
    const path = join(folder, 'handler.js');
    writeFileSync(path, `export default () => ({ body: 'one' });\n`);
    const { url, says } = cli(['dev', path, '--port', '0']);
    const home = await url();
    expect(home).toMatch(/^http:\/\/127\.0\.0\.1:/);
    await says(/watching /);
    expect(await text(home)).toBe('one');
    mkdirSync(join(folder, 'lib'));
    writeFileSync(join(folder, 'lib/two.js'), `export const two = 'two';\n`);
    writeFileSync(path, `import { two } from './lib/two.js';\nexport default () => ({ body: two });\n`);
    await until(async () => (await text(home)) === 'two', 'the new code answers', 15_000);
    writeFileSync(join(folder, 'lib/two.js'), `export const two = 'three';\n`);
    await until(async () => (await text(home)) === 'three', 'what it imports is new', 15_000);
    writeFileSync(path, `export default () => { throw new RangeError('see this'); };\n`);
    await until(async () => (await text(home)).includes('see this'), 'the client is shown the error', 15_000);
    writeFileSync(path, 'export default (\n');
    await says(/the new code does not start, the old one goes on/);
  });
});

describe('offloop routes', () => {
  it('shows what would be served where, and listens nowhere', async () => {
    const { code, out } = await runCli([
      ...[
        'routes',
        HELLO,
        '--mount',
        `/api=${SLOW}`,
        '--mount-inline',
        `x.org/=${HELLO}`,
        '--ready-path',
        '/ready',
      ],
    ]);
    expect(code).toBe(0);
    expect(out.split('\n').map((line) => line.split(/ +/).slice(0, 2))).toEqual([
      ['PLACE', 'RUNS'],
      ['x.org/', 'inline'],
      ['/api', 'threads'],
      ['/', 'threads'],
      ['/ready', 'inline'],
      [''],
    ]);
  });

  it('fails when a module cannot be loaded', async () => {
    const path = join(scratch(), 'broken.js');
    writeFileSync(path, 'throw new RangeError("not today");\n');
    expect(await runCli(['routes', HELLO, '--mount', `/x=${path}`])).toMatchObject({ code: 1, out: '' });
  });
});

describe('offloop doctor', () => {
  it('finds that a server can run here', async () => {
    const { code, out } = await runCli(['doctor']);
    expect(out).toMatch(/ok +Node +\d+\.[\s\S]*ok +engine +\S+[\s\S]*ok +serving +answers[\s\S]*open files/);
    expect(code).toBe(0);
    const { out: json } = await runCli(['doctor', '--json']);
    expect(JSON.parse(json)).toContainEqual({ name: 'serving', state: 'good', says: 'answers on 127.0.0.1' });
  });

  it('says its version', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    expect(await runCli(['--version'])).toEqual({ code: 0, out: `${version}\n`, err: '' });
  });
});
