// However large the table and however slow the client, no more than about a megabyte of it is in memory: `sendAsync`
// waits for room. It resolves with false when the client has gone away.
import { asChannel, text } from 'offloop/handlers';

export default async (req) => {
  const rows = Number(new URLSearchParams(req.query ?? '').get('rows'));
  if (!Number.isInteger(rows) || rows < 1) return text('try /?rows=1000000\n', { status: 400 });

  const channel = asChannel(req, {
    headers: { 'content-type': 'text/csv', 'content-disposition': 'attachment; filename="table.csv"' },
  });
  channel.send('n,square root\n', false);
  for (let n = 1; n <= rows; ) {
    let chunk = '';
    while (n <= rows && chunk.length < 64 * 1024) chunk += `${n},${Math.sqrt(n++)}\n`;
    if (!(await channel.sendAsync(chunk, false))) return;
  }
  channel.close();
};
