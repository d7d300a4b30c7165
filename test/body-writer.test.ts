import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { BodyWriter, type Writing } from '../src/io/body-writer.js';
import type { EngineResponse } from '../src/io/engine.js';

/** The engine's side of a chunked response: what went out in each cork. */
function engine() {
  const corks: string[][] = [];
  const state = {
    over: false,
    takesNoMore: false,
    drained: 0,
    unsent: 0,
    writable: (): unknown => undefined,
  };
  let open: string[] | undefined;
  const res = {
    onWritable: (handler: () => unknown) => {
      state.writable = handler;
    },
    cork: (work: () => void) => {
      open = [];
      corks.push(open);
      work();
      open = undefined;
    },
    write: (data: string | Uint8Array) => {
      (open ?? []).push(typeof data === 'string' ? data : Buffer.from(data).toString());
      return !state.takesNoMore;
    },
    end: () => {
      (open ?? []).push('<end>');
    },
  } as unknown as EngineResponse;
  const exchange: Writing = {
    get over() {
      return state.over;
    },
    closing: false,
    cutting: false,
    completing: () => undefined,
    mayComplete: () => true,
    cutBehind: () => undefined,
    unsent: () => {
      state.unsent++;
    },
    moved: () => undefined,
    drained: () => {
      state.drained++;
    },
    finish: () => {
      state.over = true;
    },
    cutStream: () => undefined,
    broken: (error) => {
      throw error;
    },
  };
  const writer = new BodyWriter(res, exchange, () => void open?.push('<head>'), null);
  return { writer, corks, state };
}

const LARGE = 'L'.repeat(10_000);

describe('a chunked body', () => {
  it('has the small chunks of a turn in one packet, and each as it was given', async () => {
    const { writer, corks } = engine();
    for (let i = 0; i < 10; i++) expect(writer.write(`event ${i}`)).toBe(true);
    expect(corks).toEqual([]);
    await nextTurn();
    expect(corks).toEqual([['<head>', ...Array.from({ length: 10 }, (_, i) => `event ${i}`)]]);
    writer.write('later');
    await nextTurn();
    expect(corks[1]).toEqual(['later']);
  });

  it('ends in the same packet', async () => {
    const { writer, corks } = engine();
    writer.write('all');
    writer.write(' there is');
    writer.end();
    await nextTurn();
    expect(corks).toEqual([['<head>', 'all', ' there is', '<end>']]);
  });

  it('keeps the order of small and large', async () => {
    const { writer, corks } = engine();
    writer.write('a');
    writer.write(LARGE);
    writer.write('b');
    await nextTurn();
    expect(corks.flat()).toEqual(['<head>', 'a', LARGE, 'b']);
  });

  it('never gives the engine more than its 16 KiB at once', async () => {
    const { writer, corks } = engine();
    const chunk = 'ü'.repeat(1000);
    for (let i = 0; i < 50; i++) writer.write(chunk);
    await nextTurn();
    expect(corks.flat().filter((text) => text === chunk)).toHaveLength(50);
    for (const cork of corks) expect(Buffer.byteLength(cork.join(''))).toBeLessThan(16 * 1024);
  });

  it('is kept while the client does not read, in order, and goes on together', async () => {
    const { writer, corks, state } = engine();
    state.takesNoMore = true;
    writer.write('first');
    expect(writer.holdsAny).toBe(true);
    await nextTurn();
    expect(state.unsent).toBe(1);
    expect(['second', 'third', LARGE, 'fourth'].map((chunk) => writer.write(chunk))).toEqual([
      false,
      false,
      false,
      false,
    ]);
    state.takesNoMore = false;
    state.writable();
    expect(corks.filter((cork) => cork.length > 0)).toEqual([
      ['<head>', 'first'],
      ['second', 'third'],
      [LARGE],
      ['fourth'],
    ]);
    expect(writer.holdsAny).toBe(false);
    expect(state.drained).toBe(1);
  });

  it('is given nothing more when its client has gone', async () => {
    const { writer, corks, state } = engine();
    writer.write('too late');
    state.over = true;
    await nextTurn();
    writer.flush();
    expect(corks).toEqual([]);
  });
});
