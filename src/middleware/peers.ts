/** Packages that only some middleware needs: optional peers, loaded when such a middleware is made. */
import { createRequire } from 'node:module';
import { OffloopError } from '../errors.js';

const load = createRequire(import.meta.url);

/**
 * The exports of an optional peer. Synchronous, so that one that is missing fails when the handler module is loaded, and
 * not with the first request. @throws OFFLOOP_MISSING_PACKAGE.
 */
export function peer<T>(name: string, where: string): T {
  try {
    return load(name) as T;
  } catch (cause) {
    if (!isMissing(cause, name)) throw cause;
    throw new OffloopError(
      'OFFLOOP_MISSING_PACKAGE',
      `${where} needs the package ${name}, which is not installed: npm install ${name}`,
      { cause },
    );
  }
}

/** Whether it is this package that is missing, and not one that it needs itself. */
function isMissing(error: unknown, name: string): boolean {
  const { code, message } = error as Partial<NodeJS.ErrnoException>;
  return code === 'MODULE_NOT_FOUND' && String(message).includes(`'${name}'`);
}
