/** How options are checked, whoever takes them: an error names the option, its value and type, and what is allowed. */
import { OffloopTypeError } from './errors.js';

export interface Rule {
  readonly allowed: string;
  readonly ok: (value: unknown) => boolean;
}

export const integer = (min: number, max: number, allowed: string): Rule => ({
  allowed,
  ok: (v) => typeof v === 'number' && Number.isInteger(v) && v >= min && v <= max,
});
export const plainObject = (v: unknown): v is Record<string, unknown> =>
  typeof v === 'object' && v !== null && !Array.isArray(v);

/** The value of a bad option as the message shows it: short, and never the whole of something large. */
export function show(value: unknown): string {
  let text: string;
  try {
    const asJson = typeof value === 'string' || (typeof value === 'object' && value !== null);
    text = (asJson ? (JSON.stringify(value) as string | undefined) : undefined) ?? String(value);
  } catch {
    text = Object.prototype.toString.call(value);
  }
  if (text.length > 80) text = `${text.slice(0, 77)}...`;
  const type = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
  return type === text ? text : `${text} (${type})`;
}

/** An option has a value that is not allowed. */
export function refuse(where: string, name: string, value: unknown, allowed: string): never {
  throw new OffloopTypeError(
    'OFFLOOP_BAD_OPTION',
    `${where}: option ${name} is ${show(value)}; allowed: ${allowed}.`,
  );
}

/** Throws for an option that does not exist, or whose value its rule refuses. */
export function check(
  where: string,
  options: unknown,
  rules: Record<string, Rule>,
): asserts options is Record<string, unknown> {
  if (!plainObject(options)) refuse(where, 'object', options, 'an object of options');
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (rule === undefined) {
      throw new OffloopTypeError(
        'OFFLOOP_BAD_OPTION',
        `${where}: there is no option ${name} (its value was ${show(value)}); allowed: ${Object.keys(rules).join(', ')}.`,
      );
    }
    if (value !== undefined && !rule.ok(value)) refuse(where, name, value, rule.allowed);
  }
}
