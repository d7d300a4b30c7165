/** Door 1: what runs a server. Exports only. Handler modules import 'offloop/handlers' instead. */
export { ERROR_CODES, type ErrorCode, OffloopError, OffloopTypeError } from './errors.js';
export type { NativeHandler } from './native.js';
export type {
  BodyOptions,
  EventKey,
  EventNames,
  MountOptions,
  ProfileOptions,
  RecycleAfter,
  ServerOptions,
  StopOptions,
  TimeLimitOptions,
  WorkerPoolOptions,
} from './options.js';
export type { Distribution } from './pool/histogram.js';
export type { MountStats } from './pool/mount-queue.js';
export type { CpuProfile, HeapProfile } from './pool/profile.js';
export type { WorkerPool, WorkerPoolStats, WorkerStats } from './pool/worker-pool.js';
export {
  createWorkerPool,
  type InlineHandler,
  runServer,
  type Server,
  type ServerMountStats,
  type ServerStats,
  type ServerStatus,
} from './server.js';
export type { TlsFile, TlsIdentity, TlsOptions } from './tls-options.js';
