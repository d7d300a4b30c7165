/** Header fields in the making, whatever the case of their names. */
import { OffloopTypeError } from '../../errors.js';
import type { HeaderValue, HttpResponse } from '../types.js';

/** A later field takes the place of an earlier one of the same name; null stands for one that shall not be there. */
export class Fields {
  /** By lower-case name: the name as it was given, and the value. */
  private readonly fields = new Map<string, readonly [name: string, value: HeaderValue]>();

  /** Add what a handler gives: a record, a Headers or a Map. A wrong name or value is found when it is encoded. */
  addAll(headers: HttpResponse['headers'] | null): void {
    if (headers === undefined || headers === null) return;
    if (typeof headers !== 'object')
      throw new OffloopTypeError('OFFLOOP_BAD_RESPONSE', `headers are a ${typeof headers}, not an object`);
    const entries = Symbol.iterator in headers ? headers : Object.entries(headers);
    const mine = new Set<string>();
    for (const [name, value] of entries as Iterable<readonly [string, HeaderValue]>) {
      if (value === undefined) continue;
      const key = String(name).toLowerCase();
      const before = mine.has(key) ? this.fields.get(key)?.[1] : undefined;
      mine.add(key);
      // A Headers has an entry for each Set-Cookie.
      this.fields.set(key, [name, before === undefined ? value : ([before, value].flat() as HeaderValue)]);
    }
  }

  has(name: string): boolean {
    return this.fields.has(name);
  }
  value(name: string): HeaderValue {
    return this.fields.get(name)?.[1];
  }
  /** The value, if it is a single string. */
  get(name: string): string | undefined {
    const value = this.value(name);
    return typeof value === 'string' ? value : undefined;
  }
  set(name: string, value: HeaderValue): void {
    this.fields.set(name, [name, value]);
  }
  /** Set it unless there is one, or shall be none. */
  offer(name: string, value: HeaderValue): void {
    if (!this.fields.has(name)) this.set(name, value);
  }
  drop(names: readonly string[]): void {
    for (const name of names) this.fields.delete(name);
  }

  [Symbol.iterator](): Iterator<readonly [string, HeaderValue]> {
    return this.fields.values();
  }
}
