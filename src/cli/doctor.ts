/** `offloop doctor`: whether a server can run here, and what would make it run better. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { createWorkerPool, runServer } from '../index.js';
import { libc, loadEngine } from '../io/uws-loader.js';

export interface Finding {
  readonly name: string;
  /** 'bad': a server cannot run. 'poor': it can, with less. */
  readonly state: 'good' | 'poor' | 'bad';
  readonly says: string;
}

/** Never rejects: what fails is a finding. */
export async function examine(): Promise<Finding[]> {
  return [
    node(),
    engine(),
    await serving(),
    await threads(),
    typeScript(),
    cores(),
    openFiles(),
    connections(),
    ownFiles(),
    sharedPort(),
  ];
}

const good = (name: string, says: string): Finding => ({ name, state: 'good', says });
const poor = (name: string, says: string): Finding => ({ name, state: 'poor', says });
const bad = (name: string, says: string): Finding => ({ name, state: 'bad', says });

function node(): Finding {
  const { node: version, modules } = process.versions;
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const says = `${version}, ABI ${modules}, ${process.platform} ${process.arch}, ${libc()}`;
  return major > 20 || (major === 20 && minor >= 19)
    ? good('Node', says)
    : bad('Node', `${says}: offloop needs 20.19 or later`);
}

function engine(): Finding {
  try {
    return good('engine', loadEngine().name);
  } catch (error) {
    return bad('engine', (error as Error).message);
  }
}

/** The proof: a server that answers. */
async function serving(): Promise<Finding> {
  try {
    const server = await runServer(() => ({ body: 'well' }), { ip: '127.0.0.1', port: 0, dispatch: false });
    try {
      const answer = await fetch(server.url, {
        headers: { connection: 'close' },
        signal: AbortSignal.timeout(5000),
      });
      const text = await answer.text();
      return text === 'well'
        ? good('serving', 'answers on 127.0.0.1')
        : bad('serving', `answers ${answer.status}`);
    } finally {
      await server.stop({ timeout: 1000 });
    }
  } catch (error) {
    return bad('serving', `no answer on 127.0.0.1: ${(error as Error).message.split('\n', 1)[0]}`);
  }
}

/** The proof: a worker that has loaded a handler. */
async function threads(): Promise<Finding> {
  const pool = createWorkerPool({ nMin: 1, nMax: 1 });
  const begin = performance.now();
  try {
    await pool.load('data:text/javascript,export default () => null');
    return good('threads', `one starts in ${Math.round(performance.now() - begin)} ms`);
  } catch (error) {
    return bad('threads', `none starts: ${(error as Error).message}`);
  } finally {
    await pool.close({ timeout: 1000 });
  }
}

function typeScript(): Finding {
  const name = 'TypeScript';
  const own = (process.features as { typescript?: unknown }).typescript;
  try {
    import.meta.resolve('tsx/esm/api');
    return good(name, 'handlers may be .ts, with everything tsx understands');
  } catch {
    if (own)
      return good(
        name,
        'handlers may be .ts with types that can be left out; npm install tsx for enums and imports of .ts files as .js',
      );
    return poor(name, 'handlers have to be JavaScript: npm install tsx, or use Node 22.18 or later, for .ts');
  }
}

function cores(): Finding {
  const n = availableParallelism();
  return n > 1
    ? good('cores', String(n))
    : poor('cores', '1: a handler that computes and the thread that owns the sockets share it');
}

function openFiles(): Finding {
  const name = 'open files';
  const report = process.report?.getReport() as
    | { userLimits?: { open_files?: { soft: number | string; hard: number | string } } }
    | undefined;
  const limit = report?.userLimits?.open_files;
  if (limit === undefined) return good(name, 'no limit known');
  const { soft, hard } = limit;
  return typeof soft === 'number' && soft < 4096
    ? poor(name, `${soft} (at most ${hard}): each connection is one. Raise it, as in: ulimit -n 65536`)
    : good(name, String(soft));
}

const canRead = (path: string): boolean => {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
};

function connections(): Finding {
  const name = '/proc/self/net/tcp';
  if (process.platform !== 'linux') return good(name, 'only on Linux');
  return canRead(name)
    ? good(name, 'readable: clients that hang up while they wait are noticed soon')
    : poor(name, 'not readable: clients that hang up while they wait are noticed later');
}

function ownFiles(): Finding {
  const name = '/proc/self/fd';
  if (process.platform !== 'linux') return good(name, 'only on Linux');
  return canRead(name)
    ? good(name, 'readable: files are checked by the name the kernel knows')
    : poor(name, 'not readable: files below a root are checked in a slower way');
}

function sharedPort(): Finding {
  const name = '--processes';
  if (process.platform !== 'linux') return poor(name, `not on ${process.platform}: one process only`);
  let moved: string;
  try {
    moved = readFileSync('/proc/sys/net/ipv4/tcp_migrate_req', 'utf8').trim();
  } catch {
    moved = '';
  }
  return moved === '1'
    ? good(name, 'connections that are being made survive the replacement of a process')
    : poor(
        name,
        'a connection that is being made at the moment a process is replaced may be reset; sysctl -w net.ipv4.tcp_migrate_req=1 (Linux 5.14) prevents that',
      );
}

const MARKS = { good: 'ok  ', poor: 'poor', bad: 'BAD ' } as const;

export function report(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  return findings
    .map(
      ({ name, state, says }) =>
        `${MARKS[state]}  ${name.padEnd(width)}  ${says.replaceAll('\n', `\n${' '.repeat(width + 8)}`)}`,
    )
    .join('\n');
}
