/** The error page around a handler in development. Loaded only there, in workers and on the I/O thread. */
import { OffloopError } from '../errors.js';
import type { Handler } from '../handlers/types.js';
import { errorPage } from '../middleware/error-page.js';

/** Without the package that makes the page, the server says in text what was thrown. */
export function withErrorPage(handler: Handler): Handler {
  try {
    return errorPage({ enabled: true })(handler);
  } catch (error) {
    if (error instanceof OffloopError && error.code === 'OFFLOOP_MISSING_PACKAGE') return handler;
    throw error;
  }
}
