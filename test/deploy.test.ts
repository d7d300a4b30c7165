/** What examples/deploy says to do, done: with the nginx and the HAProxy of this machine in front of the server beside them. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2, constants } from 'node:http2';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Agent, type Dispatcher, request } from 'undici';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { certificate } from './support/certificates.js';
import { RawClient } from './support/http-raw.js';
import { startProgram } from './support/program.js';
import { until, within } from './support/server.js';
import { content, hashOf, MB } from './support/upload.js';

const DEPLOY = fileURLToPath(new URL('../examples/deploy/', import.meta.url));
const config = (name: string): string => readFileSync(join(DEPLOY, name), 'utf8');
const isHere = (command: string, ...args: string[]): boolean => {
  const here = spawnSync(command, args, { stdio: 'ignore' }).error === undefined;
  if (!here) console.warn(`${command} is not installed: what needs it is not tested`);
  return here;
};
const nginxIsHere = isHere('nginx', '-v');
const haproxyIsHere = isHere('haproxy', '-v');

function freshFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'offloop-deploy-'));
  // nginx started by root works as somebody else.
  chmodSync(folder, 0o755);
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await within(new Promise((resolve) => server.once('listening', resolve)), 'a port');
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Put what is true here in the place of what the configuration has; each has to be there. */
function adapt(text: string, changes: Record<string, string>): string {
  let adapted = text;
  for (const [from, to] of Object.entries(changes)) {
    expect(adapted).toContain(from);
    adapted = adapted.replaceAll(from, to);
  }
  return adapted;
}

/** Start a proxy, and wait until it listens. */
async function front(command: string, args: string[], port: number): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  onTestFinished(async () => {
    child.kill('SIGTERM');
    await exited;
  });
  const open = async (): Promise<boolean> => {
    if (child.exitCode !== null) throw new Error(`${command} ended: ${output}`);
    return await RawClient.open(port).then(
      () => true,
      () => false,
    );
  };
  await until(open, `${command} listens`);
  return child;
}

/** The server of the example. */
async function back(env: Record<string, string> = {}): Promise<{ port: string; said: () => string }> {
  const program = await startProgram('examples/deploy/server.js', { PORT: '0', ...env });
  onTestFinished(program.kill);
  return { port: new URL(String(program.urls[0])).port, said: program.output };
}

function pem(folder: string): { cert: string; key: string; both: string } {
  const { cert, key } = certificate('example.com');
  const both = join(folder, 'both.pem');
  writeFileSync(both, readFileSync(cert, 'utf8') + readFileSync(key, 'utf8'));
  return { cert, key, both };
}

async function nginx(upstream: string, folder: string): Promise<number> {
  const port = await freePort();
  const { cert, key } = pem(folder);
  const site = adapt(config('nginx.conf'), {
    'listen 443 ssl': `listen 127.0.0.1:${port} ssl`,
    '127.0.0.1:8090': `127.0.0.1:${upstream}`,
    '/etc/ssl/example.com/fullchain.pem': cert,
    '/etc/ssl/example.com/privkey.pem': key,
  });
  for (const name of ['body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']) mkdirSync(join(folder, name));
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, name.replace('client_', ''))};`)
    .join('\n');
  const path = join(folder, 'nginx.conf');
  writeFileSync(
    path,
    `daemon off;\npid ${folder}/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n${temporary}\n${site}\n}\n`,
  );
  execFileSync('nginx', ['-t', '-q', '-c', path, '-e', 'stderr'], { stdio: 'pipe' });
  await front('nginx', ['-c', path, '-e', 'stderr'], port);
  return port;
}

async function haproxy(name: string, upstream: string, folder: string): Promise<number> {
  const port = await freePort();
  const { both } = pem(folder);
  const bind: Record<string, string> =
    name === 'haproxy.cfg'
      ? { 'bind :443': `bind 127.0.0.1:${port}`, '/etc/haproxy/certs/example.com.pem': both }
      : { 'bind :8080': `bind 127.0.0.1:${port}` };
  const path = join(folder, name);
  writeFileSync(path, adapt(config(name), { ...bind, '127.0.0.1:8090': `127.0.0.1:${upstream}` }));
  execFileSync('haproxy', ['-c', '-q', '-f', path], { stdio: 'pipe' });
  await front('haproxy', ['-db', '-f', path], port);
  return port;
}

interface Shown {
  scheme: string;
  serverName: string;
  remoteAddr: string;
  size: number;
  sha1: string;
}

/** Ask, and be able to leave. HAProxy 2.6 does not hear who leaves by HTTP/1.1 over TLS. */
async function askOverHttp2(url: string, path: string): Promise<() => void> {
  const session = connectHttp2(url, { rejectUnauthorized: false });
  session.on('error', () => undefined);
  onTestFinished(() => session.destroy());
  const stream = session.request({ ':path': path });
  stream.on('error', () => undefined);
  stream.end();
  return () => stream.close(constants.NGHTTP2_CANCEL);
}

async function askAndLeave(port: number, path: string): Promise<() => void> {
  const client = await RawClient.open(port);
  client.send(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`);
  return () => client.leave();
}

