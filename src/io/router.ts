import type { Dispatcher } from '../protocol.js';

/** A handler bound to (virtual host, path prefix). */
export interface Mount {
  /** Matched prefix without a trailing slash; '' for '/'. */
  readonly context: string;
  readonly dispatcher: Dispatcher;
  /** The constant lines of a packed head: scheme and context. */
  readonly line: string;
  /** Bytes of a request body at most; Infinity = as many as come. */
  readonly maxBody: number;
  /** Its handler is started before the body is there. */
  readonly streamBody: boolean;
  /** Its handler has asked for the address of a peer, so heads carry it from now on. */
  wantsAddress: boolean;
}

/**
 * Finds the mount of a request: virtual host first, then the longest path prefix that ends on a segment boundary. A
 * virtual host without a matching path is not found; it does not fall back to the mounts without one (Undertow's rule,
 * which Immutant has). Costs one look-up for each segment of the path at most, however many mounts there are.
 */
export class Router {
  private readonly anyHost = new Map<string, Mount>();
  private readonly byHost = new Map<string, Map<string, Mount>>();
  /** The mount of '/' when it is the only one: nothing to look up then. */
  private only: Mount | undefined;

  match(host: string, path: string): Mount | undefined {
    if (this.only !== undefined) return this.only;
    const mounts = this.byHost.size === 0 ? this.anyHost : (this.byHost.get(hostName(host)) ?? this.anyHost);
    for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1)) {
      const mount = mounts.get(end === path.length ? path : path.slice(0, end));
      if (mount !== undefined) return mount;
    }
    return mounts.get('');
  }

  /** Bind, or replace what is bound there. */
  set(virtualHost: string | undefined, path: string, mount: Mount): void {
    let mounts = this.anyHost;
    if (virtualHost !== undefined) {
      const name = virtualHost.toLowerCase();
      mounts = this.byHost.get(name) ?? new Map();
      this.byHost.set(name, mounts);
    }
    const before = mounts.get(contextOf(path));
    mounts.set(contextOf(path), mount);
    this.refresh();
    if (before !== undefined && before !== mount) this.closeIfGone(before);
  }

  /** Returns whether there was anything to remove. */
  delete(virtualHost: string | undefined, path: string): boolean {
    const name = virtualHost?.toLowerCase();
    const mounts = name === undefined ? this.anyHost : this.byHost.get(name);
    const before = mounts?.get(contextOf(path));
    mounts?.delete(contextOf(path));
    if (name !== undefined && mounts?.size === 0) this.byHost.delete(name);
    this.refresh();
    if (before !== undefined) this.closeIfGone(before);
    return before !== undefined;
  }

  /** One mount may be bound under several hosts. */
  private closeIfGone(mount: Mount): void {
    if (!this.list().some((entry) => entry.mount === mount)) mount.dispatcher.close();
  }

  /** Every mount, those for any host first. */
  list(): { virtualHost: string | null; mount: Mount }[] {
    const all = [...this.anyHost.values()].map((mount) => ({ virtualHost: null as string | null, mount }));
    for (const [virtualHost, mounts] of this.byHost)
      for (const mount of mounts.values()) all.push({ virtualHost, mount });
    return all;
  }

  /** Nothing will be routed any more. */
  close(): void {
    for (const { mount } of this.list()) mount.dispatcher.close();
  }

  private refresh(): void {
    this.only = this.byHost.size === 0 && this.anyHost.size === 1 ? this.anyHost.get('') : undefined;
  }
}

/** '/a/b/' and '/a/b' are one mount, whose context is '/a/b'; that of '/' is ''. */
export function contextOf(path: string): string {
  let end = path.length;
  while (end > 0 && path[end - 1] === '/') end--;
  return path.slice(0, end);
}

function hostName(host: string): string {
  const colon = host.lastIndexOf(':');
  return (colon === -1 || host.endsWith(']') ? host : host.slice(0, colon)).toLowerCase();
}
