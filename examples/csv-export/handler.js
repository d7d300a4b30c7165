// A table that is made while it is sent. The generator is asked for more when the client has taken what there was: a
// million rows take no more memory than a hundred, and a client that leaves ends it.
import { text } from 'offloop/handlers';

const columns = ['order', 'customer', 'amount'];
const customers = ['Ada Lovelace', 'Grace "Amazing" Hopper', 'Lamarr, Hedy'];

/** In earnest a cursor of your database: an async generator is as good. */
function* orders(count) {
  for (let n = 1; n <= count; n++)
    yield { order: n, customer: customers[n % 3], amount: (((n * 7919) % 100_000) / 100).toFixed(2) };
}

/** RFC 4180. */
const field = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const line = (values) => `${values.map(field).join(',')}\r\n`;

function* csv(rows) {
  yield line(columns);
  for (const row of rows) yield line(columns.map((column) => row[column]));
}

export default (req) => {
  const rows = Number(new URLSearchParams(req.query ?? '').get('rows'));
  if (!Number.isInteger(rows) || rows < 1) return text('try /?rows=1000000\n', { status: 400 });
  return {
    headers: { 'content-type': 'text/csv', 'content-disposition': 'attachment; filename="orders.csv"' },
    body: csv(orders(rows)),
  };
};
