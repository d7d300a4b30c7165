/** Door 4: handlers run at a place, in the shape of Immutant's web library. Exports only. Runs on the I/O thread. */
export {
  type NativeData,
  type NativeFunction,
  type NativeHandler,
  type NativeRequest,
  type NativeResponse,
  nativeHandler,
} from '../native.js';
export type { Context, Contexts, RunInput, RunOptions, RunResult } from './options.js';
export { run, type StopInput, server, stop } from './run.js';
export { type DevInput, type DevOptions, runDev } from './run-dev.js';
export type { WebServer } from './web-server.js';
