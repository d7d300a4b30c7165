/** uWebSockets.js behind the engine interface: the only file that touches the native package. */
import { chmodSync, lstatSync, type Stats } from 'node:fs';
import { OffloopError } from '../errors.js';
import type {
  Address,
  Engine,
  EngineIdentity,
  EngineTls,
  Listener,
  OnRequest,
  TlsFiles,
  UpgradeContext,
  WebSocketSettings,
} from './engine.js';
import { adviceOn, cannotListen, freePort, makeRoom, takeAway, tryToListen, whyNot } from './place.js';
import { loadEngine, type UwsApp, type UwsModule, type UwsTls } from './uws-loader.js';

export function createEngine(): Engine {
  const { uws } = loadEngine();
  // Switches off the product header of the engine's own. Older and newer builds have different names for it.
  uws._cfg?.('silent');
  uws._cfg?.('999999990007');
  return {
    listen: async (address, onRequest, webSockets, tls) => {
      if (address.kind === 'unix') await makeRoom(address.path);
      const listener = new UwsListener(uws, address, onRequest, webSockets);
      await listener.start(tls);
      return listener;
    },
  };
}

/**
 * One address, and the apps that serve it. There is more than one when certificates have been replaced: an app keeps those it was made
 * with. Its own way of exchanging those of a name frees the routes under the connections that use them.
 */
class UwsListener implements Listener {
  port = 0;
  /** The last one meets new connections. */
  private readonly apps: UwsApp[] = [];
  private socket: unknown;
  /** The file of a Unix socket. */
  private bound: Stats | undefined;
  private listening = false;
  private open = true;

  constructor(
    private readonly uws: UwsModule,
    private address: Address,
    private readonly onRequest: OnRequest,
    private readonly webSockets: WebSocketSettings,
  ) {}

  async start(tls: TlsFiles | undefined): Promise<void> {
    const app = this.makeApp(tls);
    const { address } = this;
    // The engine lets nobody listen again on a port that was any free one while there are connections, not even itself.
    if (tls !== undefined && address.kind === 'tcp' && address.port === 0)
      this.address = { ...address, port: await freePort(address) };
    if (!this.bind(app)) {
      app.close();
      throw await whyNot(this.address);
    }
  }

  /** The engine listens, or does not, before it returns. */
  private bind(app: UwsApp): boolean {
    const { uws, address } = this;
    let socket: unknown;
    const done = (listening: unknown): void => {
      socket = listening;
    };
    // Without the flag a second server on the port would bind too, and silently take half of the connections.
    if (address.kind === 'tcp')
      app.listen(address.ip, address.port, address.shared ? 0 : uws.LIBUS_LISTEN_EXCLUSIVE_PORT, done);
    else app.listen_unix(done, address.path);
    if (!socket) return false;
    // The engine lets in nobody but this user by itself.
    if (address.kind === 'unix' && address.mode !== undefined) chmodSync(address.path, address.mode);
    this.socket = socket;
    this.listening = true;
    if (address.kind === 'unix') {
      this.bound = lstatSync(address.path, { throwIfNoEntry: false });
    } else {
      this.port = uws.us_socket_local_port(socket);
      this.address = { ...address, port: this.port };
    }
    if (!this.apps.includes(app)) this.apps.push(app);
    return true;
  }

  private makeApp(tls: TlsFiles | undefined): UwsApp {
    const { uws, apps, onRequest, webSockets } = this;
    const compress = webSockets.compression !== 'none';
    const last: Last = {
      opened: undefined,
      publishElsewhere: (topic, data, isBinary) => {
        if (apps.length > 1)
          for (const other of apps) if (other !== app) other.publish(topic, data, isBinary, compress);
      },
    };
    const routes = (app: UwsApp): void => {
      // Before the other routes: requests with a key come here, all others are passed on.
      routeWebSockets(uws, app, onRequest, webSockets, last);
      route(app, onRequest);
    };
    const app: UwsApp =
      tls === undefined ? uws.App() : tls.asFiles((files) => makeSecureApp(uws, files, routes));
    if (tls === undefined) routes(app);
    return app;
  }

  publish(topic: string, data: string | Uint8Array, isBinary: boolean): void {
    for (const app of this.apps) app.publish(topic, data, isBinary, this.webSockets.compression !== 'none');
  }

