import { describe, expect, it } from 'vitest';
import {
  ERROR_CODES,
  fromErrorRecord,
  OffloopError,
  OffloopTypeError,
  REFUSALS,
  toErrorRecord,
} from '../src/errors.js';

/** What arrives on the other thread. */
const cross = (thrown: unknown): Error => fromErrorRecord(structuredClone(toErrorRecord(thrown)));

describe('an error that crosses threads', () => {
  it.each([Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError])(
    'is a %o again, with its message and stack',
    (Class) => {
      const error = new Class('what happened');
      const arrived = cross(error);
      expect(arrived).toBeInstanceOf(Class);
      expect(arrived.message).toBe('what happened');
      expect(arrived.name).toBe(error.name);
      expect(arrived.stack).toBe(error.stack);
    },
  );

  it('keeps its code', () => {
    expect(cross(Object.assign(new Error('no'), { code: 'ENOENT' }))).toMatchObject({ code: 'ENOENT' });
    expect(cross(new OffloopError('OFFLOOP_BAD_RESPONSE', 'x'))).toMatchObject({
      code: 'OFFLOOP_BAD_RESPONSE',
    });
    const refused = cross(new OffloopTypeError('OFFLOOP_BAD_OPTION', 'x'));
    expect(refused).toBeInstanceOf(TypeError);
    expect(refused).toMatchObject({ code: 'OFFLOOP_BAD_OPTION' });
  });

  it('keeps the chain of its causes', () => {
    const root = Object.assign(new RangeError('root'), { code: 'ROOT' });
    const arrived = cross(new Error('top', { cause: new TypeError('middle', { cause: root }) }));
    expect(arrived.cause).toBeInstanceOf(TypeError);
    expect((arrived.cause as Error).cause).toBeInstanceOf(RangeError);
    expect((arrived.cause as Error).cause).toMatchObject({ message: 'root', code: 'ROOT' });
  });

  it('keeps a cause that is no error', () => {
    expect(cross(new Error('top', { cause: 'because' })).cause).toMatchObject({ message: 'because' });
  });

  it('keeps the name of a class of the user', () => {
    class PaymentError extends Error {
      override readonly name = 'PaymentError';
    }
    const arrived = cross(new PaymentError('declined'));
    expect(arrived).toBeInstanceOf(Error);
    expect(arrived.name).toBe('PaymentError');
    expect(String(arrived)).toBe('PaymentError: declined');
  });

  it('survives causes that go round in circles', () => {
    const error = new Error('round') as Error & { cause: unknown };
    error.cause = error;
    expect(cross(error).message).toBe('round');
  });

  it.each([
    ['a string', 'just text', 'just text'],
    ['a number', 42, '42'],
    ['nothing', undefined, 'undefined'],
    ['null', null, 'null'],
    ['a symbol', Symbol('s'), 'Symbol(s)'],
    ['a bigint', 10n, '10'],
  ])('may be %s that was thrown', (_, thrown, message) => {
    expect(cross(thrown)).toBeInstanceOf(Error);
    expect(cross(thrown).message).toBe(message);
  });

  const hostile: Record<string, () => unknown> = {
    'an object with nothing in it': () => ({}),
    'an object without a prototype': () => Object.create(null),
    'a getter that throws': () => ({
      get message(): string {
        throw new Error('gotcha');
      },
    }),
    'a toString that throws': () => ({
      message: {
        toString() {
          throw new Error('gotcha');
        },
      },
    }),
    'a proxy that refuses everything': () =>
      new Proxy(
        {},
        {
          get() {
            throw new Error('gotcha');
          },
        },
      ),
    'a revoked proxy': () => {
      const { proxy, revoke } = Proxy.revocable({}, {});
      revoke();
      return proxy;
    },
    'a function': () => () => undefined,
    'a message that is a symbol': () => ({ message: Symbol('m') }),
    'a name that is a symbol': () => Object.assign(new Error('x'), { name: Symbol('n') }),
    'a stack that is no string': () => Object.assign(new Error('x'), { stack: { a: 1 } }),
    'a code that is a number': () => Object.assign(new Error('x'), { code: 7 }),
    'a cause that cannot be read': () =>
      Object.defineProperty(new Error('x'), 'cause', {
        get() {
          throw new Error('gotcha');
        },
      }),
    'an error of another realm': () => new DOMException('aborted', 'AbortError'),
    'an aggregate': () => new AggregateError([new Error('a'), new Error('b')], 'several'),
  };
  it.each(Object.entries(hostile))('may be as hostile as %s', (_, make) => {
    const arrived = cross(make());
    expect(arrived).toBeInstanceOf(Error);
    expect(typeof arrived.message).toBe('string');
    expect(typeof arrived.name).toBe('string');
  });

  it.each([
    'toString',
    'constructor',
    'hasOwnProperty',
    'valueOf',
    '__proto__',
    'isPrototypeOf',
    '__defineGetter__',
    '',
  ])('may call itself %j, like a thing every object has', (name) => {
    const error = new Error('odd');
    Object.defineProperty(error, 'name', { value: name });
    const arrived = cross(error);
    expect(arrived).toBeInstanceOf(Error);
    expect(arrived.message).toBe('odd');
    expect(arrived.name).toBe(name);
  });
});

describe('the catalogue', () => {
  it.each(Object.entries(ERROR_CODES))('says of %s what to do about it', (code, text) => {
    expect(code).toMatch(/^OFFLOOP_[A-Z_]+$/);
    expect(text).toMatch(/^[A-Z`].{20,}\.$/);
  });

  it('tells clients nothing of our insides', () => {
    const texts = Object.values(REFUSALS).flatMap((one) => (typeof one === 'function' ? [] : [one.text]));
    expect(texts).toContain('Server unavailable, please try again');
    for (const text of texts) expect(text).not.toMatch(/OFFLOOP|worker|thread|\.js|\n/i);
  });
});
