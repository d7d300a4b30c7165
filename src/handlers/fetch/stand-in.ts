/** What stands in for an object of the platform until a real one is needed. */

type Members = Record<string | symbol, unknown>;

/**
 * Let a real one answer for what the stand-in has not.
 *
 * @param prototype of the stand-in
 * @param from what has the members that are passed on
 * @param realOf a real one for a stand-in; undefined for anything else
 */
export function passOn(
  prototype: object,
  from: object,
  keys: readonly (string | symbol)[],
  realOf: (value: unknown) => object | undefined,
): void {
  const real = (value: unknown): Members => {
    const found = realOf(value);
    if (found === undefined) throw new TypeError('Illegal invocation: this is no Request or Response');
    return found as unknown as Members;
  };
  for (const key of keys) {
    if (Object.hasOwn(prototype, key)) continue;
    const descriptor = Object.getOwnPropertyDescriptor(from, key);
    const isMethod = typeof key === 'string' && typeof descriptor?.value === 'function';
    Object.defineProperty(prototype, key, {
      configurable: true,
      enumerable: descriptor?.enumerable ?? false,
      ...(isMethod ? { value: methodOf(key, real) } : { get: getterOf(key, real) }),
    });
  }
}

type Real = (value: unknown) => Members;

function getterOf(key: string | symbol, real: Real): (this: unknown) => unknown {
  return function () {
    return real(this)[key];
  };
}

function methodOf(key: string, real: Real): (this: unknown, ...args: unknown[]) => unknown {
  return function (...args) {
    const object = real(this);
    return (object[key] as (...args: unknown[]) => unknown).apply(object, args);
  };
}