const PROXIES = [
  { name: 'nginx', here: nginxIsHere, start: nginx, secure: true },
  {
    name: 'HAProxy',
    here: haproxyIsHere,
    start: (to: string, folder: string) => haproxy('haproxy.cfg', to, folder),
    secure: true,
  },
  {
    name: 'HAProxy that passes on bytes',
    here: haproxyIsHere,
    start: (to: string, folder: string) => haproxy('haproxy-tcp.cfg', to, folder),
    secure: false,
  },
];

describe.each(PROXIES)('behind $name', ({ here, start, secure }) => {
  it.skipIf(!here)(
    'the server of the example is told who asks, gets and sends all of it, and hears who leaves',
    async () => {
      const folder = freshFolder();
      const { port, said } = await back(secure ? {} : { PROXY_PROTOCOL: 'enable', TRUST_PROXY: '' });
      const front = await start(port, folder);
      const url = `${secure ? 'https' : 'http'}://127.0.0.1:${front}`;
      const agent = new Agent({ connect: { rejectUnauthorized: false }, connections: 4 });
      onTestFinished(() => agent.destroy());
      const ask = async (
        path: string,
        options: Partial<Dispatcher.RequestOptions> = {},
      ): Promise<{ status: number; text: string }> => {
        const { statusCode, body } = await request(url + path, {
          ...options,
          method: options.method ?? 'GET',
          dispatcher: agent,
        });
        return { status: statusCode, text: await body.text() };
      };
      // HAProxy wants to have seen that it is ready.
      await until(async () => (await ask('/health/ready')).status === 200, 'it is ready', 15_000);

      // Again and again over the same connections, whatever clients make up.
      for (let i = 0; i < 30; i++) {
        const { text } = await ask('/who', {
          headers: { host: 'example.com', 'x-forwarded-proto': 'gopher', forwarded: 'for=6.6.6.6' },
        });
        const shown = JSON.parse(text) as Shown;
        const scheme = secure ? 'https' : 'http';
        expect(shown).toMatchObject({ remoteAddr: '127.0.0.1', scheme, serverName: 'example.com' });
      }

      const bytes = content(30 * MB, 5);
      const uploads = await Promise.all([1, 2].map(() => ask('/up', { method: 'POST', body: bytes })));
      for (const { text } of uploads)
        expect(JSON.parse(text)).toMatchObject({ size: bytes.length, sha1: hashOf(bytes) });

      const ws = new WebSocket(url.replace('http', 'ws'), { rejectUnauthorized: false });
      onTestFinished(() => ws.terminate());
      await within(
        new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject)),
        'a WebSocket',
      );
      for (const message of ['hello', 'x'.repeat(300_000)]) {
        const echo = new Promise((resolve) => ws.once('message', (data: Buffer) => resolve(data.toString())));
        ws.send(message);
        expect((await within(echo, 'the echo')) === message).toBe(true);
      }

      const leave = secure ? askOverHttp2(url, '/slow') : askAndLeave(front, '/slow');
      await until(() => said().includes('/slow waits'), 'its handler runs');
      (await leave)();
      await until(() => said().includes('the client of /slow has gone'), 'its signal aborts', 15_000);
      expect((await ask('/after')).status).toBe(200);
    },
    60_000,
  );
});

interface Deployment {
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly labels: object };
      readonly spec: { readonly terminationGracePeriodSeconds: number };
    };
  };
}

describe('examples/deploy', () => {
  it('has a server that is alive and ready, and stops when it is told to', async () => {
    const program = await startProgram('examples/deploy/server.js', { PORT: '0' });
    onTestFinished(program.kill);
    const [url] = program.urls;
    for (const [path, text] of [
      ['live', 'alive\n'],
      ['ready', 'ready\n'],
    ])
      expect(await (await fetch(`${url}/health/${path}`)).text()).toBe(text);
    expect(await program.stop()).toBe(0);
  });

  const systemd = isHere('systemd-analyze', '--version');
  it.skipIf(!systemd)('has a unit that systemd understands', () => {
    const path = join(freshFolder(), 'offloop.service');
    writeFileSync(path, adapt(config('offloop.service'), { '/usr/bin/node': process.execPath }));
    const { stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', path], { encoding: 'utf8' });
    expect(stderr.split('\n').filter((line) => line.includes('offloop.service'))).toEqual([]);
  });

  const yaml = spawnSync('python3', ['-c', 'import yaml']).status === 0;
  it.skipIf(!yaml)('has a manifest whose parts fit together', () => {
    const script = 'import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))';
    const out = execFileSync('python3', ['-c', script], {
      input: config('kubernetes.yaml'),
      encoding: 'utf8',
    });
    const [deployment, service] = JSON.parse(out) as [Deployment, { spec: { selector: object } }];
    const { metadata, spec } = deployment.spec.template;
    expect(service.spec.selector).toEqual(metadata.labels);
    // preStop, stop, and some to spare.
    expect(spec.terminationGracePeriodSeconds).toBeGreaterThan(5 + 20);
  });

  it('names the same ports and paths everywhere', () => {
    for (const name of ['nginx.conf', 'haproxy.cfg', 'haproxy-tcp.cfg', 'Caddyfile'])
      expect(config(name)).toContain('127.0.0.1:8090');
    for (const name of ['haproxy.cfg', 'kubernetes.yaml']) expect(config(name)).toContain('/health/ready');
    for (const name of ['Dockerfile', 'kubernetes.yaml']) expect(config(name)).toContain('/health/live');
  });
});
