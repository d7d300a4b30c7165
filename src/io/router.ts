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
  /** Which call has made it: later ones have higher numbers. */
  readonly turn: number;
}

/** The mounts of one host, or of all hosts that no other mount claims. */
class Prefixes {
  readonly mounts = new Map<string, Mount>();
  /** Segments of the longest context: what a path has beyond these decides nothing. */
  private depth = 0;

  match(path: string): Mount | undefined {
    const { mounts } = this;
    // From the front: a path may have thousands of segments, and the first few are all there is to compare.
    let end = 0;
    for (let segments = 0; segments < this.depth && end !== -1; segments++) end = path.indexOf('/', end + 1);
    if (end === -1) end = path.length;
    for (; end > 0; end = path.lastIndexOf('/', end - 1)) {
      const mount = mounts.get(end === path.length ? path : path.slice(0, end));
      if (mount !== undefined) return mount;
    }
    return mounts.get('');
  }

  set(context: string, mount: Mount): Mount | undefined {
    const before = this.mounts.get(context);
    this.mounts.set(context, mount);
    this.depth = Math.max(this.depth, slashes(context));
    return before;
  }

  delete(context: string): Mount | undefined {
    const before = this.mounts.get(context);
    this.mounts.delete(context);
    if (before !== undefined && slashes(context) === this.depth)
      this.depth = most(this.mounts.keys(), slashes);
    return before;
  }
}

/**
 * Finds the mount of a request: virtual host first, then the longest path prefix that ends on a segment boundary. A host has
 * the mounts of its own name, else those of the longest `*.name` it is below, else those without a virtual host. Where these
 * have no matching path nothing is found: there is no way back to the others (Undertow's rule, which Immutant has).
 *
 * Costs one look-up for each label of the host and each segment of the path, of as many as the longest wildcard and the
 * longest prefix have; however many mounts there are, and whatever a client sends.
 */
export class Router {
  private readonly anyHost = new Prefixes();
  private readonly byHost = new Map<string, Prefixes>();
  /** By what follows the `*`: '.example.com'. */
  private readonly bySuffix = new Map<string, Prefixes>();
  /** Labels of the longest suffix. */
  private suffixDepth = 0;
  /** The mount of '/' when it is the only one: nothing to look up then. */
  private only: Mount | undefined;

  match(host: string, path: string): Mount | undefined {
    return this.only ?? this.prefixesFor(host).match(path);
  }

  private prefixesFor(host: string): Prefixes {
    if (this.byHost.size === 0 && this.bySuffix.size === 0) return this.anyHost;
    const name = hostName(host);
    return this.byHost.get(name) ?? this.suffixFor(name) ?? this.anyHost;
  }

  private suffixFor(name: string): Prefixes | undefined {
    if (this.bySuffix.size === 0) return undefined;
    let at = name.length;
    for (let labels = 0; labels < this.suffixDepth && at > 0; labels++) at = name.lastIndexOf('.', at - 1);
    // One of all the labels is not a suffix but the name itself.
    for (at = at > 0 ? at : name.indexOf('.', 1); at > 0; at = name.indexOf('.', at + 1)) {
      const found = this.bySuffix.get(name.slice(at));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** What is bound at this very place. */
  at(virtualHost: string | undefined, path: string): Mount | undefined {
    return this.placeOf(virtualHost)?.mounts.get(contextOf(path));
  }

  /** Bind, or replace what is bound there. */
  set(virtualHost: string | undefined, path: string, mount: Mount): void {
    let prefixes = this.placeOf(virtualHost);
    if (prefixes === undefined) {
      prefixes = new Prefixes();
      const { hosts, key } = this.indexOf(virtualHost as string);
      hosts.set(key, prefixes);
      if (hosts === this.bySuffix) this.suffixDepth = Math.max(this.suffixDepth, dots(key));
    }
    const before = prefixes.set(contextOf(path), mount);
    this.refresh();
    if (before !== undefined && before !== mount) this.closeIfGone(before);
  }

  /** Returns whether there was anything to remove. */
  delete(virtualHost: string | undefined, path: string): boolean {
    const prefixes = this.placeOf(virtualHost);
    const before = prefixes?.delete(contextOf(path));
    if (virtualHost !== undefined && prefixes?.mounts.size === 0) {
      const { hosts, key } = this.indexOf(virtualHost);
      hosts.delete(key);
      if (hosts === this.bySuffix) this.suffixDepth = most(hosts.keys(), dots);
    }
    this.refresh();
    if (before !== undefined) this.closeIfGone(before);
    return before !== undefined;
  }

  private placeOf(virtualHost: string | undefined): Prefixes | undefined {
    if (virtualHost === undefined) return this.anyHost;
    const { hosts, key } = this.indexOf(virtualHost);
    return hosts.get(key);
  }

  private indexOf(virtualHost: string): { hosts: Map<string, Prefixes>; key: string } {
    const name = virtualHost.toLowerCase();
    return name.startsWith('*.')
      ? { hosts: this.bySuffix, key: name.slice(1) }
      : { hosts: this.byHost, key: name };
  }

  /** One mount may be bound under several hosts. */
  private closeIfGone(mount: Mount): void {
    if (!this.list().some((entry) => entry.mount === mount)) mount.dispatcher.close();
  }

  /** Every mount, those for any host first. */
  list(): { virtualHost: string | null; mount: Mount }[] {
    const all: { virtualHost: string | null; mount: Mount }[] = [];
    const add = (virtualHost: string | null, { mounts }: Prefixes): void => {
      for (const mount of mounts.values()) all.push({ virtualHost, mount });
    };
    add(null, this.anyHost);
    for (const [name, prefixes] of this.byHost) add(name, prefixes);
    for (const [suffix, prefixes] of this.bySuffix) add(`*${suffix}`, prefixes);
    return all;
  }

  /** Nothing will be routed any more. */
  close(): void {
    for (const { mount } of this.list()) mount.dispatcher.close();
  }

  private refresh(): void {
    const { mounts } = this.anyHost;
    const hosts = this.byHost.size + this.bySuffix.size;
    this.only = hosts === 0 && mounts.size === 1 ? mounts.get('') : undefined;
  }
}

const slashes = (context: string): number => context.split('/').length - 1;
const dots = (suffix: string): number => suffix.split('.').length - 1;

function most(keys: Iterable<string>, count: (key: string) => number): number {
  let found = 0;
  for (const key of keys) found = Math.max(found, count(key));
  return found;
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
