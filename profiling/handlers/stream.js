const ROW = `${'offloop '.repeat(15)}\n`;
const ROWS = Math.ceil(2 ** 20 / ROW.length);

function* rows() {
  for (let i = 0; i < ROWS; i++) yield ROW;
}

/** A body of a megabyte, row by row. */
export default () => ({ headers: { 'content-type': 'text/plain' }, body: rows() });
