/** What the scenario `sse` sends: 64 bytes, and a mark that its client counts. */
export const news = `${'n'.repeat(63)}~`;