  async replaceTls(tls: TlsFiles): Promise<void> {
    // The process may have given up the right to its port since.
    if (this.address.kind === 'tcp') {
      const cause = await tryToListen(this.address);
      if (typeof cause !== 'number' && cause.code === 'EACCES')
        throw cannotListen(this.address, cause.code, adviceOn(cause.code, this.address), cause);
    }
    const app = this.makeApp(tls);
    // Right behind the engine's own look for new connections: those that wait in the kernel are lost with its socket.
    const swapped = await new Promise<boolean>((resolve) => setImmediate(() => resolve(this.swapFor(app))));
    if (swapped) return;
    app.close();
    if (this.open) throw await whyNot(this.address);
    throw new OffloopError('OFFLOOP_STOPPED', 'the server stopped while its certificates were replaced');
  }

  /** Let this app meet new connections, or go on with the one before. */
  private swapFor(app: UwsApp): boolean {
    if (!this.listening) return false;
    const before = this.apps.at(-1) as UwsApp;
    this.uws.us_listen_socket_close(this.socket);
    if (this.bind(app)) return true;
    this.listening = this.bind(before);
    return false;
  }

  stopListening(): void {
    if (!this.listening) return;
    this.listening = false;
    this.uws.us_listen_socket_close(this.socket);
    const { address } = this;
    if (address.kind === 'unix') takeAway(address.path, this.bound);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.stopListening();
    for (const app of this.apps) app.close();
  }
}

/** The engine speaks TLS 1.2 and 1.3. With ciphers for 1.2 that need a key nobody has, only 1.3 is left. */
const NO_CIPHERS_OF_1_2 = 'aPSK';

function makeSecureApp(uws: UwsModule, tls: EngineTls, routes: (app: UwsApp) => void): UwsApp {
  const optionsOf = ({ cert, key, passphrase }: EngineIdentity): UwsTls => ({
    cert_file_name: cert,
    key_file_name: key,
    ...(passphrase !== undefined && { passphrase }),
    ...(tls.ca !== undefined && { ca_file_name: tls.ca }),
    ...(tls.minVersion === 'TLSv1.3' && { ssl_ciphers: NO_CIPHERS_OF_1_2 }),
  });
  // It does not say when one of a name cannot be used; of an app's own it does.
  for (const { name, ...identity } of tls.named)
    tryApp(uws, optionsOf(identity), `tls.sni['${name}']`).close();
  const app = tryApp(uws, optionsOf(tls.main), 'tls');
  routes(app);
  for (const { name, ...identity } of tls.named) {
    app.addServerName(name, optionsOf(identity));
    routes(app.domain(name));
  }
  return app;
}

function tryApp(uws: UwsModule, options: UwsTls, option: string): UwsApp {
  try {
    return uws.SSLApp(options);
  } catch (cause) {
    throw new OffloopError(
      'OFFLOOP_BAD_TLS',
      `the engine does not take ${option}.cert and ${option}.key, which Node does: keys may be RSA, ECDSA on P-256, P-384 or P-521, or Ed25519, and encrypted with PBKDF2, not scrypt`,
      { cause },
    );
  }
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

type Last = { -readonly [K in keyof UpgradeContext['last']]: UpgradeContext['last'][K] };

function routeWebSockets(
  uws: UwsModule,
  app: UwsApp,
  onRequest: OnRequest,
  settings: WebSocketSettings,
  last: Last,
): void {
  const { maxPayloadLength, idleTimeout, maxBackpressure, compression } = settings;
  const compressors = {
    none: uws.DISABLED,
    shared: uws.SHARED_COMPRESSOR,
    dedicated: uws.DEDICATED_COMPRESSOR_4KB,
  };
  app.ws('/*', {
    compression: compressors[compression],
    maxPayloadLength,
    idleTimeout,
    maxBackpressure,
    sendPingsAutomatically: true,
    closeOnBackpressureLimit: false,
    upgrade: (res, req, context) => onRequest(res, req, 'GET', { native: context, last }),
    // A function without code of its own: see corkUpgrade.
    open: Reflect.set.bind(undefined, last, 'opened'),
    message: (ws, data, isBinary) => ws.line.message(data, isBinary),
    ping: (ws, data) => ws.line.ping(data),
    drain: (ws) => ws.line.drain(),
    close: (ws, code, reason) => ws.line.closed(code, reason),
  });
}
