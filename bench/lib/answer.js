/**
 * A server that answers wrongly is not fast: its answer is checked before anything is timed.
 * @param {string} url
 * @param {{ body: string, type?: string, post?: { type: string, body: string } }} expected `post`: what is to be sent
 */
export async function checkAnswer(url, { body, type: wanted = 'text/plain', post }) {
  const response = await fetch(url, {
    ...(post && { method: 'POST', body: post.body }),
    headers: { connection: 'close', ...(post && { 'content-type': post.type }) },
  });
  const text = await response.text();
  const type = response.headers.get('content-type');
  const wrong = [];
  if (response.status !== 200) wrong.push(`status ${response.status}`);
  if (!type?.startsWith(wanted)) wrong.push(`content-type ${type}`);
  if (response.headers.get('content-length') !== String(Buffer.byteLength(body)))
    wrong.push('no right content-length');
  if (text !== body)
    wrong.push(`body ${JSON.stringify(text.slice(0, 80))} instead of ${JSON.stringify(body)}`);
  if (wrong.length > 0) throw new Error(`wrong answer: ${wrong.join(', ')}`);
}
