/** uWebSockets.js behind the engine interface: the only file that touches the native package. */
import { lstatSync, rmSync, type Stats } from 'node:fs';
import { connect, createServer } from 'node:net';
import { OffloopError } from '../errors.js';
import type { Address, Engine, EngineWebSocket, Listener, OnRequest, WebSocketSettings } from './engine.js';
import { loadEngine, type UwsApp, type UwsModule } from './uws-loader.js';

export function createEngine(): Engine {
  const { uws } = loadEngine();
  // Switches off the product header of the engine's own. Older and newer builds have different names for it.
  uws._cfg?.('silent');
  uws._cfg?.('999999990007');
  return { listen: (address, onRequest, webSockets) => listen(uws, address, onRequest, webSockets) };
}

async function listen(
  uws: UwsModule,
  address: Address,
  onRequest: OnRequest,
  webSockets: WebSocketSettings,
): Promise<Listener> {
  if (address.kind === 'unix') await makeRoom(address.path);
  const app = uws.App();
  // Before the other routes: requests with a key come here, all others are passed on.
  routeWebSockets(uws, app, onRequest, webSockets);
  route(app, onRequest);
  const socket = await new Promise<unknown>((resolve) => {
    if (address.kind === 'unix') app.listen_unix(resolve, address.path);
    // Without the flag a second server on the port would bind too, and silently take half of the connections.
    else app.listen(address.ip, address.port, address.shared ? 0 : uws.LIBUS_LISTEN_EXCLUSIVE_PORT, resolve);
  });
  if (!socket) {
    app.close();
    throw await whyNot(address);
  }
  const bound = address.kind === 'unix' ? lstatSync(address.path, { throwIfNoEntry: false }) : undefined;
  let listening = true;
  let open = true;
  const stopListening = (): void => {
    if (!listening) return;
    listening = false;
    uws.us_listen_socket_close(socket);
    if (address.kind === 'unix' && isStill(address.path, bound)) rmSync(address.path, { force: true });
  };
  return {
    port: address.kind === 'unix' ? 0 : uws.us_socket_local_port(socket),
    publish: (topic, data, isBinary) =>
      void app.publish(topic, data, isBinary, webSockets.compression !== 'none'),
    stopListening,
    close: () => {
      if (!open) return;
      open = false;
      stopListening();
      app.close();
    },
  };
}

const METHODS = {
  get: 'GET',
  head: 'HEAD',
  post: 'POST',
  put: 'PUT',
  del: 'DELETE',
  patch: 'PATCH',
  options: 'OPTIONS',
} as const;

/** Everything, whatever the target. A route for each usual method, since asking the engine for it costs as much as a header. */
function route(app: UwsApp, onRequest: OnRequest): void {
  for (const [name, method] of Object.entries(METHODS) as [keyof typeof METHODS, string][]) {
    app[name]('/*', (res, req) => onRequest(res, req, method));
  }
  app.any('/*', (res, req) => onRequest(res, req, req.getCaseSensitiveMethod()));
}

function routeWebSockets(
  uws: UwsModule,
  app: UwsApp,
  onRequest: OnRequest,
  settings: WebSocketSettings,
): void {
  const { maxPayloadLength, idleTimeout, maxBackpressure, compression } = settings;
  const compressors = {
    none: uws.DISABLED,
    shared: uws.SHARED_COMPRESSOR,
    dedicated: uws.DEDICATED_COMPRESSOR_4KB,
  };
  const last: { opened: EngineWebSocket | undefined } = { opened: undefined };
  app.ws('/*', {
    compression: compressors[compression],
    maxPayloadLength,
    idleTimeout,
    maxBackpressure,
    sendPingsAutomatically: true,
    closeOnBackpressureLimit: false,
    upgrade: (res, req, context) => onRequest(res, req, 'GET', { native: context, last }),
    // A function without code of its own: see Exchange.upgrade.
    open: Reflect.set.bind(undefined, last, 'opened'),
    message: (ws, data, isBinary) => ws.getUserData().line.message(data, isBinary),
    ping: (ws, data) => ws.getUserData().line.ping(data),
    drain: (ws) => ws.getUserData().line.drain(),
    close: (ws, code, reason) => ws.getUserData().line.closed(code, reason),
  });
}

const where = (address: Address): string =>
  address.kind === 'unix' ? address.path : `${address.ip} port ${address.port}`;

function cannotListen(address: Address, code: string, advice: string, cause?: unknown): OffloopError {
  return new OffloopError(code, `offloop cannot listen on ${where(address)}: ${code}; ${advice}`, { cause });
}

const ADVICE: Record<string, string> = {
  EADDRINUSE:
    'something is listening there already: stop it, or choose another port (port: 0 takes any free one)',
  EACCES: 'this user may not: ports below 1024 and some folders need more rights',
  EADDRNOTAVAIL: 'this machine has no such address: check ip',
  ENOENT: 'the folder does not exist',
};

/** Whether the socket file is ours: a successor may have put its own in the place. */
function isStill(path: string, bound: Stats | undefined): boolean {
  const now = lstatSync(path, { throwIfNoEntry: false });
  return now !== undefined && bound !== undefined && now.ino === bound.ino && now.dev === bound.dev;
}

/** The engine only says no. Node's own listen, tried in its place, knows why. */
async function whyNot(address: Address): Promise<OffloopError> {
  const cause = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    const probe = createServer();
    probe.once('error', resolve);
    probe.listen(
      address.kind === 'unix' ? { path: address.path } : { host: address.ip, port: address.port },
      () => {
        probe.close(() => resolve(undefined));
      },
    );
  });
  const code = cause?.code ?? 'OFFLOOP_LISTEN_FAILED';
  return cannotListen(address, code, ADVICE[code] ?? 'the engine gave no reason', cause);
}

/** The engine removes whatever lies at the path. Make sure it is nothing but the socket of a server that has died. */
async function makeRoom(path: string): Promise<void> {
  const address: Address = { kind: 'unix', path };
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket())
    throw cannotListen(address, 'EADDRINUSE', 'there is a file of that name that is no socket');
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (alive) throw cannotListen(address, 'EADDRINUSE', ADVICE['EADDRINUSE'] as string);
}
