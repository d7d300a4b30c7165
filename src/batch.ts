/** How a batch is packed, see {@link PackedBatch}. Belongs to no thread. */
import type { PackedBatch, PackedHead } from './protocol.js';

const RECORD = '\0';

/** The beginning of a batch whose first invocation has this number; `now` on the {@link processClock}. */
export function packFirst(first: number, now: number): PackedBatch {
  return `${first}+${Math.round(now)}`;
}

/** One more invocation for a batch. `waited`: whole ms from its admission until now. */
export function packNext(batch: PackedBatch, target: number, waited: number, head: PackedHead): PackedBatch {
  return waited === 0
    ? `${batch}${RECORD}${target}\n${head}`
    : `${batch}${RECORD}${target}+${waited}\n${head}`;
}

/** The number of the first invocation and when the batch was given, then one record for each. */
export function splitBatch(batch: PackedBatch): { first: number; givenAt: number; records: string[] } {
  const records = batch.split(RECORD);
  const [first, givenAt] = (records.shift() as string).split('+');
  return { first: Number(first), givenAt: Number(givenAt), records };
}

export function targetOf(record: string): number {
  return Number.parseInt(record, 10);
}

/** Whole ms that an invocation had waited when it was given away. */
export function waitedOf(record: string): number {
  const plus = record.indexOf('+');
  return plus === -1 || plus > record.indexOf('\n') ? 0 : Number.parseInt(record.slice(plus + 1), 10);
}

/** From performance.now(), which every thread begins to count anew, to the clock that all threads of the process share. */
const OFFSET = Number(process.hrtime.bigint()) / 1e6 - performance.now();

/** Ms on a clock that does not jump and is the same in all threads. */
export function processClock(now: number): number {
  return now + OFFSET;
}

export function headOf(record: string): PackedHead {
  return record.slice(record.indexOf('\n') + 1);
}

/** 'GET /path', for log lines. */
export function requestLine(head: PackedHead): string {
  const [method, path] = head.split('\n', 2);
  return `${method} ${path}`;
}
