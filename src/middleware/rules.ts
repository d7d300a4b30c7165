/** Checks that several middleware share. */
import { check, type Rule } from '../check.js';

/** Check the options of a middleware, which keep their type. @throws OFFLOOP_BAD_OPTION. */
export function checkOptions(where: string, options: unknown, rules: Record<string, Rule>): void {
  check(where, options, rules);
}

/** The longest time a timer of Node takes. */
export const MAX_MS = 2 ** 31 - 1;

export const aFunction: Rule = { allowed: 'a function', ok: (v) => typeof v === 'function' };
export const aBoolean: Rule = { allowed: 'true or false', ok: (v) => typeof v === 'boolean' };
export const oneOf = (...values: readonly unknown[]): Rule => ({
  allowed: values.map((value) => (typeof value === 'string' ? `'${value}'` : String(value))).join(', '),
  ok: (v) => values.includes(v),
});
