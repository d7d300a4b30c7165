/** How a batch is packed, see {@link PackedBatch}. Belongs to no thread. */
import type { PackedBatch, PackedHead } from './protocol.js';

const RECORD = '\0';

/** The beginning of a batch whose first invocation has this number. */
export function packFirst(first: number): PackedBatch {
  return String(first);
}

/** One more invocation for a batch. */
export function packNext(batch: PackedBatch, target: number, head: PackedHead): PackedBatch {
  return `${batch}${RECORD}${target}\n${head}`;
}

/** The number of the first invocation, then one record for each. */
export function splitBatch(batch: PackedBatch): { first: number; records: string[] } {
  const records = batch.split(RECORD);
  return { first: Number(records.shift()), records };
}

export function targetOf(record: string): number {
  return Number(record.slice(0, record.indexOf('\n')));
}

export function headOf(record: string): PackedHead {
  return record.slice(record.indexOf('\n') + 1);
}

/** 'GET /path', for log lines. */
export function requestLine(head: PackedHead): string {
  const [method, path] = head.split('\n', 2);
  return `${method} ${path}`;
}

/** A copy of memory that is not ours. For a few bytes `slice` takes ten times as long. */
export function copyOf(data: ArrayBuffer): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint8Array(data));
}
