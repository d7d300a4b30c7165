import { setImmediate as turn } from 'node:timers/promises';

const PIECES = 100;
const piece = 'a line of a log, as an application writes them: 64 bytes of text\n';

export const whole = piece.repeat(PIECES);

/** All there: nothing has to be waited for. */
export function* pieces() {
  for (let i = 0; i < PIECES; i++) yield piece;
}

/** One a turn of the event loop. */
export async function* coming() {
  for (let i = 0; i < PIECES; i++) {
    await turn();
    yield piece;
  }
}
