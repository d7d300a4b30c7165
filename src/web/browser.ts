/** Shows a page to who develops, where there is something to show it on. */
import { OffloopError } from '../errors.js';

/** Whether a browser can be expected here: not in CI, not at the other end of ssh, and on Unix only with a display. */
export function hasBrowser(env: NodeJS.ProcessEnv = process.env, platform = process.platform): boolean {
  const is = (name: string): boolean => env[name] !== undefined && env[name] !== '' && env[name] !== 'false';
  if (is('CI')) return false;
  if (platform === 'win32') return true;
  if (platform === 'darwin') return !is('SSH_CONNECTION');
  return is('DISPLAY') || is('WAYLAND_DISPLAY') || is('WSL_DISTRO_NAME');
}

/** The part of the package open that is used. */
interface OpenModule {
  default(url: string): Promise<{ on(event: 'error', heard: () => void): unknown }>;
}

/** Opens a page. Resolves with whether a browser has been asked to. */
export type Opener = (url: string) => Promise<boolean>;

/**
 * What opens pages, or null without the package for it. `must`: it has to be there.
 * @throws OFFLOOP_MISSING_PACKAGE.
 */
export async function loadOpener(
  must: boolean,
  load: () => Promise<OpenModule> = () => import('open'),
): Promise<Opener | null> {
  let open: OpenModule['default'];
  try {
    ({ default: open } = await load());
  } catch (cause) {
    if (!must) return null;
    const message =
      'runDev needs the package open for open: true, which is not installed: npm install --save-dev open';
    throw new OffloopError('OFFLOOP_MISSING_PACKAGE', message, { cause });
  }
  return async (url) => {
    try {
      // There may be no browser after all.
      (await open(url)).on('error', () => undefined);
      return true;
    } catch {
      return false;
    }
  };
}
