/**
 * A server that answers wrongly is not fast: its answer is checked before anything is timed.
 * @param {string} url
 * @param {{ body: string }} expected
 */
export async function checkAnswer(url, { body }) {
  const response = await fetch(url, { headers: { connection: 'close' } });
  const text = await response.text();
  const type = response.headers.get('content-type');
  const wrong = [];
  if (response.status !== 200) wrong.push(`status ${response.status}`);
  if (!type?.startsWith('text/plain')) wrong.push(`content-type ${type}`);
  if (response.headers.get('content-length') !== String(body.length)) wrong.push('no right content-length');
  if (text !== body)
    wrong.push(`body ${JSON.stringify(text.slice(0, 80))} instead of ${JSON.stringify(body)}`);
  if (wrong.length > 0) throw new Error(`wrong answer: ${wrong.join(', ')}`);
}
